//! Which states accept which operation, and how a stored pair is shown. Tables as total functions; the contract's codes.

use crate::error::{ApiError, ApiResult};
use infield_api::state::{DesiredState, SandboxState};
use infield_store::Pair;

/// An accepted operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    Go,
    /// Already so.
    Nothing,
}

/// The state clients see: the transition is visible as soon as it is wanted.
pub fn shown((state, desired): Pair) -> SandboxState {
    use SandboxState as S;
    match (state, desired) {
        (S::Started, DesiredState::Stopped) => S::Stopping,
        (S::Started, DesiredState::Destroyed) => S::Destroying,
        (S::Stopped, DesiredState::Started) => S::Starting,
        (S::Stopped, DesiredState::Archived) => S::Archiving,
        (S::Stopped, DesiredState::Destroyed) => S::Destroying,
        (S::Unknown, DesiredState::Started) => S::Creating,
        (other, _) => other,
    }
}

/// Whether a change is under way.
fn on_its_way((state, desired): Pair) -> bool {
    state.as_str() != desired.as_str()
}

/// Whether the driver has something to do: a failed sandbox rests, unless it is to be gone.
pub fn unsettled((state, desired): Pair) -> bool {
    on_its_way((state, desired)) && (!failed(state) || desired == DesiredState::Destroyed)
}

fn failed(state: SandboxState) -> bool {
    matches!(state, SandboxState::Error | SandboxState::BuildFailed)
}

pub fn start(pair: Pair) -> ApiResult<Accepted> {
    match pair {
        (state, _) if failed(state) => Err(in_error()),
        (SandboxState::Started, DesiredState::Started) => Ok(Accepted::Nothing),
        // An archiving that has not ended is given up.
        (SandboxState::Stopped | SandboxState::Archiving, DesiredState::Archived) => Ok(Accepted::Go),
        pair if on_its_way(pair) => Err(busy()),
        (SandboxState::Stopped | SandboxState::Archived | SandboxState::Paused, _) => Ok(Accepted::Go),
        _ => Err(ApiError::bad_request("Sandbox is not in a state it can be started from")),
    }
}

pub fn stop(pair: Pair) -> ApiResult<Accepted> {
    match pair {
        (state, _) if failed(state) => Err(in_error()),
        pair if on_its_way(pair) => Err(busy()),
        (SandboxState::Started | SandboxState::Paused, _) => Ok(Accepted::Go),
        _ => Err(ApiError::bad_request("Sandbox is not started")),
    }
}

pub fn pause(pair: Pair) -> ApiResult<()> {
    match pair.0 {
        SandboxState::Started => settled(pair),
        _ => Err(ApiError::bad_request("Sandbox is not started; only a started sandbox can be paused")),
    }
}

pub fn fork(pair: Pair) -> ApiResult<()> {
    match pair.0 {
        SandboxState::Started => settled(pair),
        _ => Err(ApiError::bad_request("Sandbox is not started; only a started sandbox can be forked")),
    }
}

pub fn archive(pair: Pair, ephemeral: bool) -> ApiResult<()> {
    match pair {
        (state, _) if failed(state) => Err(in_error()),
        pair if on_its_way(pair) => Err(busy()),
        (SandboxState::Stopped, _) if ephemeral => {
            Err(ApiError::bad_request("An ephemeral sandbox (autoDeleteInterval 0) cannot be archived"))
        }
        (SandboxState::Stopped, _) => Ok(()),
        _ => Err(ApiError::bad_request("Sandbox is not stopped; stop it before archiving it")),
    }
}

/// Resize, and snapshot from a sandbox.
pub fn started_or_stopped(pair: Pair, verb: &str) -> ApiResult<()> {
    match pair.0 {
        SandboxState::Started | SandboxState::Stopped => settled(pair),
        _ => Err(ApiError::bad_request(format!("Sandbox is neither started nor stopped; start it to {verb} it"))),
    }
}

pub fn recover(pair: Pair, recoverable: bool) -> ApiResult<()> {
    match pair {
        _ if !recoverable => Err(ApiError::bad_request("Sandbox is not recoverable")),
        (state, _) if !failed(state) => Err(ApiError::bad_request("Sandbox is not in an error state")),
        (_, DesiredState::Destroyed) => Err(busy()),
        _ => Ok(()),
    }
}

