//! Sandboxes: copies of a running one, and who was copied from whom.

use super::{
    extract::{BaseUrl, Body, Query},
    view,
};
use crate::{
    app::App,
    auth::Caller,
    error::{ApiError, ApiResult},
    lifecycle::{commands, reshape},
};
use axum::{
    Json,
    extract::{Path, State},
};
use infield_api::{
    api_key::Permission,
    error::ErrorBody,
    sandbox::{ForkSandbox, Sandbox},
    state::SandboxState,
};
use infield_store::SandboxRow;

/// Ancestors told of at most.
const ANCESTORS_MAX: usize = 50;

/// Make a new sandbox with the files of a started one, and start it. Answers when it runs (at most 30 s).
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/fork", operation_id = "forkSandbox", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path)), request_body = ForkSandbox,
    responses((status = 200, body = Sandbox), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn fork(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path(sandbox): Path<String>,
    Body(body): Body<ForkSandbox>,
) -> ApiResult<Json<Sandbox>> {
    caller.need(Permission::WriteSandboxes)?;
    let row = reshape::fork(&app, &caller, &sandbox, body).await?;
    Ok(Json(view::sandbox(row, &base)))
}

/// The sandboxes forked from this one.
#[utoipa::path(get, path = "/sandbox/{sandboxIdOrName}/forks", operation_id = "getSandboxForks", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path), ("includeDestroyed" = Option<bool>, Query)),
    responses((status = 200, body = Vec<Sandbox>), (status = 404, body = ErrorBody)))]
pub async fn forks(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path(sandbox): Path<String>,
    query: Query,
) -> ApiResult<Json<Vec<Sandbox>>> {
    let row = commands::find(&app, &caller, &sandbox).await?;
    let destroyed = query.flag("includeDestroyed")?.unwrap_or(false);
    let rows = app.store.forks_of(row.id, destroyed, commands::FORKS_SHOWN_MAX).await?;
    Ok(Json(rows.into_iter().map(|row| view::sandbox(row, &base)).collect()))
}

/// The sandbox this one was forked from; 404 when it is no fork.
#[utoipa::path(get, path = "/sandbox/{sandboxIdOrName}/parent", operation_id = "getSandboxParent", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path)),
    responses((status = 200, body = Sandbox), (status = 404, body = ErrorBody)))]
pub async fn parent(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path(sandbox): Path<String>,
) -> ApiResult<Json<Sandbox>> {
    let row = commands::find(&app, &caller, &sandbox).await?;
    let parent = parent_of(&app, &row).await?;
    let parent = parent.filter(|parent| parent.state != SandboxState::Destroyed);
    let parent = parent.ok_or_else(|| ApiError::not_found(format!("Sandbox {sandbox} has no parent")))?;
    Ok(Json(view::sandbox(parent, &base)))
}

/// From the first ancestor to the parent.
#[utoipa::path(get, path = "/sandbox/{sandboxIdOrName}/ancestors", operation_id = "getSandboxAncestors",
    tag = "sandbox", params(("sandboxIdOrName" = String, Path)),
    responses((status = 200, body = Vec<Sandbox>), (status = 404, body = ErrorBody)))]
pub async fn ancestors(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path(sandbox): Path<String>,
) -> ApiResult<Json<Vec<Sandbox>>> {
    let mut row = commands::find(&app, &caller, &sandbox).await?;
    let mut found = Vec::new();
    while found.len() < ANCESTORS_MAX
        && let Some(parent) = parent_of(&app, &row).await?
    {
        found.push(view::sandbox(parent.clone(), &base));
        row = parent;
    }
    found.reverse();
    Ok(Json(found))
}

async fn parent_of(app: &App, row: &SandboxRow) -> ApiResult<Option<SandboxRow>> {
    match row.parent_id {
        Some(id) => Ok(app.store.sandbox(id).await?),
        None => Ok(None),
    }
}
