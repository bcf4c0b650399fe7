use crate::databases::each;
use infield_api::state::SnapshotState;
use infield_store::{SnapshotPage, SnapshotRow, SnapshotSort, StoreError};

fn row(id: &str, organization: &str, name: &str) -> SnapshotRow {
    SnapshotRow {
        id: id.into(),
        organization_id: organization.into(),
        name: name.into(),
        general: organization.is_empty(),
        image_name: "debian:12".into(),
        state: SnapshotState::Pending,
        size_bytes: None,
        entrypoint: Some(vec!["a".into()]),
        cpu: 1,
        memory_gib: 1,
        disk_gib: 3,
        error_reason: None,
        image: None,
        image_user: None,
        last_used_ms: None,
        created_ms: 1,
        updated_ms: 1,
        source_sandbox_id: None,
    }
}

#[tokio::test]
async fn snapshots_are_own_or_general() {
    each(async |store| {
        store.insert_snapshot(&row("1", "", "base")).await.unwrap();
        store.insert_snapshot(&row("2", "o", "mine")).await.unwrap();
        store.insert_snapshot(&row("3", "p", "theirs")).await.unwrap();
        assert!(matches!(store.insert_snapshot(&row("4", "o", "mine")).await, Err(StoreError::NameTaken)));
        let active = SnapshotRow {
            state: SnapshotState::Active,
            size_bytes: Some(5),
            image: Some("sha256:x".into()),
            image_user: Some("u".into()),
            entrypoint: None,
            updated_ms: 2,
            ..row("2", "o", "mine")
        };
        store.update_snapshot(&active).await.unwrap();
        assert_eq!(store.find_snapshot("o", "mine").await.unwrap(), Some(active.clone()));
        assert_eq!(store.find_snapshot("o", "2").await.unwrap(), Some(active));
        assert_eq!(store.find_snapshot("o", "base").await.unwrap().unwrap().id, "1");
        assert_eq!(store.find_snapshot("o", "theirs").await.unwrap(), None);
        assert_eq!(store.general_snapshots().await.unwrap().len(), 1);
        let pending = store.snapshots_in([SnapshotState::Pending, SnapshotState::Pulling]).await.unwrap();
        assert_eq!(pending.len(), 2);
        assert!(store.delete_snapshot("3").await.unwrap());
        assert!(!store.delete_snapshot("3").await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn own_ones_come_before_general_ones_and_unused_ones_last() {
    each(async |store| {
        for (id, organization) in [("1", ""), ("2", "o"), ("3", "o"), ("4", "o")] {
            store.insert_snapshot(&row(id, organization, &format!("N{id}"))).await.unwrap();
        }
        store.snapshot_used("3", 5).await.unwrap();
        store.snapshot_used("4", 9).await.unwrap();
        let mut page = SnapshotPage {
            organization_id: "o".into(),
            name: None,
            sort: SnapshotSort::LastUsed,
            descending: true,
            page: 1,
            limit: 3,
        };
        let ids = |rows: &[SnapshotRow]| rows.iter().map(|row| row.id.clone()).collect::<Vec<_>>();
        let (rows, total) = store.page_snapshots(&page).await.unwrap();
        assert_eq!((ids(&rows), total), (vec!["4".to_owned(), "3".to_owned(), "2".to_owned()], 4));
        page.page = 2;
        assert_eq!(ids(&store.page_snapshots(&page).await.unwrap().0), ["1"]);
        for sort in [SnapshotSort::Name, SnapshotSort::State, SnapshotSort::Created] {
            let page = SnapshotPage { sort, page: 1, name: Some("n1".into()), ..page.clone() };
            assert_eq!(ids(&store.page_snapshots(&page).await.unwrap().0), ["1"]);
        }
    })
    .await;
}