pub fn delete(pair: Pair) -> ApiResult<()> {
    match pair {
        (_, DesiredState::Destroyed) => Err(busy()),
        (SandboxState::PendingBuild, _) => Ok(()),
        pair if pending(pair) => Err(busy()),
        _ => Ok(()),
    }
}

fn settled(pair: Pair) -> ApiResult<()> {
    if pending(pair) { Err(busy()) } else { Ok(()) }
}

/// The contract's flag: a change is under way that other changes have to wait for.
fn pending(pair: Pair) -> bool {
    on_its_way(pair) && !failed(pair.0) && pair.1 != DesiredState::Archived
}

fn in_error() -> ApiError {
    ApiError::bad_request(
        "Sandbox is in an error state; recover it (POST .../recover) if it is recoverable, or delete it",
    )
}

pub fn busy() -> ApiError {
    ApiError::conflict("Sandbox state change in progress; wait for it to end")
}

#[cfg(test)]
mod tests {
    use super::*;
    use DesiredState as D;
    use SandboxState as S;

    #[test]
    fn operations_answer_as_the_contract_says() {
        let code = |r: ApiResult<Accepted>| r.map(|a| a == Accepted::Go).map_err(|e| e.status.as_u16());
        assert_eq!(code(start((S::Started, D::Started))), Ok(false));
        assert_eq!(code(start((S::Stopped, D::Stopped))), Ok(true));
        assert_eq!(code(start((S::Started, D::Stopped))), Err(409));
        assert_eq!(code(start((S::Error, D::Started))), Err(400));
        assert_eq!(code(stop((S::Stopped, D::Stopped))), Err(400));
        assert_eq!(code(stop((S::Creating, D::Started))), Err(409));
        assert_eq!(code(stop((S::Started, D::Started))), Ok(true));
        assert_eq!(code(start((S::Archiving, D::Archived))), Ok(true));
        assert_eq!(code(start((S::Archived, D::Archived))), Ok(true));
        assert_eq!(code(start((S::Paused, D::Paused))), Ok(true));
        assert_eq!(code(start((S::Pausing, D::Paused))), Err(409));
        assert_eq!(code(stop((S::Paused, D::Paused))), Ok(true));
        assert_eq!(code(stop((S::Archived, D::Archived))), Err(400));
        let code = |r: ApiResult<()>| r.map_err(|e| e.status.as_u16());
        assert_eq!(code(delete((S::Error, D::Started))), Ok(()));
        assert_eq!(code(delete((S::Creating, D::Started))), Err(409));
        assert_eq!(code(delete((S::Stopped, D::Stopped))), Ok(()));
        assert_eq!(code(delete((S::Stopped, D::Destroyed))), Err(409));
        assert_eq!(code(delete((S::Archiving, D::Archived))), Ok(()));
        assert_eq!(code(delete((S::Resizing, D::Started))), Err(409));
        assert_eq!(code(delete((S::PendingBuild, D::Started))), Ok(()));
        let recover = |pair, can| code(recover(pair, can));
        assert_eq!(recover((S::Error, D::Started), true), Ok(()));
        assert_eq!(recover((S::Error, D::Started), false), Err(400));
        assert_eq!(recover((S::Started, D::Started), true), Err(400));
        assert_eq!(recover((S::Error, D::Destroyed), true), Err(409));
        for operation in [pause, fork] {
            assert_eq!(code(operation((S::Started, D::Started))), Ok(()));
            assert_eq!(code(operation((S::Started, D::Stopped))), Err(409));
            assert_eq!(code(operation((S::Stopped, D::Stopped))), Err(400));
            assert_eq!(code(operation((S::Error, D::Started))), Err(400));
        }
        assert_eq!(code(archive((S::Stopped, D::Stopped), false)), Ok(()));
        assert_eq!(code(archive((S::Stopped, D::Stopped), true)), Err(400));
        assert_eq!(code(archive((S::Stopped, D::Started), true)), Err(409));
        assert_eq!(code(archive((S::Started, D::Started), false)), Err(400));
        assert_eq!(code(archive((S::Error, D::Started), false)), Err(400));
        assert_eq!(code(started_or_stopped((S::Stopped, D::Stopped), "resize")), Ok(()));
        assert_eq!(code(started_or_stopped((S::Started, D::Destroyed), "resize")), Err(409));
        assert_eq!(code(started_or_stopped((S::Paused, D::Paused), "resize")), Err(400));
    }
}
