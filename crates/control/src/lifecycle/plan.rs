//! What to do next with one sandbox: a pure function of its row and of what the host sees.

use infield_api::state::{DesiredState, SandboxState};

/// What the host sees of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nobody looked: the row alone decides.
    NotAsked,
    Absent,
    Running,
    Stopped,
    Failed(String),
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do.
    Rest,
    Create,
    Start,
    Stop,
    Destroy,
    /// Write down what happened without being asked for.
    Record {
        state: SandboxState,
        desired: DesiredState,
        reason: Option<String>,
        /// Of an error: its files are there, so it may be tried again.
        recoverable: bool,
    },
}

/// Total: every pair has an answer, and repeating steps until [`Step::Rest`] ends.
pub fn plan(state: SandboxState, desired: DesiredState, seen: &Seen) -> Step {
    use SandboxState as S;
    match desired {
        DesiredState::Destroyed => match state {
            S::Destroyed => Step::Rest,
            _ => Step::Destroy,
        },
        DesiredState::Started => match state {
            S::Creating | S::Unknown => Step::Create,
            S::Stopped | S::Starting => Step::Start,
            S::Started => started(seen),
            S::Error | S::BuildFailed | S::Destroyed => Step::Rest,
            _ => not_built(state, desired),
        },
        DesiredState::Stopped => match state {
            S::Started | S::Stopping => stopping(seen),
            S::Stopped => stopped(seen),
            S::Error | S::BuildFailed | S::Destroyed => Step::Rest,
            _ => not_built(state, desired),
        },
        DesiredState::Resized | DesiredState::Archived | DesiredState::Paused => match state {
            S::Error | S::BuildFailed | S::Destroyed => Step::Rest,
            _ => not_built(state, desired),
        },
    }
}

/// It is meant to run and did run.
fn started(seen: &Seen) -> Step {
    match seen {
        Seen::NotAsked | Seen::Running => Step::Rest,
        // It ended by itself; its files are there.
        Seen::Stopped => came_to_rest(),
        Seen::Absent => failed(DesiredState::Started, "the sandbox vanished from its host"),
        Seen::Failed(reason) => Step::Record {
            state: SandboxState::Error,
            desired: DesiredState::Started,
            reason: Some(reason.clone()),
            recoverable: true,
        },
    }
}

/// It is meant to stop and has not yet.
fn stopping(seen: &Seen) -> Step {
    match seen {
        Seen::Absent => failed(DesiredState::Stopped, "the sandbox vanished from its host"),
        Seen::NotAsked | Seen::Running | Seen::Stopped | Seen::Failed(_) => Step::Stop,
    }
}

/// It is meant to be stopped and was.
fn stopped(seen: &Seen) -> Step {
    match seen {
        Seen::Running => Step::Stop,
        Seen::Absent => failed(DesiredState::Stopped, "the sandbox's files vanished from its host"),
        Seen::NotAsked | Seen::Stopped | Seen::Failed(_) => Step::Rest,
    }
}

fn failed(desired: DesiredState, reason: &str) -> Step {
    Step::Record { state: SandboxState::Error, desired, reason: Some(reason.to_owned()), recoverable: false }
}

fn came_to_rest() -> Step {
    let (state, desired) = (SandboxState::Stopped, DesiredState::Stopped);
    Step::Record { state, desired, reason: None, recoverable: false }
}

/// A row written by a newer version, or by hand: never wedged, never guessed at.
fn not_built(state: SandboxState, desired: DesiredState) -> Step {
    let reason = format!("this server cannot bring a sandbox from {} to {}", state.as_str(), desired.as_str());
    failed(desired, &reason)
}
