use crate::databases::each;
use infield_api::{
    SandboxId,
    state::{DesiredState as D, SandboxState as S},
};
use infield_store::{
    Change, Cursor, Interval, Job, Range, RangeColumn, SandboxFilter, SandboxRow, Size, Sort, SortColumn, Store,
    StoreError, Wish,
};
use std::collections::BTreeMap;

pub fn row(name: &str) -> SandboxRow {
    SandboxRow {
        id: SandboxId::random(),
        organization_id: "o".into(),
        name: name.into(),
        state: S::Creating,
        desired: D::Started,
        snapshot: "infield/base:1".into(),
        image: "sha256:1".into(),
        run_as: None,
        shown_user: "daytona".into(),
        entrypoint: vec!["sleep".into()],
        env: BTreeMap::from([("A".into(), "ü\"".into())]),
        labels: BTreeMap::new(),
        public: false,
        network_block_all: true,
        target: "us".into(),
        cpu: 1,
        memory_gib: 1,
        disk_gib: 3,
        auto_stop_min: 15,
        auto_archive_min: 10080,
        auto_delete_min: -1,
        error_reason: None,
        recoverable: false,
        auth_token: "t".into(),
        daemon_version: None,
        runner_id: Some("r".into()),
        force_stop: false,
        created_ms: 10,
        updated_ms: 10,
        activity_ms: 10,
        auto_pause_min: 0,
        auto_destroy_ms: None,
        parent_id: None,
        linked_id: None,
        job: None,
        volumes: vec![],
    }
}

/// What is given of a row comes back.
pub async fn changed(store: &Store, id: SandboxId, was: (S, D), to: (S, D), now: i64) -> bool {
    store.change(id, was, &Change::to(to.0, to.1), now).await.unwrap()
}

pub async fn started(store: &Store, name: &str) -> SandboxRow {
    let made = row(name);
    store.insert_sandbox(&made).await.unwrap();
    assert!(changed(store, made.id, (S::Creating, D::Started), (S::Started, D::Started), 20).await);
    store.sandbox(made.id).await.unwrap().unwrap()
}

