//! Snapshots: every image somebody put on the host is one, visible to all; callers add their own by naming an image to pull.
//! A pulled image is theirs alone, and goes when the last snapshot of it is deleted.

use crate::{
    app::App,
    cache::Cache,
    clock::{MINUTE_MS, now_ms},
    error::{ApiError, ApiResult},
};
use infield_api::{
    runner::{ImageInfo, PullImage, RunnerError, RunnerErrorKind},
    state::SnapshotState,
};
use infield_store::{SnapshotRow, StoreError};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, RwLock},
    time::Instant,
};
use uuid::Uuid;

/// How long a looked-up snapshot is trusted; changes made here end that at once.
const LOOKUP_CACHE: Duration = Duration::from_secs(5);
/// The host's images are asked for again at most this often when a name is unknown.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// A runner that lists its images slower counts as away.
const IMAGES_TIME_MAX: Duration = Duration::from_secs(5);
/// One pull at most.
const PULL_TIME_MAX: Duration = Duration::from_secs(60 * 60);
/// What a sandbox gets when the snapshot says nothing else.
pub const DEFAULT_CPU: i64 = 1;
pub const DEFAULT_MEMORY_GIB: i64 = 1;
pub const DEFAULT_DISK_GIB: i64 = 3;

pub struct Snapshots {
    found: Cache<(String, String), Arc<SnapshotRow>>,
    /// When the host was last asked for its images. Held while asking, so that callers that come meanwhile wait for the
    /// same answer.
    synced: Mutex<Option<Instant>>,
    /// Read by whoever pulls, written by whoever takes pulled images away.
    pulls: RwLock<()>,
}

impl Snapshots {
    pub fn new() -> Self {
        Self { found: Cache::new(LOOKUP_CACHE), synced: Mutex::default(), pulls: RwLock::default() }
    }

    pub fn forget(&self) {
        self.found.clear();
    }
}

/// The snapshot a new sandbox is made from: active, or the contract's 400.
pub async fn for_create(app: &App, organization: &str, wanted: Option<&str>) -> ApiResult<Arc<SnapshotRow>> {
    let name = wanted.map(str::trim).filter(|name| !name.is_empty()).unwrap_or(&app.config.default_snapshot);
    let key = (organization.to_owned(), name.to_owned());
    if let Some(found) = app.snapshots.found.get(&key) {
        return Ok(found);
    }
    let mut found = app.store.find_snapshot(organization, name).await?;
    if found.is_none() {
        // An image may have been imported on the host a moment ago.
        refresh(app).await;
        found = app.store.find_snapshot(organization, name).await?;
    }
    let Some(found) = found else {
        let hint = "GET /snapshots lists them; `infield setup` makes the default one";
        return Err(ApiError::bad_request(format!("Snapshot {name} not found; {hint}")));
    };
    if found.state != SnapshotState::Active || found.image.is_none() {
        let state = found.state.as_str();
        return Err(ApiError::bad_request(format!("Snapshot {name} is {state}, not active; wait or choose another")));
    }
    let found = Arc::new(found);
    app.snapshots.found.put(key, found.clone());
    note_use(app, &found);
    Ok(found)
}

/// Asks the host for its images unless somebody just did.
async fn refresh(app: &App) {
    let mut synced = app.snapshots.synced.lock().await;
    if synced.is_some_and(|at| at.elapsed() < SYNC_EVERY) {
        return;
    }
    if let Err(e) = sync(app).await {
        tracing::warn!(error = %e, "cannot ask the host for its images");
    }
    *synced = Some(Instant::now());
}

/// Notes the use, off the caller's path; the cache's time bounds how often it comes here.
fn note_use(app: &App, snapshot: &SnapshotRow) {
    let now = now_ms();
    if snapshot.last_used_ms.is_some_and(|at| now - at < MINUTE_MS) {
        return;
    }
    let (app, id) = (app.clone(), snapshot.id.clone());
    tokio::spawn(async move {
        if let Err(e) = app.store.snapshot_used(&id, now).await {
            tracing::warn!(error = %e, snapshot = id, "cannot note the use of a snapshot");
        }
    });
}

