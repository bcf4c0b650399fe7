//! One task owns one sandbox's state while something is to do: plan, run the step, compare-and-set, again.
//!
//! Nothing lives only here: kill the process at any point and the row says what was wanted; waking the sandbox again
//! repeats the step, and every verb of a runner may be repeated. Knows no HTTP and no caller.

use super::plan::{Seen, Step, plan};
use crate::{clock::now_ms, names};
use infield_api::{
    SandboxId,
    runner::{ObservedState, Phase, Runner, RunnerError, RunnerErrorKind, Running, SandboxSpec},
    state::{DesiredState, SandboxState},
};
use infield_store::{Pair, SandboxRow, Settled, Store, StoreError};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How long a create or start goes on asking a runner that cannot be reached.
pub const UNAVAILABLE_WINDOW: Duration = Duration::from_secs(25);
/// One verb at most; a runner that takes longer counts as unreachable.
const VERB_TIME_MAX: Duration = Duration::from_secs(120);
/// Pauses between tries double from the first to the second.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
const MIB_PER_GIB: i64 = 1024;

/// Called with the id whenever a row has changed.
pub type OnChange = Arc<dyn Fn(SandboxId) + Send + Sync>;

pub struct Driver {
    store: Store,
    runner: Arc<dyn Runner>,
    on_change: OnChange,
    runs: Mutex<HashMap<SandboxId, Run>>,
}

/// A sandbox that has its task.
struct Run {
    /// Somebody woke it meanwhile: go round again, looking at the host if so asked.
    again: Option<Look>,
    outcome: watch::Sender<Option<Outcome>>,
}

/// Whether the host is asked before planning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    No,
    Yes,
}

/// Where a task left its sandbox.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// `None` when the row is gone.
    pub row: Option<SandboxRow>,
    /// Why create or start failed.
    pub failed: Option<RunnerErrorKind>,
    pub took: Option<Took>,
}

/// Where the time of a create or start went.
#[derive(Clone, Debug, Default)]
pub struct Took {
    pub runner_us: u64,
    pub phases: Vec<Phase>,
    pub store_us: u64,
}

pub type Waiting = watch::Receiver<Option<Outcome>>;

impl Driver {
    pub fn new(store: Store, runner: Arc<dyn Runner>, on_change: OnChange) -> Arc<Self> {
        Arc::new(Self { store, runner, on_change, runs: Mutex::new(HashMap::new()) })
    }

    /// Makes sure somebody works on the sandbox. `fresh` is the row if the caller just wrote it. The receiver gets the
    /// outcome once nothing is left to do.
    pub fn wake(self: &Arc<Self>, id: SandboxId, fresh: Option<SandboxRow>, look: Look) -> Waiting {
        let mut runs = self.lock();
        if let Some(run) = runs.get_mut(&id) {
            run.again = run.again.max(Some(look));
            return run.outcome.subscribe();
        }
        let (outcome, waiting) = watch::channel(None);
        runs.insert(id, Run { again: None, outcome });
        drop(runs);
        let driver = self.clone();
        tokio::spawn(async move { driver.run(id, fresh, look).await });
        waiting
    }

    /// The same for somebody who only suspects that there is work: a sandbox that has its task is left alone.
    pub fn nudge(self: &Arc<Self>, id: SandboxId, look: Look) {
        let busy = self.lock().contains_key(&id);
        if !busy {
            self.wake(id, None, look);
        }
    }

    async fn run(self: Arc<Self>, id: SandboxId, mut fresh: Option<SandboxRow>, mut look: Look) {
        let leave = Leave { driver: &self, id };
        loop {
            let outcome = self.round(id, fresh.take(), look).await;
            let mut runs = self.lock();
            match runs.get_mut(&id).and_then(|run| run.again.take()) {
                Some(again) => look = again,
                None => {
                    if let Some(run) = runs.remove(&id) {
                        run.outcome.send_replace(Some(outcome));
                    }
                    drop(runs);
                    std::mem::forget(leave);
                    return;
                }
            }
        }
    }

