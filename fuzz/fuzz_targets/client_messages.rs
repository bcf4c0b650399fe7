//! What clients say over sockets: an interpreter's request, a terminal's environment and subprotocols, the words of streamed
//! commands. Whatever is accepted is bounded, survives a round trip, and reaches a worker whole.
#![no_main]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_PROTOCOL};
use infield_api::toolbox::{StreamControl, StreamRequest};
use infield_fuzz::{pty_envs, request, wire, ws::offered::Offered};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

fuzz_target!(|data: &[u8]| {
    interpreter(data);
    terminal(data);
    subprotocols(data);
    if let Ok(asked) = serde_json::from_slice::<StreamRequest>(data) {
        let again = serde_json::to_vec(&asked).expect("JSON");
        assert_eq!(serde_json::from_slice::<StreamRequest>(&again).expect("a request"), asked);
    }
    let _ = serde_json::from_slice::<StreamControl>(data);
});

fn interpreter(data: &[u8]) {
    let asked = match request::parse(data) {
        Ok(asked) => asked,
        Err((code, why)) => return assert!([1002, 1008].contains(&code) && why.len() <= 123),
    };
    let code = asked.code.clone().unwrap_or_default();
    assert!(!code.is_empty());
    match request::limit(asked.timeout) {
        Ok(limit) => assert!(limit.is_none_or(|limit| limit < Duration::from_secs(1 << 30))),
        Err((code, _)) => assert!(code == 1008 && asked.timeout.is_some_and(|seconds| seconds < 0)),
    }
    let envs = asked.envs.clone().unwrap_or_default();
    let frame = wire::request(7, &envs, &code);
    let fields: usize = envs.iter().map(|(k, v)| 9 + k.len() + v.as_ref().map_or(0, String::len)).sum();
    assert_eq!(frame.len(), 4 + 8 + 4 + fields + 4 + code.len());
    assert_eq!(u32::from_le_bytes(*frame.first_chunk().expect("a length")) as usize, frame.len() - 4);
    assert!(frame.ends_with(code.as_bytes()));
    let again = serde_json::to_vec(&asked).expect("JSON");
    assert_eq!(request::parse(&again), Ok(asked));
}

fn terminal(data: &[u8]) {
    let Ok(token) = std::str::from_utf8(data) else { return };
    let _ = pty_envs::decode(token);
    // Past the encoding, which alone would eat most inputs.
    if let Ok(vars) = pty_envs::decode(&URL_SAFE_NO_PAD.encode(data)) {
        let token = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&vars).expect("JSON"));
        assert_eq!(pty_envs::decode(&token), Ok(vars));
    }
}

fn subprotocols(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(SEC_WEBSOCKET_PROTOCOL, value.clone());
    let offered = Offered::of(&headers);
    let _ = (offered.sdk_version(), offered.exit_control(), offered.pty_envs());
    let list = value.to_str().unwrap_or_default();
    match offered.selected() {
        Some(token) => assert!(list.split(',').any(|t| t.trim() == token) && HeaderValue::from_str(token).is_ok()),
        None => assert!(list.split(',').all(|t| t.trim().is_empty())),
    }
}
