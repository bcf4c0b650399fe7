//! What each step of a plan does on the host, and what the row becomes when it worked and when it did not.
//!
//! Every step ends in bounded time, except a destroy, which nothing may keep from ending well. Knows no HTTP and no caller.

use super::{
    driver::{BACKOFF_FIRST, BACKOFF_MAX, Driver, Look, Took},
    plan::Step,
    spec::spec_of,
};
use crate::{clock::now_ms, snapshots};
use infield_api::{
    runner::{RunnerError, RunnerErrorKind, RunnerFuture, Running},
    state::{DesiredState, SandboxState, SnapshotState},
};
use infield_store::{Change, Job, SandboxRow, SnapshotRow};
use std::time::Duration;
use tokio::time::Instant;

/// How long a verb goes on being asked of a runner that cannot be reached.
pub const UNAVAILABLE_WINDOW: Duration = Duration::from_secs(25);
/// The same for a stop, which nobody waits for.
const STOP_WINDOW: Duration = Duration::from_secs(300);
/// One verb at most; a runner that takes longer counts as unreachable.
const VERB_TIME_MAX: Duration = Duration::from_secs(120);
/// The same for verbs that move all files of a sandbox.
const COPY_TIME_MAX: Duration = Duration::from_secs(30 * 60);
/// How often a failing archive is tried before that is an error.
const ARCHIVE_TRIES: u32 = 3;

/// How a step ended.
pub struct Done {
    pub change: Change,
    pub failed: Option<RunnerError>,
    pub took: Option<Took>,
    pub look: Look,
}

impl Done {
    pub fn of(change: Change) -> Self {
        Self { change, failed: None, took: None, look: Look::No }
    }

    /// The verb failed; the host is asked what is the case now.
    fn failed(change: Change, error: RunnerError) -> Self {
        Self { change, failed: Some(error), took: None, look: Look::Yes }
    }
}

impl Driver {
    /// Runs a step that needs the host.
    pub(super) async fn perform(&self, row: &SandboxRow, step: &Step) -> Done {
        match step {
            Step::Create | Step::Start => self.bring_up(row, step).await,
            Step::Stop => self.take_down(row).await,
            Step::Destroy => self.destroy(row).await,
            Step::Pause => self.pause(row).await,
            Step::Resume => self.resume(row).await,
            Step::Archive => self.archive(row).await,
            Step::Resize => self.resize(row).await,
            Step::Snapshot => self.snapshot(row).await,
            Step::Fork => self.fork(row).await,
            // These need no host and are not given here.
            Step::Rest | Step::AwaitFork | Step::Record { .. } => Done::of(Change::to(row.state, row.desired)),
        }
    }

    /// Create or start, patient with a runner that is restarting.
    async fn bring_up(&self, row: &SandboxRow, step: &Step) -> Done {
        let began = Instant::now();
        let create = *step == Step::Create;
        let restoring = !matches!(row.state, SandboxState::Creating | SandboxState::Stopped | SandboxState::Starting);
        let verb = match (create, restoring) {
            (true, _) => "creating",
            (false, true) => "restoring",
            (false, false) => "starting",
        };
        let within = if restoring { COPY_TIME_MAX } else { VERB_TIME_MAX };
        let call = || if create { self.runner.create(spec_of(row)) } else { self.runner.start(spec_of(row)) };
        let error = match patient(UNAVAILABLE_WINDOW, within, call).await {
            Ok(running) => return came_up(running, began),
            Err(error) => error,
        };
        let reason = match error.kind {
            RunnerErrorKind::Unavailable => format!("timeout while {verb} the sandbox: {error}"),
            RunnerErrorKind::NotFound if !create => format!("the sandbox's files are gone from its host: {error}"),
            _ => error.to_string(),
        };
        tracing::warn!(sandbox = %row.id, %reason, "{verb} failed");
        // A start that failed has left the files as they were.
        let recoverable = !create && error.kind != RunnerErrorKind::NotFound;
        let change = failed(DesiredState::Started, reason, recoverable);
        Done { failed: Some(error), ..Done::of(change) }
    }

