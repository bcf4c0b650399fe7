//! Headers on their way through: hop-by-hop ones end here; forwarding facts are added.

use crate::target::Route;
use http::{
    HeaderMap, HeaderName, HeaderValue, Uri, Version,
    header::{CONNECTION, HOST, LOCATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
    request, response,
};
use std::net::SocketAddr;

/// RFC 9110 §7.6.1, and the ones older software still sends.
const HOP_BY_HOP: [HeaderName; 5] = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
const HOP_BY_HOP_OLD: [&str; 4] = ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"];

/// Turns the client's request head into the agent's.
pub fn to_agent(parts: &mut request::Parts, route: &Route, upgrading: bool) {
    strip_hop_by_hop(&mut parts.headers);
    forwarded(parts, route);
    if upgrading {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    // The target was split from a valid one, so it parses; a stray byte would fail the request, not the process.
    parts.uri = route.inner.parse().unwrap_or_else(|_| Uri::from_static("/"));
    parts.version = Version::HTTP_11;
}

/// Turns the agent's response head into the client's.
pub fn to_client(head: &mut response::Parts, route: &Route, upgraded: bool) {
    strip_hop_by_hop(&mut head.headers);
    if upgraded {
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    if head.status.is_redirection() {
        rewrite_location(&mut head.headers, route);
    }
    head.version = Version::HTTP_11;
    head.extensions.clear();
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != CONNECTION && *name != UPGRADE)
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    for name in HOP_BY_HOP_OLD {
        headers.remove(name);
    }
}

fn forwarded(parts: &mut request::Parts, route: &Route) {
    let headers = &mut parts.headers;
    if let Some(peer) = parts.extensions.get::<SocketAddr>() {
        let chain = match headers.get("x-forwarded-for").and_then(|v| v.to_str().ok()) {
            Some(before) => format!("{before}, {}", peer.ip()),
            None => peer.ip().to_string(),
        };
        set(headers, "x-forwarded-for", &chain);
    }
    let is_preview = route.prefix.is_empty();
    // An application may build its links from these, so nobody but us says them to it.
    if (is_preview || !headers.contains_key("x-forwarded-host"))
        && let Some(host) = headers.get(HOST).cloned()
    {
        headers.insert("x-forwarded-host", host);
    }
    if !headers.contains_key("x-forwarded-proto") {
        headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    }
    if is_preview {
        headers.remove("x-forwarded-prefix");
    } else {
        set(headers, "x-forwarded-prefix", &route.prefix);
    }
    headers.entry(HOST).or_insert(HeaderValue::from_static("toolbox"));
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The agent knows paths without the prefix; the client needs it back. Redirects elsewhere stay as they are.
fn rewrite_location(headers: &mut HeaderMap, route: &Route) {
    let Some(location) = headers.get(LOCATION).and_then(|v| v.to_str().ok()) else { return };
    if location.starts_with('/') && !location.starts_with("//") {
        let rewritten = format!("{}{location}", route.prefix);
        set(headers, "location", &rewritten);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn head(request: request::Builder) -> request::Parts {
        request.uri("/toolbox/a/x").body(()).expect("request").into_parts().0
    }

    fn route() -> Route {
        Route::of(&Uri::from_static("/toolbox/a/x")).expect("route")
    }

    #[test]
    fn connection_options_end_here() {
        let mut parts = head(
            Request::builder()
                .header("connection", "keep-alive, X-Secret-Hop, upgrade")
                .header("x-secret-hop", "1")
                .header("transfer-encoding", "chunked")
                .header("upgrade", "h2c")
                .header("x-kept", "yes"),
        );
        to_agent(&mut parts, &route(), false);
        let mut names: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["host", "x-forwarded-prefix", "x-forwarded-proto", "x-kept"]);
    }

    #[test]
    fn only_local_redirects_are_rewritten() {
        for (from, to) in [("/files/", "/toolbox/a/files/"), ("//other/", "//other/"), ("http://x/y", "http://x/y")] {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, HeaderValue::from_static(from));
            rewrite_location(&mut headers, &route());
            assert_eq!(headers[LOCATION], to);
        }
    }
}
