//! Takes a request target apart: which sandbox, which path inside it, which credentials hide in the query.
//!
//! The path and the query stay as the client percent-encoded them; nothing is decoded and re-encoded.

use http::Uri;
use infield_api::directory::SignedFile;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode, percent_decode_str, percent_encode};
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

/// What makes a URL a signed one, decoded as the agent decodes. A parameter that stands there twice could mean one thing here
/// and another thing there, so it makes no signed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    path: Option<Vec<u8>>,
    expires: String,
    signature: String,
}

impl Signed {
    pub fn of(inner: &str) -> Option<Self> {
        let (_, query) = inner.split_once('?')?;
        let (mut path, mut expires, mut signature) = (None, None, None);
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = match &form_decoded(name)[..] {
                b"path" => &mut path,
                b"expires" => &mut expires,
                b"signature" => &mut signature,
                _ => continue,
            };
            if place.replace(form_decoded(value)).is_some() {
                return None;
            }
        }
        let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default()).ok();
        signature.as_ref()?;
        let path = path.filter(|path| !path.is_empty());
        Some(Self { path, expires: text(expires)?, signature: text(signature)? })
    }

    pub fn claim<'a>(&'a self, method: &'a str, inner: &'a str) -> SignedFile<'a> {
        SignedFile {
            method,
            route: route_of(inner),
            path: self.path.as_deref(),
            expires: &self.expires,
            signature: &self.signature,
        }
    }

    /// The target for the agent: of the query only what was signed.
    pub fn inner(&self, inner: &str) -> String {
        let path = self.path.as_deref().unwrap_or_default();
        format!("{}?path={}", route_of(inner), percent_encode(path, NON_ALPHANUMERIC))
    }
}

fn route_of(inner: &str) -> &str {
    inner.split_once('?').map_or(inner, |(route, _)| route)
}

fn form_decoded(text: &str) -> Vec<u8> {
    let spaced: Vec<u8> = text.bytes().map(|b| if b == b'+' { b' ' } else { b }).collect();
    percent_decode(&spaced).collect()
}

/// Removes the credential parameter (every occurrence) and returns the first one's value.
pub fn split_query(query: Option<&str>) -> (Option<Cow<'_, str>>, Option<String>) {
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
    fn signed_urls_carry_one_file_only() {
        let signed = Signed::of("/files/download?path=%2Fa+b%FF&expires=0&signature=v1_x&more=1").expect("signed");
        let claim = signed.claim("GET", "/files/download?path=…");
        assert_eq!((claim.route, claim.path, claim.expires), ("/files/download", Some(&b"/a b\xff"[..]), "0"));
        assert_eq!(signed.inner("/files/download?whatever"), "/files/download?path=%2Fa%20b%FF");
        assert_eq!(Signed::of("/f?signature=v1_x&path=").expect("signed").path, None);
        for inner in [
            "/f",
            "/f?path=a&expires=0",
            "/f?path=a&path=b&signature=s",
            "/f?path=a&p%61th=b&signature=s",
            "/f?path=a&signature=s&signature=s",
            "/f?path=a&signature=%FF",
        ] {
            assert_eq!(Signed::of(inner), None, "{inner}");
        }
    }

    #[test]
    fn short_and_bad_targets() {
        assert_eq!(route("/toolbox/abc").map(|r| r.inner), Some("/".into()));
        assert_eq!(route("/toolbox//x"), None);
        assert_eq!(route("/toolboxes/x"), None);
        assert_eq!(route("/toolbox/%ff/x"), None);
    }
}
