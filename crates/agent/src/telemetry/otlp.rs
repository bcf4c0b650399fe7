//! The JSON bodies of OTLP. Pure: knows no network.

use crate::env::Vars;
use infield_api::toolbox::SystemMetrics;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SCOPE: &str = "infield-agent";
const EXTRA_LABELS: &str = "DAYTONA_SANDBOX_OTEL_EXTRA_LABELS";
const EXTRA_LABELS_MAX: usize = 64;

/// OTLP's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Info = 9,
    Warn = 13,
    Error = 17,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    at: Duration,
    severity: Severity,
    pub text: String,
}

impl Record {
    pub fn now(severity: Severity, text: String) -> Self {
        Self { at: now(), severity, text }
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// 64-bit numbers are text in OTLP's JSON.
fn nanos(at: Duration) -> String {
    at.as_nanos().to_string()
}

/// Who speaks.
pub fn resource(vars: &Vars) -> Value {
    let var = |name: &str| vars.get(name).cloned().unwrap_or_default();
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut attributes = vec![
        attribute("service.name", &format!("sandbox-{}", var("DAYTONA_SANDBOX_ID"))),
        attribute("service.version", env!("CARGO_PKG_VERSION")),
        attribute("service.instance.id", &hostname),
    ];
    let from_vars = [
        ("deployment.environment.name", "ENVIRONMENT"),
        ("daytona_organization_id", "DAYTONA_ORGANIZATION_ID"),
        ("daytona_region_id", "DAYTONA_REGION_ID"),
        ("daytona_snapshot", "DAYTONA_SANDBOX_SNAPSHOT"),
    ];
    let given = from_vars.into_iter().map(|(key, name)| (key, var(name))).filter(|(_, value)| !value.is_empty());
    attributes.extend(given.map(|(key, value)| attribute(key, &value)));
    attributes.extend(labels(&var(EXTRA_LABELS)).into_iter().map(|(key, value)| attribute(key, value)));
    json!({ "attributes": attributes })
}

fn attribute(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// `k=v,k=v`; what is not of that form is left out.
fn labels(text: &str) -> Vec<(&str, &str)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(k, v)| (k.trim(), v.trim())).filter(|(k, _)| !k.is_empty()).take(EXTRA_LABELS_MAX).collect()
}

/// The lines; `dropped` says how many before them were lost.
pub fn logs(resource: &Value, records: &[Record], dropped: u64) -> Value {
    let lost = (dropped > 0)
        .then(|| log(&Record::now(Severity::Warn, format!("{dropped} earlier lines were dropped")), false));
    let lines = records.iter().map(|record| log(record, true));
    let all: Vec<Value> = lost.into_iter().chain(lines).collect();
    json!({ "resourceLogs": [{
        "resource": resource,
        "scopeLogs": [{ "scope": { "name": SCOPE }, "logRecords": all }],
    }] })
}

fn log(record: &Record, from_entry_point: bool) -> Value {
    let attributes = match from_entry_point {
        true => json!([{ "key": "daytona-entrypoint", "value": { "boolValue": true } }]),
        false => json!([]),
    };
    let severity = match record.severity {
        Severity::Info => "INFO",
        Severity::Warn => "WARN",
        Severity::Error => "ERROR",
    };
    json!({
        "timeUnixNano": nanos(record.at),
        "observedTimeUnixNano": nanos(record.at),
        "severityNumber": record.severity as u8,
        "severityText": severity,
        "body": { "stringValue": record.text },
        "attributes": attributes,
    })
}

/// Gauges of what is known; utilization in percent.
pub fn metrics(resource: &Value, m: &SystemMetrics) -> Value {
    let ratio = |part: Option<u64>, whole: Option<u64>| match (part, whole) {
        (Some(part), Some(whole)) if whole > 0 => Some(part as f64 / whole as f64 * 100.0),
        _ => None,
    };
    let whole = |n: Option<u64>| n.map(|n| json!({ "asInt": n.to_string() }));
    let percent = |n: Option<f64>| n.map(|n| json!({ "asDouble": n }));
    let known = [
        ("cpu.limit", "{cpu}", whole(m.cpu_count)),
        ("cpu.utilization", "%", percent(m.cpu_used_pct)),
        ("memory.limit", "By", whole(m.mem_total)),
        ("memory.usage", "By", whole(m.mem_used)),
        ("memory.utilization", "%", percent(ratio(m.mem_used, m.mem_total))),
        ("filesystem.usage", "By", whole(m.disk_used)),
        ("filesystem.total", "By", whole(m.disk_total)),
        ("filesystem.available", "By", whole(m.disk_free)),
        ("filesystem.utilization", "%", percent(ratio(m.disk_used, m.disk_total))),
    ];
    let at = nanos(now());
    let gauges: Vec<Value> = known
        .into_iter()
        .filter_map(|(name, unit, point)| {
            let mut point = point?;
            point["timeUnixNano"] = json!(at);
            Some(json!({
                "name": format!("daytona.sandbox.{name}"),
                "unit": unit,
                "gauge": { "dataPoints": [point] },
            }))
        })
        .collect();
    json!({ "resourceMetrics": [{
        "resource": resource,
        "scopeMetrics": [{ "scope": { "name": SCOPE }, "metrics": gauges }],
    }] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks() {
        let vars = Vars::from([
            ("DAYTONA_SANDBOX_ID".into(), "abc".into()),
            ("DAYTONA_REGION_ID".into(), "eu".into()),
            (EXTRA_LABELS.into(), "team=x, a = b,broken,=y".into()),
        ]);
        let text = resource(&vars).to_string();
        for part in ["sandbox-abc", "service.version", "daytona_region_id", "\"team\"", "\"a\""] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("daytona_snapshot") && !text.contains("broken"), "{text}");
    }

    #[test]
    fn only_known_metrics_are_told() {
        let m = SystemMetrics { mem_used: Some(25), mem_total: Some(100), ..SystemMetrics::default() };
        let body = metrics(&json!({}), &m);
        let gauges = body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap();
        let names: Vec<&str> = gauges.iter().map(|g| g["name"].as_str().unwrap()).collect();
        let prefix = "daytona.sandbox.memory";
        assert_eq!(names, ["limit", "usage", "utilization"].map(|n| format!("{prefix}.{n}")));
        assert_eq!(gauges[1]["gauge"]["dataPoints"][0]["asInt"], "25");
        assert_eq!(gauges[2]["gauge"]["dataPoints"][0]["asDouble"], 25.0);
    }

    #[test]
    fn lines_and_what_was_lost() {
        let records = [Record::now(Severity::Error, "boom".into())];
        let body = logs(&json!({}), &records, 3);
        let lines = body["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap();
        assert_eq!(lines[0]["body"]["stringValue"], "3 earlier lines were dropped");
        assert_eq!((lines[1]["severityNumber"].as_u64(), &lines[1]["severityText"]), (Some(17), &json!("ERROR")));
        assert_eq!(lines[1]["attributes"][0]["key"], "daytona-entrypoint");
    }
}
