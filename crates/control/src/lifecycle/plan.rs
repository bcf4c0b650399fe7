//! What to do next with one sandbox: a pure function of its row and of what the host sees.

use infield_api::state::{DesiredState, SandboxState};

/// What the host sees of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nobody looked: the row alone decides.
    NotAsked,
    Absent,
    Running,
    Paused,
    Stopped,
    Archived,
    Failed(String),
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do.
    Rest,
    Create,
    /// Also brings an archived one back.
    Start,
    Stop,
    Destroy,
    Pause,
    Resume,
    Archive,
    /// The three whose details the row's job holds; afterwards the sandbox is what it was before.
    Resize,
    Snapshot,
    Fork,
    /// The task of the sandbox it is forked from makes it.
    AwaitFork,
    /// Write down what happened without being asked for.
    Record {
        state: SandboxState,
        desired: DesiredState,
        reason: Option<String>,
        /// Of an error: its files are there, so it may be tried again.
        recoverable: bool,
    },
}

use DesiredState as D;
use SandboxState as S;

/// Total: every pair has an answer, and repeating steps until [`Step::Rest`] ends.
pub fn plan(state: SandboxState, desired: DesiredState, seen: &Seen) -> Step {
    match (desired, state) {
        (_, S::Destroyed) => Step::Rest,
        (D::Destroyed, _) => Step::Destroy,
        (_, S::Error | S::BuildFailed) => Step::Rest,
        (D::Started, S::Creating) => Step::Create,
        (D::Started, S::Unknown) => Step::AwaitFork,
        (D::Started, S::Stopped | S::Starting | S::Archived | S::Archiving | S::Restoring) => Step::Start,
        (D::Started, S::Paused | S::Resuming) => Step::Resume,
        (D::Started, S::Started) => started(seen),
        (D::Stopped, S::Started | S::Stopping | S::Pausing | S::Paused) => stopping(seen),
        (D::Stopped, S::Stopped) => stopped(seen),
        (D::Paused, S::Started | S::Pausing) => Step::Pause,
        (D::Paused, S::Paused) => paused(seen),
        (D::Archived, S::Stopped | S::Archiving) => Step::Archive,
        (D::Archived, S::Archived) => archived(seen),
        (D::Started | D::Stopped, S::Resizing) => Step::Resize,
        (D::Started | D::Stopped, S::Snapshotting) => Step::Snapshot,
        (D::Started | D::Stopped, S::Forking) => Step::Fork,
        _ => not_built(state, desired),
    }
}

/// It is meant to run and did run.
fn started(seen: &Seen) -> Step {
    match seen {
        Seen::NotAsked | Seen::Running => Step::Rest,
        Seen::Paused => became(S::Paused, D::Paused),
        // It ended by itself; its files are there.
        Seen::Stopped => became(S::Stopped, D::Stopped),
        Seen::Archived => became(S::Archived, D::Archived),
        Seen::Absent => failed(D::Started, "the sandbox vanished from its host"),
        Seen::Failed(reason) => broke(D::Started, reason),
    }
}

/// It is meant to stop and has not yet.
fn stopping(seen: &Seen) -> Step {
    match seen {
        Seen::Absent => failed(D::Stopped, "the sandbox vanished from its host"),
        _ => Step::Stop,
    }
}

/// It is meant to be stopped and was.
fn stopped(seen: &Seen) -> Step {
    match seen {
        Seen::Running | Seen::Paused => Step::Stop,
        Seen::Archived => became(S::Archived, D::Archived),
        Seen::Absent => failed(D::Stopped, "the sandbox's files vanished from its host"),
        Seen::NotAsked | Seen::Stopped | Seen::Failed(_) => Step::Rest,
    }
}

/// It is meant to be paused and was. (A resume whose answer was lost, or a restart of the host, has changed that.)
fn paused(seen: &Seen) -> Step {
    match seen {
        Seen::NotAsked | Seen::Paused => Step::Rest,
        Seen::Running => became(S::Started, D::Started),
        Seen::Stopped => became(S::Stopped, D::Stopped),
        Seen::Archived => became(S::Archived, D::Archived),
        Seen::Absent => failed(D::Stopped, "the sandbox vanished from its host"),
        Seen::Failed(reason) => broke(D::Stopped, reason),
    }
}

/// It is meant to be in the archive and was.
fn archived(seen: &Seen) -> Step {
    match seen {
        Seen::NotAsked | Seen::Archived => Step::Rest,
        Seen::Running => became(S::Started, D::Started),
        Seen::Paused => became(S::Paused, D::Paused),
        Seen::Stopped | Seen::Failed(_) => became(S::Stopped, D::Stopped),
        Seen::Absent => failed(D::Archived, "the sandbox's archive vanished from its host"),
    }
}

fn became(state: SandboxState, desired: DesiredState) -> Step {
    Step::Record { state, desired, reason: None, recoverable: false }
}

fn failed(desired: DesiredState, reason: &str) -> Step {
    Step::Record { state: S::Error, desired, reason: Some(reason.to_owned()), recoverable: false }
}

/// Its agent died; its files are kept.
fn broke(desired: DesiredState, reason: &str) -> Step {
    Step::Record { state: S::Error, desired, reason: Some(reason.to_owned()), recoverable: true }
}

/// A row written by a newer version, or by hand: never wedged, never guessed at.
fn not_built(state: SandboxState, desired: DesiredState) -> Step {
    let reason = format!("this server cannot bring a sandbox from {} to {}", state.as_str(), desired.as_str());
    let desired = match desired {
        D::Paused | D::Resized => D::Stopped,
        other => other,
    };
    failed(desired, &reason)
}
