use crate::databases::each;
use infield_api::{
    SandboxId,
    state::{DesiredState as D, SandboxState as S},
};
use infield_store::{
    Cursor, Interval, Range, RangeColumn, SandboxFilter, SandboxRow, Settled, Sort, SortColumn, Store, StoreError,
};
use std::collections::BTreeMap;

fn row(name: &str) -> SandboxRow {
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
    }
}

fn settled(state: S, desired: D) -> Settled {
    Settled { state, desired, reason: None, recoverable: false, daemon_version: None }
}

async fn started(store: &Store, name: &str) -> SandboxRow {
    let made = row(name);
    store.insert_sandbox(&made).await.unwrap();
    assert!(store.settle(made.id, (S::Creating, D::Started), &settled(S::Started, D::Started), 20).await.unwrap());
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
        assert!(!store.intend_stop(s.id, (S::Stopped, D::Stopped), false, 30).await.unwrap());
        assert!(store.intend_stop(s.id, (S::Started, D::Started), true, 30).await.unwrap());
        assert!(!store.intend_stop(s.id, (S::Started, D::Started), true, 30).await.unwrap());
        assert_eq!(store.unsettled_sandboxes().await.unwrap(), [s.id]);
        assert!(store.settle(s.id, (S::Started, D::Stopped), &settled(S::Stopped, D::Stopped), 40).await.unwrap());
        assert!(store.unsettled_sandboxes().await.unwrap().is_empty());
        assert!(store.intend_start(s.id, (S::Stopped, D::Stopped), "new", 50).await.unwrap());
        let now = store.sandbox(s.id).await.unwrap().unwrap();
        assert_eq!((now.auth_token.as_str(), now.activity_ms, now.force_stop), ("new", 40, true));
        let failed = Settled { reason: Some("no".into()), ..settled(S::Error, D::Started) };
        assert!(store.settle(s.id, (S::Stopped, D::Started), &failed, 60).await.unwrap());
        assert!(store.unsettled_sandboxes().await.unwrap().is_empty());
        assert!(store.intend_destroy(s.id, (S::Error, D::Started), "DESTROYED_a_1", 70).await.unwrap());
        assert_eq!(store.find_sandbox("o", &s.id.to_string()).await.unwrap(), None);
        assert_eq!(store.unsettled_sandboxes().await.unwrap(), [s.id]);
        store.insert_sandbox(&row("a")).await.unwrap();
        let gone = settled(S::Destroyed, D::Destroyed);
        assert!(store.settle(s.id, (S::Error, D::Destroyed), &gone, 80).await.unwrap());
        assert_eq!(store.sandbox(s.id).await.unwrap().unwrap().runner_id, None);
        assert_eq!(store.purge_destroyed(80).await.unwrap(), 0);
        assert_eq!(store.purge_destroyed(81).await.unwrap(), 1);
        assert!(store.any_sandbox().await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn only_what_can_be_recovered_is() {
    each(async |store| {
        let s = started(&store, "a").await;
        let recover = async |pair, wanted| store.intend_recover(s.id, pair, wanted, "new", 60).await.unwrap();
        let lost = Settled { reason: Some("no".into()), ..settled(S::Error, D::Started) };
        assert!(store.settle(s.id, (S::Started, D::Started), &lost, 40).await.unwrap());
        assert!(!recover((S::Error, D::Started), D::Started).await);
        let kept = Settled { recoverable: true, ..lost };
        assert!(store.settle(s.id, (S::Error, D::Started), &kept, 50).await.unwrap());
        assert!(store.sandbox(s.id).await.unwrap().unwrap().recoverable);
        assert!(!recover((S::Error, D::Stopped), D::Started).await);
        assert!(recover((S::Error, D::Started), D::Started).await);
        let now = store.sandbox(s.id).await.unwrap().unwrap();
        assert_eq!((now.state, now.desired, now.error_reason, now.recoverable), (S::Stopped, D::Started, None, false));
        assert_eq!((now.auth_token.as_str(), store.unsettled_sandboxes().await.unwrap()), ("new", vec![s.id]));
        assert!(!recover((S::Error, D::Started), D::Started).await);
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
        for (interval, minutes) in [(Interval::Stop, 1), (Interval::Archive, 2), (Interval::Delete, 3)] {
            store.set_interval(s.id, interval, minutes, 32).await.unwrap();
        }
        let now = store.sandbox(s.id).await.unwrap().unwrap();
        let expected = SandboxRow {
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
        let gone = settled(S::Destroyed, D::Destroyed);
        assert!(store.settle(a.id, (S::Started, D::Started), &gone, 30).await.unwrap());
        assert_eq!(store.signing_key(a.id).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn sweeps_find_the_idle_and_the_expired() {
    each(async |store| {
        let s = started(&store, "a").await;
        let minutes = |n: i64| 20 + n * 60_000;
        assert!(store.idle_sandboxes(minutes(15) - 1).await.unwrap().is_empty());
        assert_eq!(store.idle_sandboxes(minutes(15)).await.unwrap()[0].id, s.id);
        store.touch_sandboxes(&[(s.id, minutes(1)), (SandboxId::random(), 1)]).await.unwrap();
        store.touch_sandboxes(&[(s.id, 1)]).await.unwrap();
        assert!(store.idle_sandboxes(minutes(15)).await.unwrap().is_empty());
        assert!(store.intend_stop(s.id, (S::Started, D::Started), false, 30).await.unwrap());
        assert!(store.settle(s.id, (S::Started, D::Stopped), &settled(S::Stopped, D::Stopped), 40).await.unwrap());
        assert!(store.expired_sandboxes(i64::MAX).await.unwrap().is_empty());
        store.set_interval(s.id, Interval::Delete, 0, 41).await.unwrap();
        assert_eq!(store.expired_sandboxes(40).await.unwrap().len(), 1);
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
