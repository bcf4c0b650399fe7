//! A query string taken apart. Pure, and apart from the requests it comes with, so that it can be fuzzed.

use percent_encoding::percent_decode;

/// Decoded `name=value` pairs in their order.
pub fn pairs(raw: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let decode = |part: &str| {
        let spaced: Vec<u8> = part.bytes().map(|b| if b == b'+' { b' ' } else { b }).collect();
        percent_decode(&spaced).collect::<Vec<u8>>()
    };
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decode(name), decode(value))
    };
    raw.split('&').filter(|p| !p.is_empty()).map(pair).collect()
}