#[tokio::test]
async fn rows_come_back_as_they_went_in() {
    each(async |store| {
        let made = row("a");
        store.insert_sandbox(&made).await.unwrap();
        assert_eq!(store.sandbox(made.id).await.unwrap(), Some(made.clone()));
        assert_eq!(store.find_sandbox("o", "a").await.unwrap(), Some(made.clone()));
        assert_eq!(store.find_sandbox("o", &made.id.to_string().to_uppercase()).await.unwrap(), Some(made.clone()));
        assert_eq!(store.find_sandbox("other", "a").await.unwrap(), None);
        assert!(matches!(store.insert_sandbox(&row("a")).await, Err(StoreError::NameTaken)));
        let elsewhere = SandboxRow { organization_id: "other".into(), ..row("a") };
        store.insert_sandbox(&elsewhere).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn changes_compare_before_they_set() {
    each(async |store| {
        let s = started(&store, "a").await;
        assert_eq!(s.activity_ms, 20);
        let stop = Change { force_stop: Some(true), ..Change::to(S::Started, D::Stopped) };
        assert!(!store.change(s.id, (S::Stopped, D::Stopped), &stop, 30).await.unwrap());
        assert!(store.change(s.id, (S::Started, D::Started), &stop, 30).await.unwrap());
        assert!(!store.change(s.id, (S::Started, D::Started), &stop, 30).await.unwrap());
        assert_eq!(store.unsettled_sandboxes().await.unwrap(), [s.id]);
        assert!(changed(&store, s.id, (S::Started, D::Stopped), (S::Stopped, D::Stopped), 40).await);
        assert!(store.unsettled_sandboxes().await.unwrap().is_empty());
        let start = Change { auth_token: Some("new".into()), ..Change::to(S::Stopped, D::Started) };
        assert!(store.change(s.id, (S::Stopped, D::Stopped), &start, 50).await.unwrap());
        let now = store.sandbox(s.id).await.unwrap().unwrap();
        assert_eq!((now.auth_token.as_str(), now.activity_ms, now.force_stop), ("new", 40, true));
        let failed = Change { reason: Some("no".into()), recoverable: true, ..Change::to(S::Error, D::Started) };
        assert!(store.change(s.id, (S::Stopped, D::Started), &failed, 60).await.unwrap());
        assert!(store.unsettled_sandboxes().await.unwrap().is_empty());
        let now = store.sandbox(s.id).await.unwrap().unwrap();
        assert_eq!((now.error_reason.as_deref(), now.recoverable), (Some("no"), true));
        let destroy = Change { name: Some("DESTROYED_a_1".into()), ..Change::to(S::Error, D::Destroyed) };
        assert!(store.change(s.id, (S::Error, D::Started), &destroy, 70).await.unwrap());
        assert_eq!(store.find_sandbox("o", &s.id.to_string()).await.unwrap(), None);
        assert_eq!(store.unsettled_sandboxes().await.unwrap(), [s.id]);
        store.insert_sandbox(&row("a")).await.unwrap();
        assert!(changed(&store, s.id, (S::Error, D::Destroyed), (S::Destroyed, D::Destroyed), 80).await);
        assert_eq!(store.sandbox(s.id).await.unwrap().unwrap().runner_id, None);
        assert_eq!(store.purge_destroyed(80).await.unwrap(), 0);
        assert_eq!(store.purge_destroyed(81).await.unwrap(), 1);
        assert!(store.any_sandbox().await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_change_is_written_as_it_says_and_never_into_an_impossible_pair() {
    each(async |store| {
        let s = started(&store, "a").await;
        let size = Size { cpu: 2, memory_gib: 3, disk_gib: 4 };
        let all = Change {
            job: Some(Job::Resize(size)),
            daemon_version: Some("2".into()),
            auth_token: Some("t2".into()),
            name: Some("b".into()),
            force_stop: Some(true),
            runner_id: Some("r2".into()),
            size: Some(size),
            ..Change::to(S::Resizing, D::Started)
        };
        assert!(store.change(s.id, (S::Started, D::Started), &all, 30).await.unwrap());
        let now = store.sandbox(s.id).await.unwrap().unwrap();
        assert_eq!(now, all.applied(s, 30));
        assert_eq!((now.cpu, now.memory_gib, now.disk_gib, now.activity_ms), (2, 3, 4, 30));
        assert!(changed(&store, now.id, (S::Resizing, D::Started), (S::Started, D::Started), 40).await);
        let now = store.sandbox(now.id).await.unwrap().unwrap();
        assert_eq!((&now.job, now.cpu, now.auth_token.as_str()), (&None, 2, "t2"));
        let impossible = store.change(now.id, (S::Started, D::Started), &Change::to(S::Forking, D::Archived), 50).await;
        assert!(matches!(impossible, Err(StoreError::Impossible { .. })));
        assert_eq!(store.sandbox(now.id).await.unwrap().unwrap(), now);
        let to = Change::to(S::Stopped, D::Stopped);
        assert!(store.change(now.id, (S::Started, D::Started), &to, 60).await.unwrap());
        assert!(changed(&store, now.id, (S::Stopped, D::Stopped), (S::Archived, D::Archived), 70).await);
        assert_eq!(store.sandbox(now.id).await.unwrap().unwrap().runner_id, None);
    })
    .await;
}

#[tokio::test]
async fn a_fork_begins_with_both_rows_or_none() {
    each(async |store| {
        let s = started(&store, "a").await;
        let child = SandboxRow { state: S::Unknown, parent_id: Some(s.id), linked_id: Some(s.id), ..row("child") };
        assert!(store.begin_fork(&s, &child, 30).await.unwrap());
        assert!(!store.begin_fork(&s, &row("late"), 31).await.unwrap(), "it forks already");
        assert_eq!(store.sandbox(child.id).await.unwrap().unwrap(), child);
        let forking = store.sandbox(s.id).await.unwrap().unwrap();
        assert_eq!((forking.state, &forking.job), (S::Forking, &Some(Job::Fork(child.id))));
        assert!(changed(&store, s.id, (S::Forking, D::Started), (S::Started, D::Started), 32).await);
        let taken = store.begin_fork(&store.sandbox(s.id).await.unwrap().unwrap(), &row("child"), 33).await;
        assert!(matches!(taken, Err(StoreError::NameTaken)));
        assert_eq!(store.sandbox(s.id).await.unwrap().unwrap().state, S::Started, "nothing half done");
        assert_eq!(store.forks_of(s.id, false, 10).await.unwrap().len(), 1);
        assert_eq!(store.followers_of(s.id).await.unwrap()[0].id, child.id);
        let gone = SandboxRow { state: S::Destroyed, desired: D::Destroyed, parent_id: Some(s.id), ..row("gone") };
        store.insert_sandbox(&gone).await.unwrap();
        assert_eq!(store.forks_of(s.id, false, 10).await.unwrap().len(), 1);
        assert_eq!(store.forks_of(s.id, true, 10).await.unwrap().len(), 2);
        assert!(store.due_sandboxes(Wish::FollowLink, 100).await.unwrap().is_empty());
        assert!(changed(&store, s.id, (S::Started, D::Started), (S::Started, D::Destroyed), 40).await);
        assert_eq!(store.due_sandboxes(Wish::FollowLink, 100).await.unwrap()[0].id, child.id);
    })
    .await;
}

#[tokio::test]
async fn setters_set() {
    each(async |store| {
        let s = started(&store, "a").await;
        let labels = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        store.set_labels(s.id, &labels, 30).await.unwrap();
        store.set_public(s.id, true, 31).await.unwrap();
        let intervals = [(Interval::Stop, 1), (Interval::Archive, 2), (Interval::Delete, 3), (Interval::Pause, 4)];
        for (interval, minutes) in intervals {
            store.set_interval(s.id, interval, minutes, 32).await.unwrap();
        }
        store.set_auto_destroy(s.id, Some(99), 32).await.unwrap();
        let now = store.sandbox(s.id).await.unwrap().unwrap();
        let expected = SandboxRow {
            auto_pause_min: 4,
            auto_destroy_ms: Some(99),
            labels,
            public: true,
            auto_stop_min: 1,
            auto_archive_min: 2,
            auto_delete_min: 3,
            updated_ms: 32,
            ..s
        };
        assert_eq!(now, expected);
    })
    .await;
}

#[tokio::test]
async fn a_signing_key_is_made_once_and_replaced_at_will() {
    each(async |store| {
        let (a, b) = (started(&store, "a").await, started(&store, "b").await);
        assert_eq!(store.signing_key(a.id).await.unwrap(), None);
        assert_eq!(store.signing_key_or(a.id, "first").await.unwrap().as_deref(), Some("first"));
        assert_eq!(store.signing_key_or(a.id, "second").await.unwrap().as_deref(), Some("first"));
        store.set_signing_key(a.id, "third").await.unwrap();
        assert_eq!(store.signing_key(a.id).await.unwrap().as_deref(), Some("third"));
        assert_eq!(store.signing_key(b.id).await.unwrap(), None, "each has its own");
        assert_eq!(store.sandbox(a.id).await.unwrap().unwrap(), a);
        assert_eq!(store.signing_key_or(SandboxId::random(), "x").await.unwrap(), None);
        assert!(changed(&store, a.id, (S::Started, D::Started), (S::Destroyed, D::Destroyed), 30).await);
        assert_eq!(store.signing_key(a.id).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn sweeps_find_the_idle_and_the_expired() {
    each(async |store| {
        let s = started(&store, "a").await;
        let minutes = |n: i64| 20 + n * 60_000;
        let due = async |wish, at| store.due_sandboxes(wish, at).await.unwrap();
        assert!(due(Wish::Stop, minutes(15) - 1).await.is_empty());
        assert_eq!(due(Wish::Stop, minutes(15)).await[0].id, s.id);
        assert!(due(Wish::Pause, i64::MAX).await.is_empty());
        store.set_interval(s.id, Interval::Pause, 2, 30).await.unwrap();
        assert_eq!(due(Wish::Pause, minutes(2)).await[0].id, s.id);
        store.touch_sandboxes(&[(s.id, minutes(1)), (SandboxId::random(), 1)]).await.unwrap();
        store.touch_sandboxes(&[(s.id, 1)]).await.unwrap();
        assert!(due(Wish::Stop, minutes(15)).await.is_empty());
        assert!(changed(&store, s.id, (S::Started, D::Started), (S::Started, D::Stopped), 30).await);
        assert!(changed(&store, s.id, (S::Started, D::Stopped), (S::Stopped, D::Stopped), 40).await);
        assert!(due(Wish::Delete, i64::MAX).await.is_empty());
        assert!(due(Wish::Archive, 40 + 10_080 * 60_000 - 1).await.is_empty());
        assert_eq!(due(Wish::Archive, 40 + 10_080 * 60_000).await.len(), 1);
        store.set_interval(s.id, Interval::Delete, 0, 41).await.unwrap();
        assert_eq!(due(Wish::Delete, 40).await.len(), 1);
        assert!(due(Wish::Archive, i64::MAX).await.is_empty(), "ephemeral ones are not archived");
        assert!(due(Wish::EndOfLife, i64::MAX).await.is_empty());
        store.set_auto_destroy(s.id, Some(500), 42).await.unwrap();
        assert!(due(Wish::EndOfLife, 499).await.is_empty());
        assert_eq!(due(Wish::EndOfLife, 500).await.len(), 1);
        assert_eq!(store.known_sandboxes().await.unwrap(), [(s.id, (S::Stopped, D::Stopped))]);
    })
    .await;
}

fn filter() -> SandboxFilter {
    SandboxFilter { organization_id: "o".into(), ..SandboxFilter::default() }
}

async fn names(store: &Store, filter: &SandboxFilter) -> Vec<String> {
    let sort = Sort { column: SortColumn::Name, descending: false };
    let page = store.list_sandboxes(filter, sort, None, 100).await.unwrap();
    let (rows, total) = store.page_sandboxes(filter, sort, 1, 100).await.unwrap();
    assert_eq!((&rows, total), (&page.rows, page.rows.len() as i64));
    page.rows.into_iter().map(|row| row.name).collect()
}

#[tokio::test]
async fn filters_filter() {
    each(async |store| {
        for (n, name) in ["Box-1", "box_2", "other"].into_iter().enumerate() {
            let labels = BTreeMap::from([
                ("n".to_owned(), n.to_string()),
                ("tricky".to_owned(), r#"","n":"9"#.to_owned()),
                ("z".to_owned(), "Z".to_owned()),
            ]);
            let made = SandboxRow { labels, cpu: n as i64 + 1, created_ms: 100 * n as i64, ..row(name) };
            store.insert_sandbox(&made).await.unwrap();
        }
        assert_eq!(names(&store, &filter()).await, ["Box-1", "box_2", "other"]);
        let with = |f: &dyn Fn(&mut SandboxFilter)| {
            let mut filter = filter();
            f(&mut filter);
            filter
        };
        assert_eq!(names(&store, &with(&|f| f.name = Some("BOX".into()))).await, ["Box-1", "box_2"]);
        assert_eq!(names(&store, &with(&|f| f.name = Some("box_".into()))).await, ["box_2"]);
        assert_eq!(names(&store, &with(&|f| f.name = Some("%".into()))).await, [""; 0]);
        let label = |k: &str, v: &str| with(&|f| f.labels = BTreeMap::from([(k.into(), v.into())]));
        assert_eq!(names(&store, &label("n", "1")).await, ["box_2"]);
        assert_eq!(names(&store, &label("n", "9")).await, [""; 0]);
        assert_eq!(names(&store, &label("z", "z")).await, [""; 0]);
        assert_eq!(names(&store, &label("z", "Z")).await.len(), 3);
        assert_eq!(names(&store, &label("tricky", r#"","n":"9"#)).await.len(), 3);
        assert_eq!(names(&store, &with(&|f| f.states = vec![S::Started])).await, [""; 0]);
        assert_eq!(names(&store, &with(&|f| f.states = vec![S::Started, S::Creating])).await.len(), 3);
        assert_eq!(names(&store, &with(&|f| f.snapshots = vec!["x".into()])).await, [""; 0]);
        assert_eq!(names(&store, &with(&|f| f.public = Some(true))).await, [""; 0]);
        let cpu = Range { column: RangeColumn::Cpu, at_least: Some(2), at_most: Some(2) };
        assert_eq!(names(&store, &with(&|f| f.ranges = vec![cpu])).await, ["box_2"]);
        let late = Range { column: RangeColumn::Created, at_least: Some(200), at_most: None };
        assert_eq!(names(&store, &with(&|f| f.ranges = vec![late])).await, ["other"]);
    })
    .await;
}

#[tokio::test]
async fn a_cursor_walks_over_every_row_once() {
    each(async |store| {
        for n in 0..23 {
            // Many equal sort values: the id decides.
            store.insert_sandbox(&SandboxRow { cpu: n % 3, ..row(&format!("s{n:02}")) }).await.unwrap();
        }
        for (column, descending) in [(SortColumn::Cpu, true), (SortColumn::Cpu, false), (SortColumn::Name, true)] {
            let sort = Sort { column, descending };
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = store.list_sandboxes(&filter(), sort, after.as_ref(), 5).await.unwrap();
                let last = page.rows.last().unwrap();
                after = Some(Cursor { value: column.value_of(last), id: last.id.to_string() });
                seen.extend(page.rows.iter().map(|row| row.id));
                if !page.more {
                    break;
                }
            }
            assert_eq!(seen.len(), 23);
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), 23);
        }
        let sort = Sort { column: SortColumn::Name, descending: false };
        let (rows, total) = store.page_sandboxes(&filter(), sort, 3, 10).await.unwrap();
        assert_eq!((rows.len(), total, rows[0].name.as_str()), (3, 23, "s20"));
    })
    .await;
}
