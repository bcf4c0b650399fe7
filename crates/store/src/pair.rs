//! The contract's table of (state, desired state): which pairs a row may hold, and what each of them costs.
//!
//! Data, checked on every write. Knows no SQL and no operation.

use infield_api::state::{DesiredState, SandboxState};

/// Where a sandbox is and where it is meant to be; what a change expects to find.
pub type Pair = (SandboxState, DesiredState);

use DesiredState as D;
use SandboxState as S;

/// Any pair that is not here is a programming error.
pub const ALLOWED: [(DesiredState, &[SandboxState]); 5] = [
    (
        D::Started,
        &[
            S::Started,
            S::Stopped,
            S::Starting,
            S::Archived,
            S::Creating,
            S::Unknown,
            S::Restoring,
            S::PendingBuild,
            S::BuildingSnapshot,
            S::PullingSnapshot,
            S::Archiving,
            S::Error,
            S::BuildFailed,
            S::Resizing,
            S::Snapshotting,
            S::Forking,
            S::Paused,
            S::Resuming,
        ],
    ),
    (
        D::Stopped,
        &[
            S::Started,
            S::Stopping,
            S::Stopped,
            S::Error,
            S::BuildFailed,
            S::Resizing,
            S::Snapshotting,
            S::Forking,
            S::Paused,
            S::Pausing,
        ],
    ),
    (D::Archived, &[S::Archived, S::Archiving, S::Stopped, S::Error, S::BuildFailed]),
    (
        D::Destroyed,
        &[
            S::Destroyed,
            S::Destroying,
            S::Stopped,
            S::Started,
            S::Archived,
            S::Error,
            S::BuildFailed,
            S::Archiving,
            S::PendingBuild,
            S::Paused,
        ],
    ),
    (D::Paused, &[S::Started, S::Pausing, S::Paused]),
];

pub fn allowed((state, desired): Pair) -> bool {
    ALLOWED.iter().any(|(wanted, states)| *wanted == desired && states.contains(&state))
}

/// What is billed while a row holds a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metered {
    Nothing,
    Disk,
    /// Processors, memory and disk.
    Full,
    /// Whatever was billed before.
    AsBefore,
}

pub fn metered((state, desired): Pair) -> Metered {
    match (state, desired) {
        (_, D::Destroyed) => Metered::Nothing,
        (S::Started, D::Started) => Metered::Full,
        (S::Started | S::Stopping | S::Stopped | S::Pausing | S::Paused | S::Archiving, _) => Metered::Disk,
        (S::Archived | S::Error | S::BuildFailed | S::Destroying | S::Destroyed, _) => Metered::Nothing,
        _ => Metered::AsBefore,
    }
}
