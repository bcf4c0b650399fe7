//! Tokens for SSH, one for a sandbox. Knows them by their hashes only.

use crate::{Store, StoreError};
use infield_api::SandboxId;

impl Store {
    /// Gives a sandbox its token; the one it had is worth nothing any more.
    pub async fn set_ssh_access(
        &self,
        sandbox: SandboxId,
        id: &str,
        token_hash: &str,
        expires_ms: i64,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO ssh_access (sandbox_id, id, token_hash, expires_at) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (sandbox_id) DO UPDATE SET id = $2, token_hash = $3, expires_at = $4";
        let values = vec![sandbox.to_string().into(), id.into(), token_hash.into(), expires_ms.into()];
        self.db.execute(sql, values).await.map(|_| ())
    }

    /// Which sandbox a token opens; `None` when it is unknown or too old.
    pub async fn ssh_access(&self, token_hash: &str, now_ms: i64) -> Result<Option<SandboxId>, StoreError> {
        let sql = "SELECT sandbox_id FROM ssh_access WHERE token_hash = $1 AND expires_at > $2";
        let rows = self.db.fetch(sql, vec![token_hash.into(), now_ms.into()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let id = row.text(0)?.parse().map_err(|_| StoreError::Unreadable { what: "id of an SSH access".to_owned() })?;
        Ok(Some(id))
    }

    /// Without a token: whatever the sandbox has. Repeating it is harmless.
    pub async fn revoke_ssh_access(&self, sandbox: SandboxId, token_hash: Option<&str>) -> Result<(), StoreError> {
        let (sql, mut values) = match token_hash {
            Some(_) => ("DELETE FROM ssh_access WHERE sandbox_id = $1 AND token_hash = $2", vec![]),
            None => ("DELETE FROM ssh_access WHERE sandbox_id = $1", vec![]),
        };
        values.push(sandbox.to_string().into());
        values.extend(token_hash.map(Into::into));
        self.db.execute(sql, values).await.map(|_| ())
    }

    pub async fn purge_ssh_access(&self, now_ms: i64) -> Result<u64, StoreError> {
        self.db.execute("DELETE FROM ssh_access WHERE expires_at <= $1", vec![now_ms.into()]).await
    }
}
