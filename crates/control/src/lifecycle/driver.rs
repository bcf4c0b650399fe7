//! One task owns one sandbox's state while something is to do: plan, run the step, compare-and-set, again.
//!
//! Nothing lives only here: kill the process at any point and the row says what was wanted; waking the sandbox again
//! repeats the step, and every verb of a runner may be repeated. What a step does is in [`super::steps`].

use super::{
    plan::{Seen, Step, plan},
    steps::Done,
};
use crate::clock::now_ms;
use infield_api::{
    SandboxId,
    runner::{ObservedState, Phase, Runner, RunnerError, RunnerErrorKind},
    state::{DesiredState, SandboxState},
};
use infield_store::{Change, Job, Pair, SandboxRow, Store, StoreError, allowed};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// An inspection that takes longer counts as no answer.
const LOOK_TIME_MAX: Duration = Duration::from_secs(120);
/// Pauses between tries double from the first to the second.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(50);
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Called with the id whenever a row has changed.
pub type OnChange = Arc<dyn Fn(SandboxId) + Send + Sync>;

pub struct Driver {
    pub(super) store: Store,
    pub(super) runner: Arc<dyn Runner>,
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
    /// Why the last verb failed.
    pub failed: Option<RunnerError>,
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
    async fn round(self: &Arc<Self>, id: SandboxId, fresh: Option<SandboxRow>, look: Look) -> Outcome {
        let mut outcome = Outcome { row: fresh, failed: None, took: None };
        if outcome.row.is_none() {
            outcome.row = self.read(id).await;
        }
        let mut look = look;
        loop {
            let Some(row) = &outcome.row else { return outcome };
            let seen = if look == Look::Yes { self.look(id).await } else { Seen::NotAsked };
            let step = plan(row.state, row.desired, &seen);
            let done = match step {
                Step::Rest => return outcome,
                Step::Record { state, desired, reason, recoverable } => {
                    Done::of(Change { reason, recoverable, ..Change::to(state, desired) })
                }
                Step::AwaitFork => match self.orphaned(row).await {
                    Some(done) => done,
                    None => return outcome,
                },
                step => self.perform(row, &step).await,
            };
            let began = Instant::now();
            let changed = self.write(row, done.change).await;
            // A verb that failed may have had its effect all the same: what the host shows is what counts.
            look = done.look;
            outcome.failed = done.failed.or(outcome.failed);
            outcome.took = done.took.map(|took| Took { store_us: began.elapsed().as_micros() as u64, ..took });
            outcome.row = match changed {
                Some(row) => Some(row),
                None => self.read(id).await,
            };
        }
    }

    /// A new sandbox whose parent is still at it is left to the parent's task; one that nobody makes any more has failed.
    async fn orphaned(self: &Arc<Self>, row: &SandboxRow) -> Option<Done> {
        if let Some(parent) = row.parent_id
            && let Some(parent) = self.read(parent).await
            && parent.state == SandboxState::Forking
            && parent.job == Some(Job::Fork(row.id))
        {
            self.nudge(parent.id, Look::No);
            return None;
        }
        // Its parent may have finished between the two reads.
        let again = self.read(row.id).await;
        if again.is_none_or(|again| (again.state, again.desired) != (row.state, row.desired)) {
            return None;
        }
        let reason = Some("the sandbox it was to be forked from did not finish the fork; fork it again".to_owned());
        Some(Done::of(Change { reason, ..Change::to(SandboxState::Error, DesiredState::Started) }))
    }

    async fn look(&self, id: SandboxId) -> Seen {
        match tokio::time::timeout(LOOK_TIME_MAX, self.runner.inspect(id)).await {
            Ok(Ok(observed)) => match observed.state {
                ObservedState::Running => Seen::Running,
                ObservedState::Paused => Seen::Paused,
                ObservedState::Stopped => Seen::Stopped,
                ObservedState::Archived => Seen::Archived,
                ObservedState::Failed { reason } => Seen::Failed(reason),
            },
            Ok(Err(e)) if e.kind == RunnerErrorKind::NotFound => Seen::Absent,
            Ok(Err(_)) | Err(_) => Seen::NotAsked,
        }
    }

    /// The row as it became, or `None` when somebody else changed it first.
    pub(super) async fn write(&self, row: &SandboxRow, to: Change) -> Option<SandboxRow> {
        let to = possible(row, to);
        let (was, now): (Pair, i64) = ((row.state, row.desired), now_ms());
        let written = self.insist(|| self.store.change(row.id, was, &to, now)).await;
        (self.on_change)(row.id);
        written.then(|| to.applied(row.clone(), now))
    }

    pub(super) async fn read(&self, id: SandboxId) -> Option<SandboxRow> {
        self.insist(|| self.store.sandbox(id)).await
    }

    /// A database that is away is waited for: the step has happened and has to be written.
    pub(super) async fn insist<T, F>(&self, query: impl Fn() -> F) -> T
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

/// A bug may not wedge a sandbox: what the contract's table does not have becomes an error that can be deleted.
fn possible(row: &SandboxRow, to: Change) -> Change {
    if allowed(to.pair()) {
        return to;
    }
    let (state, desired) = (to.state.as_str(), to.desired.as_str());
    tracing::error!(sandbox = %row.id, state, desired, "a step ended in an impossible pair");
    let reason = Some(format!("internal error: the sandbox cannot be {state} and wanted {desired}"));
    Change { reason, recoverable: true, ..Change::to(SandboxState::Error, DesiredState::Stopped) }
}
