//! Is an answer what the published specification promises? Required keys, types, enums, formats; the checks strict
//! clients make and a few more (integers where newer clients want them, no null where none may be).

use serde_json::Value;
use std::sync::LazyLock;

static SPEC: LazyLock<Value> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../spec/api.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
});

/// Numbers the newest clients read as integers.
const INTEGERS: [&str; 8] = ["cpu", "gpu", "memory", "disk", "total", "page", "totalPages", "queueTimeout"];

/// Panics when an answer of the contract does not fit it.
pub fn check(method: &str, path: &str, status: u16, answer: &Value) {
    let path = path.split('?').next().unwrap();
    if status >= 400 {
        if status != 503 || !answer["details"].is_object() {
            error(answer, status);
        }
        return;
    }
    let Some(operation) = operation(method, path) else { return };
    let answers = operation["responses"].as_object().unwrap();
    let Some(described) = answers.get(&status.to_string()) else {
        panic!("{method} {path} answered {status}, the specification has {:?}", answers.keys());
    };
    let schema = &described["content"]["application/json"]["schema"];
    if !schema.is_null() {
        conform(answer, schema, &format!("{method} {path}"));
    }
}

fn error(answer: &Value, status: u16) {
    for key in ["path", "timestamp", "error", "message", "code", "source"] {
        assert!(answer[key].is_string(), "error body lacks {key}: {answer}");
    }
    assert_eq!(answer["statusCode"], status, "{answer}");
    assert!(answer["path"].as_str().unwrap().starts_with('/'), "{answer}");
}

fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let paths = SPEC["paths"].as_object().unwrap();
    let fits = |template: &str| {
        let (a, b): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
        a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.starts_with('{') || a == b)
    };
    let mut fitting: Vec<(&String, &Value)> = paths.iter().filter(|(template, _)| fits(template)).collect();
    fitting.sort_by_key(|(template, _)| template.matches('{').count());
    fitting.into_iter().find_map(|(_, item)| item.get(method.to_lowercase()))
}

fn conform(value: &Value, schema: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        return conform(value, &SPEC["components"]["schemas"][name], at);
    }
    if value.is_null() {
        assert_eq!(schema["nullable"], true, "{at} is null");
        return;
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        conform(value, part, at);
    }
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{at} is {value}");
    }
    match schema["type"].as_str() {
        Some("object") => object(value, schema, at),
        Some("array") => {
            for (i, item) in value.as_array().unwrap_or_else(|| panic!("{at}: {value}")).iter().enumerate() {
                conform(item, &schema["items"], &format!("{at}[{i}]"));
            }
        }
        Some("string") => text(value, schema, at),
        Some("number") => {
            let key = at.rsplit('.').next().unwrap();
            let whole = !INTEGERS.contains(&key) || value.is_i64() || value.is_u64();
            assert!(value.is_number() && whole, "{at}: {value}");
        }
        Some("integer") => assert!(value.is_i64() || value.is_u64(), "{at}: {value}"),
        Some("boolean") => assert!(value.is_boolean(), "{at}: {value}"),
        _ => {}
    }
}

fn object(value: &Value, schema: &Value, at: &str) {
    let object = value.as_object().unwrap_or_else(|| panic!("{at}: {value}"));
    for key in schema["required"].as_array().into_iter().flatten() {
        assert!(object.contains_key(key.as_str().unwrap()), "{at} lacks {key}: {value}");
    }
    for (key, item) in object {
        let described = &schema["properties"][key];
        if !described.is_null() {
            conform(item, described, &format!("{at}.{key}"));
        } else if schema["additionalProperties"].is_object() {
            conform(item, &schema["additionalProperties"], &format!("{at}.{key}"));
        }
    }
}

fn text(value: &Value, schema: &Value, at: &str) {
    let text = value.as_str().unwrap_or_else(|| panic!("{at}: {value}"));
    if schema["format"] == "date-time" || at.ends_with("At") {
        assert!(text.len() == 24 && text.ends_with('Z') && text.as_bytes()[19] == b'.', "{at}: {text}");
    }
}
