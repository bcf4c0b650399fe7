//! What callers may do to a sandbox beside running it: pause, archive, resize, fork, make a snapshot of it. The checks of
//! the contract, in its order, then the intent.

use super::{
    commands::{absent, changed, find, settled},
    create::check_limits,
    driver::Look,
    rules,
};
use crate::{
    app::App,
    auth::Caller,
    clock::now_ms,
    error::{ApiError, ApiResult},
    names, secret,
};
use axum::http::StatusCode;
use infield_api::{
    sandbox::{CreateSandboxSnapshot, ForkSandbox, ResizeSandbox},
    state::{DesiredState, SandboxState, SnapshotState},
};
use infield_store::{Change, Job, SandboxRow, Size, SnapshotRow, StoreError};
use uuid::Uuid;

/// Waits for `paused`.
pub async fn pause(app: &App, caller: &Caller, id_or_name: &str) -> ApiResult<SandboxRow> {
    let row = find(app, caller, id_or_name).await?;
    rules::pause((row.state, row.desired))?;
    let (row, waiting) = changed(app, row, Change::to(SandboxState::Pausing, DesiredState::Paused)).await?;
    settled(app, row.id, waiting).await
}

/// Does not wait: the answer reads `archiving`.
pub async fn archive(app: &App, caller: &Caller, id_or_name: &str) -> ApiResult<SandboxRow> {
    let row = find(app, caller, id_or_name).await?;
    rules::archive((row.state, row.desired), row.auto_delete_min == 0)?;
    Ok(changed(app, row, Change::to(SandboxState::Archiving, DesiredState::Archived)).await?.0)
}

/// Waits until the sandbox has its new size.
pub async fn resize(app: &App, caller: &Caller, id_or_name: &str, body: ResizeSandbox) -> ApiResult<SandboxRow> {
    for (field, value) in [("cpu", body.cpu), ("memory", body.memory), ("disk", body.disk)] {
        if value.is_some_and(|v| v < 1) {
            return Err(ApiError::bad_request(format!("{field} must not be less than 1")));
        }
    }
    let row = find(app, caller, id_or_name).await?;
    rules::started_or_stopped((row.state, row.desired), "resize")?;
    let size = new_size(&row, &body)?;
    check_limits(app, body.cpu, body.memory, body.disk)?;
    let to = Change { job: Some(Job::Resize(size)), ..Change::to(SandboxState::Resizing, row.desired) };
    let (row, waiting) = changed(app, row, to).await?;
    settled(app, row.id, waiting).await
}

fn new_size(row: &SandboxRow, body: &ResizeSandbox) -> ApiResult<Size> {
    let started = row.state == SandboxState::Started;
    let (cpu, memory_gib) = (body.cpu.unwrap_or(row.cpu), body.memory.unwrap_or(row.memory_gib));
    let disk_gib = body.disk.unwrap_or(row.disk_gib);
    let refused = match body {
        ResizeSandbox { cpu: None, memory: None, disk: None } => "Give cpu, memory or disk",
        ResizeSandbox { disk: Some(_), .. } if started => {
            "The disk of a started sandbox cannot be resized; stop it first"
        }
        _ if started && (cpu < row.cpu || memory_gib < row.memory_gib) => {
            "The cpu and memory of a started sandbox cannot be made smaller; stop it first"
        }
        _ if disk_gib < row.disk_gib => "A disk cannot be made smaller",
        _ if (cpu, memory_gib, disk_gib) == (row.cpu, row.memory_gib, row.disk_gib) => "Sandbox already has this size",
        _ => return Ok(Size { cpu, memory_gib, disk_gib }),
    };
    Err(ApiError::bad_request(refused))
}

