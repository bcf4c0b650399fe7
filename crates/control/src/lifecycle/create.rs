//! From what a caller asks for to a row: every check of the contract, in its order. Nothing is ignored silently that
//! would make a sandbox less contained, or longer lived, than was asked.

use super::commands;
use crate::{
    app::{App, REGION},
    auth::Caller,
    clock::{MINUTE_MS, now_ms},
    error::{ApiError, ApiResult},
    names, secret, snapshots, volumes,
};
use infield_api::{
    SandboxId,
    sandbox::CreateSandbox,
    state::{DesiredState, SandboxState},
};
use infield_store::{SandboxRow, SnapshotRow};

/// Minutes; also what an auto-archive interval of 0 means.
pub const AUTO_ARCHIVE_MAX_MIN: i64 = 43_200;
const AUTO_STOP_DEFAULT_MIN: i64 = 15;
const AUTO_ARCHIVE_DEFAULT_MIN: i64 = 10_080;
const AUTO_DELETE_NEVER: i64 = -1;
/// The longest interval: far beyond any use, and safe to multiply.
const INTERVAL_MAX_MIN: i64 = 100 * 365 * 24 * 60;

/// Checks the request and makes the row to insert.
pub async fn row_for(app: &App, caller: &Caller, mut body: CreateSandbox) -> ApiResult<SandboxRow> {
    check_shape(&body)?;
    check_resources(app, &body)?;
    if let Some(target) = body.target.as_deref().filter(|t| !t.is_empty() && *t != REGION) {
        return Err(ApiError::not_found(format!("Region {target} not found; this server has the region {REGION}")));
    }
    if body.build_info.is_some() {
        return Err(ApiError::not_built("Building an image from a Dockerfile (buildInfo)"));
    }
    let snapshot = snapshots::for_create(app, caller.organization(), body.snapshot.as_deref()).await?;
    check_unsupported(&body)?;
    let pauses = body.auto_pause_interval.is_some_and(|minutes| minutes != 0);
    let stop = body.auto_stop_interval.unwrap_or(if pauses { 0 } else { AUTO_STOP_DEFAULT_MIN });
    let intervals = Intervals {
        stop: auto_stop(stop)?,
        pause: auto_pause(body.auto_pause_interval.unwrap_or(0))?,
        archive: auto_archive(body.auto_archive_interval.unwrap_or(AUTO_ARCHIVE_DEFAULT_MIN))?,
        delete: auto_delete(body.auto_delete_interval.unwrap_or(AUTO_DELETE_NEVER)),
    };
    check_pause(intervals.pause, intervals.stop, intervals.delete)?;
    let linked = linked(app, caller, &body, intervals.delete).await?;
    let volumes = volumes::for_create(app, caller, body.volumes.take().unwrap_or_default()).await?;
    Ok(SandboxRow { linked_id: linked, volumes, ..new_row(caller, body, &snapshot, intervals) })
}

struct Intervals {
    stop: i64,
    pause: i64,
    archive: i64,
    delete: i64,
}

/// The sandbox this one is to live and die with.
async fn linked(app: &App, caller: &Caller, body: &CreateSandbox, auto_delete: i64) -> ApiResult<Option<SandboxId>> {
    let Some(target) = body.linked_sandbox.as_deref().map(str::trim).filter(|t| !t.is_empty()) else { return Ok(None) };
    if auto_delete != 0 {
        return Err(ApiError::bad_request("A linked sandbox must be ephemeral: give autoDeleteInterval 0"));
    }
    let target = commands::find(app, caller, target).await?;
    if target.linked_id.is_some() {
        return Err(ApiError::bad_request("Cannot link to a sandbox that is itself linked"));
    }
    let settled = [(SandboxState::Started, DesiredState::Started), (SandboxState::Stopped, DesiredState::Stopped)];
    if !settled.contains(&(target.state, target.desired)) {
        return Err(ApiError::bad_request("Can only link to a started or stopped sandbox"));
    }
    Ok(Some(target.id))
}

