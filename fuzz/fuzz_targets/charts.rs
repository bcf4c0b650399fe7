//! What a program prints as its charts, and the program: output without the marker stays as it is, and every chart that is
//! let through has the shape clients insist on.
#![no_main]

use infield_fuzz::charts::{CHARTS_MAX, draws, extract};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const MARKER: &[u8] = b"dtn_artifact_k39fd2:";

fn shaped(chart: &Value) {
    assert!(chart["type"].is_string());
    for element in chart["elements"].as_array().unwrap() {
        assert!(element.is_object());
        if element.get("elements").is_some() {
            shaped(element);
        }
    }
}

fuzz_target!(|input: (&[u8], &[u8], &str)| {
    let (before, json, program) = input;
    let _ = draws(program);
    if memchr::memmem::find(before, MARKER).is_none() {
        assert_eq!(extract(before), (before.to_vec(), Vec::new()));
    }
    let value = [br#"{"type":"chart","value":"#, json, b"}\n"].concat();
    let (text, charts) = extract(&[before, b"\n", MARKER, &value, before].concat());
    assert!(charts.len() <= CHARTS_MAX && text.len() <= 2 * before.len() + 1 + MARKER.len() + value.len());
    charts.iter().for_each(shaped);
});
