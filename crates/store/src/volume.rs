//! Volume rows. A volume is used by every sandbox that names it and is not meant to be destroyed.

use crate::{Store, StoreError, db::Row};
use infield_api::volume::VolumeState;

/// A volume as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRow {
    pub id: String,
    pub organization_id: String,
    pub name: String,
    pub state: VolumeState,
    pub size_gib: i64,
    pub error_reason: Option<String>,
    pub created_ms: i64,
    pub updated_ms: i64,
    pub last_used_ms: Option<i64>,
}

macro_rules! columns {
    () => {
        "id, organization_id, name, state, size_gib, error_reason, created_at, updated_at, last_used_at"
    };
}

impl Store {
    /// `NameTaken` when a volume of the organization that is not deleted has the name.
    pub async fn insert_volume(&self, v: &VolumeRow) -> Result<(), StoreError> {
        let sql = concat!("INSERT INTO volumes (", columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)");
        let args = vec![
            v.id.as_str().into(),
            v.organization_id.as_str().into(),
            v.name.as_str().into(),
            v.state.as_str().into(),
            v.size_gib.into(),
            v.error_reason.clone().into(),
            v.created_ms.into(),
            v.updated_ms.into(),
            v.last_used_ms.into(),
        ];
        self.db.execute(sql, args).await.map(|_| ())
    }

    pub async fn volume(&self, id: &str) -> Result<Option<VolumeRow>, StoreError> {
        let sql = concat!("SELECT ", columns!(), " FROM volumes WHERE id = $1");
        self.db.fetch(sql, vec![id.into()]).await?.first().map(volume_row).transpose()
    }

    /// A volume of the organization that is not deleted, by its name.
    pub async fn volume_by_name(&self, organization: &str, name: &str) -> Result<Option<VolumeRow>, StoreError> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM volumes WHERE organization_id = $1 AND name = $2 AND state <> 'deleted'"
        );
        self.db.fetch(sql, vec![organization.into(), name.into()]).await?.first().map(volume_row).transpose()
    }

    /// The one used last comes first.
    pub async fn volumes(&self, organization: &str, deleted: bool) -> Result<Vec<VolumeRow>, StoreError> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM volumes WHERE organization_id = $1 AND ($2 = 1 OR state <> 'deleted') \
             ORDER BY CASE WHEN last_used_at IS NULL THEN 1 ELSE 0 END, last_used_at DESC, created_at DESC, id"
        );
        self.db.fetch(sql, vec![organization.into(), deleted.into()]).await?.iter().map(volume_row).collect()
    }

    /// Every volume somebody has to work on.
    pub async fn unsettled_volumes(&self) -> Result<Vec<VolumeRow>, StoreError> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM volumes WHERE state IN ('pending_create', 'creating', 'pending_delete', 'deleting')"
        );
        self.db.fetch(sql, vec![]).await?.iter().map(volume_row).collect()
    }

    /// Compares before it sets; a deleted volume gives its name free.
    pub async fn settle_volume(
        &self,
        id: &str,
        was: VolumeState,
        to: VolumeState,
        reason: Option<&str>,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE volumes SET state = $3, error_reason = $4, updated_at = $5, \
                   name = CASE WHEN $3 = 'deleted' THEN name || '-deleted' ELSE name END WHERE id = $1 AND state = $2";
        let reason = reason.map(str::to_owned);
        let args = vec![id.into(), was.as_str().into(), to.as_str().into(), reason.into(), now_ms.into()];
        Ok(self.db.execute(sql, args).await? > 0)
    }

    /// Intent: be gone. `false` when it is used, or in no state to be deleted.
    pub async fn intend_volume_delete(&self, id: &str, now_ms: i64) -> Result<bool, StoreError> {
        let sql = "UPDATE volumes SET state = 'pending_delete', updated_at = $2 \
                   WHERE id = $1 AND state IN ('ready', 'error') AND NOT EXISTS \
                   (SELECT 1 FROM sandboxes WHERE desired_state <> 'destroyed' AND volumes LIKE $3)";
        Ok(self.db.execute(sql, vec![id.into(), now_ms.into(), named(id).into()]).await? > 0)
    }

    pub async fn is_volume_used(&self, id: &str) -> Result<bool, StoreError> {
        let sql = "SELECT id FROM sandboxes WHERE desired_state <> 'destroyed' AND volumes LIKE $1 LIMIT 1";
        Ok(!self.db.fetch(sql, vec![named(id).into()]).await?.is_empty())
    }

    pub async fn volume_used(&self, id: &str, now_ms: i64) -> Result<(), StoreError> {
        let sql = "UPDATE volumes SET last_used_at = $2 WHERE id = $1";
        self.db.execute(sql, vec![id.into(), now_ms.into()]).await.map(|_| ())
    }
}

/// Ids are UUIDs, so nothing in them means something to LIKE.
fn named(id: &str) -> String {
    format!("%\"volumeId\":\"{id}\"%")
}

fn volume_row(row: &Row) -> Result<VolumeRow, StoreError> {
    let state = row.text(3)?;
    Ok(VolumeRow {
        id: row.text(0)?,
        organization_id: row.text(1)?,
        name: row.text(2)?,
        state: VolumeState::parse(&state)
            .ok_or_else(|| StoreError::Unreadable { what: format!("volume state {state:?}") })?,
        size_gib: row.int(4)?,
        error_reason: row.text_or_null(5)?,
        created_ms: row.int(6)?,
        updated_ms: row.int(7)?,
        last_used_ms: row.int_or_null(8)?,
    })
}
