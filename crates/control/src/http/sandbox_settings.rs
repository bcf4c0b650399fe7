//! Settings of a sandbox that change nothing about whether it runs.

use super::{
    extract::{BaseUrl, Body, path_int},
    view,
};
use crate::{
    app::App,
    auth::Caller,
    clock::now_ms,
    error::{ApiError, ApiResult},
    lifecycle::{commands, create},
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use infield_api::{
    api_key::Permission,
    error::ErrorBody,
    sandbox::{Sandbox, SandboxLabels},
};
use infield_store::{Interval, SandboxRow};

/// Replace all labels.
#[utoipa::path(put, path = "/sandbox/{sandboxIdOrName}/labels", operation_id = "replaceLabels", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path)), request_body = SandboxLabels,
    responses((status = 200, body = SandboxLabels), (status = 404, body = ErrorBody)))]
pub async fn labels(
    State(app): State<App>,
    caller: Caller,
    Path(sandbox): Path<String>,
    Body(body): Body<SandboxLabels>,
) -> ApiResult<Json<SandboxLabels>> {
    caller.need(Permission::WriteSandboxes)?;
    let row = commands::find(&app, &caller, &sandbox).await?;
    app.store.set_labels(row.id, &body.labels, now_ms()).await?;
    app.sandboxes.forget(row.id);
    Ok(Json(body))
}

/// Whether preview ports need no credentials.
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/public/{isPublic}", operation_id = "updatePublicStatus",
    tag = "sandbox", params(("sandboxIdOrName" = String, Path), ("isPublic" = bool, Path)),
    responses((status = 200, body = Sandbox), (status = 404, body = ErrorBody)))]
pub async fn public(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path((sandbox, public)): Path<(String, String)>,
) -> ApiResult<Json<Sandbox>> {
    caller.need(Permission::WriteSandboxes)?;
    let public = match public.as_str() {
        "true" => true,
        "false" => false,
        _ => return Err(ApiError::bad_request("isPublic must be true or false")),
    };
    let row = commands::find(&app, &caller, &sandbox).await?;
    app.store.set_public(row.id, public, now_ms()).await?;
    app.sandboxes.forget(row.id);
    Ok(Json(view::sandbox(SandboxRow { public, ..row }, &base)))
}

/// Minutes without activity until the sandbox stops; 0 = never.
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/autostop/{interval}", operation_id = "setAutostopInterval",
    tag = "sandbox", params(("sandboxIdOrName" = String, Path), ("interval" = i64, Path)),
    responses((status = 200, body = Sandbox), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub async fn auto_stop(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path((sandbox, minutes)): Path<(String, String)>,
) -> ApiResult<Json<Sandbox>> {
    let minutes = create::auto_stop(path_int("interval", &minutes)?)?;
    let row = commands::find(&app, &caller, &sandbox).await?;
    create::check_pause(row.auto_pause_min, minutes, -1)?;
    let row = set_interval(&app, &caller, &sandbox, Interval::Stop, minutes).await?;
    Ok(Json(view::sandbox(SandboxRow { auto_stop_min: minutes, ..row }, &base)))
}

/// Minutes without activity until the sandbox is paused; 0 = never.
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/autopause/{interval}", operation_id = "setAutoPauseInterval",
    tag = "sandbox", params(("sandboxIdOrName" = String, Path), ("interval" = i64, Path)),
    responses((status = 200, body = Sandbox), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub async fn auto_pause(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path((sandbox, minutes)): Path<(String, String)>,
) -> ApiResult<Json<Sandbox>> {
    let minutes = create::auto_pause(path_int("interval", &minutes)?)?;
    let row = commands::find(&app, &caller, &sandbox).await?;
    create::check_pause(minutes, row.auto_stop_min, row.auto_delete_min)?;
    let row = set_interval(&app, &caller, &sandbox, Interval::Pause, minutes).await?;
    Ok(Json(view::sandbox(SandboxRow { auto_pause_min: minutes, ..row }, &base)))
}

/// Minutes from now until the sandbox is deleted, whatever it is doing then; 0 = never.
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/ttl/{ttlMinutes}", operation_id = "setTtl", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path), ("ttlMinutes" = i64, Path)),
    responses((status = 200, body = Sandbox), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub async fn ttl(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path((sandbox, minutes)): Path<(String, String)>,
) -> ApiResult<Json<Sandbox>> {
    caller.need(Permission::WriteSandboxes)?;
    let minutes = path_int("ttlMinutes", &minutes)?;
    if minutes < 0 {
        return Err(ApiError::bad_request("ttlMinutes must not be negative"));
    }
    let row = commands::find(&app, &caller, &sandbox).await?;
    let now = now_ms();
    let auto_destroy_ms = create::end_of_life(minutes, now);
    app.store.set_auto_destroy(row.id, auto_destroy_ms, now).await?;
    app.sandboxes.forget(row.id);
    Ok(Json(view::sandbox(SandboxRow { auto_destroy_ms, updated_ms: now, ..row }, &base)))
}

/// Minutes stopped until the sandbox is archived; 0 = the maximum.
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/autoarchive/{interval}",
    operation_id = "setAutoArchiveInterval", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path), ("interval" = i64, Path)),
    responses((status = 200, body = Sandbox), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub async fn auto_archive(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path((sandbox, minutes)): Path<(String, String)>,
) -> ApiResult<Json<Sandbox>> {
    let minutes = create::auto_archive(path_int("interval", &minutes)?)?;
    let row = set_interval(&app, &caller, &sandbox, Interval::Archive, minutes).await?;
    Ok(Json(view::sandbox(SandboxRow { auto_archive_min: minutes, ..row }, &base)))
}

/// Minutes stopped until the sandbox is deleted; negative = never, 0 = as soon as it stops.
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/autodelete/{interval}",
    operation_id = "setAutoDeleteInterval", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path), ("interval" = i64, Path)),
    responses((status = 200, body = Sandbox), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub async fn auto_delete(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path((sandbox, minutes)): Path<(String, String)>,
) -> ApiResult<Json<Sandbox>> {
    let minutes = create::auto_delete(path_int("interval", &minutes)?);
    let row = set_interval(&app, &caller, &sandbox, Interval::Delete, minutes).await?;
    Ok(Json(view::sandbox(SandboxRow { auto_delete_min: minutes, ..row }, &base)))
}

/// Say that the sandbox is in use.
#[utoipa::path(post, path = "/sandbox/{sandboxId}/last-activity", operation_id = "updateLastActivity", tag = "sandbox",
    params(("sandboxId" = String, Path)), responses((status = 201), (status = 404, body = ErrorBody)))]
pub async fn last_activity(
    State(app): State<App>,
    caller: Caller,
    Path(sandbox): Path<String>,
) -> ApiResult<StatusCode> {
    let row = commands::find(&app, &caller, &sandbox).await?;
    app.activity.touch(row.id);
    Ok(StatusCode::CREATED)
}

async fn set_interval(
    app: &App,
    caller: &Caller,
    sandbox: &str,
    which: Interval,
    minutes: i64,
) -> ApiResult<SandboxRow> {
    caller.need(Permission::WriteSandboxes)?;
    let row = commands::find(app, caller, sandbox).await?;
    let now = now_ms();
    app.store.set_interval(row.id, which, minutes, now).await?;
    app.sandboxes.forget(row.id);
    Ok(SandboxRow { updated_ms: now, ..row })
}
