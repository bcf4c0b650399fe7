//! Charts that a Python program shows with matplotlib: recognising such a program, wrapping it, and taking the lines that
//! describe its charts out of the output again. What a chart says comes from the sandbox: it is checked field by field,
//! because clients refuse a whole answer for one field of the wrong type.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// Begins a line that describes an artifact.
const MARKER: &[u8] = b"dtn_artifact_k39fd2:";
const WRAPPER: &str = include_str!("charts.py");
/// Of one answer; further ones are dropped.
pub const CHARTS_MAX: usize = 64;
/// One chart with its picture; a larger one is dropped.
pub const CHART_BYTES_MAX: usize = 8 << 20;
/// A composite chart holds charts, which hold elements.
const NESTING_MAX: u8 = 2;

const TYPES: [&str; 6] = ["line", "scatter", "bar", "pie", "box_and_whisker", "composite_chart"];
const STRINGS: [&str; 7] = ["title", "png", "x_label", "y_label", "x_scale", "y_scale", "type"];
const NUMBER_LISTS: [&str; 2] = ["x_ticks", "y_ticks"];
const STRING_LISTS: [&str; 2] = ["x_tick_labels", "y_tick_labels"];
const ELEMENT_STRINGS: [&str; 2] = ["label", "group"];
const ELEMENT_NUMBERS: [&str; 7] = ["angle", "radius", "min", "first_quartile", "median", "third_quartile", "max"];

/// Whether this program imports matplotlib on some line that is no comment.
pub fn draws(source: &str) -> bool {
    source.lines().any(line_draws)
}

fn line_draws(line: &str) -> bool {
    let code = line.split('#').next().unwrap_or_default();
    code.match_indices("matplotlib").any(|(at, _)| {
        let before = &code[..at];
        let spaced = before.trim_end();
        if spaced.len() < before.len() && (ends_with_word(spaced, "import") || ends_with_word(spaced, "from")) {
            return true;
        }
        if spaced.ends_with(',') && code.trim_start().starts_with("import ") {
            return true;
        }
        let Some(call) = before.strip_suffix(['\'', '"']) else { return false };
        let call: String = call.chars().filter(|c| !c.is_whitespace()).collect();
        ["__import__(", "importlib.import_module(", "loader.load_module(", "sys.modules["]
            .iter()
            .any(|way| call.ends_with(way))
    })
}

