//! Takes a request target apart: which sandbox, which path inside it, which credentials hide in the query.
//!
//! The path and the query stay as the client percent-encoded them; nothing is decoded and re-encoded.

use http::Uri;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// Query parameter that carries a preview token where headers cannot be set (WebSockets in browsers).
pub const AUTH_KEY_QUERY: &str = "DAYTONA_SANDBOX_AUTH_KEY";
const PREFIX: &str = "/toolbox/";

/// Whether a request belongs to the gateway.
pub fn is_toolbox_path(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// A request target under `/toolbox/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Id or name, percent-decoded.
    pub sandbox: String,
    /// `/toolbox/<id>` exactly as the client wrote it: the prefix for redirects.
    pub prefix: String,
    /// Path and query for the agent, credentials removed, raw encoding kept. Starts with `/`.
    pub inner: String,
    /// The token of `DAYTONA_SANDBOX_AUTH_KEY`, decoded.
    pub query_token: Option<String>,
}

impl Route {
    pub fn of(uri: &Uri) -> Option<Self> {
        let rest = uri.path().strip_prefix(PREFIX)?;
        let (id, path) = match rest.find('/') {
            Some(slash) => (&rest[..slash], &rest[slash..]),
            None => (rest, "/"),
        };
        let sandbox = percent_decode_str(id).decode_utf8().ok()?;
        if sandbox.is_empty() || sandbox.len() > 256 {
            return None;
        }
        let (query, query_token) = split_query(uri.query());
        let inner = match query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        Some(Self { sandbox: sandbox.into_owned(), prefix: format!("{PREFIX}{id}"), inner, query_token })
    }
}

/// Removes the credential parameter (every occurrence) and returns the first one's value.
fn split_query(query: Option<&str>) -> (Option<Cow<'_, str>>, Option<String>) {
    let Some(query) = query else { return (None, None) };
    if !query.contains(AUTH_KEY_QUERY) {
        return (Some(Cow::Borrowed(query)), None);
    }
    let mut token = None;
    let mut kept = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name == AUTH_KEY_QUERY {
            token.get_or_insert_with(|| percent_decode_str(value).decode_utf8_lossy().into_owned());
        } else {
            kept.push(pair);
        }
    }
    let kept = (!kept.is_empty()).then(|| Cow::Owned(kept.join("&")));
    (kept, token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(target: &str) -> Option<Route> {
        Route::of(&target.parse().expect("uri"))
    }

    #[test]
    fn raw_encoding_survives() {
        let r = route("/toolbox/my%2Dbox/files/a%2Fb%20c?path=%2Fx%26y&z").expect("route");
        assert_eq!(r.sandbox, "my-box");
        assert_eq!(r.prefix, "/toolbox/my%2Dbox");
        assert_eq!(r.inner, "/files/a%2Fb%20c?path=%2Fx%26y&z");
    }

    #[test]
    fn the_query_credential_is_taken_out() {
        let r = route("/toolbox/a/x?DAYTONA_SANDBOX_AUTH_KEY=s%2Bt&b=1&DAYTONA_SANDBOX_AUTH_KEY=other").expect("route");
        assert_eq!(r.inner, "/x?b=1");
        assert_eq!(r.query_token.as_deref(), Some("s+t"));
        let alone = route("/toolbox/a/x?DAYTONA_SANDBOX_AUTH_KEY=t").expect("route");
        assert_eq!(alone.inner, "/x");
        let lookalike = route("/toolbox/a/x?NOT_DAYTONA_SANDBOX_AUTH_KEY=t").expect("route");
        assert_eq!((lookalike.inner.as_str(), lookalike.query_token), ("/x?NOT_DAYTONA_SANDBOX_AUTH_KEY=t", None));
    }

    #[test]
    fn short_and_bad_targets() {
        assert_eq!(route("/toolbox/abc").map(|r| r.inner), Some("/".into()));
        assert_eq!(route("/toolbox//x"), None);
        assert_eq!(route("/toolboxes/x"), None);
        assert_eq!(route("/toolbox/%ff/x"), None);
    }
}
