//! How the end of a terminal's process is told to its clients. Pure.

use serde_json::json;

/// The last text message of clients that understand it.
pub fn exited_message(code: i32) -> String {
    match reason(code) {
        Some((_, long)) => {
            json!({"type": "control", "status": "exited", "exitCode": code, "exitReason": long}).to_string()
        }
        None => json!({"type": "control", "status": "exited", "exitCode": code}).to_string(),
    }
}

/// Code and reason of the close frame.
pub fn close_frame(code: i32) -> (u16, String) {
    match reason(code) {
        Some((short, _)) => (crate::ws::code::ERROR, json!({"exitCode": code, "exitReason": short}).to_string()),
        None => (crate::ws::code::NORMAL, json!({"exitCode": code}).to_string()),
    }
}

pub fn error_message(what: &str) -> String {
    json!({"type": "control", "status": "error", "error": what}).to_string()
}

/// The words for the close frame and for the message; `None` for success.
fn reason(code: i32) -> Option<(String, String)> {
    let both = |short: &str, long: &str| Some((short.to_owned(), long.to_owned()));
    match code {
        0 => None,
        130 => both("Ctrl+C", "(SIGINT - Ctrl+C)"),
        137 => both("SIGKILL", "(SIGKILL)"),
        143 => both("SIGTERM", "(SIGTERM)"),
        n if n > 128 => both(&format!("signal {}", n - 128), &format!("(signal {})", n - 128)),
        _ => both("non-zero exit", "(non-zero exit)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words() {
        assert_eq!(exited_message(0), r#"{"exitCode":0,"status":"exited","type":"control"}"#);
        assert_eq!(close_frame(0), (1000, r#"{"exitCode":0}"#.to_owned()));
        assert_eq!(close_frame(7), (1011, r#"{"exitCode":7,"exitReason":"non-zero exit"}"#.to_owned()));
        assert!(exited_message(130).contains(r#""exitReason":"(SIGINT - Ctrl+C)""#));
        assert!(close_frame(139).1.contains("signal 11"));
        assert!((0..=255).all(|code| close_frame(code).1.len() <= 123));
    }
}
