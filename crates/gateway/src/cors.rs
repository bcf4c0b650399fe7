//! Cross-origin answers for browser clients: preflights are answered here, the agent never sees one.
//!
//! Any origin is echoed: every request carries its own credential, so an origin by itself opens nothing.

use crate::body::GatewayBody;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
};

const DISABLE: &str = "x-daytona-disable-cors";
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, PUT, PATCH, POST, DELETE, OPTIONS");
const DEFAULT_HEADERS: HeaderValue = HeaderValue::from_static("authorization, content-type");
const EXPOSED: HeaderValue = HeaderValue::from_static("content-disposition, content-length, content-range, location");
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("600");
const REPLACED: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

/// What to put on the answer to an ordinary request.
pub enum Policy {
    /// The caller asked for the agent's own CORS headers.
    HandsOff,
    /// Not a browser.
    NoOrigin,
    Echo(HeaderValue),
}

impl Policy {
    pub fn of<B>(request: &Request<B>) -> Self {
        if request.headers().get(DISABLE).is_some_and(|v| v == "true") {
            return Self::HandsOff;
        }
        match request.headers().get(ORIGIN) {
            Some(origin) => Self::Echo(origin.clone()),
            None => Self::NoOrigin,
        }
    }

    pub fn apply(self, headers: &mut HeaderMap) {
        let Self::Echo(origin) = self else { return };
        for name in &REPLACED {
            headers.remove(name);
        }
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
}

/// The answer to a preflight; `None` when the request is not one.
pub fn preflight<B>(request: &Request<B>) -> Option<Response<GatewayBody>> {
    let asked = request.headers();
    if request.method() != Method::OPTIONS || !asked.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    let mut response = Response::new(GatewayBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    Policy::of(request).apply(headers);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    let wanted = asked.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned().unwrap_or(DEFAULT_HEADERS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_S);
    Some(response)
}