/// Waits for the new sandbox to be `started`; a failure within that time is the caller's error, and the row says why.
pub async fn fork(app: &App, caller: &Caller, id_or_name: &str, body: ForkSandbox) -> ApiResult<SandboxRow> {
    let name = body.name.filter(|name| !name.trim().is_empty());
    if let Some(name) = &name {
        names::check_safe("name", name)?;
    }
    let row = find(app, caller, id_or_name).await?;
    rules::fork((row.state, row.desired))?;
    let child = child_of(&row, name);
    let begun = app.store.begin_fork(&row, &child, now_ms()).await.map_err(|e| match e {
        StoreError::NameTaken => {
            ApiError::conflict(format!("Sandbox with name {} already exists; choose another name", child.name))
        }
        other => other.into(),
    })?;
    if !begun {
        return Err(rules::busy());
    }
    app.sandboxes.forget(row.id);
    let waiting = app.driver.wake(row.id, None, Look::No);
    let ended = settled(app, row.id, waiting).await;
    let child = app.store.sandbox(child.id).await?.ok_or_else(|| absent(child.id))?;
    match (child.state, ended) {
        (SandboxState::Error, Err(error)) => Err(ApiError::new(error.status, reason_of(&child))),
        (SandboxState::Error, Ok(_)) => Err(ApiError::new(StatusCode::BAD_REQUEST, reason_of(&child))),
        _ => Ok(child),
    }
}

fn reason_of(child: &SandboxRow) -> String {
    let reason = child.error_reason.as_deref().unwrap_or("no reason given");
    format!("Sandbox {} failed to start: {reason}", child.id)
}

/// Everything of the parent but its name, its link and the end of its life.
fn child_of(parent: &SandboxRow, name: Option<String>) -> SandboxRow {
    let id = crate::simulation::sandbox_id();
    let now = now_ms();
    SandboxRow {
        id,
        name: name.unwrap_or_else(|| id.to_string()),
        state: SandboxState::Unknown,
        desired: DesiredState::Started,
        error_reason: None,
        recoverable: false,
        auth_token: secret::auth_token(),
        daemon_version: None,
        force_stop: false,
        created_ms: now,
        updated_ms: now,
        activity_ms: now,
        auto_destroy_ms: None,
        parent_id: Some(parent.id),
        linked_id: None,
        job: None,
        ..parent.clone()
    }
}

/// Does not wait: the answer reads `snapshotting`, and the snapshot can be asked for.
pub async fn snapshot(
    app: &App,
    caller: &Caller,
    id_or_name: &str,
    body: CreateSandboxSnapshot,
) -> ApiResult<SandboxRow> {
    names::check_snapshot_name(&body.name)?;
    let row = find(app, caller, id_or_name).await?;
    rules::started_or_stopped((row.state, row.desired), "make a snapshot of")?;
    if body.include_memory == Some(true) {
        return Err(ApiError::bad_request("includeMemory is only for sandboxes of class linux-vm"));
    }
    let made = snapshot_of(&row, body.name);
    let begun = app.store.begin_snapshot(&row, &made, now_ms()).await.map_err(|e| match e {
        StoreError::NameTaken => ApiError::conflict(format!("Snapshot with name {} already exists", made.name)),
        other => other.into(),
    })?;
    if !begun {
        return Err(rules::busy());
    }
    app.sandboxes.forget(row.id);
    app.snapshots.forget();
    app.driver.wake(row.id, None, Look::No);
    app.store.sandbox(row.id).await?.ok_or_else(|| absent(row.id))
}

/// Its image goes by a name that nobody else can take, so that it is the caller's alone.
fn snapshot_of(row: &SandboxRow, name: String) -> SnapshotRow {
    let id = Uuid::new_v4().to_string();
    let now = now_ms();
    SnapshotRow {
        organization_id: row.organization_id.clone(),
        name,
        general: false,
        image_name: format!("infield-snapshot/{id}:1"),
        state: SnapshotState::Snapshotting,
        size_bytes: None,
        entrypoint: Some(row.entrypoint.clone()).filter(|words| !words.is_empty()),
        cpu: row.cpu,
        memory_gib: row.memory_gib,
        disk_gib: row.disk_gib,
        error_reason: None,
        image: None,
        image_user: None,
        last_used_ms: None,
        created_ms: now,
        updated_ms: now,
        source_sandbox_id: Some(row.id.to_string()),
        id,
    }
}
