//! `GET /system/metrics`: what the sandbox uses, from its control group or else the whole machine. A value that cannot be
//! read stays 0; the route never fails.

use crate::body;
use crate::state::Shared;
use crate::timestamp;
use axum::extract::State;
use axum::response::Response;
use infield_api::toolbox::SystemMetrics;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const CGROUP: &str = "/sys/fs/cgroup";
/// cgroup v1 writes numbers about this large for "no limit".
const UNLIMITED_FROM_BYTES: u64 = 1 << 60;
/// Samples closer together than this give no sensible rate.
const SAMPLE_MILLISECONDS_MIN: u128 = 100;

/// CPU time used up to a moment, for the rate between two requests.
#[derive(Clone, Copy)]
pub struct CpuMark {
    at: Instant,
    used_microseconds: u64,
    percent: f64,
}

pub async fn system_metrics(State(agent): State<Shared>) -> Response {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    let (mem_used, mem_total, mem_cache) = memory();
    let mut metrics = SystemMetrics {
        timestamp: timestamp::rfc3339(now, 0),
        timestamp_unix: now,
        cpu_count: cpu_limit().ceil() as u64,
        cpu_used_pct: cpu_percent(&agent),
        mem_used,
        mem_total,
        mem_cache,
        ..SystemMetrics::default()
    };
    if let Ok(disk) = rustix::fs::statvfs("/") {
        metrics.disk_total = disk.f_blocks * disk.f_frsize;
        metrics.disk_free = disk.f_bavail * disk.f_frsize;
        metrics.disk_used = disk.f_blocks.saturating_sub(disk.f_bfree) * disk.f_frsize;
    }
    body::ok(&metrics)
}

fn text(path: &str) -> Option<String> {
    std::fs::read_to_string(Path::new(CGROUP).join(path)).ok()
}

fn number(path: &str) -> Option<u64> {
    text(path)?.trim().parse().ok()
}

fn field(table: &str, name: &str) -> Option<u64> {
    table.lines().find_map(|l| l.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok())
}

/// Used, total and page cache, in bytes.
fn memory() -> (u64, u64, u64) {
    let host = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let host = |name: &str| field(&host, name).unwrap_or(0) * 1024;
    let used = number("memory.current").or_else(|| number("memory/memory.usage_in_bytes"));
    let limit = number("memory.max").or_else(|| number("memory/memory.limit_in_bytes"));
    let stat = text("memory.stat").or_else(|| text("memory/memory.stat")).unwrap_or_default();
    let cache = field(&stat, "file ").or_else(|| field(&stat, "total_cache ")).unwrap_or_else(|| host("Cached:"));
    let total = limit.filter(|l| *l < UNLIMITED_FROM_BYTES).unwrap_or_else(|| host("MemTotal:"));
    (used.unwrap_or_else(|| host("MemTotal:").saturating_sub(host("MemAvailable:"))), total, cache)
}

fn cpu_limit() -> f64 {
    let quota = text("cpu.max")
        .or_else(|| Some(format!("{} {}", number("cpu/cpu.cfs_quota_us")?, number("cpu/cpu.cfs_period_us")?)));
    let parsed = quota.and_then(|q| {
        let (quota, period) = q.trim().split_once(' ')?;
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok().filter(|p| *p > 0.0)?)
    });
    parsed.filter(|n| *n > 0.0).unwrap_or_else(|| std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64))
}

fn cpu_used_microseconds() -> Option<u64> {
    let v2 = text("cpu.stat").and_then(|t| field(&t, "usage_usec "));
    v2.or_else(|| number("cpuacct/cpuacct.usage").or_else(|| number("cpu/cpuacct.usage")).map(|ns| ns / 1000))
}

fn cpu_percent(agent: &Shared) -> f64 {
    let Some(used_microseconds) = cpu_used_microseconds() else { return 0.0 };
    let mut slot = agent.cpu_mark.lock().unwrap_or_else(PoisonError::into_inner);
    let at = Instant::now();
    let percent = match *slot {
        None => 0.0,
        Some(before) => {
            let elapsed = at.duration_since(before.at);
            if elapsed.as_millis() < SAMPLE_MILLISECONDS_MIN {
                return before.percent;
            }
            let used = used_microseconds.saturating_sub(before.used_microseconds) as f64;
            (used / (elapsed.as_micros() as f64 * cpu_limit()) * 100.0).clamp(0.0, 100.0)
        }
    };
    *slot = Some(CpuMark { at, used_microseconds, percent });
    percent
}
