//! Time's own wishes: idle sandboxes stop or pause, stopped ones are archived or deleted, lives end, usage is cut into days,
//! rows long destroyed are forgotten.
//!
//! Takes no input and may be repeated at will; its period is its retry.

use super::commands;
use crate::{
    activity,
    app::App,
    clock::{DAY_MS, now_ms},
    error::ApiError,
    snapshots,
};
use infield_api::state::{DesiredState, SandboxState};
use infield_store::{Change, SandboxRow, Wish};
use std::time::Duration;

/// How often clocks are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Images imported on the host become snapshots this often at the latest.
const SYNC_EVERY_SWEEPS: u32 = 6;
/// The end of a life first: what is to be gone need not stop.
const WISHES: [Wish; 6] = [Wish::EndOfLife, Wish::FollowLink, Wish::Delete, Wish::Stop, Wish::Pause, Wish::Archive];

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
    for wish in WISHES {
        for row in app.store.due_sandboxes(wish, now).await? {
            tracing::info!(sandbox = %row.id, ?wish, "a sandbox's time has come");
            fulfil(app, wish, row).await?;
        }
    }
    app.store.split_usage(now).await?;
    app.store.purge_destroyed(now - DAY_MS).await?;
    app.store.purge_signed_previews(now).await?;
    app.store.purge_ssh_access(now).await?;
    app.store.keep_house().await?;
    Ok(())
}

/// What cannot be now, or somebody else is changing, is due again at the next sweep.
async fn fulfil(app: &App, wish: Wish, row: SandboxRow) -> Result<(), ApiError> {
    match wish {
        Wish::Stop => commands::intend_stop(app, row, false).await.map(|_| ()),
        Wish::Pause => {
            let to = Change::to(SandboxState::Pausing, DesiredState::Paused);
            commands::try_change(app, row, to).await.map(|_| ())
        }
        Wish::Archive => {
            let to = Change::to(SandboxState::Archiving, DesiredState::Archived);
            commands::try_change(app, row, to).await.map(|_| ())
        }
        Wish::Delete | Wish::EndOfLife | Wish::FollowLink => commands::intend_destroy(app, row).await.map(|_| ()),
    }
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
