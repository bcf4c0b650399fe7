//! API keys. Managing them needs `manage:api_keys`, since a key's permissions are all its holder has; a key can only
//! hand on permissions it holds itself.

use super::extract::Body;
use crate::{
    app::App,
    auth::Caller,
    clock::{iso, now_ms, parse_iso},
    error::{ApiError, ApiResult},
    names, secret,
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use infield_api::{
    api_key::{ApiKeyList, ApiKeyResponse, CreateApiKey, Permission},
    error::ErrorBody,
};
use infield_store::{ApiKeyRow, StoreError};

/// Between the first and the last characters of a key in a list.
const MASK: &str = "********************";

/// Make a key. Its value is shown only now.
#[utoipa::path(post, path = "/api-keys", operation_id = "createApiKey", tag = "api-keys", request_body = CreateApiKey,
    responses((status = 201, body = ApiKeyResponse), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<CreateApiKey>,
) -> ApiResult<(StatusCode, Json<ApiKeyResponse>)> {
    caller.need(Permission::ManageApiKeys)?;
    let value = secret::api_key();
    let row = new_row(&caller, body, &value)?;
    app.store.insert_api_key(&row).await.map_err(|e| match e {
        StoreError::NameTaken => ApiError::conflict(format!("API key with name {} already exists", row.name)),
        other => other.into(),
    })?;
    let made = ApiKeyResponse {
        name: row.name,
        value,
        created_at: iso(row.created_ms),
        permissions: row.permissions,
        expires_at: row.expires_ms.map(iso),
    };
    Ok((StatusCode::CREATED, Json(made)))
}

/// Keys of the organization (an owner sees all, others their own); values masked.
#[utoipa::path(get, path = "/api-keys", operation_id = "listApiKeys", tag = "api-keys",
    responses((status = 200, body = Vec<ApiKeyList>)))]
pub async fn list(State(app): State<App>, caller: Caller) -> ApiResult<Json<Vec<ApiKeyList>>> {
    caller.need(Permission::ManageApiKeys)?;
    let user = if is_owner(&app, &caller).await? { None } else { Some(caller.key.user_id.as_str()) };
    let rows = app.store.api_keys(caller.organization(), user).await?;
    Ok(Json(rows.iter().map(masked).collect()))
}

/// The key this request was made with.
#[utoipa::path(get, path = "/api-keys/current", operation_id = "getCurrentApiKey", tag = "api-keys",
    responses((status = 200, body = ApiKeyList)))]
pub async fn current(State(app): State<App>, caller: Caller) -> ApiResult<Json<ApiKeyList>> {
    let key = &caller.key;
    let row = app.store.api_key(&key.organization_id, &key.user_id, &key.name).await?;
    row.map(|row| Json(masked(&row))).ok_or_else(ApiError::unauthorized)
}

/// One of the caller's keys, masked.
#[utoipa::path(get, path = "/api-keys/{name}", operation_id = "getApiKey", tag = "api-keys",
    params(("name" = String, Path)), responses((status = 200, body = ApiKeyList), (status = 404, body = ErrorBody)))]
pub async fn get(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> ApiResult<Json<ApiKeyList>> {
    caller.need(Permission::ManageApiKeys)?;
    let row = app.store.api_key(caller.organization(), &caller.key.user_id, &name).await?;
    row.map(|row| Json(masked(&row))).ok_or_else(|| absent(&name))
}

/// Revoke one of the caller's keys; it stops working at once.
#[utoipa::path(delete, path = "/api-keys/{name}", operation_id = "deleteApiKey", tag = "api-keys",
    params(("name" = String, Path)), responses((status = 204), (status = 404, body = ErrorBody)))]
pub async fn delete(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> ApiResult<StatusCode> {
    caller.need(Permission::ManageApiKeys)?;
    revoke(&app, caller.organization(), &caller.key.user_id, &name).await
}

/// Revoke somebody's key; somebody else's only as an owner.
#[utoipa::path(delete, path = "/api-keys/{userId}/{name}", operation_id = "deleteApiKeyForUser", tag = "api-keys",
    params(("userId" = String, Path), ("name" = String, Path)),
    responses((status = 204), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub async fn delete_for_user(
    State(app): State<App>,
    caller: Caller,
    Path((user, name)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    caller.need(Permission::ManageApiKeys)?;
    if user != caller.key.user_id && !is_owner(&app, &caller).await? {
        return Err(ApiError::forbidden("Only owners can delete the keys of others"));
    }
    revoke(&app, caller.organization(), &user, &name).await
}

fn new_row(caller: &Caller, body: CreateApiKey, value: &str) -> ApiResult<ApiKeyRow> {
    names::check_safe("name", &body.name)?;
    if body.name.trim().is_empty() {
        return Err(ApiError::bad_request("name must not be empty"));
    }
    for permission in &body.permissions {
        caller.need(*permission)?;
    }
    let expires_ms = match body.expires_at.as_deref() {
        None => None,
        Some(text) => Some(parse_iso(text).ok_or_else(|| ApiError::bad_request("expiresAt must be an ISO 8601 date"))?),
    };
    let mut permissions = body.permissions;
    permissions.sort_unstable();
    permissions.dedup();
    let (prefix, suffix) = secret::ends(value);
    Ok(ApiKeyRow {
        organization_id: caller.organization().to_owned(),
        user_id: caller.key.user_id.clone(),
        name: body.name,
        hash: secret::hash(value),
        prefix,
        suffix,
        permissions,
        created_ms: now_ms(),
        last_used_ms: None,
        expires_ms,
    })
}

async fn revoke(app: &App, organization: &str, user: &str, name: &str) -> ApiResult<StatusCode> {
    let row = app.store.api_key(organization, user, name).await?.ok_or_else(|| absent(name))?;
    if !app.store.delete_api_key(organization, user, name).await? {
        return Err(absent(name));
    }
    app.auth.forget(&row.hash);
    app.events.evict(&row.hash);
    Ok(StatusCode::NO_CONTENT)
}

async fn is_owner(app: &App, caller: &Caller) -> ApiResult<bool> {
    let role = app.store.role_of(caller.organization(), &caller.key.user_id).await?;
    Ok(role.as_deref() == Some("owner"))
}

fn masked(row: &ApiKeyRow) -> ApiKeyList {
    ApiKeyList {
        name: row.name.clone(),
        value: format!("{}{MASK}{}", row.prefix, row.suffix),
        created_at: iso(row.created_ms),
        permissions: row.permissions.clone(),
        last_used_at: row.last_used_ms.map(iso),
        expires_at: row.expires_ms.map(iso),
        user_id: row.user_id.clone(),
        organization_id: row.organization_id.clone(),
    }
}

fn absent(name: &str) -> ApiError {
    ApiError::not_found(format!("API key {name} not found"))
}