fn ends_with_word(text: &str, word: &str) -> bool {
    text.strip_suffix(word).is_some_and(|rest| !rest.ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// The program inside the one that watches what it shows.
pub fn wrapped(source: &str) -> String {
    format!("{WRAPPER}_infield_run('{}')\n", STANDARD.encode(source))
}

/// Takes the charts out of a program's output.
pub fn extract(output: &[u8]) -> (Vec<u8>, Vec<Value>) {
    let mut text = Vec::with_capacity(output.len());
    let mut charts = Vec::new();
    for line in output.split_inclusive(|b| *b == b'\n') {
        let Some(at) = memchr::memmem::find(line, MARKER) else {
            text.extend_from_slice(line);
            continue;
        };
        match chart(&line[at + MARKER.len()..]) {
            Some(chart) => {
                // What the program printed before, without ending the line, goes on after it.
                text.extend_from_slice(&line[..at]);
                if charts.len() < CHARTS_MAX {
                    charts.push(chart);
                }
            }
            None if at == 0 => {}
            None => text.extend_from_slice(line),
        }
    }
    (text, charts)
}

fn chart(json: &[u8]) -> Option<Value> {
    if json.len() > CHART_BYTES_MAX {
        return None;
    }
    let artifact: Value = serde_json::from_slice(json).ok()?;
    if artifact.get("type")? != "chart" {
        return None;
    }
    Some(checked(artifact.get("value")?.as_object()?, 0))
}

/// The fields of a chart or an element that have the type clients expect.
fn checked(fields: &Map<String, Value>, depth: u8) -> Value {
    let mut kept = Map::new();
    let is_chart = depth == 0 || fields.contains_key("elements");
    for (name, value) in fields {
        let name = name.as_str();
        let fits = if STRINGS.contains(&name) || ELEMENT_STRINGS.contains(&name) {
            value.is_string()
        } else if NUMBER_LISTS.contains(&name) || name == "outliers" {
            all(value, Value::is_number)
        } else if STRING_LISTS.contains(&name) {
            all(value, Value::is_string)
        } else if ELEMENT_NUMBERS.contains(&name) {
            value.is_number()
        } else {
            name == "points" && all(value, |point| all(point, Value::is_number))
        };
        if fits {
            kept.insert(name.to_owned(), value.clone());
        }
    }
    match fields.get("value") {
        Some(Value::String(text)) => drop(kept.insert("value".into(), json!(text))),
        Some(Value::Number(number)) => drop(kept.insert("value".into(), json!(number.to_string()))),
        _ => {}
    }
    if is_chart {
        let known = fields.get("type").and_then(Value::as_str).is_some_and(|kind| TYPES.contains(&kind));
        if !known {
            kept.insert("type".into(), json!("unknown"));
        }
        let elements = fields.get("elements").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let elements = elements.iter().filter_map(Value::as_object).filter(|_| depth < NESTING_MAX);
        kept.insert("elements".into(), elements.map(|element| checked(element, depth + 1)).collect());
    }
    Value::Object(kept)
}

fn all(list: &Value, fits: impl Fn(&Value) -> bool) -> bool {
    list.as_array().is_some_and(|items| items.iter().all(fits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn programs_that_draw() {
        for yes in [
            "import matplotlib.pyplot as plt",
            "x = 1\n  from matplotlib import pyplot",
            "import numpy as np, matplotlib.pyplot as plt",
            "p = __import__( 'matplotlib')",
            "importlib.import_module(\"matplotlib.pyplot\")",
            "sys.modules['matplotlib']",
            "a=1;import\tmatplotlib",
        ] {
            assert!(draws(yes), "{yes}");
        }
        for no in
            ["# import matplotlib", "x = 1 # from matplotlib", "print('matplotlib')", "reimport matplotlib", "pass"]
        {
            assert!(!draws(no), "{no}");
        }
    }

    fn line(value: &Value) -> Vec<u8> {
        let mut line = MARKER.to_vec();
        line.extend(json!({"type": "chart", "value": value}).to_string().bytes());
        line.push(b'\n');
        line
    }

    #[test]
    fn charts_leave_the_output_and_keep_what_fits() {
        let bar = json!({"type": "bar", "x_ticks": ["2026-01-01"], "x_tick_labels": ["a"], "odd": 1, "title": null,
            "elements": [{"label": "a", "value": 2.5}, {"label": "b", "value": "3"}, 7]});
        let output = [b"before ".as_slice(), &line(&bar), b"after\n", MARKER, b"not json\n", b"end"].concat();
        let (text, charts) = extract(&output);
        assert_eq!(text, b"before after\nend");
        let wanted = json!({"type": "bar", "x_tick_labels": ["a"],
            "elements": [{"label": "a", "value": "2.5"}, {"label": "b", "value": "3"}]});
        assert_eq!(charts, [wanted]);
    }

    #[test]
    fn a_composite_keeps_what_is_inside() {
        let inner = json!({"type": "line", "title": "t", "x_ticks": [0, 1.5],
            "elements": [{"label": "l", "points": [[0, 1], [1, 2]]}]});
        let outer = json!({"type": "composite_chart", "elements": [inner, {"type": "made up", "elements": []}]});
        let (text, charts) = extract(&line(&outer));
        assert!(text.is_empty());
        assert_eq!(charts[0]["elements"][0], inner);
        assert_eq!(charts[0]["elements"][1]["type"], "unknown");
    }

    #[test]
    fn an_answer_has_a_bounded_number_of_charts() {
        let many = line(&json!({"type": "pie", "elements": []})).repeat(CHARTS_MAX + 3);
        let (text, charts) = extract(&many);
        assert!(text.is_empty() && charts.len() == CHARTS_MAX);
    }

    proptest! {
        #[test]
        fn output_without_the_marker_stays_as_it_is(output in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assume!(memchr::memmem::find(&output, MARKER).is_none());
            prop_assert_eq!(extract(&output), (output, Vec::new()));
        }

        #[test]
        fn any_artifact_is_survived(json in "[\\[\\]{}\":,a-z0-9 ]{0,80}", before in "[ab\n]{0,5}") {
            let output = [before.as_bytes(), MARKER, json.as_bytes(), b"\nrest"].concat();
            let (text, _) = extract(&output);
            prop_assert!(text.ends_with(b"rest") && text.starts_with(before.as_bytes().split_last().map_or(&[][..], |(_, b)| b)));
        }
    }
}