    /// Steps until there is nothing to do.
    async fn round(&self, id: SandboxId, fresh: Option<SandboxRow>, look: Look) -> Outcome {
        let mut outcome = Outcome { row: fresh, failed: None, took: None };
        if outcome.row.is_none() {
            outcome.row = self.read(id).await;
        }
        let mut seen = if look == Look::Yes { self.look(id).await } else { Seen::NotAsked };
        loop {
            let Some(row) = &outcome.row else { return outcome };
            let was = (row.state, row.desired);
            let step = plan(row.state, row.desired, &seen);
            seen = Seen::NotAsked;
            let (settled, failed, took) = match step {
                Step::Rest => return outcome,
                Step::Record { state, desired, reason, recoverable } => {
                    (Settled { recoverable, ..settled(state, desired, reason) }, None, None)
                }
                Step::Create | Step::Start => self.bring_up(row, &step).await,
                Step::Stop => (self.take_down(row).await, None, None),
                Step::Destroy => (self.destroy(row.id).await, None, None),
            };
            let began = Instant::now();
            let changed = self.write(row, was, settled).await;
            outcome.failed = failed;
            outcome.took = took.map(|took| Took { store_us: began.elapsed().as_micros() as u64, ..took });
            outcome.row = match changed {
                Some(row) => Some(row),
                None => self.read(id).await,
            };
        }
    }

