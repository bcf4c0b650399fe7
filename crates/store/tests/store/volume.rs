use crate::databases::each;
use infield_api::volume::VolumeState;
use infield_store::{StoreError, VolumeRow};

fn row(id: &str, name: &str, state: VolumeState) -> VolumeRow {
    VolumeRow {
        id: id.into(),
        organization_id: "o".into(),
        name: name.into(),
        state,
        size_gib: 10,
        error_reason: None,
        created_ms: 1,
        updated_ms: 1,
        last_used_ms: None,
    }
}

#[tokio::test]
async fn a_deleted_volume_gives_its_name_free() {
    each(async |store| {
        store.insert_volume(&row("1", "v", VolumeState::Ready)).await.unwrap();
        assert!(matches!(store.insert_volume(&row("2", "v", VolumeState::Ready)).await, Err(StoreError::NameTaken)));
        assert!(store.intend_volume_delete("1", 5).await.unwrap());
        assert!(!store.intend_volume_delete("1", 5).await.unwrap());
        assert_eq!(store.unsettled_volumes().await.unwrap().len(), 1);
        let (pending, deleted) = (VolumeState::PendingDelete, VolumeState::Deleted);
        assert!(!store.settle_volume("1", VolumeState::Ready, deleted, None, 6).await.unwrap());
        assert!(store.settle_volume("1", pending, deleted, None, 6).await.unwrap());
        store.insert_volume(&row("2", "v", VolumeState::Ready)).await.unwrap();
        store.volume_used("2", 9).await.unwrap();
        assert_eq!(store.volume_by_name("o", "v").await.unwrap().unwrap().last_used_ms, Some(9));
        assert_eq!(store.volume_by_name("p", "v").await.unwrap(), None);
        let names = |rows: Vec<VolumeRow>| rows.into_iter().map(|row| row.name).collect::<Vec<_>>();
        assert_eq!(names(store.volumes("o", false).await.unwrap()), ["v"]);
        assert_eq!(names(store.volumes("o", true).await.unwrap()), ["v", "v-deleted"]);
        // A second one by the name is deleted, too.
        assert!(store.intend_volume_delete("2", 5).await.unwrap());
        assert!(store.settle_volume("2", pending, deleted, None, 6).await.unwrap());
        assert_eq!(store.volumes("o", true).await.unwrap().len(), 2);
    })
    .await;
}