fn new_row(caller: &Caller, body: CreateSandbox, snapshot: &SnapshotRow, intervals: Intervals) -> SandboxRow {
    let id = crate::simulation::sandbox_id();
    let now = now_ms();
    let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    let run_as = given(body.user);
    let image_user = snapshot.image_user.clone().unwrap_or_else(|| "root".to_owned());
    SandboxRow {
        id,
        organization_id: caller.organization().to_owned(),
        name: given(body.name).unwrap_or_else(|| id.to_string()),
        state: SandboxState::Creating,
        desired: DesiredState::Started,
        snapshot: snapshot.name.clone(),
        image: snapshot.image.clone().unwrap_or_else(|| snapshot.image_name.clone()),
        shown_user: run_as.clone().unwrap_or(image_user),
        run_as,
        entrypoint: snapshot.entrypoint.clone().unwrap_or_default(),
        env: body.env.unwrap_or_default(),
        labels: body.labels.unwrap_or_default(),
        public: body.public.unwrap_or(false),
        network_block_all: body.network_block_all.unwrap_or(false),
        target: REGION.to_owned(),
        cpu: snapshot.cpu,
        memory_gib: snapshot.memory_gib,
        disk_gib: snapshot.disk_gib,
        auto_stop_min: intervals.stop,
        auto_archive_min: intervals.archive,
        auto_delete_min: intervals.delete,
        error_reason: None,
        recoverable: false,
        auth_token: secret::auth_token(),
        daemon_version: None,
        runner_id: None,
        force_stop: false,
        created_ms: now,
        updated_ms: now,
        activity_ms: now,
        auto_pause_min: intervals.pause,
        auto_destroy_ms: body.ttl_minutes.and_then(|minutes| end_of_life(minutes, now)),
        parent_id: None,
        linked_id: None,
        job: None,
        volumes: Vec::new(),
    }
}

/// What can be told from the body alone.
fn check_shape(body: &CreateSandbox) -> ApiResult<()> {
    for (field, value) in [("cpu", body.cpu), ("memory", body.memory), ("disk", body.disk), ("gpu", body.gpu)] {
        if value.is_some_and(|v| v < 0) {
            return Err(ApiError::bad_request(format!("{field} must not be less than 0")));
        }
    }
    if let Some(name) = &body.name {
        names::check_safe("name", name)?;
    }
    if let Some(user) = &body.user {
        names::check_safe("user", user)?;
    }
    for name in body.env.iter().flatten().map(|(name, _)| name) {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(ApiError::bad_request(format!("env has an impossible variable name {name:?}")));
        }
    }
    if body.env.iter().flatten().any(|(_, value)| value.contains('\0')) {
        return Err(ApiError::bad_request("env values must not hold NUL characters"));
    }
    if body.build_info.is_some() && body.snapshot.as_deref().is_some_and(|s| !s.is_empty()) {
        return Err(ApiError::bad_request("Cannot specify both buildInfo and snapshot"));
    }
    if body.build_info.is_some() && body.linked_sandbox.is_some() {
        return Err(ApiError::bad_request("Cannot specify both buildInfo and linkedSandbox"));
    }
    Ok(())
}

/// Resources come from the snapshot; asking for more than this server gives is said first.
fn check_resources(app: &App, body: &CreateSandbox) -> ApiResult<()> {
    check_limits(app, body.cpu, body.memory, body.disk)?;
    if body.gpu.is_some_and(|gpu| gpu > 0) || body.gpu_type.as_ref().is_some_and(|types| !types.is_empty()) {
        return Err(ApiError::bad_request("GPUs are not available on this server"));
    }
    let given = [body.cpu, body.memory, body.disk].iter().flatten().any(|v| *v > 0);
    if given && body.build_info.is_none() {
        let message = "Cannot specify Sandbox resources when using a snapshot; give them when making the snapshot";
        return Err(ApiError::bad_request(message));
    }
    Ok(())
}

