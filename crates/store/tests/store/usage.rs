//! Every second of a sandbox is in one period, whatever is written when.

use crate::{
    databases::each,
    sandbox::{changed, started},
};
use infield_api::state::{DesiredState as D, SandboxState as S};
use infield_store::{Change, Job, Metered, PERIOD_MS_MAX, Size, Store, allowed, metered};

/// (cpu, memory, disk, start, end) of each period.
async fn periods(store: &Store, id: infield_api::SandboxId) -> Vec<(i64, i64, i64, i64, Option<i64>)> {
    let periods = store.usage_of(id).await.unwrap();
    periods.iter().map(|p| (p.cpu, p.memory_gib, p.disk_gib, p.start_ms, p.end_ms)).collect()
}

#[tokio::test]
async fn what_runs_costs_all_what_is_stopped_its_disk_what_is_gone_nothing() {
    each(async |store| {
        let s = started(&store, "a").await;
        let walk = [
            ((S::Started, D::Stopped), 30),
            ((S::Stopped, D::Stopped), 40),
            ((S::Stopped, D::Started), 50),
            ((S::Started, D::Started), 60),
            ((S::Pausing, D::Paused), 70),
            ((S::Paused, D::Paused), 75),
            ((S::Resuming, D::Started), 80),
            ((S::Started, D::Started), 85),
        ];
        let mut was = (S::Started, D::Started);
        for (to, at) in walk {
            assert!(changed(&store, s.id, was, to, at).await);
            was = to;
        }
        let expected =
            [(1, 1, 3, 20, Some(30)), (0, 0, 3, 30, Some(60)), (1, 1, 3, 60, Some(70)), (0, 0, 3, 70, Some(85))];
        assert_eq!(periods(&store, s.id).await, [&expected[..], &[(1, 1, 3, 85, None)]].concat());
        let now = store.usage_now("o").await.unwrap();
        assert_eq!((now.cpu, now.memory_gib, now.disk_gib), (1, 1, 3));
        let size = Size { cpu: 2, memory_gib: 4, disk_gib: 3 };
        let resizing = Change { job: Some(Job::Resize(size)), ..Change::to(S::Resizing, D::Started) };
        assert!(store.change(s.id, was, &resizing, 90).await.unwrap());
        assert_eq!(periods(&store, s.id).await.last(), Some(&(1, 1, 3, 85, None)), "it goes on meanwhile");
        let resized = Change { size: Some(size), ..Change::to(S::Started, D::Started) };
        assert!(store.change(s.id, resizing.pair(), &resized, 100).await.unwrap());
        assert!(changed(&store, s.id, was, (S::Started, D::Destroyed), 110).await);
        assert!(changed(&store, s.id, (S::Started, D::Destroyed), (S::Destroyed, D::Destroyed), 120).await);
        let end = [(1, 1, 3, 85, Some(100)), (2, 4, 3, 100, Some(110))];
        assert_eq!(periods(&store, s.id).await, [&expected[..], &end[..]].concat());
        assert_eq!(store.usage_now("o").await.unwrap(), Default::default());
    })
    .await;
}

#[tokio::test]
async fn a_clock_that_goes_back_counts_nothing_twice() {
    each(async |store| {
        let s = started(&store, "a").await;
        assert!(changed(&store, s.id, (S::Started, D::Started), (S::Started, D::Stopped), 10).await);
        assert!(changed(&store, s.id, (S::Started, D::Stopped), (S::Error, D::Stopped), 30).await);
        assert_eq!(periods(&store, s.id).await, [(1, 1, 3, 20, Some(20)), (0, 0, 3, 20, Some(30))]);
    })
    .await;
}

#[tokio::test]
async fn no_period_is_longer_than_a_day() {
    each(async |store| {
        let s = started(&store, "a").await;
        let day = |n: i64| 20 + n * PERIOD_MS_MAX;
        assert_eq!(store.split_usage(day(1) - 1).await.unwrap(), 0);
        while store.split_usage(day(2) + 5).await.unwrap() > 0 {}
        assert_eq!(
            periods(&store, s.id).await,
            [(1, 1, 3, day(0), Some(day(1))), (1, 1, 3, day(1), Some(day(2))), (1, 1, 3, day(2), None)]
        );
        assert!(changed(&store, s.id, (S::Started, D::Started), (S::Started, D::Destroyed), day(2) + 7).await);
        assert_eq!(periods(&store, s.id).await[2], (1, 1, 3, day(2), Some(day(2) + 7)));
        assert_eq!(store.split_usage(i64::MAX).await.unwrap(), 0);
    })
    .await;
}

#[test]
fn the_table_is_the_contracts() {
    assert!(
        allowed((S::Paused, D::Stopped)) && allowed((S::Unknown, D::Started)) && allowed((S::Archiving, D::Destroyed))
    );
    assert!(
        !allowed((S::Creating, D::Destroyed)) && !allowed((S::Error, D::Paused)) && !allowed((S::Started, D::Resized))
    );
    assert_eq!(metered((S::Started, D::Destroyed)), Metered::Nothing);
    assert_eq!(metered((S::Snapshotting, D::Stopped)), Metered::AsBefore);
}
