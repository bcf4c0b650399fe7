//! The keys that sign URLs of files, one for each sandbox that was asked for one. Knows no signature.

use crate::{Store, StoreError};
use infield_api::SandboxId;

impl Store {
    /// The key, if there is one and the sandbox has not been destroyed.
    pub async fn signing_key(&self, id: SandboxId) -> Result<Option<String>, StoreError> {
        let sql = "SELECT signing_key FROM sandboxes \
                   WHERE id = $1 AND signing_key IS NOT NULL AND state <> 'destroyed'";
        let rows = self.db.fetch(sql, vec![id.to_string().into()]).await?;
        rows.first().map(|row| row.text(0)).transpose()
    }

    /// The key, which is `new` when there was none; two callers at once get the same one. `None`: no such sandbox.
    pub async fn signing_key_or(&self, id: SandboxId, new: &str) -> Result<Option<String>, StoreError> {
        let sql = "UPDATE sandboxes SET signing_key = $2 WHERE id = $1 AND signing_key IS NULL";
        self.db.execute(sql, vec![id.to_string().into(), new.into()]).await?;
        self.signing_key(id).await
    }

    /// Whatever an older key has signed is worth nothing from now on.
    pub async fn set_signing_key(&self, id: SandboxId, new: &str) -> Result<(), StoreError> {
        let sql = "UPDATE sandboxes SET signing_key = $2 WHERE id = $1";
        self.db.execute(sql, vec![id.to_string().into(), new.into()]).await.map(|_| ())
    }
}