    /// Create or start, patient with a runner that is restarting.
    async fn bring_up(&self, row: &SandboxRow, step: &Step) -> (Settled, Option<RunnerErrorKind>, Option<Took>) {
        let began = Instant::now();
        let verb = if *step == Step::Create { "creating" } else { "starting" };
        let mut pause = BACKOFF_FIRST;
        loop {
            let call = match step {
                Step::Create => self.runner.create(spec_of(row)),
                _ => self.runner.start(spec_of(row)),
            };
            let error = match tokio::time::timeout(VERB_TIME_MAX, call).await {
                Ok(Ok(running)) => return came_up(running, began),
                Ok(Err(error)) => error,
                Err(_) => RunnerError::new(RunnerErrorKind::Unavailable, "the runner did not answer in time"),
            };
            let unavailable = error.kind == RunnerErrorKind::Unavailable;
            if unavailable && began.elapsed() + pause < UNAVAILABLE_WINDOW {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF_MAX);
                continue;
            }
            let reason = match error.kind {
                RunnerErrorKind::Unavailable => format!("timeout while {verb} the sandbox: {error}"),
                RunnerErrorKind::NotFound if *step == Step::Start => {
                    format!("the sandbox's files are gone from its host: {error}")
                }
                _ => error.to_string(),
            };
            tracing::warn!(sandbox = %row.id, %reason, "{verb} failed");
            // A start that failed has left the files as they were.
            let recoverable = *step == Step::Start && error.kind != RunnerErrorKind::NotFound;
            let failed = settled(SandboxState::Error, DesiredState::Started, Some(reason));
            return (Settled { recoverable, ..failed }, Some(error.kind), None);
        }
    }

    /// Stop; as long as it takes.
    async fn take_down(&self, row: &SandboxRow) -> Settled {
        let mut pause = BACKOFF_FIRST;
        loop {
            let call = self.runner.stop(row.id, row.force_stop);
            match tokio::time::timeout(VERB_TIME_MAX, call).await {
                Ok(Ok(())) => return settled(SandboxState::Stopped, DesiredState::Stopped, None),
                Ok(Err(e)) if e.kind != RunnerErrorKind::Unavailable => {
                    tracing::warn!(sandbox = %row.id, error = %e, "stop failed");
                    return settled(SandboxState::Error, DesiredState::Stopped, Some(e.to_string()));
                }
                Ok(Err(_)) | Err(_) => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    /// Destroy; as long as it takes. Nothing else is left to happen to this sandbox.
    async fn destroy(&self, id: SandboxId) -> Settled {
        let mut pause = BACKOFF_FIRST;
        loop {
            match tokio::time::timeout(VERB_TIME_MAX, self.runner.destroy(id)).await {
                Ok(Ok(())) => return settled(SandboxState::Destroyed, DesiredState::Destroyed, None),
                Ok(Err(e)) if e.kind == RunnerErrorKind::NotFound => {
                    return settled(SandboxState::Destroyed, DesiredState::Destroyed, None);
                }
                Ok(Err(e)) => tracing::warn!(sandbox = %id, error = %e, "destroy failed; trying again"),
                Err(_) => tracing::warn!(sandbox = %id, "destroy took too long; trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    async fn look(&self, id: SandboxId) -> Seen {
        match tokio::time::timeout(VERB_TIME_MAX, self.runner.inspect(id)).await {
            Ok(Ok(observed)) => match observed.state {
                ObservedState::Running | ObservedState::Paused => Seen::Running,
                ObservedState::Stopped | ObservedState::Archived => Seen::Stopped,
                ObservedState::Failed { reason } => Seen::Failed(reason),
            },
            Ok(Err(e)) if e.kind == RunnerErrorKind::NotFound => Seen::Absent,
            Ok(Err(_)) | Err(_) => Seen::NotAsked,
        }
    }

    /// The row as it became, or `None` when somebody else changed it first.
    async fn write(&self, row: &SandboxRow, was: Pair, to: Settled) -> Option<SandboxRow> {
        let now = now_ms();
        let written = self.insist(|| self.store.settle(row.id, was, &to, now)).await;
        (self.on_change)(row.id);
        written.then(|| {
            let mut row = row.clone();
            if row.state != to.state {
                row.activity_ms = now;
            }
            if to.state == SandboxState::Destroyed {
                row.runner_id = None;
            }
            row.state = to.state;
            row.desired = to.desired;
            row.error_reason = to.reason;
            row.recoverable = to.recoverable;
            row.daemon_version = to.daemon_version.or(row.daemon_version);
            row.updated_ms = now;
            row
        })
    }

    async fn read(&self, id: SandboxId) -> Option<SandboxRow> {
        self.insist(|| self.store.sandbox(id)).await
    }

    /// A database that is away is waited for: the step has happened and has to be written.
    async fn insist<T, F>(&self, query: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut pause = BACKOFF_FIRST;
        loop {
            match query().await {
                Ok(found) => return found,
                // The next start finds the row as it was, and asks the host.
                Err(e) if e.is_closed() => return std::future::pending().await,
                Err(e) => tracing::error!(error = %e, "the database failed; trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frees the sandbox's place if its task is torn down (a panic, the runtime's end), so that it can be woken again.
struct Leave<'a> {
    driver: &'a Driver,
    id: SandboxId,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.driver.lock().remove(&self.id);
    }
}

fn settled(state: SandboxState, desired: DesiredState, reason: Option<String>) -> Settled {
    Settled { state, desired, reason, recoverable: false, daemon_version: None }
}

fn came_up(running: Running, began: Instant) -> (Settled, Option<RunnerErrorKind>, Option<Took>) {
    let mut settled = settled(SandboxState::Started, DesiredState::Started, None);
    settled.daemon_version = Some(running.agent_version);
    let runner_us = began.elapsed().as_micros() as u64;
    (settled, None, Some(Took { runner_us, phases: running.phases, store_us: 0 }))
}

/// What the host is told: platform variables first, then the user's, then identity.
fn spec_of(row: &SandboxRow) -> SandboxSpec {
    let mut env = std::collections::BTreeMap::from([
        ("DAYTONA_SANDBOX_ID".to_owned(), row.id.to_string()),
        ("DAYTONA_SANDBOX_SNAPSHOT".to_owned(), row.snapshot.clone()),
        ("DAYTONA_SANDBOX_USER".to_owned(), row.shown_user.clone()),
    ]);
    env.extend(row.env.clone());
    env.insert("DAYTONA_ORGANIZATION_ID".to_owned(), row.organization_id.clone());
    env.insert("DAYTONA_REGION_ID".to_owned(), row.target.clone());
    SandboxSpec {
        id: row.id,
        name: names::hostname(&row.name),
        image: row.image.clone(),
        user: row.run_as.clone(),
        env,
        labels: row.labels.clone(),
        cpu: u32::try_from(row.cpu).unwrap_or(1).max(1),
        memory_mib: u64::try_from(row.memory_gib * MIB_PER_GIB).unwrap_or(0),
        disk_mib: u64::try_from(row.disk_gib * MIB_PER_GIB).unwrap_or(0),
        network_block_all: row.network_block_all,
        entrypoint: row.entrypoint.clone(),
        volumes: vec![],
    }
}
