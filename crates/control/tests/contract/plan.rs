//! Property: from any row and any host, planning and doing ends, and what is wanted gone goes.

use infield_api::state::{DesiredState, SandboxState};
use infield_control::plan::{Seen, Step, plan};
use infield_store::allowed;
use proptest::prelude::*;

const STATES: [SandboxState; 22] = [
    SandboxState::Creating,
    SandboxState::Restoring,
    SandboxState::Destroyed,
    SandboxState::Destroying,
    SandboxState::Started,
    SandboxState::Stopped,
    SandboxState::Starting,
    SandboxState::Stopping,
    SandboxState::Error,
    SandboxState::BuildFailed,
    SandboxState::PendingBuild,
    SandboxState::BuildingSnapshot,
    SandboxState::Unknown,
    SandboxState::PullingSnapshot,
    SandboxState::Archived,
    SandboxState::Archiving,
    SandboxState::Resizing,
    SandboxState::Snapshotting,
    SandboxState::Forking,
    SandboxState::Pausing,
    SandboxState::Paused,
    SandboxState::Resuming,
];
const DESIRED: [DesiredState; 6] = [
    DesiredState::Destroyed,
    DesiredState::Started,
    DesiredState::Stopped,
    DesiredState::Resized,
    DesiredState::Archived,
    DesiredState::Paused,
];
/// More steps than this would be a circle.
const STEPS_MAX: usize = 5;

fn seen() -> impl Strategy<Value = Seen> {
    prop_oneof![
        Just(Seen::NotAsked),
        Just(Seen::Absent),
        Just(Seen::Running),
        Just(Seen::Paused),
        Just(Seen::Stopped),
        Just(Seen::Archived),
        Just(Seen::Failed("died".to_owned())),
    ]
}

/// What a step leaves behind.
fn after(step: &Step, wanted: DesiredState, failed: bool) -> (SandboxState, DesiredState) {
    use {DesiredState as D, SandboxState as S};
    let before = if wanted == D::Stopped { S::Stopped } else { S::Started };
    match step {
        Step::Rest => unreachable!("the end"),
        Step::Create | Step::Start | Step::AwaitFork if failed => (S::Error, D::Started),
        Step::Create | Step::Start | Step::AwaitFork => (S::Started, D::Started),
        Step::Stop if failed => (S::Error, D::Stopped),
        Step::Stop => (S::Stopped, D::Stopped),
        Step::Destroy => (S::Destroyed, D::Destroyed),
        Step::Pause if failed => (S::Started, D::Started),
        Step::Pause => (S::Paused, D::Paused),
        Step::Resume if failed => (S::Paused, D::Paused),
        Step::Resume => (S::Started, D::Started),
        Step::Archive if failed => (S::Error, D::Archived),
        Step::Archive => (S::Archived, D::Archived),
        Step::Resize | Step::Snapshot | Step::Fork => (before, wanted),
        Step::Record { state, desired, .. } => (*state, *desired),
    }
}

proptest! {
    #[test]
    fn planning_ends_in_a_settled_row(
        state in prop::sample::select(&STATES[..]),
        desired in prop::sample::select(&DESIRED[..]),
        mut seen in seen(),
        fails in prop::collection::vec(any::<bool>(), STEPS_MAX + 1),
        crashes in prop::collection::vec(any::<bool>(), STEPS_MAX + 1),
    ) {
        let (mut now, mut wanted) = (state, desired);
        let deleting = desired == DesiredState::Destroyed;
        let mut ended = false;
        for step in 0..=STEPS_MAX * 2 {
            // After a crash the host's state is unknown and the row is as it was: the same step comes again.
            let planned = plan(now, wanted, &seen);
            if crashes.get(step).copied().unwrap_or(false) {
                seen = Seen::NotAsked;
                continue;
            }
            let failed = fails.get(step).copied().unwrap_or(false);
            seen = Seen::NotAsked;
            if planned == Step::Rest {
                ended = true;
                break;
            }
            (now, wanted) = after(&planned, wanted, failed);
            prop_assert!(allowed((now, wanted)), "{planned:?} leads to {now:?} wanting {wanted:?}");
            if deleting {
                prop_assert_eq!(now, SandboxState::Destroyed);
            }
        }
        prop_assert!(ended, "no end from {state:?} wanting {desired:?}");
        let settled = now.as_str() == wanted.as_str()
            || matches!(now, SandboxState::Error | SandboxState::BuildFailed | SandboxState::Destroyed);
        prop_assert!(settled, "{now:?} wanting {wanted:?}");
        prop_assert!(!deleting || now == SandboxState::Destroyed);
    }

    #[test]
    fn nothing_brings_back_what_is_to_be_gone(state in prop::sample::select(&STATES[..]), seen in seen()) {
        let step = plan(state, DesiredState::Destroyed, &seen);
        prop_assert!(matches!(step, Step::Destroy | Step::Rest));
    }

    #[test]
    fn a_settled_row_rests_unless_the_host_disagrees(seen in seen()) {
        for (state, desired) in [
            (SandboxState::Started, DesiredState::Started),
            (SandboxState::Stopped, DesiredState::Stopped),
            (SandboxState::Paused, DesiredState::Paused),
            (SandboxState::Archived, DesiredState::Archived),
        ] {
            let agrees = matches!(
                (state, &seen),
                (_, Seen::NotAsked) | (SandboxState::Started, Seen::Running) | (SandboxState::Paused, Seen::Paused)
                    | (SandboxState::Archived, Seen::Archived) | (SandboxState::Stopped, Seen::Stopped | Seen::Failed(_))
            );
            prop_assert_eq!(plan(state, desired, &seen) == Step::Rest, agrees);
        }
    }
}
