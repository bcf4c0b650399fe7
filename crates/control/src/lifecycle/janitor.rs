//! Time's own wishes: idle sandboxes stop, expired ones are deleted, rows long destroyed are forgotten.
//!
//! Takes no input and may be repeated at will; its period is its retry. Auto-archive is not built: such rows stay.

use super::commands;
use crate::{
    activity,
    app::App,
    clock::{DAY_MS, now_ms},
    error::ApiError,
    snapshots,
};
use std::time::Duration;

/// How often clocks are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Images imported on the host become snapshots this often at the latest.
const SYNC_EVERY_SWEEPS: u32 = 6;

/// Never ends.
pub async fn run(app: &App) {
    let mut sweeps: u32 = 0;
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        app.sweep(now_ms()).await;
        sweeps = sweeps.wrapping_add(1);
        if sweeps.is_multiple_of(SYNC_EVERY_SWEEPS)
            && let Err(e) = snapshots::sync(app).await
        {
            tracing::warn!(error = %e, "cannot list the host's images");
        }
    }
}

/// One look at every clock, as if it were `now`.
pub async fn sweep(app: &App, now: i64) -> Result<(), ApiError> {
    app.activity.flush(&app.store).await?;
    for row in app.store.idle_sandboxes(now).await? {
        tracing::info!(sandbox = %row.id, minutes = row.auto_stop_min, "stopping an idle sandbox");
        commands::intend_stop(app, row, false).await?;
    }
    for row in app.store.expired_sandboxes(now).await? {
        tracing::info!(sandbox = %row.id, minutes = row.auto_delete_min, "deleting an expired sandbox");
        commands::intend_destroy(app, row).await?;
    }
    app.store.purge_destroyed(now - DAY_MS).await?;
    app.store.purge_signed_previews(now).await?;
    app.store.keep_house().await?;
    Ok(())
}

/// Never ends.
pub async fn flush_activity(app: &App) {
    loop {
        tokio::time::sleep(activity::FLUSH_EVERY).await;
        if let Err(e) = app.activity.flush(&app.store).await {
            tracing::warn!(error = %e, "cannot write activity");
        }
    }
}