/// Per-sandbox limits; 400 with the limit in the text.
pub fn check_limits(app: &App, cpu: Option<i64>, memory: Option<i64>, disk: Option<i64>) -> ApiResult<()> {
    let limits = app.config.limits;
    let asked = [
        ("CPU", cpu, limits.cpu, "cores"),
        ("Memory", memory, limits.memory_gib, "GiB"),
        ("Disk", disk, limits.disk_gib, "GiB"),
    ];
    for (what, value, limit, unit) in asked {
        if let Some(value) = value.filter(|v| *v > i64::from(limit)) {
            let message = format!("{what} request {value} exceeds the maximum of {limit} {unit} per sandbox");
            return Err(ApiError::bad_request(message));
        }
    }
    Ok(())
}

/// Parts of the contract that are not there yet are refused, never ignored.
fn check_unsupported(body: &CreateSandbox) -> ApiResult<()> {
    let some = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.trim().is_empty());
    if body.kvm == Some(true) {
        return Err(ApiError::bad_request("kvm is only for sandboxes of class linux-vm"));
    }
    if body.spot == Some(true) {
        return Err(ApiError::bad_request("spot needs a GPU"));
    }
    if body.queue_timeout.is_some_and(|minutes| minutes <= 0) {
        return Err(ApiError::bad_request("queueTimeout must be a positive number of minutes"));
    }
    if body.secrets.as_ref().is_some_and(|secrets| !secrets.is_empty()) {
        return Err(ApiError::not_built("Attaching secrets"));
    }
    if some(&body.network_allow_list) || some(&body.domain_allow_list) {
        return Err(ApiError::not_built("Limiting egress to a list (use networkBlockAll meanwhile)"));
    }
    if some(&body.outbound_proxy_url) {
        return Err(ApiError::not_built("Sending egress through a proxy (outboundProxyUrl)"));
    }
    if some(&body.otel_endpoint_override) {
        return Err(ApiError::not_built("Choosing a telemetry endpoint (otelEndpointOverride)"));
    }
    if body.ttl_minutes.is_some_and(|minutes| minutes < 0) {
        return Err(ApiError::bad_request("ttlMinutes must not be negative"));
    }
    Ok(())
}

/// 0 = never.
pub fn auto_stop(minutes: i64) -> ApiResult<i64> {
    if minutes < 0 {
        return Err(ApiError::bad_request("Auto-stop interval must be 0 or more minutes"));
    }
    Ok(minutes.min(INTERVAL_MAX_MIN))
}

/// 0 = never.
pub fn auto_pause(minutes: i64) -> ApiResult<i64> {
    if minutes < 0 {
        return Err(ApiError::bad_request("Auto-pause interval must be 0 or more minutes"));
    }
    Ok(minutes.min(INTERVAL_MAX_MIN))
}

/// An idle sandbox either pauses or stops, and an ephemeral one is deleted when it does.
pub fn check_pause(pause: i64, stop: i64, delete: i64) -> ApiResult<()> {
    match (pause, stop, delete) {
        (0, _, _) => Ok(()),
        (_, _, 0) => {
            Err(ApiError::bad_request("An ephemeral sandbox (autoDeleteInterval 0) cannot have autoPauseInterval"))
        }
        (_, 0, _) => Ok(()),
        _ => {
            Err(ApiError::bad_request("autoPauseInterval and autoStopInterval cannot both be set; make one of them 0"))
        }
    }
}

/// When a time to live that begins `from_ms` is over; 0 = never.
pub fn end_of_life(minutes: i64, from_ms: i64) -> Option<i64> {
    (minutes > 0).then(|| from_ms + minutes.min(INTERVAL_MAX_MIN) * MINUTE_MS)
}

/// 0 = the maximum, which is also the cap.
pub fn auto_archive(minutes: i64) -> ApiResult<i64> {
    match minutes {
        ..0 => Err(ApiError::bad_request("Auto-archive interval must be 0 or more minutes")),
        0 => Ok(AUTO_ARCHIVE_MAX_MIN),
        _ => Ok(minutes.min(AUTO_ARCHIVE_MAX_MIN)),
    }
}

/// Negative = never, 0 = as soon as it stops.
pub fn auto_delete(minutes: i64) -> i64 {
    minutes.clamp(AUTO_DELETE_NEVER, INTERVAL_MAX_MIN)
}
