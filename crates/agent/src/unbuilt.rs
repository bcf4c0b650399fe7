//! Operations of the published contract that this agent does not offer yet. They answer 501 and say their name, so that
//! nobody takes silence for success; paths that are in no contract answer 404.

use crate::error::Failure;
use axum::body::{Body, to_bytes};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode, Uri};

/// Of a request that is refused; most are far smaller.
const BODY_BYTES_MAX: usize = 256 << 10;

/// Method and path; `*` stands for one segment, a final `**` for any rest.
const OPERATIONS: &[(&str, &str)] = &[
    ("POST", "/computeruse/a11y/find"),
    ("POST", "/computeruse/a11y/node/focus"),
    ("POST", "/computeruse/a11y/node/invoke"),
    ("POST", "/computeruse/a11y/node/value"),
    ("GET", "/computeruse/a11y/tree"),
    ("GET", "/computeruse/display/info"),
    ("GET", "/computeruse/display/windows"),
    ("POST", "/computeruse/keyboard/down"),
    ("POST", "/computeruse/keyboard/hotkey"),
    ("POST", "/computeruse/keyboard/key"),
    ("POST", "/computeruse/keyboard/type"),
    ("POST", "/computeruse/keyboard/up"),
    ("POST", "/computeruse/mouse/click"),
    ("POST", "/computeruse/mouse/down"),
    ("POST", "/computeruse/mouse/drag"),
    ("POST", "/computeruse/mouse/move"),
    ("GET", "/computeruse/mouse/position"),
    ("POST", "/computeruse/mouse/scroll"),
    ("POST", "/computeruse/mouse/up"),
    ("GET", "/computeruse/process-status"),
    ("GET", "/computeruse/process/*/errors"),
    ("GET", "/computeruse/process/*/logs"),
    ("POST", "/computeruse/process/*/restart"),
    ("GET", "/computeruse/process/*/status"),
    ("GET", "/computeruse/recordings"),
    ("POST", "/computeruse/recordings/start"),
    ("POST", "/computeruse/recordings/stop"),
    ("GET", "/computeruse/recordings/*"),
    ("DELETE", "/computeruse/recordings/*"),
    ("GET", "/computeruse/recordings/*/download"),
    ("GET", "/computeruse/screenshot"),
    ("GET", "/computeruse/screenshot/compressed"),
    ("GET", "/computeruse/screenshot/region"),
    ("GET", "/computeruse/screenshot/region/compressed"),
    ("POST", "/computeruse/start"),
    ("GET", "/computeruse/status"),
    ("POST", "/computeruse/stop"),
];

/// Everything that has no handler ends here, also a wrong method on a path that has one.
pub async fn fallback(method: Method, uri: Uri, body: Body) -> Response {
    // A connection on which something is left unread ends with the answer, and the next request on its way would be lost.
    let _ = to_bytes(body, BODY_BYTES_MAX).await;
    match find(method.as_str(), uri.path()) {
        Some((_, pattern)) => {
            let method = method.as_str();
            Failure::plain(501, format!("{method} {pattern} is not implemented by this sandbox yet")).into_response()
        }
        None => (StatusCode::NOT_FOUND, "404 page not found").into_response(),
    }
}

fn find(method: &str, path: &str) -> Option<&'static (&'static str, &'static str)> {
    OPERATIONS.iter().find(|(m, pattern)| (*m == "*" || *m == method) && fits(pattern, path))
}

fn fits(pattern: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    for wanted in pattern.split('/') {
        match (wanted, segments.next()) {
            ("**", _) => return true,
            ("*", Some(segment)) if !segment.is_empty() => {}
            (_, Some(segment)) if segment == wanted => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(find("GET", "/computeruse/process/x/logs").is_some());
        assert!(find("POST", "/computeruse/display/info").is_none());
        assert!(find("GET", "/computeruse/recordings/").is_none() && find("GET", "/nope").is_none());
    }
}
