//! API keys: only the SHA-256 of a key is stored, with the few characters that lists show.

use crate::{
    Store, StoreError,
    db::{Row, json_text},
};
use infield_api::api_key::Permission;

/// A key as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyRow {
    pub organization_id: String,
    pub user_id: String,
    pub name: String,
    /// Lowercase hex of the SHA-256 of the whole value.
    pub hash: String,
    pub prefix: String,
    pub suffix: String,
    pub permissions: Vec<Permission>,
    pub created_ms: i64,
    pub last_used_ms: Option<i64>,
    pub expires_ms: Option<i64>,
}

macro_rules! columns {
    () => {
        "organization_id, user_id, name, hash, prefix, suffix, permissions, created_at, last_used_at, expires_at"
    };
}

impl Store {
    /// `NameTaken` when the user has a key by this name in this organization.
    pub async fn insert_api_key(&self, key: &ApiKeyRow) -> Result<(), StoreError> {
        let sql = concat!("INSERT INTO api_keys (", columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)");
        let args = vec![
            key.organization_id.as_str().into(),
            key.user_id.as_str().into(),
            key.name.as_str().into(),
            key.hash.as_str().into(),
            key.prefix.as_str().into(),
            key.suffix.as_str().into(),
            json_text(&key.permissions).into(),
            key.created_ms.into(),
            key.last_used_ms.into(),
            key.expires_ms.into(),
        ];
        self.db.execute(sql, args).await.map(|_| ())
    }

    pub async fn api_key_by_hash(&self, hash: &str) -> Result<Option<ApiKeyRow>, StoreError> {
        let sql = concat!("SELECT ", columns!(), " FROM api_keys WHERE hash = $1");
        let rows = self.db.fetch(sql, vec![hash.into()]).await?;
        rows.first().map(key_row).transpose()
    }

    /// Keys of an organization, or of one user in it; most recently used first.
    pub async fn api_keys(&self, organization: &str, user: Option<&str>) -> Result<Vec<ApiKeyRow>, StoreError> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM api_keys WHERE organization_id = $1 AND ($2 = '' OR user_id = $2) \
             ORDER BY COALESCE(last_used_at, 0) DESC, created_at DESC, name"
        );
        let rows = self.db.fetch(sql, vec![organization.into(), user.unwrap_or_default().into()]).await?;
        rows.iter().map(key_row).collect()
    }

    pub async fn api_key(&self, organization: &str, user: &str, name: &str) -> Result<Option<ApiKeyRow>, StoreError> {
        let sql =
            concat!("SELECT ", columns!(), " FROM api_keys WHERE organization_id = $1 AND user_id = $2 AND name = $3");
        let rows = self.db.fetch(sql, vec![organization.into(), user.into(), name.into()]).await?;
        rows.first().map(key_row).transpose()
    }

    /// Whether there was such a key.
    pub async fn delete_api_key(&self, organization: &str, user: &str, name: &str) -> Result<bool, StoreError> {
        let sql = "DELETE FROM api_keys WHERE organization_id = $1 AND user_id = $2 AND name = $3";
        Ok(self.db.execute(sql, vec![organization.into(), user.into(), name.into()]).await? > 0)
    }

    pub async fn api_key_used(&self, hash: &str, now_ms: i64) -> Result<(), StoreError> {
        let sql = "UPDATE api_keys SET last_used_at = $1 WHERE hash = $2";
        self.db.execute(sql, vec![now_ms.into(), hash.into()]).await.map(|_| ())
    }
}

fn key_row(row: &Row) -> Result<ApiKeyRow, StoreError> {
    Ok(ApiKeyRow {
        organization_id: row.text(0)?,
        user_id: row.text(1)?,
        name: row.text(2)?,
        hash: row.text(3)?,
        prefix: row.text(4)?,
        suffix: row.text(5)?,
        permissions: row.json(6)?,
        created_ms: row.int(7)?,
        last_used_ms: row.int_or_null(8)?,
        expires_ms: row.int_or_null(9)?,
    })
}