#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("the runner did not answer about its images")]
    Runner(#[source] RunnerError),
    #[error("the database failed")]
    Store(#[from] StoreError),
}

/// Makes the general snapshots equal to the names the host's operator gave its images, and takes pulled images away that no
/// snapshot needs.
pub async fn sync(app: &App) -> Result<(), SyncError> {
    let images = tokio::time::timeout(IMAGES_TIME_MAX, app.runner.images())
        .await
        .unwrap_or_else(|_| Err(RunnerError::new(RunnerErrorKind::Unavailable, "the runner did not answer in time")));
    let images = images.map_err(SyncError::Runner)?;
    let mut wanted: HashMap<&str, &ImageInfo> = HashMap::new();
    for image in &images {
        wanted.extend(image.references.iter().map(|reference| (reference.as_str(), image)));
    }
    let mut changed = false;
    for row in app.store.general_snapshots().await? {
        match wanted.remove(row.name.as_str()) {
            Some(image) if row.image.as_deref() == Some(&image.id) && row.state == SnapshotState::Active => {}
            Some(image) => {
                app.store.update_snapshot(&filled(row, image, now_ms())).await?;
                changed = true;
            }
            None => {
                app.store.delete_snapshot(&row.id).await?;
                changed = true;
            }
        }
    }
    for (reference, image) in wanted {
        match app.store.insert_snapshot(&filled(general(reference), image, now_ms())).await {
            // Another server on the same database was quicker.
            Ok(()) | Err(StoreError::NameTaken) => changed = true,
            Err(e) => return Err(e.into()),
        }
    }
    if changed {
        app.snapshots.forget();
    }
    release(app, &images).await
}

/// After a snapshot was deleted: takes its image away if it was the last one of it. Sandboxes made from it go on.
pub fn sync_soon(app: &App) {
    let app = app.clone();
    tokio::spawn(async move {
        if let Err(e) = sync(&app).await {
            tracing::warn!(error = %e, "cannot take the image of a deleted snapshot away; trying again later");
        }
    });
}

/// Takes away what was pulled for snapshots that are gone. Not while something is pulled, whose snapshot names no image yet;
/// the end of that comes here again.
async fn release(app: &App, images: &[ImageInfo]) -> Result<(), SyncError> {
    let Ok(_alone) = app.snapshots.pulls.try_write() else { return Ok(()) };
    for image in images.iter().filter(|image| !image.pulled.is_empty()) {
        if app.store.snapshots_of_image(&image.id).await?.iter().all(|row| row.general) {
            for name in &image.pulled {
                // A sandbox is being turned into it; the end of that names the image.
                if !app.store.snapshots_made_of(name).await?.is_empty() {
                    continue;
                }
                app.runner.release_image(name.clone()).await.map_err(SyncError::Runner)?;
            }
        }
    }
    Ok(())
}

/// A general snapshot before its image is known.
fn general(reference: &str) -> SnapshotRow {
    let now = now_ms();
    SnapshotRow {
        id: Uuid::new_v4().to_string(),
        organization_id: String::new(),
        name: reference.to_owned(),
        general: true,
        image_name: reference.to_owned(),
        state: SnapshotState::Pending,
        size_bytes: None,
        entrypoint: None,
        cpu: DEFAULT_CPU,
        memory_gib: DEFAULT_MEMORY_GIB,
        disk_gib: DEFAULT_DISK_GIB,
        error_reason: None,
        image: None,
        image_user: None,
        last_used_ms: None,
        created_ms: now,
        updated_ms: now,
        source_sandbox_id: None,
    }
}

/// The row with what the image tells. An entrypoint the caller gave stays.
pub(crate) fn filled(row: SnapshotRow, image: &ImageInfo, now: i64) -> SnapshotRow {
    SnapshotRow {
        state: SnapshotState::Active,
        size_bytes: i64::try_from(image.size_bytes).ok(),
        error_reason: None,
        image: Some(image.id.clone()),
        image_user: image.user.clone().filter(|user| !user.is_empty()),
        updated_ms: now,
        ..row
    }
}

/// Pulls the image of a new snapshot in the background: pending, pulling, then active or error.
pub fn pull(app: &App, row: SnapshotRow) {
    let app = app.clone();
    tokio::spawn(async move {
        if let Err(e) = pull_now(&app, row).await {
            tracing::error!(error = %e, "cannot write down a pulled snapshot");
        }
        app.snapshots.forget();
    });
}

async fn pull_now(app: &App, mut row: SnapshotRow) -> Result<(), StoreError> {
    let pulling = app.snapshots.pulls.read().await;
    let was = std::mem::replace(&mut row.state, SnapshotState::Pulling);
    row.updated_ms = now_ms();
    app.store.update_snapshot(&row).await?;
    app.events.snapshot_state(&row, was);
    let pull = PullImage { reference: row.image_name.clone(), username: None, password: None };
    let pulled = tokio::time::timeout(PULL_TIME_MAX, app.runner.pull_image(pull)).await;
    let row = match pulled {
        Ok(Ok(image)) => filled(row, &image, now_ms()),
        Ok(Err(e)) => failed(row, format!("cannot pull the image: {e}")),
        Err(_) => failed(row, "timeout while pulling the image".to_owned()),
    };
    app.store.update_snapshot(&row).await?;
    app.events.snapshot_state(&row, SnapshotState::Pulling);
    drop(pulling);
    if let Err(e) = sync(app).await {
        tracing::warn!(error = %e, "cannot list the host's images after a pull");
    }
    Ok(())
}

fn failed(row: SnapshotRow, reason: String) -> SnapshotRow {
    SnapshotRow { state: SnapshotState::Error, error_reason: Some(reason), updated_ms: now_ms(), ..row }
}

/// After a restart: pulls that were cut off begin again.
pub async fn resume_pulls(app: &App) -> Result<(), StoreError> {
    for row in app.store.snapshots_in([SnapshotState::Pending, SnapshotState::Pulling]).await? {
        pull(app, row);
    }
    Ok(())
}
