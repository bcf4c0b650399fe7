//! Addresses of ports: host names that the gateway understands, with a token or signed for a while.

use super::extract::{BaseUrl, Query};
use crate::{
    app::App,
    auth::Caller,
    clock::now_ms,
    error::{ApiError, ApiResult},
    lifecycle::commands,
    secret,
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use infield_api::{
    error::ErrorBody,
    preview::{PortPreviewUrl, SignedPortPreviewUrl},
};

const SIGNED_SECONDS_DEFAULT: i64 = 60;
const SIGNED_SECONDS_MAX: i64 = 24 * 60 * 60;

/// Where a port is reached, and the token that opens it. The sandbox need not run.
#[utoipa::path(get, path = "/sandbox/{sandboxIdOrName}/ports/{port}/preview-url", operation_id = "getPortPreviewUrl",
    tag = "sandbox", params(("sandboxIdOrName" = String, Path), ("port" = u16, Path)),
    responses((status = 200, body = PortPreviewUrl), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub async fn get(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path((sandbox, port)): Path<(String, String)>,
) -> ApiResult<Json<PortPreviewUrl>> {
    let port = port_of(&port)?;
    let row = commands::find(&app, &caller, &sandbox).await?;
    let url = base.preview(&app, port, &row.id.to_string());
    Ok(Json(PortPreviewUrl { sandbox_id: row.id.to_string(), url, token: row.auth_token }))
}

/// An address that opens this port by itself, for a while.
#[utoipa::path(get, path = "/sandbox/{sandboxIdOrName}/ports/{port}/signed-preview-url",
    operation_id = "getSignedPortPreviewUrl", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path), ("port" = u16, Path), ("expiresInSeconds" = Option<i64>, Query)),
    responses((status = 200, body = SignedPortPreviewUrl), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
pub async fn sign(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path((sandbox, port)): Path<(String, String)>,
    query: Query,
) -> ApiResult<Json<SignedPortPreviewUrl>> {
    let port = port_of(&port)?;
    let seconds = query.int_within("expiresInSeconds", SIGNED_SECONDS_DEFAULT, SIGNED_SECONDS_MAX)?;
    let row = commands::find(&app, &caller, &sandbox).await?;
    let token = secret::link_token();
    app.store.add_signed_preview(&secret::hash(&token), row.id, port, now_ms() + seconds * 1000).await?;
    let url = base.preview(&app, port, &token);
    Ok(Json(SignedPortPreviewUrl { sandbox_id: row.id.to_string(), port, token, url }))
}

/// Ends a signed address before its time. Repeating it is harmless.
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/ports/{port}/signed-preview-url/{token}/expire",
    operation_id = "expireSignedPortPreviewUrl", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path), ("port" = u16, Path), ("token" = String, Path)),
    responses((status = 200), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub async fn expire(
    State(app): State<App>,
    caller: Caller,
    Path((sandbox, port, token)): Path<(String, String, String)>,
) -> ApiResult<StatusCode> {
    let port = port_of(&port)?;
    let row = commands::find(&app, &caller, &sandbox).await?;
    app.store.expire_signed_preview(&secret::hash(&token), row.id, port).await?;
    Ok(StatusCode::OK)
}

fn port_of(text: &str) -> ApiResult<u16> {
    let port = text.parse::<u16>().ok().filter(|port| *port > 0);
    port.ok_or_else(|| ApiError::bad_request(format!("port must be a whole number in 1 - 65535, not {text:?}")))
}
