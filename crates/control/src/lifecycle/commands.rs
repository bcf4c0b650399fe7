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
    secret, volumes,
};
use axum::http::StatusCode;
use infield_api::{
    SandboxId,
    runner::RunnerErrorKind,
    sandbox::CreateSandbox,
    state::{DesiredState, SandboxState},
};
use infield_store::{Change, SandboxRow, StoreError, allowed};
use std::time::{Duration, Instant};

/// How long create and start hold their answer for `started`.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Forks that are told of at most.
pub const FORKS_SHOWN_MAX: i64 = 100;

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
    if !row.volumes.is_empty() {
        volumes::note_use(app, &row.volumes).await?;
    }
    let waiting = app.driver.wake(row.id, Some(row.clone()), Look::No);
    let (row, took) = brought_up(app, row.id, waiting).await?;
    Ok(Created { row, took, insert_us })
}

pub async fn start(app: &App, caller: &Caller, id_or_name: &str) -> ApiResult<SandboxRow> {
    let row = find(app, caller, id_or_name).await?;
    if rules::start((row.state, row.desired))? == Accepted::Nothing {
        return Ok(row);
    }
    let token = Some(secret::auth_token());
    match (row.state, row.desired) {
        (SandboxState::Paused, _) => {
            let (row, waiting) = changed(app, row, Change::to(SandboxState::Resuming, DesiredState::Started)).await?;
            settled(app, row.id, waiting).await
        }
        // What comes out of the archive may take long; nobody waits for it.
        (SandboxState::Archived, _) => {
            let to = Change::to(SandboxState::Restoring, DesiredState::Started);
            let to = Change { auth_token: token, runner_id: Some(app.runner_id().await?), ..to };
            Ok(changed(app, row, to).await?.0)
        }
        (SandboxState::Archiving, _) => {
            let to = Change::to(SandboxState::Archiving, DesiredState::Started);
            Ok(changed(app, row, Change { auth_token: token, ..to }).await?.0)
        }
        _ => {
            let to = Change::to(SandboxState::Stopped, DesiredState::Started);
            let (row, waiting) = changed(app, row, Change { auth_token: token, ..to }).await?;
            Ok(brought_up(app, row.id, waiting).await?.0)
        }
    }
}

/// Tries again a failed sandbox whose files are kept; with `skip_start` it is left stopped. What is known of it is that its
/// files are there, so it counts as stopped.
pub async fn recover(app: &App, caller: &Caller, id_or_name: &str, skip_start: bool) -> ApiResult<SandboxRow> {
    let row = find(app, caller, id_or_name).await?;
    rules::recover((row.state, row.desired), row.recoverable)?;
    let wanted = if skip_start { DesiredState::Stopped } else { DesiredState::Started };
    let to = Change { auth_token: Some(secret::auth_token()), ..Change::to(SandboxState::Stopped, wanted) };
    let to = Change { runner_id: Some(app.runner_id().await?), ..to };
    let (row, waiting) = changed(app, row, to).await?;
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
    let forks = app.store.forks_of(row.id, false, FORKS_SHOWN_MAX).await?;
    if forks.iter().any(|fork| fork.desired != DesiredState::Destroyed) {
        return Err(ApiError::bad_request("Sandbox has forks (GET .../forks); delete them before it"));
    }
    intend_destroy(app, row).await?.ok_or_else(rules::busy)
}

/// Stops a settled sandbox; an ephemeral one is deleted instead. `None` when somebody else was quicker.
pub async fn intend_stop(app: &App, row: SandboxRow, force: bool) -> ApiResult<Option<SandboxRow>> {
    if row.auto_delete_min == 0 {
        return intend_destroy(app, row).await;
    }
    // What is paused is shown as stopping only if it is stored so.
    let state = if row.state == SandboxState::Paused { SandboxState::Stopping } else { row.state };
    let to = Change { force_stop: Some(force), ..Change::to(state, DesiredState::Stopped) };
    Ok(try_change(app, row, to).await?.map(|(row, _)| row))
}

/// Gives the name free and wants the sandbox gone, and those linked to it with it. `None` when it cannot be now, or somebody
/// else was quicker.
pub async fn intend_destroy(app: &App, row: SandboxRow) -> ApiResult<Option<SandboxRow>> {
    if !allowed((row.state, DesiredState::Destroyed)) {
        return Ok(None);
    }
    let name = format!("DESTROYED_{}_{}", row.name, now_ms());
    let to =
        Change { name: Some(name), reason: row.error_reason.clone(), ..Change::to(row.state, DesiredState::Destroyed) };
    let Some((row, _)) = try_change(app, row, to).await? else { return Ok(None) };
    // A follower that cannot go now is taken by the janitor. (Links are one deep.)
    for follower in app.store.followers_of(row.id).await? {
        if rules::delete((follower.state, follower.desired)).is_ok() {
            Box::pin(intend_destroy(app, follower)).await?;
        }
    }
    Ok(Some(row))
}

/// Writes what is wanted and wakes the sandbox's task; 409 when somebody else was quicker.
pub(super) async fn changed(app: &App, row: SandboxRow, to: Change) -> ApiResult<(SandboxRow, Waiting)> {
    try_change(app, row, to).await?.ok_or_else(rules::busy)
}

pub(super) async fn try_change(app: &App, row: SandboxRow, to: Change) -> ApiResult<Option<(SandboxRow, Waiting)>> {
    let now = now_ms();
    if !app.store.change(row.id, (row.state, row.desired), &to, now).await? {
        return Ok(None);
    }
    app.sandboxes.forget(row.id);
    let row = to.applied(row, now);
    let waiting = app.driver.wake(row.id, Some(row.clone()), Look::No);
    Ok(Some((row, waiting)))
}

/// Waits until the sandbox rests, at most as long as a start is waited for. A verb that failed is the caller's error.
pub(super) async fn settled(app: &App, id: SandboxId, mut waiting: Waiting) -> ApiResult<SandboxRow> {
    let done = async { waiting.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone()) };
    match tokio::time::timeout(ANSWER_WITHIN, done).await {
        Ok(Some(Outcome { failed: Some(error), .. })) => Err(error.into()),
        Ok(Some(Outcome { row: Some(row), .. })) => Ok(row),
        _ => app.store.sandbox(id).await?.ok_or_else(|| absent(id)),
    }
}

pub(super) fn absent(id: SandboxId) -> ApiError {
    ApiError::not_found(format!("Sandbox with ID or name {id} not found"))
}

/// Waits for `started`; a failure within that time is the caller's 400 (503 when the runner could not be reached, 500 when
/// the host failed).
async fn brought_up(app: &App, id: SandboxId, mut waiting: Waiting) -> ApiResult<(SandboxRow, Took)> {
    let done = async { waiting.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone()) };
    let Ok(Some(Outcome { row: Some(row), failed, took })) = tokio::time::timeout(ANSWER_WITHIN, done).await else {
        let row = app.store.sandbox(id).await?;
        let row = row.ok_or_else(|| absent(id))?;
        return Ok((row, Took::default()));
    };
    if matches!(row.state, SandboxState::Error | SandboxState::BuildFailed) {
        let status = match failed.map(|error| error.kind) {
            Some(RunnerErrorKind::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
            Some(RunnerErrorKind::Internal) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        let reason = row.error_reason.as_deref().unwrap_or("no reason given");
        return Err(ApiError::new(status, format!("Sandbox {id} failed to start: {reason}")));
    }
    Ok((row, took.unwrap_or_default()))
}
