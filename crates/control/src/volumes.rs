//! Volumes: what callers want of them is written down first, then the host is asked until it is so. A restart goes on with
//! whatever was under way.

use crate::{
    app::App,
    auth::Caller,
    clock::now_ms,
    error::{ApiError, ApiResult},
};
use infield_api::{
    runner::{RunnerError, RunnerErrorKind},
    sandbox::SandboxVolume,
    volume::VolumeState,
};
use infield_store::{StoreError, VolumeRow};
use std::{collections::HashSet, time::Duration};

/// Of a new volume.
pub const SIZE_GIB: i64 = 10;
/// Of one organization.
pub const VOLUMES_MAX: usize = 100;
/// Of one sandbox.
const PER_SANDBOX_MAX: usize = 16;
const PATH_BYTES_MAX: usize = 1024;
/// One verb at most.
const VERB_TIME_MAX: Duration = Duration::from_secs(60);
/// A runner that is away is asked again this often before a new volume is an error.
const CREATE_TRIES_MAX: u32 = 30;
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Where the system of a sandbox lives.
const RESERVED: [&str; 9] = ["proc", "sys", "dev", "boot", "etc", "bin", "sbin", "lib", "lib64"];
const MIB_PER_GIB: u64 = 1024;

/// Brings the volume to where it is wanted, in the background.
pub fn work_on(app: &App, row: VolumeRow) {
    let app = app.clone();
    tokio::spawn(async move {
        if let Err(e) = settle(&app, row).await {
            tracing::error!(error = %e, "cannot write down a volume; the next start goes on");
        }
    });
}

/// After a restart.
pub async fn resume(app: &App) -> Result<(), StoreError> {
    for row in app.store.unsettled_volumes().await? {
        work_on(app, row);
    }
    Ok(())
}

async fn settle(app: &App, mut row: VolumeRow) -> Result<(), StoreError> {
    loop {
        let (to, reason) = match row.state {
            VolumeState::PendingCreate => (VolumeState::Creating, None),
            VolumeState::Creating => match create(app, &row).await {
                Ok(()) => (VolumeState::Ready, None),
                Err(e) => (VolumeState::Error, Some(e.to_string())),
            },
            VolumeState::PendingDelete => (VolumeState::Deleting, None),
            VolumeState::Deleting => {
                remove(app, &row).await;
                (VolumeState::Deleted, None)
            }
            VolumeState::Ready | VolumeState::Deleted | VolumeState::Error => return Ok(()),
        };
        let was = row.state;
        if !app.store.settle_volume(&row.id, was, to, reason.as_deref(), now_ms()).await? {
            return Ok(());
        }
        let Some(now) = app.store.volume(&row.id).await? else { return Ok(()) };
        row = now;
        app.events.volume_state(&row, was);
    }
}

