//! What a caller may see of a failure, and the envelope it travels in.
//!
//! Handlers return [`ApiError`]; the envelope needs the request's path, so a middleware prints it. What the log gets is
//! written here, where the cause is still known; the caller's message never holds it.

use axum::{
    body::Body,
    extract::{OriginalUri, Request},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use infield_api::{
    error::{ErrorBody, SOURCE_API},
    runner::{RunnerError, RunnerErrorKind},
};
use infield_store::StoreError;

/// A refusal or failure, for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
}

pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Invalid credentials: send `Authorization: Bearer <API key>`")
    }
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }
    /// Part of the published contract that this server does not have yet.
    pub fn not_built(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            format!("{what} is not built yet in this server; see docs/compatibility.md"),
        )
    }
}

impl From<StoreError> for ApiError {
    fn from(e: StoreError) -> Self {
        let cause = std::error::Error::source(&e).map(ToString::to_string).unwrap_or_default();
        tracing::error!(error = %e, cause, "a query failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error: the database failed; the server's log has more")
    }
}

impl From<RunnerError> for ApiError {
    fn from(e: RunnerError) -> Self {
        match e.kind {
            RunnerErrorKind::NotFound => Self::not_found(e.message),
            RunnerErrorKind::Invalid | RunnerErrorKind::Exhausted => Self::bad_request(e.message),
            RunnerErrorKind::Conflict => Self::conflict(e.message),
            RunnerErrorKind::Unsupported => Self::new(StatusCode::NOT_IMPLEMENTED, e.message),
            RunnerErrorKind::Unavailable => Self::unavailable(e.message),
            RunnerErrorKind::Internal => {
                tracing::error!(error = %e, "the runner failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, e.message)
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives every answer with a status of 400 or more the envelope, whoever made it.
pub async fn envelope(OriginalUri(uri): OriginalUri, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if response.status().as_u16() < 400 {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let error = match parts.extensions.remove::<ApiError>() {
        Some(error) => error,
        None if is_json(&parts.headers) => return Response::from_parts(parts, body),
        None => ApiError::new(parts.status, reason(parts.status)),
    };
    let body = ErrorBody {
        path: uri.path().to_owned(),
        timestamp: crate::clock::iso(crate::clock::now_ms()),
        status_code: error.status.as_u16(),
        error: reason(error.status).to_owned(),
        code: reason(error.status).to_uppercase().replace([' ', '-'], "_"),
        message: error.message,
        source: SOURCE_API.to_owned(),
    };
    let text = serde_json::to_vec(&body).unwrap_or_default();
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    Response::from_parts(parts, Body::from(text))
}

fn is_json(headers: &axum::http::HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    kind.starts_with("application/json")
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}
