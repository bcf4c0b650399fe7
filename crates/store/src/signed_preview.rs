//! Links to ports. Knows tokens by their hashes only.

use crate::{Store, StoreError};
use infield_api::SandboxId;

impl Store {
    pub async fn add_signed_preview(
        &self,
        token_hash: &str,
        id: SandboxId,
        port: u16,
        expires_ms: i64,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO signed_previews (token_hash, sandbox_id, port, expires_at) VALUES ($1, $2, $3, $4)";
        let values = vec![token_hash.into(), id.to_string().into(), i64::from(port).into(), expires_ms.into()];
        self.db.execute(sql, values).await.map(|_| ())
    }

    /// Whose port a link opens; `None` when it is unknown, for another port, or too old.
    pub async fn signed_preview(
        &self,
        token_hash: &str,
        port: u16,
        now_ms: i64,
    ) -> Result<Option<SandboxId>, StoreError> {
        let sql = "SELECT sandbox_id FROM signed_previews WHERE token_hash = $1 AND port = $2 AND expires_at > $3";
        let rows = self.db.fetch(sql, vec![token_hash.into(), i64::from(port).into(), now_ms.into()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let id = row.text(0)?.parse().map_err(|_| StoreError::Unreadable { what: "id of a preview".to_owned() })?;
        Ok(Some(id))
    }

    pub async fn expire_signed_preview(&self, token_hash: &str, id: SandboxId, port: u16) -> Result<(), StoreError> {
        let sql = "DELETE FROM signed_previews WHERE token_hash = $1 AND sandbox_id = $2 AND port = $3";
        let values = vec![token_hash.into(), id.to_string().into(), i64::from(port).into()];
        self.db.execute(sql, values).await.map(|_| ())
    }

    pub async fn purge_signed_previews(&self, now_ms: i64) -> Result<u64, StoreError> {
        self.db.execute("DELETE FROM signed_previews WHERE expires_at <= $1", vec![now_ms.into()]).await
    }
}