async fn create(app: &App, row: &VolumeRow) -> Result<(), RunnerError> {
    let size_mib = u64::try_from(row.size_gib).unwrap_or(0) * MIB_PER_GIB;
    let mut pause = PAUSE_FIRST;
    for _ in 1..CREATE_TRIES_MAX {
        match within(app.runner.create_volume(row.id.clone(), size_mib)).await {
            Err(e) if e.kind == RunnerErrorKind::Unavailable => {}
            other => return other,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    within(app.runner.create_volume(row.id.clone(), size_mib)).await
}

/// As long as it takes: sandboxes that named it may be on their way out.
async fn remove(app: &App, row: &VolumeRow) {
    let mut pause = PAUSE_FIRST;
    while let Err(e) = within(app.runner.remove_volume(row.id.clone())).await {
        tracing::debug!(volume = row.id, error = %e, "a volume cannot be removed yet");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn within<T>(verb: impl Future<Output = Result<T, RunnerError>>) -> Result<T, RunnerError> {
    let away = || RunnerError::new(RunnerErrorKind::Unavailable, "the runner did not answer in time");
    tokio::time::timeout(VERB_TIME_MAX, verb).await.unwrap_or_else(|_| Err(away()))
}

/// The caller's volume, by id or name, or 404.
pub async fn find(app: &App, caller: &Caller, id_or_name: &str) -> ApiResult<VolumeRow> {
    let by_id = app.store.volume(id_or_name).await?.filter(|row| row.organization_id == caller.organization());
    let found = match by_id.filter(|row| row.state != VolumeState::Deleted) {
        Some(row) => Some(row),
        None => app.store.volume_by_name(caller.organization(), id_or_name).await?,
    };
    found.ok_or_else(|| ApiError::not_found(format!("Volume with ID or name {id_or_name} not found")))
}

/// What a new sandbox is to mount: each volume is there and ready, and goes to a place that is its own.
pub async fn for_create(app: &App, caller: &Caller, wanted: Vec<SandboxVolume>) -> ApiResult<Vec<SandboxVolume>> {
    if wanted.len() > PER_SANDBOX_MAX {
        return Err(ApiError::bad_request(format!("A sandbox can mount {PER_SANDBOX_MAX} volumes at most")));
    }
    let mut places = HashSet::new();
    let mut used = Vec::new();
    for mount in wanted {
        let row = find(app, caller, &mount.volume_id).await?;
        if row.state != VolumeState::Ready {
            let state = row.state.as_str();
            return Err(ApiError::bad_request(format!("Volume {} is {state}, not ready; wait for it", row.name)));
        }
        check_mount_path(&mount.mount_path)?;
        if let Some(subpath) = &mount.subpath {
            check_subpath(subpath)?;
        }
        let mount_path = mount.mount_path.trim_end_matches('/').to_owned();
        if !places.insert(mount_path.clone()) {
            return Err(ApiError::bad_request(format!("Two volumes cannot both be mounted at {mount_path}")));
        }
        let subpath = mount.subpath.filter(|subpath| !subpath.is_empty());
        used.push(SandboxVolume { volume_id: row.id, mount_path, subpath });
    }
    if let Some(inner) = places.iter().find(|path| places.iter().any(|outer| path.starts_with(&format!("{outer}/")))) {
        return Err(ApiError::bad_request(format!("{inner} lies within another volume's mount path")));
    }
    Ok(used)
}

/// Notes the use of what a sandbox used.
pub async fn note_use(app: &App, used: &[SandboxVolume]) -> Result<(), StoreError> {
    for mount in used {
        app.store.volume_used(&mount.volume_id, now_ms()).await?;
        if let Some(row) = app.store.volume(&mount.volume_id).await? {
            app.events.volume_used(&row);
        }
    }
    Ok(())
}

fn check_mount_path(path: &str) -> ApiResult<()> {
    let bad = |why: &str| Err(ApiError::bad_request(format!("Invalid mount path {path:?}: {why}")));
    let Some(inner) = path.strip_prefix('/') else { return bad("it must be absolute") };
    let inner = inner.trim_end_matches('/');
    if inner.is_empty() {
        return bad("it must not be the root directory");
    }
    if path.len() > PATH_BYTES_MAX || path.contains('\0') {
        return bad("it is too long or holds a NUL character");
    }
    if path.contains("//") {
        return bad("it must not hold consecutive slashes");
    }
    if inner.split('/').any(|part| matches!(part, "." | "..")) {
        return bad("it must not hold . or ..");
    }
    let first = inner.split('/').next().unwrap_or_default();
    if RESERVED.contains(&first) {
        return bad("system directories cannot be mounted over");
    }
    Ok(())
}

fn check_subpath(path: &str) -> ApiResult<()> {
    let plain = path.split('/').all(|part| !matches!(part, "." | ".."));
    if path.starts_with('/') || path.contains("//") || path.contains('\0') || !plain || path.len() > PATH_BYTES_MAX {
        let message = format!("Invalid subpath {path:?}: it must be relative, without . or .. and consecutive slashes");
        return Err(ApiError::bad_request(message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_for_volumes() {
        for path in ["/data", "/home/daytona/data", "/mnt/a.b/..c", "/data/", "/libs", "/etcetera"] {
            assert!(check_mount_path(path).is_ok(), "{path}");
        }
        for path in ["", "data", "/", "//", "/a//b", "/a/../b", "/./a", "/proc", "/etc/x", "/lib64/", "/a\0b"] {
            assert!(check_mount_path(path).is_err(), "{path}");
        }
        for path in ["", "a", "a/b", "users/alice/", "..a"] {
            assert!(check_subpath(path).is_ok(), "{path}");
        }
        for path in ["/a", "a//b", "a/../b", "..", "."] {
            assert!(check_subpath(path).is_err(), "{path}");
        }
    }
}
