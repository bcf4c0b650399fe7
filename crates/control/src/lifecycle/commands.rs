//! What callers may want of a sandbox. Each command writes its intent, comparing before it sets, wakes the sandbox's task
//! and, where the contract says so, waits for it.

use super::{
    create,
    driver::{Look, Outcome, Took, Waiting},
    rules::{self, Accepted},
};
use crate::{
    app::App,
    auth::Caller,
    clock::now_ms,
    error::{ApiError, ApiResult},
    secret,
};
use axum::http::StatusCode;
use infield_api::{
    SandboxId,
    runner::RunnerErrorKind,
    sandbox::CreateSandbox,
    state::{DesiredState, SandboxState},
};
use infield_store::{SandboxRow, StoreError};
use std::time::{Duration, Instant};

/// How long create and start hold their answer for `started`.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A sandbox, and where the time went.
pub struct Created {
    pub row: SandboxRow,
    pub took: Took,
    pub insert_us: u64,
}

/// A live sandbox of the caller's organization, or 404.
pub async fn find(app: &App, caller: &Caller, id_or_name: &str) -> ApiResult<SandboxRow> {
    let found = app.store.find_sandbox(caller.organization(), id_or_name).await?;
    found.ok_or_else(|| ApiError::not_found(format!("Sandbox with ID or name {id_or_name} not found")))
}

/// One insert is the commit point: from there on a crash loses nothing.
pub async fn create(app: &App, caller: &Caller, body: CreateSandbox) -> ApiResult<Created> {
    let mut row = create::row_for(app, caller, body).await?;
    row.runner_id = Some(app.runner_id().await?);
    let began = Instant::now();
    app.store.insert_sandbox(&row).await.map_err(|e| match e {
        StoreError::NameTaken => {
            ApiError::conflict(format!("Sandbox with name {} already exists; choose another name", row.name))
        }
        other => other.into(),
    })?;
    let insert_us = began.elapsed().as_micros() as u64;
    let waiting = app.driver.wake(row.id, Some(row.clone()), Look::No);
    let (row, took) = brought_up(app, row.id, waiting).await?;
    Ok(Created { row, took, insert_us })
}

pub async fn start(app: &App, caller: &Caller, id_or_name: &str) -> ApiResult<SandboxRow> {
    let row = find(app, caller, id_or_name).await?;
    let pair = (row.state, row.desired);
    if rules::start(pair)? == Accepted::Nothing {
        return Ok(row);
    }
    if !app.store.intend_start(row.id, pair, &secret::auth_token(), now_ms()).await? {
        return Err(rules::busy());
    }
    app.sandboxes.forget(row.id);
    let waiting = app.driver.wake(row.id, None, Look::No);
    Ok(brought_up(app, row.id, waiting).await?.0)
}

/// Tries again a failed sandbox whose files are kept; with `skip_start` it is left stopped.
pub async fn recover(app: &App, caller: &Caller, id_or_name: &str, skip_start: bool) -> ApiResult<SandboxRow> {
    let row = find(app, caller, id_or_name).await?;
    let pair = (row.state, row.desired);
    rules::recover(pair, row.recoverable)?;
    let wanted = if skip_start { DesiredState::Stopped } else { DesiredState::Started };
    if !app.store.intend_recover(row.id, pair, wanted, &secret::auth_token(), now_ms()).await? {
        return Err(rules::busy());
    }
    app.sandboxes.forget(row.id);
    let waiting = app.driver.wake(row.id, None, Look::No);
    Ok(brought_up(app, row.id, waiting).await?.0)
}

/// Does not wait: the answer reads `stopping`.
pub async fn stop(app: &App, caller: &Caller, id_or_name: &str, force: bool) -> ApiResult<SandboxRow> {
    let row = find(app, caller, id_or_name).await?;
    rules::stop((row.state, row.desired))?;
    intend_stop(app, row, force).await?.ok_or_else(rules::busy)
}

/// Does not wait: the answer reads `destroying` and the name is free at once.
pub async fn delete(app: &App, caller: &Caller, id_or_name: &str) -> ApiResult<SandboxRow> {
    let row = find(app, caller, id_or_name).await?;
    rules::delete((row.state, row.desired))?;
    intend_destroy(app, row).await?.ok_or_else(rules::busy)
}

/// Stops a settled sandbox; an ephemeral one is deleted instead. `None` when somebody else was quicker.
pub async fn intend_stop(app: &App, row: SandboxRow, force: bool) -> ApiResult<Option<SandboxRow>> {
    if row.auto_delete_min == 0 {
        return intend_destroy(app, row).await;
    }
    let now = now_ms();
    if !app.store.intend_stop(row.id, (row.state, row.desired), force, now).await? {
        return Ok(None);
    }
    app.sandboxes.forget(row.id);
    let row = SandboxRow { desired: DesiredState::Stopped, force_stop: force, updated_ms: now, ..row };
    app.driver.wake(row.id, Some(row.clone()), Look::No);
    Ok(Some(row))
}

/// Gives the name free and wants the sandbox gone. `None` when somebody else was quicker.
pub async fn intend_destroy(app: &App, row: SandboxRow) -> ApiResult<Option<SandboxRow>> {
    let now = now_ms();
    let name = format!("DESTROYED_{}_{now}", row.name);
    if !app.store.intend_destroy(row.id, (row.state, row.desired), &name, now).await? {
        return Ok(None);
    }
    app.sandboxes.forget(row.id);
    let row = SandboxRow { desired: DesiredState::Destroyed, name, updated_ms: now, ..row };
    app.driver.wake(row.id, Some(row.clone()), Look::No);
    Ok(Some(row))
}

/// Waits for `started`; a failure within that time is the caller's 400 (503 when the runner could not be reached, 500 when
/// the host failed).
async fn brought_up(app: &App, id: SandboxId, mut waiting: Waiting) -> ApiResult<(SandboxRow, Took)> {
    let done = async { waiting.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone()) };
    let Ok(Some(Outcome { row: Some(row), failed, took })) = tokio::time::timeout(ANSWER_WITHIN, done).await else {
        let row = app.store.sandbox(id).await?;
        let row = row.ok_or_else(|| ApiError::not_found(format!("Sandbox with ID or name {id} not found")))?;
        return Ok((row, Took::default()));
    };
    if matches!(row.state, SandboxState::Error | SandboxState::BuildFailed) {
        let status = match failed {
            Some(RunnerErrorKind::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
            Some(RunnerErrorKind::Internal) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        let reason = row.error_reason.as_deref().unwrap_or("no reason given");
        return Err(ApiError::new(status, format!("Sandbox {id} failed to start: {reason}")));
    }
    Ok((row, took.unwrap_or_default()))
}
