use crate::databases::each;
use infield_api::SandboxId;

#[tokio::test]
async fn a_sandbox_has_one_token_until_it_expires() {
    each(async |store| {
        let (one, two) = (id(1), id(2));
        store.set_ssh_access(one, "a", "first", 100).await.unwrap();
        store.set_ssh_access(two, "b", "other", 200).await.unwrap();
        assert_eq!(store.ssh_access("first", 99).await.unwrap(), Some(one));
        assert_eq!(store.ssh_access("first", 100).await.unwrap(), None);
        store.set_ssh_access(one, "c", "second", 150).await.unwrap();
        assert_eq!(store.ssh_access("first", 1).await.unwrap(), None);
        assert_eq!(store.ssh_access("second", 1).await.unwrap(), Some(one));
        // By name only its own.
        store.revoke_ssh_access(one, Some("other")).await.unwrap();
        assert_eq!(store.ssh_access("other", 1).await.unwrap(), Some(two));
        assert_eq!(store.purge_ssh_access(150).await.unwrap(), 1);
        assert_eq!(store.ssh_access("second", 1).await.unwrap(), None);
        store.revoke_ssh_access(two, None).await.unwrap();
        store.revoke_ssh_access(two, None).await.unwrap();
        assert_eq!(store.ssh_access("other", 1).await.unwrap(), None);
    })
    .await;
}

fn id(n: u8) -> SandboxId {
    format!("00000000-0000-4000-8000-00000000000{n}").parse().unwrap()
}
