//! JSON bodies in, JSON answers out.

use crate::error::Failure;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Commands carry whole files as here-documents; nobody sends more than this as JSON.
pub const JSON_BODY_BYTES_MAX: usize = 64 << 20;

/// Reads the body as JSON, whatever its content type says.
pub async fn json<T: DeserializeOwned>(request: Request) -> Result<T, Failure> {
    let bytes = axum::body::to_bytes(request.into_body(), JSON_BODY_BYTES_MAX)
        .await
        .map_err(|e| Failure::invalid_body(format!("{e} (at most {JSON_BODY_BYTES_MAX} bytes are read)")))?;
    serde_json::from_slice(&bytes).map_err(Failure::invalid_body)
}

pub fn ok<T: Serialize>(value: &T) -> Response {
    with_status(StatusCode::OK, value)
}

pub fn with_status<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let content_type = HeaderValue::from_static("application/json; charset=utf-8");
            (status, [(header::CONTENT_TYPE, content_type)], bytes).into_response()
        }
        Err(e) => Failure::internal(e).into_response(),
    }
}

/// A success without body and content type.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}