    async fn take_down(&self, row: &SandboxRow) -> Done {
        match patient(STOP_WINDOW, VERB_TIME_MAX, || self.runner.stop(row.id, row.force_stop)).await {
            Ok(()) => Done::of(Change::to(SandboxState::Stopped, DesiredState::Stopped)),
            Err(error) => {
                tracing::warn!(sandbox = %row.id, %error, "stop failed");
                let reason = match error.kind {
                    RunnerErrorKind::Unavailable => format!("timeout while stopping the sandbox: {error}"),
                    _ => error.to_string(),
                };
                let recoverable = error.kind != RunnerErrorKind::NotFound;
                let change = failed(DesiredState::Stopped, reason, recoverable);
                Done { failed: Some(error), ..Done::of(change) }
            }
        }
    }

    /// As long as it takes. Nothing else is left to happen to this sandbox.
    async fn destroy(&self, row: &SandboxRow) -> Done {
        let mut pause = BACKOFF_FIRST;
        loop {
            match tokio::time::timeout(VERB_TIME_MAX, self.runner.destroy(row.id)).await {
                Ok(Ok(())) => break,
                Ok(Err(e)) if e.kind == RunnerErrorKind::NotFound => break,
                Ok(Err(e)) => tracing::warn!(sandbox = %row.id, error = %e, "destroy failed; trying again"),
                Err(_) => tracing::warn!(sandbox = %row.id, "destroy took too long; trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
        Done::of(Change::to(SandboxState::Destroyed, DesiredState::Destroyed))
    }

    /// A sandbox that cannot be paused goes on running.
    async fn pause(&self, row: &SandboxRow) -> Done {
        match patient(UNAVAILABLE_WINDOW, VERB_TIME_MAX, || self.runner.pause(row.id)).await {
            Ok(()) => Done::of(Change::to(SandboxState::Paused, DesiredState::Paused)),
            Err(e) => Done::failed(Change::to(SandboxState::Started, DesiredState::Started), warned(row, "pause", e)),
        }
    }

    /// One that cannot be resumed stays paused, and may be stopped.
    async fn resume(&self, row: &SandboxRow) -> Done {
        match patient(UNAVAILABLE_WINDOW, VERB_TIME_MAX, || self.runner.resume(row.id)).await {
            Ok(()) => Done::of(Change::to(SandboxState::Started, DesiredState::Started)),
            Err(e) => Done::failed(Change::to(SandboxState::Paused, DesiredState::Paused), warned(row, "resume", e)),
        }
    }

    async fn archive(&self, row: &SandboxRow) -> Done {
        let mut tries = 0;
        let error = loop {
            match patient(UNAVAILABLE_WINDOW, COPY_TIME_MAX, || self.runner.archive(row.id)).await {
                Ok(()) => return Done::of(Change::to(SandboxState::Archived, DesiredState::Archived)),
                Err(e) => {
                    tries =
                        if passing(&e) && tries < ARCHIVE_TRIES { tries + 1 } else { break warned(row, "archive", e) }
                }
            }
            tokio::time::sleep(BACKOFF_MAX).await;
        };
        match error.kind {
            // It is stopped and whole, or the look that follows shows what else it is.
            RunnerErrorKind::Unsupported | RunnerErrorKind::Conflict | RunnerErrorKind::NotFound => {
                Done::failed(Change::to(SandboxState::Stopped, DesiredState::Stopped), error)
            }
            _ => {
                let reason = format!("the sandbox cannot be archived: {error}");
                Done { failed: Some(error), ..Done::of(failed(DesiredState::Archived, reason, true)) }
            }
        }
    }

    async fn resize(&self, row: &SandboxRow) -> Done {
        let back = Change::to(before(row.desired), row.desired);
        let Some(Job::Resize(size)) = row.job else { return Done::of(back) };
        let sized = SandboxRow { cpu: size.cpu, memory_gib: size.memory_gib, disk_gib: size.disk_gib, ..row.clone() };
        match patient(UNAVAILABLE_WINDOW, VERB_TIME_MAX, || self.runner.resize(spec_of(&sized))).await {
            Ok(()) => Done::of(Change { size: Some(size), ..back }),
            Err(e) => Done::failed(back, warned(row, "resize", e)),
        }
    }

    /// The snapshot's row first: once the sandbox is released nobody would come back to it.
    async fn snapshot(&self, row: &SandboxRow) -> Done {
        let back = Change::to(before(row.desired), row.desired);
        let Some(Job::Snapshot(id)) = &row.job else { return Done::of(back) };
        let made = self.insist(|| self.store.snapshot(id)).await;
        // Deleted meanwhile, or written before a crash.
        let Some(made) = made.filter(|made| made.state == SnapshotState::Snapshotting) else { return Done::of(back) };
        let call = || self.runner.snapshot(row.id, made.image_name.clone());
        match patient(UNAVAILABLE_WINDOW, COPY_TIME_MAX, call).await {
            Ok(image) => {
                let filled = snapshots::filled(made, &image, now_ms());
                self.insist(|| self.store.update_snapshot(&filled)).await;
                Done::of(back)
            }
            Err(e) => {
                let error_reason = Some(format!("cannot make an image of sandbox {}: {e}", row.id));
                let updated_ms = now_ms();
                let lost = SnapshotRow { state: SnapshotState::Error, error_reason, updated_ms, ..made };
                self.insist(|| self.store.update_snapshot(&lost)).await;
                Done::failed(back, warned(row, "snapshot", e))
            }
        }
    }

    /// The new sandbox's row first, for the same reason.
    async fn fork(&self, row: &SandboxRow) -> Done {
        let back = Change::to(before(row.desired), row.desired);
        let Some(Job::Fork(child)) = row.job else { return Done::of(back) };
        let child = self.read(child).await.filter(|child| child.state == SandboxState::Unknown);
        let Some(child) = child else { return Done::of(back) };
        let call = || self.runner.fork(row.id, spec_of(&child));
        match patient(UNAVAILABLE_WINDOW, COPY_TIME_MAX, call).await {
            Ok(running) => {
                let up = Change::to(SandboxState::Started, DesiredState::Started);
                self.write(&child, Change { daemon_version: Some(running.agent_version), ..up }).await;
                Done::of(back)
            }
            Err(e) => {
                let reason = format!("cannot fork sandbox {}: {e}", row.id);
                self.write(&child, failed(DesiredState::Started, reason, false)).await;
                Done::failed(back, warned(row, "fork", e))
            }
        }
    }
}

/// Asks again while the runner cannot be reached, for as long as `window`.
async fn patient<'a, T>(
    window: Duration,
    within: Duration,
    call: impl Fn() -> RunnerFuture<'a, T>,
) -> Result<T, RunnerError> {
    let began = Instant::now();
    let mut pause = BACKOFF_FIRST;
    loop {
        let error = match tokio::time::timeout(within, call()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => RunnerError::new(RunnerErrorKind::Unavailable, "the runner did not answer in time"),
        };
        if error.kind != RunnerErrorKind::Unavailable || began.elapsed() + pause >= window {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF_MAX);
    }
}

/// Whether trying again may help.
fn passing(error: &RunnerError) -> bool {
    matches!(error.kind, RunnerErrorKind::Unavailable | RunnerErrorKind::Internal | RunnerErrorKind::Exhausted)
}

/// What a sandbox was before it was resized, forked or turned into a snapshot.
fn before(desired: DesiredState) -> SandboxState {
    match desired {
        DesiredState::Stopped => SandboxState::Stopped,
        _ => SandboxState::Started,
    }
}

fn failed(desired: DesiredState, reason: String, recoverable: bool) -> Change {
    Change { reason: Some(reason), recoverable, ..Change::to(SandboxState::Error, desired) }
}

fn warned(row: &SandboxRow, verb: &str, error: RunnerError) -> RunnerError {
    tracing::warn!(sandbox = %row.id, %error, "{verb} failed");
    error
}

fn came_up(running: Running, began: Instant) -> Done {
    let up = Change::to(SandboxState::Started, DesiredState::Started);
    let runner_us = began.elapsed().as_micros() as u64;
    let took = Some(Took { runner_us, phases: running.phases, store_us: 0 });
    Done { took, ..Done::of(Change { daemon_version: Some(running.agent_version), ..up }) }
}
