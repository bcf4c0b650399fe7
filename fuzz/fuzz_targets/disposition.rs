//! Any file name in a header stays inside its header; any bytes become one valid JSON string.
#![no_main]

use infield_fuzz::{disposition, json_text::json_of_lossy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let header = disposition::header("attachment", data);
    assert!(!header.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)), "a header line is broken");
    let value = disposition::attachment(data);
    assert!(value.as_bytes().starts_with(b"attachment"));
    let exact = disposition::rfc5987_name(data);
    assert_eq!(percent_encoding::percent_decode_str(&exact).collect::<Vec<u8>>(), data);
    let (head, tail) = data.split_at(data.len() / 2);
    let text: String = serde_json::from_slice(&json_of_lossy([head, tail])).expect("valid JSON");
    assert_eq!(text.contains('\u{fffd}'), String::from_utf8_lossy(data).contains('\u{fffd}'));
});
