//! Sandboxes: pause, archive, resize, snapshot.

use super::{
    extract::{BaseUrl, Body},
    view,
};
use crate::{
    app::App,
    auth::Caller,
    error::ApiResult,
    lifecycle::{commands, reshape},
};
use axum::{
    Json,
    extract::{Path, State},
};
use infield_api::{
    api_key::Permission,
    error::ErrorBody,
    sandbox::{CreateSandboxSnapshot, ResizeSandbox, Sandbox},
};

/// Freeze a started sandbox: its memory is kept, and it takes no processor time. `start` wakes it.
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/pause", operation_id = "pauseSandbox", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path)),
    responses((status = 200, body = Sandbox), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn pause(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path(sandbox): Path<String>,
) -> ApiResult<Json<Sandbox>> {
    caller.need(Permission::WriteSandboxes)?;
    let row = reshape::pause(&app, &caller, &sandbox).await?;
    Ok(Json(view::sandbox(row, &base)))
}

/// Pack the files of a stopped sandbox away and free its disk. Answers at once; `start` brings it back.
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/archive", operation_id = "archiveSandbox", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path)),
    responses((status = 200, body = Sandbox), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn archive(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path(sandbox): Path<String>,
) -> ApiResult<Json<Sandbox>> {
    caller.need(Permission::WriteSandboxes)?;
    let row = reshape::archive(&app, &caller, &sandbox).await?;
    Ok(Json(view::sandbox(row, &base)))
}

/// Kept for older clients: does nothing.
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/backup", operation_id = "createBackup", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path)),
    responses((status = 200, body = Sandbox), (status = 404, body = ErrorBody)))]
pub async fn backup(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path(sandbox): Path<String>,
) -> ApiResult<Json<Sandbox>> {
    caller.need(Permission::WriteSandboxes)?;
    let row = commands::find(&app, &caller, &sandbox).await?;
    Ok(Json(view::sandbox(row, &base)))
}

/// Change processors, memory and disk. Of a started sandbox, the first two may grow.
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/resize", operation_id = "resizeSandbox", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path)), request_body = ResizeSandbox,
    responses((status = 200, body = Sandbox), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn resize(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path(sandbox): Path<String>,
    Body(body): Body<ResizeSandbox>,
) -> ApiResult<Json<Sandbox>> {
    caller.need(Permission::WriteSandboxes)?;
    let row = reshape::resize(&app, &caller, &sandbox, body).await?;
    Ok(Json(view::sandbox(row, &base)))
}

/// Make a snapshot of a sandbox's files. Answers at once; the snapshot can be asked for by its name.
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/snapshot", operation_id = "createSandboxSnapshot",
    tag = "sandbox", params(("sandboxIdOrName" = String, Path)), request_body = CreateSandboxSnapshot,
    responses((status = 200, body = Sandbox), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn snapshot(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path(sandbox): Path<String>,
    Body(body): Body<CreateSandboxSnapshot>,
) -> ApiResult<Json<Sandbox>> {
    caller.need(Permission::WriteSandboxes)?;
    let row = reshape::snapshot(&app, &caller, &sandbox, body).await?;
    Ok(Json(view::sandbox(row, &base)))
}
