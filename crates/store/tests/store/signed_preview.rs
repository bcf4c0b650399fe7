use crate::databases::each;
use infield_api::SandboxId;

#[tokio::test]
async fn links_open_one_port_until_they_end() {
    each(async |store| {
        let id: SandboxId = "6b1f2c1e-7d6a-4c8e-9c7b-2f5a1a0d3e44".parse().unwrap();
        let other: SandboxId = "6b1f2c1e-7d6a-4c8e-9c7b-2f5a1a0d3e45".parse().unwrap();
        store.add_signed_preview("a", id, 3000, 100).await.unwrap();
        store.add_signed_preview("b", other, 3000, 200).await.unwrap();
        assert_eq!(store.signed_preview("a", 3000, 99).await.unwrap(), Some(id));
        assert_eq!(store.signed_preview("a", 3000, 100).await.unwrap(), None);
        assert_eq!(store.signed_preview("a", 3001, 0).await.unwrap(), None);
        assert_eq!(store.signed_preview("c", 3000, 0).await.unwrap(), None);
        // Only its own sandbox ends a link.
        store.expire_signed_preview("b", id, 3000).await.unwrap();
        assert_eq!(store.signed_preview("b", 3000, 0).await.unwrap(), Some(other));
        store.expire_signed_preview("b", other, 3000).await.unwrap();
        assert_eq!(store.signed_preview("b", 3000, 0).await.unwrap(), None);
        assert_eq!(store.purge_signed_previews(100).await.unwrap(), 1);
    })
    .await;
}
