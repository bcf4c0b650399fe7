//! What an empty database begins with: one user, one organization, one key.

use crate::{clock::now_ms, secret};
use infield_api::api_key::Permission;
use infield_store::{ApiKeyRow, OrganizationRow, Store, StoreError, UserRow};
use uuid::Uuid;

/// Id of the first user.
pub const ADMIN: &str = "infield-admin";
/// Name of the first key.
const KEY_NAME: &str = "default";

/// The first key's value; shown once. Its `Debug` does not print it.
pub struct AdminKey(pub String);

impl std::fmt::Debug for AdminKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminKey(…)")
    }
}

/// Makes user, organization and key unless there is a user already; then `None`. Interrupted, it goes on next time.
pub async fn bootstrap(store: &Store) -> Result<Option<AdminKey>, StoreError> {
    let now = now_ms();
    if store.user(ADMIN).await?.is_none() {
        let user = UserRow {
            id: ADMIN.to_owned(),
            name: "Infield admin".to_owned(),
            email: "admin@localhost".to_owned(),
            created_ms: now,
        };
        let organization = OrganizationRow {
            id: Uuid::new_v4().to_string(),
            name: "Personal".to_owned(),
            created_by: ADMIN.to_owned(),
            personal: true,
            created_ms: now,
            updated_ms: now,
        };
        store.insert_user(&user, &organization).await?;
    }
    let organizations = store.organizations_of(ADMIN).await?;
    let Some(organization) = organizations.first() else { return Ok(None) };
    // A marker, not the key's presence: an owner who deletes the first key does not want it back.
    let marker = Uuid::new_v4().to_string();
    if store.meta_or("admin_key_made", || marker.clone()).await? != marker {
        return Ok(None);
    }
    new_key(store, &organization.id, KEY_NAME).await.map(Some)
}

async fn new_key(store: &Store, organization_id: &str, name: &str) -> Result<AdminKey, StoreError> {
    let value = secret::api_key();
    let (prefix, suffix) = secret::ends(&value);
    let key = ApiKeyRow {
        organization_id: organization_id.to_owned(),
        user_id: ADMIN.to_owned(),
        name: name.to_owned(),
        hash: secret::hash(&value),
        prefix,
        suffix,
        permissions: Permission::ALL.to_vec(),
        created_ms: now_ms(),
        last_used_ms: None,
        expires_ms: None,
    };
    store.insert_api_key(&key).await?;
    Ok(AdminKey(value))
}

/// One more key with every permission, for somebody who lost the first. `NameTaken` when there is one by this name.
pub async fn another_admin_key(store: &Store, name: &str) -> Result<AdminKey, StoreError> {
    let organizations = store.organizations_of(ADMIN).await?;
    let organization = organizations.first().map(|o| o.id.as_str()).unwrap_or_default();
    new_key(store, organization, name).await
}
