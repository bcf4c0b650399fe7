//! Sandboxes: create, read, start, stop, delete.

use super::{
    extract::{BaseUrl, Body, Query},
    view,
};
use crate::{
    app::App,
    auth::Caller,
    error::ApiResult,
    lifecycle::commands::{self, Created},
};
use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderName, HeaderValue},
    response::{IntoResponse, Response},
};
use infield_api::{
    api_key::Permission,
    error::ErrorBody,
    sandbox::{CreateSandbox, Sandbox, ToolboxProxyUrl},
};
use std::{fmt::Write as _, time::Instant};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Make a sandbox and start it. Answers when it runs (at most 30 s).
#[utoipa::path(post, path = "/sandbox", operation_id = "createSandbox", tag = "sandbox", request_body = CreateSandbox,
    responses((status = 200, body = Sandbox), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Body(body): Body<CreateSandbox>,
) -> ApiResult<Response> {
    let began = Instant::now();
    caller.need(Permission::WriteSandboxes)?;
    let created = commands::create(&app, &caller, body).await?;
    let timing = server_timing(&caller, &created, began);
    let mut response = Json(view::sandbox(created.row, &base)).into_response();
    if let Some(timing) = timing {
        response.headers_mut().insert(SERVER_TIMING, timing);
    }
    Ok(response)
}

/// One sandbox by id, else by name.
#[utoipa::path(get, path = "/sandbox/{sandboxIdOrName}", operation_id = "getSandbox", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path)),
    responses((status = 200, body = Sandbox), (status = 404, body = ErrorBody)))]
pub async fn get(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path(sandbox): Path<String>,
) -> ApiResult<Json<Sandbox>> {
    let row = commands::find(&app, &caller, &sandbox).await?;
    Ok(Json(view::sandbox(row, &base)))
}

/// Delete a sandbox. Its name is free at once.
#[utoipa::path(delete, path = "/sandbox/{sandboxIdOrName}", operation_id = "deleteSandbox", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path)),
    responses((status = 200, body = Sandbox), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn delete(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path(sandbox): Path<String>,
) -> ApiResult<Json<Sandbox>> {
    caller.need(Permission::DeleteSandboxes)?;
    let row = commands::delete(&app, &caller, &sandbox).await?;
    Ok(Json(view::sandbox(row, &base)))
}

/// Start a stopped sandbox; harmless on a started one.
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/start", operation_id = "startSandbox", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path)),
    responses((status = 200, body = Sandbox), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn start(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path(sandbox): Path<String>,
) -> ApiResult<Json<Sandbox>> {
    caller.need(Permission::WriteSandboxes)?;
    let row = commands::start(&app, &caller, &sandbox).await?;
    Ok(Json(view::sandbox(row, &base)))
}

/// Start again a sandbox in state `error` that is `recoverable`: its files are kept.
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/recover", operation_id = "recoverSandbox", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path),
        ("skipStart" = Option<bool>, Query, description = "Leave the sandbox stopped")),
    responses((status = 200, body = Sandbox), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn recover(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path(sandbox): Path<String>,
    query: Query,
) -> ApiResult<Json<Sandbox>> {
    caller.need(Permission::WriteSandboxes)?;
    let skip_start = query.flag("skipStart")?.unwrap_or(false);
    let row = commands::recover(&app, &caller, &sandbox, skip_start).await?;
    Ok(Json(view::sandbox(row, &base)))
}

/// Stop a sandbox and keep its files. Answers at once.
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/stop", operation_id = "stopSandbox", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path), ("force" = Option<bool>, Query, description = "Skip the grace period")),
    responses((status = 200, body = Sandbox), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn stop(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path(sandbox): Path<String>,
    query: Query,
) -> ApiResult<Json<Sandbox>> {
    caller.need(Permission::WriteSandboxes)?;
    let force = query.flag("force")?.unwrap_or(false);
    let row = commands::stop(&app, &caller, &sandbox, force).await?;
    Ok(Json(view::sandbox(row, &base)))
}

/// Base URL of the sandbox's toolbox.
#[utoipa::path(get, path = "/sandbox/{sandboxId}/toolbox-proxy-url", operation_id = "getToolboxProxyUrl",
    tag = "sandbox", params(("sandboxId" = String, Path)),
    responses((status = 200, body = ToolboxProxyUrl), (status = 404, body = ErrorBody)))]
pub async fn toolbox_proxy_url(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path(sandbox): Path<String>,
) -> ApiResult<Json<ToolboxProxyUrl>> {
    commands::find(&app, &caller, &sandbox).await?;
    Ok(Json(ToolboxProxyUrl { url: base.toolbox() }))
}

/// Where the time went, in milliseconds, as browsers and `infield bench` read it.
fn server_timing(caller: &Caller, created: &Created, began: Instant) -> Option<HeaderValue> {
    let mut text = String::new();
    let total_us = caller.auth_us + began.elapsed().as_micros() as u64;
    let took = &created.took;
    let mut add = |name: &str, us: u64| {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}{name};dur={:.3}", us as f64 / 1000.0);
    };
    add("auth", caller.auth_us);
    add("db", created.insert_us + took.store_us);
    add("runner", took.runner_us);
    for phase in &took.phases {
        let token: String =
            phase.name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
        add(&format!("engine-{token}"), phase.duration_us);
    }
    add("total", total_us);
    HeaderValue::from_str(&text).ok()
}
