//! The key with which a client signs URLs of a sandbox's files by itself: shown, and replaced.

use crate::{
    app::App,
    auth::Caller,
    error::{ApiError, ApiResult},
    lifecycle::commands,
    secret,
};
use axum::extract::{Path, State};
use infield_api::{api_key::Permission, error::ErrorBody};

/// The signing key, as bare text. Made when it is first asked for.
#[utoipa::path(get, path = "/sandbox/{sandboxId}/signing-key", operation_id = "getSandboxSigningKey", tag = "sandbox",
    params(("sandboxId" = String, Path)),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 404, body = ErrorBody)))]
pub async fn get(State(app): State<App>, caller: Caller, Path(sandbox): Path<String>) -> ApiResult<String> {
    let row = commands::find(&app, &caller, &sandbox).await?;
    let key = app.store.signing_key_or(row.id, &secret::signing_key()).await?;
    key.ok_or_else(|| ApiError::not_found(format!("Sandbox with ID or name {sandbox} not found")))
}

/// A new signing key, as bare text. URLs that were signed before are refused from now on.
#[utoipa::path(post, path = "/sandbox/{sandboxId}/signing-key/rotate", operation_id = "rotateSigningKey",
    tag = "sandbox", params(("sandboxId" = String, Path)),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 404, body = ErrorBody)))]
pub async fn rotate(State(app): State<App>, caller: Caller, Path(sandbox): Path<String>) -> ApiResult<String> {
    caller.need(Permission::WriteSandboxes)?;
    let row = commands::find(&app, &caller, &sandbox).await?;
    let key = secret::signing_key();
    app.store.set_signing_key(row.id, &key).await?;
    Ok(key)
}
