//! Which states accept which operation, and how a stored pair is shown. Tables as total functions; the contract's codes.

use crate::error::{ApiError, ApiResult};
use axum::http::StatusCode;
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
        (state, _) if failed(state) => Err(ApiError::bad_request(
            "Sandbox is in an error state; recover it (POST .../recover) if it is recoverable, or delete it",
        )),
        (SandboxState::Started, DesiredState::Started) => Ok(Accepted::Nothing),
        pair if on_its_way(pair) => Err(busy()),
        (SandboxState::Stopped, _) => Ok(Accepted::Go),
        (SandboxState::Paused, _) => Err(wrong_class("resume")),
        _ => Err(ApiError::bad_request("Sandbox is not in a state it can be started from")),
    }
}

pub fn stop(pair: Pair) -> ApiResult<Accepted> {
    match pair {
        (state, _) if failed(state) => Err(ApiError::bad_request(
            "Sandbox is in an error state; recover it (POST .../recover) if it is recoverable, or delete it",
        )),
        pair if on_its_way(pair) => Err(busy()),
        (SandboxState::Started, _) => Ok(Accepted::Go),
        _ => Err(ApiError::bad_request("Sandbox is not started")),
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

pub fn delete(pair: Pair) -> ApiResult<Accepted> {
    match pair {
        (_, DesiredState::Destroyed) => Err(busy()),
        (state, _) if failed(state) => Ok(Accepted::Go),
        pair if on_its_way(pair) => Err(busy()),
        _ => Ok(Accepted::Go),
    }
}

/// Only machines with an own kernel can be paused or forked.
pub fn wrong_class(verb: &str) -> ApiError {
    let message = format!("Cannot {verb} a sandbox of class container");
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message)
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
        assert_eq!(code(delete((S::Error, D::Started))), Ok(true));
        let code_of_recover = |pair, can| recover(pair, can).map_err(|e| e.status.as_u16());
        assert_eq!(code_of_recover((S::Error, D::Started), true), Ok(()));
        assert_eq!(code_of_recover((S::Error, D::Started), false), Err(400));
        assert_eq!(code_of_recover((S::Started, D::Started), true), Err(400));
        assert_eq!(code_of_recover((S::Error, D::Destroyed), true), Err(409));
        assert_eq!(code(delete((S::Creating, D::Started))), Err(409));
        assert_eq!(code(delete((S::Stopped, D::Stopped))), Ok(true));
        assert_eq!(code(delete((S::Stopped, D::Destroyed))), Err(409));
    }
}
