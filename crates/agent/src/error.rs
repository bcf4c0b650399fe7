//! How a failure becomes the toolbox's error envelope.

use crate::timestamp;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};
use infield_api::toolbox::{DaemonErrorCode as Code, ERROR_SOURCE, ErrorBody};
use std::io;
use std::path::Path;

/// A failed request. The serving loop adds path, method and time when it turns this into the body.
#[derive(Clone, Debug)]
pub struct Failure {
    pub status: u16,
    pub code: Option<Code>,
    pub message: String,
}

pub type Answer = Result<Response, Failure>;

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { status: code.status(), code: Some(code), message: message.into() }
    }

    pub fn bad_request(detail: impl AsRef<str>) -> Self {
        Self::new(Code::BadRequest, format!("bad request: {}", detail.as_ref()))
    }

    pub fn invalid_body(detail: impl std::fmt::Display) -> Self {
        Self::new(Code::InvalidRequestBody, format!("invalid body request: {detail}"))
    }

    pub fn internal(detail: impl std::fmt::Display) -> Self {
        Self::new(Code::Internal, format!("internal server error: {detail}"))
    }

    /// A status without a code of its own.
    pub fn plain(status: u16, message: impl Into<String>) -> Self {
        Self { status, code: None, message: message.into() }
    }

    /// The file routes' reading of an OS error: missing 404, forbidden 403, everything else 400.
    pub fn file(path: &Path, e: &io::Error) -> Self {
        let shown = path.display();
        match e.kind() {
            io::ErrorKind::NotFound => Self::new(Code::FileNotFound, format!("file not found: {shown}")),
            io::ErrorKind::PermissionDenied => Self::new(Code::FileAccessDenied, format!("permission denied: {shown}")),
            _ => Self::bad_request(format!("{shown}: {}", reason(e))),
        }
    }

    pub fn body(&self, path: &str, method: &str) -> ErrorBody {
        ErrorBody {
            status_code: self.status,
            message: self.message.clone(),
            source: ERROR_SOURCE.to_owned(),
            code: self.code.map(|c| c.as_str().to_owned()),
            timestamp: timestamp::now_millis(),
            path: path.to_owned(),
            method: method.to_owned(),
        }
    }

    pub fn into_envelope(self, path: &str, method: &Method) -> Response {
        let body = serde_json::to_vec(&self.body(path, method.as_str())).unwrap_or_default();
        let mut response = Response::new(body.into());
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.extensions_mut().insert(self);
        response
    }
}

/// The kernel's words, without Rust's "(os error 2)", in the lower case that the toolbox's messages use.
pub fn reason(e: &io::Error) -> String {
    let text = e.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    match text.as_bytes() {
        [first, second, ..] if first.is_ascii_uppercase() && second.is_ascii_lowercase() => {
            format!("{}{}", first.to_ascii_lowercase() as char, &text[1..])
        }
        _ => text.to_owned(),
    }
}
