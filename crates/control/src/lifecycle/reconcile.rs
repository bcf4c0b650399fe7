//! Makes rows and host agree: after a start for everything, then every few seconds for sandboxes that died by themselves.
//!
//! A difference is only a suspicion here: the sandbox's own task looks again, alone, before anything is written.

use super::{driver::Look, rules};
use crate::{app::App, snapshots, volumes};
use infield_api::{
    SandboxId,
    runner::{Observed, ObservedState, RunnerError, RunnerErrorKind},
    state::SandboxState,
};
use infield_store::StoreError;
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// How often the host is compared with the rows; also how soon a dead agent is noticed.
const COMPARE_EVERY: Duration = Duration::from_secs(3);
/// A runner that lists slower counts as away.
const LIST_TIME_MAX: Duration = Duration::from_secs(30);
/// Pause while the runner is away.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Never ends.
pub async fn run(app: &App) {
    while let Err(e) = at_start(app).await {
        tracing::warn!(error = %e, cause = cause(&e), "cannot reconcile with the host yet; trying again");
        tokio::time::sleep(RETRY_EVERY).await;
    }
    loop {
        tokio::time::sleep(COMPARE_EVERY).await;
        if let Err(e) = compare(app).await {
            tracing::warn!(error = %e, cause = cause(&e), "cannot compare with the host");
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error("the runner did not list its sandboxes")]
    Runner(#[source] RunnerError),
    #[error("the database failed")]
    Store(#[from] StoreError),
}

fn cause(e: &ReconcileError) -> String {
    std::error::Error::source(e).map(ToString::to_string).unwrap_or_default()
}

/// Wakes what was on its way, then compares, then catches up with images and pulls.
async fn at_start(app: &App) -> Result<(), ReconcileError> {
    for id in app.store.unsettled_sandboxes().await? {
        app.driver.wake(id, None, Look::No);
    }
    compare(app).await?;
    if let Err(e) = snapshots::sync(app).await {
        tracing::warn!(error = %e, "cannot list the host's images yet");
    }
    snapshots::resume_pulls(app).await?;
    volumes::resume(app).await?;
    Ok(())
}

fn slow() -> RunnerError {
    RunnerError::new(RunnerErrorKind::Unavailable, "the runner did not answer in time")
}

/// One comparison of every row with the host.
pub async fn compare(app: &App) -> Result<(), ReconcileError> {
    // The rows are read after the host: a row is always written before its sandbox is made, so what the host shows and
    // no row names is nobody's.
    let listed = tokio::time::timeout(LIST_TIME_MAX, app.runner.list()).await.unwrap_or_else(|_| Err(slow()));
    let listed = listed.map_err(ReconcileError::Runner)?;
    let known = app.store.known_sandboxes().await?;
    let seen: HashMap<SandboxId, &Observed> = listed.iter().map(|o| (o.id, o)).collect();
    for (id, pair) in &known {
        if rules::unsettled(*pair) {
            // Its task ended without reaching what is wanted: nothing may stay half-way.
            app.driver.nudge(*id, Look::No);
        } else if suspicious(pair.0, seen.get(id).copied()) {
            app.driver.nudge(*id, Look::Yes);
        }
    }
    let ids: HashSet<SandboxId> = known.iter().map(|(id, _)| *id).collect();
    let orphans: Vec<SandboxId> = listed.iter().map(|o| o.id).filter(|id| !ids.contains(id)).collect();
    destroy_orphans(app, &orphans).await
}

/// Whether a settled row and the host disagree.
fn suspicious(state: SandboxState, observed: Option<&Observed>) -> bool {
    use {ObservedState as O, SandboxState as S};
    match (state, observed.map(|o| &o.state)) {
        (S::Started, Some(O::Running)) | (S::Paused, Some(O::Paused)) | (S::Archived, Some(O::Archived)) => false,
        (S::Stopped, Some(O::Stopped | O::Failed { .. })) => false,
        (S::Started | S::Stopped | S::Paused | S::Archived, _) => true,
        _ => false,
    }
}

/// Sandboxes nobody has a row for are destroyed, unless the database looks like the wrong one.
async fn destroy_orphans(app: &App, orphans: &[SandboxId]) -> Result<(), ReconcileError> {
    if orphans.is_empty() {
        return Ok(());
    }
    if !app.store.any_sandbox().await? {
        tracing::error!(
            count = orphans.len(),
            "the host holds sandboxes but this database has never seen one: they are left alone. Is this the right \
             database? If it is, remove them on the host"
        );
        return Ok(());
    }
    for id in orphans {
        // Deleted between the two lists, most likely.
        if app.runner.inspect(*id).await.is_err() {
            continue;
        }
        tracing::warn!(sandbox = %id, "destroying a sandbox that no row names");
        if let Err(e) = app.runner.destroy(*id).await {
            tracing::warn!(sandbox = %id, error = %e, "cannot destroy it; trying again later");
        }
    }
    Ok(())
}
