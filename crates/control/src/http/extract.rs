//! What handlers take from a request: a JSON body whatever its content type, a query in every client's spelling, and
//! the address the client used.

use crate::{
    app::App,
    clock,
    error::{ApiError, ApiResult},
};
use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::{header, request::Parts},
};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use std::{convert::Infallible, net::IpAddr};

/// A JSON body; an empty one is `{}`.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, app).await.map_err(|e| ApiError::new(e.status(), e.body_text()))?;
        let text: &[u8] = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { &bytes };
        // Serde would read an array as a struct by position.
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err(ApiError::bad_request("The request body must be a JSON object"));
        }
        serde_json::from_slice(text)
            .map(Self)
            .map_err(|e| ApiError::bad_request(format!("The request body does not fit: {e}")))
    }
}

/// Where this client reaches this server, for the URLs in answers. Never ends in a slash.
pub struct BaseUrl(pub String);

impl BaseUrl {
    /// For a client that came to this host.
    pub fn of(app: &App, host: &str) -> Self {
        match &app.config.public_url {
            Some(url) => Self(url.trim_end_matches('/').to_owned()),
            None => Self(format!("http://{host}")),
        }
    }

    pub fn toolbox(&self) -> String {
        format!("{}/toolbox", self.0)
    }

    /// The name or address alone, an IPv6 one without its brackets.
    pub fn host(&self) -> &str {
        let authority = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        let authority = authority.split('/').next().unwrap_or(authority);
        split_port(authority).0
    }

    /// A host name for a port; `label` is the sandbox's id or a link's token.
    pub fn preview(&self, app: &App, port: u16, label: &str) -> String {
        self.preview_template(app).replace("{{PORT}}", &port.to_string()).replace("{{sandboxId}}", label)
    }

    /// `http://{{PORT}}-{{sandboxId}}.<domain>`.
    pub fn preview_template(&self, app: &App) -> String {
        let (scheme, authority) = self.0.split_once("://").unwrap_or(("http", &self.0));
        let authority = authority.split('/').next().unwrap_or(authority);
        let domain = match &app.config.preview_domain {
            Some(domain) => domain.clone(),
            None => preview_domain(authority),
        };
        format!("{scheme}://{{{{PORT}}}}-{{{{sandboxId}}}}.{domain}")
    }
}

impl FromRequestParts<App> for BaseUrl {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let host = parts.headers.get(header::HOST).and_then(|v| v.to_str().ok());
        Ok(Self::of(app, host.or(parts.uri.authority().map(|a| a.as_str())).unwrap_or("localhost")))
    }
}

/// Names below an address need a name server that knows them: every resolver for browsers knows those below `localhost`,
/// sslip.io answers for all other addresses. Below a name it is its owner's wildcard record.
fn preview_domain(authority: &str) -> String {
    let (host, port) = split_port(authority);
    let domain = match host.parse::<IpAddr>() {
        Ok(address) if address.is_loopback() => "localhost".to_owned(),
        Ok(address) => format!("{}.sslip.io", address.to_string().replace(['.', ':'], "-")),
        Err(_) => host.to_owned(),
    };
    match port {
        Some(port) => format!("{domain}:{port}"),
        None => domain,
    }
}

/// The host without brackets, and the port where one is named.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, Some(port)),
        _ => (authority, None),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

/// The query: repeated keys, `key[]=` and single values are all lists.
pub struct Query(Vec<(String, String)>);

impl FromRequestParts<App> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

impl Query {
    fn parse(query: &str) -> Self {
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = decode(key);
            (key.strip_suffix("[]").map(str::to_owned).unwrap_or(key), decode(value))
        });
        Self(pairs.collect())
    }

    /// The last non-empty value.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(k, v)| k == key && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    pub fn list(&self, key: &str) -> Vec<&str> {
        self.0.iter().filter(|(k, v)| k == key && !v.is_empty()).map(|(_, v)| v.as_str()).collect()
    }

    /// A whole number of at least `least`; `100.0` is one.
    pub fn int(&self, key: &str, least: i64) -> ApiResult<Option<i64>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let number = text.parse::<f64>().ok().filter(|n| n.fract() == 0.0 && n.abs() < 9e15).map(|n| n as i64);
        match number {
            Some(n) if n >= least => Ok(Some(n)),
            _ => Err(ApiError::bad_request(format!("{key} must be a whole number not less than {least}"))),
        }
    }

    /// A whole number in a range, with a default.
    pub fn int_within(&self, key: &str, default: i64, most: i64) -> ApiResult<i64> {
        match self.int(key, 1)?.unwrap_or(default) {
            n if n <= most => Ok(n),
            _ => Err(ApiError::bad_request(format!("{key} must not be greater than {most}"))),
        }
    }

    pub fn flag(&self, key: &str) -> ApiResult<Option<bool>> {
        match self.text(key) {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(_) => Err(ApiError::bad_request(format!("{key} must be true or false"))),
        }
    }

    /// A date-time, in milliseconds.
    pub fn time(&self, key: &str) -> ApiResult<Option<i64>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let ms = clock::parse_iso(text);
        ms.map(Some).ok_or_else(|| ApiError::bad_request(format!("{key} must be an ISO 8601 date-time")))
    }
}

/// A path segment that has to be a whole number.
pub fn path_int(field: &str, text: &str) -> ApiResult<i64> {
    text.parse().map_err(|_| ApiError::bad_request(format!("{field} must be a whole number, not {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (url, host) in [
            ("http://127.0.0.1:3000", "127.0.0.1"),
            ("https://[::1]:3000/x", "::1"),
            ("https://[::1]", "::1"),
            ("http://a.example.com", "a.example.com"),
        ] {
            assert_eq!(BaseUrl(url.to_owned()).host(), host);
        }
    }

    #[test]
    fn previews_have_names_that_resolve() {
        let domains = [
            ("127.0.0.1:8080", "localhost:8080"),
            ("[::1]:8080", "localhost:8080"),
            ("localhost:8080", "localhost:8080"),
            ("192.168.1.5:80", "192-168-1-5.sslip.io:80"),
            ("[fd00::5]:80", "fd00--5.sslip.io:80"),
            ("infield.example.com", "infield.example.com"),
        ];
        for (authority, domain) in domains {
            assert_eq!(preview_domain(authority), domain);
        }
    }

    #[test]
    fn queries_of_every_client_are_read() {
        let q = Query::parse("states=a&states[]=b&limit=100.0&labels=%7B%22a%22%3A%22b+c%22%7D&empty=&f=true");
        assert_eq!(q.list("states"), ["a", "b"]);
        assert_eq!(q.int_within("limit", 5, 200), Ok(100));
        assert_eq!(q.text("labels"), Some(r#"{"a":"b c"}"#));
        assert_eq!((q.text("empty"), q.flag("f")), (None, Ok(Some(true))));
        assert!(Query::parse("limit=0").int_within("limit", 5, 200).is_err());
        assert!(Query::parse("limit=201").int_within("limit", 5, 200).is_err());
        assert!(Query::parse("limit=x").int("limit", 1).is_err());
    }
}
