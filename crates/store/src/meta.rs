//! Facts about this installation, by name.

use crate::{Store, StoreError};

impl Store {
    /// The value, or `make` stored as the value when there was none; two callers at once get the same one.
    pub async fn meta_or(&self, name: &str, make: impl FnOnce() -> String) -> Result<String, StoreError> {
        if let Some(found) = self.meta(name).await? {
            return Ok(found);
        }
        let sql = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
        self.db.execute(sql, vec![name.into(), make().into()]).await?;
        let found = self.meta(name).await?;
        found.ok_or_else(|| StoreError::Unreadable { what: format!("no value for {name}") })
    }

    /// The value by this name.
    pub async fn meta(&self, name: &str) -> Result<Option<String>, StoreError> {
        let rows = self.db.fetch("SELECT value FROM meta WHERE name = $1", vec![name.into()]).await?;
        rows.first().map(|row| row.text(0)).transpose()
    }
}
