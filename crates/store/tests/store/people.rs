use crate::databases::{each, postgres_url};
use infield_api::api_key::Permission;
use infield_store::{ApiKeyRow, OrganizationRow, Store, StoreError, UserRow};

fn key(name: &str, hash: &str) -> ApiKeyRow {
    ApiKeyRow {
        organization_id: "o".into(),
        user_id: "u".into(),
        name: name.into(),
        hash: hash.into(),
        prefix: "dtn".into(),
        suffix: "abc".into(),
        permissions: vec![Permission::WriteSandboxes],
        created_ms: 5,
        last_used_ms: None,
        expires_ms: Some(9),
    }
}

#[tokio::test]
async fn users_come_with_an_organization() {
    each(async |store| {
        let user = UserRow { id: "u".into(), name: "U".into(), email: "u@x".into(), created_ms: 1 };
        let organization = OrganizationRow {
            id: "o".into(),
            name: "Personal".into(),
            created_by: "u".into(),
            personal: true,
            created_ms: 1,
            updated_ms: 2,
        };
        assert_eq!(store.user("u").await.unwrap(), None);
        store.insert_user(&user, &organization).await.unwrap();
        assert_eq!(store.user("u").await.unwrap(), Some(user.clone()));
        assert_eq!(store.organizations_of("u").await.unwrap(), std::slice::from_ref(&organization));
        assert_eq!(store.role_of("o", "u").await.unwrap().as_deref(), Some("owner"));
        assert_eq!(store.role_of("o", "x").await.unwrap(), None);
        // All or nothing.
        let other = UserRow { id: "v".into(), ..user };
        assert!(matches!(store.insert_user(&other, &organization).await, Err(StoreError::NameTaken)));
        assert_eq!(store.user("v").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn keys_are_found_by_their_hash() {
    each(async |store| {
        store.insert_api_key(&key("a", "h1")).await.unwrap();
        assert!(matches!(store.insert_api_key(&key("a", "h2")).await, Err(StoreError::NameTaken)));
        store.insert_api_key(&key("b", "h2")).await.unwrap();
        assert_eq!(store.api_key_by_hash("h1").await.unwrap(), Some(key("a", "h1")));
        store.api_key_used("h2", 7).await.unwrap();
        let names: Vec<String> = store.api_keys("o", Some("u")).await.unwrap().into_iter().map(|k| k.name).collect();
        assert_eq!(names, ["b", "a"]);
        assert!(store.api_keys("o", Some("x")).await.unwrap().is_empty());
        assert!(store.delete_api_key("o", "u", "a").await.unwrap());
        assert!(!store.delete_api_key("o", "u", "a").await.unwrap());
        assert_eq!(store.api_keys("o", None).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn facts_are_made_once() {
    each(async |store| {
        assert_eq!(store.meta("id").await.unwrap(), None);
        assert_eq!(store.meta_or("id", || "1".into()).await.unwrap(), "1");
        assert_eq!(store.meta_or("id", || "2".into()).await.unwrap(), "1");
        store.ping().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn opening_again_and_at_once_keeps_everything() {
    let url = postgres_url(1_000_000).await;
    let (a, b) = tokio::join!(Store::open(&url), Store::open(&url));
    let (a, b) = (a.unwrap(), b.unwrap());
    a.insert_api_key(&key("a", "h")).await.unwrap();
    assert!(b.api_key_by_hash("h").await.unwrap().is_some());
    let again = Store::open(&url).await.unwrap();
    assert!(again.api_key_by_hash("h").await.unwrap().is_some());
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_says_where() {
    let error = Store::open("sqlite:/nonexistent/x.db").await.err().unwrap().to_string();
    assert!(error.contains("/nonexistent/x.db"), "{error}");
    let error = Store::open("postgres://me:hunter2@127.0.0.1:1/db").await.err().unwrap().to_string();
    assert!(error.contains("127.0.0.1:1/db") && !error.contains("hunter2"), "{error}");
}
