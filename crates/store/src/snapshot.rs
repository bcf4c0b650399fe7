//! Snapshot rows: names for images. Those of every organization (`general`) have an empty organization id.

use crate::{
    Store, StoreError,
    db::{Arg, Row, Tx, json_text},
};
use infield_api::state::SnapshotState;
use sqlx::AssertSqlSafe;

/// A snapshot as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    pub id: String,
    /// Empty for general ones.
    pub organization_id: String,
    pub name: String,
    pub general: bool,
    /// The reference it was made from.
    pub image_name: String,
    pub state: SnapshotState,
    pub size_bytes: Option<i64>,
    pub entrypoint: Option<Vec<String>>,
    pub cpu: i64,
    pub memory_gib: i64,
    pub disk_gib: i64,
    pub error_reason: Option<String>,
    /// Content id in the host's image store, once there.
    pub image: Option<String>,
    /// The image's own OS user.
    pub image_user: Option<String>,
    pub last_used_ms: Option<i64>,
    pub created_ms: i64,
    pub updated_ms: i64,
    /// The sandbox it was made from.
    pub source_sandbox_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotSort {
    Name,
    State,
    LastUsed,
    Created,
}

/// Which page of the snapshots an organization can see.
#[derive(Clone, Debug)]
pub struct SnapshotPage {
    pub organization_id: String,
    /// Part of the name, any case.
    pub name: Option<String>,
    pub sort: SnapshotSort,
    pub descending: bool,
    /// From 1.
    pub page: i64,
    pub limit: i64,
}

macro_rules! columns {
    () => {
        "id, organization_id, name, general, image_name, state, size_bytes, entrypoint, cpu, memory_gib, disk_gib, \
         error_reason, image, image_user, last_used_at, created_at, updated_at, source_sandbox_id"
    };
}

impl Store {
    /// `NameTaken` when the organization has a snapshot by this name.
    pub async fn insert_snapshot(&self, s: &SnapshotRow) -> Result<(), StoreError> {
        let (sql, args) = insertion(s);
        self.db.execute(sql, args).await.map(|_| ())
    }

    /// Writes everything but id, organization and name.
    pub async fn update_snapshot(&self, s: &SnapshotRow) -> Result<(), StoreError> {
        let sql = "UPDATE snapshots SET state = $2, size_bytes = $3, entrypoint = $4, error_reason = $5, image = $6, \
                   image_user = $7, updated_at = $8 WHERE id = $1";
        let args = vec![
            s.id.as_str().into(),
            s.state.as_str().into(),
            s.size_bytes.into(),
            s.entrypoint.as_ref().map(json_text).into(),
            s.error_reason.clone().into(),
            s.image.clone().into(),
            s.image_user.clone().into(),
            s.updated_ms.into(),
        ];
        self.db.execute(sql, args).await.map(|_| ())
    }

    /// By id or name, own before general, active before others.
    pub async fn find_snapshot(&self, organization: &str, id_or_name: &str) -> Result<Option<SnapshotRow>, StoreError> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM snapshots WHERE (organization_id = $1 OR general = 1) AND (id = $2 OR name = $2) \
             AND state <> 'removing' ORDER BY CASE WHEN state = 'active' THEN 0 ELSE 1 END, general LIMIT 1"
        );
        let rows = self.db.fetch(sql, vec![organization.into(), id_or_name.into()]).await?;
        rows.first().map(snapshot_row).transpose()
    }

    /// Own ones first, then general ones; and how many there are in all.
    pub async fn page_snapshots(&self, page: &SnapshotPage) -> Result<(Vec<SnapshotRow>, i64), StoreError> {
        let part = page.name.as_deref().unwrap_or_default().to_lowercase();
        let part = format!("%{}%", part.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"));
        let matching = "FROM snapshots WHERE (organization_id = $1 OR general = 1) AND lower(name) LIKE $2 ESCAPE '\\'";
        let counted = self
            .db
            .fetch(
                AssertSqlSafe(format!("SELECT COUNT(*) {matching}")),
                vec![page.organization_id.as_str().into(), part.as_str().into()],
            )
            .await?;
        let total = counted.first().map_or(Ok(0), |row| row.int(0))?;
        let direction = if page.descending { "DESC" } else { "ASC" };
        let order = match page.sort {
            SnapshotSort::Name => format!("name {direction}"),
            SnapshotSort::State => format!("state {direction}"),
            SnapshotSort::Created => format!("created_at {direction}"),
            // Unused ones last in either direction.
            SnapshotSort::LastUsed => {
                format!("CASE WHEN last_used_at IS NULL THEN 1 ELSE 0 END, last_used_at {direction}")
            }
        };
        let sql = format!(
            "SELECT {} {matching} ORDER BY general, {order}, created_at DESC, id LIMIT $3 OFFSET $4",
            columns!()
        );
        let args = vec![
            page.organization_id.as_str().into(),
            part.into(),
            page.limit.into(),
            (page.page - 1).saturating_mul(page.limit).into(),
        ];
        let rows = self.db.fetch(AssertSqlSafe(sql), args).await?;
        Ok((rows.iter().map(snapshot_row).collect::<Result<_, _>>()?, total))
    }

    /// Snapshots in these states, of every organization.
    pub async fn snapshots_in(&self, states: [SnapshotState; 2]) -> Result<Vec<SnapshotRow>, StoreError> {
        let sql = concat!("SELECT ", columns!(), " FROM snapshots WHERE state = $1 OR state = $2");
        let rows = self.db.fetch(sql, vec![states[0].as_str().into(), states[1].as_str().into()]).await?;
        rows.iter().map(snapshot_row).collect()
    }

    /// Every general snapshot.
    pub async fn general_snapshots(&self) -> Result<Vec<SnapshotRow>, StoreError> {
        let sql = concat!("SELECT ", columns!(), " FROM snapshots WHERE general = 1");
        self.db.fetch(sql, vec![]).await?.iter().map(snapshot_row).collect()
    }

    /// Every snapshot with this image, of every organization.
    pub async fn snapshots_of_image(&self, image: &str) -> Result<Vec<SnapshotRow>, StoreError> {
        let sql = concat!("SELECT ", columns!(), " FROM snapshots WHERE image = $1");
        self.db.fetch(sql, vec![image.into()]).await?.iter().map(snapshot_row).collect()
    }

    pub async fn snapshot(&self, id: &str) -> Result<Option<SnapshotRow>, StoreError> {
        let sql = concat!("SELECT ", columns!(), " FROM snapshots WHERE id = $1");
        self.db.fetch(sql, vec![id.into()]).await?.first().map(snapshot_row).transpose()
    }

    /// Every snapshot that is being made from this reference.
    pub async fn snapshots_made_of(&self, reference: &str) -> Result<Vec<SnapshotRow>, StoreError> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM snapshots WHERE image_name = $1 AND state IN ('pending', 'pulling', 'snapshotting', 'building')"
        );
        self.db.fetch(sql, vec![reference.into()]).await?.iter().map(snapshot_row).collect()
    }

    pub async fn delete_snapshot(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.db.execute("DELETE FROM snapshots WHERE id = $1", vec![id.into()]).await? > 0)
    }

    pub async fn snapshot_used(&self, id: &str, now_ms: i64) -> Result<(), StoreError> {
        let sql = "UPDATE snapshots SET last_used_at = $2 WHERE id = $1";
        self.db.execute(sql, vec![id.into(), now_ms.into()]).await.map(|_| ())
    }
}

pub(crate) async fn insert_in(tx: &mut Tx, s: &SnapshotRow) -> Result<(), StoreError> {
    let (sql, args) = insertion(s);
    tx.execute(sql, args).await.map(|_| ())
}

fn insertion(s: &SnapshotRow) -> (&'static str, Vec<Arg>) {
    let sql = concat!(
        "INSERT INTO snapshots (",
        columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)"
    );
    let args: Vec<Arg> = vec![
        s.id.as_str().into(),
        s.organization_id.as_str().into(),
        s.name.as_str().into(),
        s.general.into(),
        s.image_name.as_str().into(),
        s.state.as_str().into(),
        s.size_bytes.into(),
        s.entrypoint.as_ref().map(json_text).into(),
        s.cpu.into(),
        s.memory_gib.into(),
        s.disk_gib.into(),
        s.error_reason.clone().into(),
        s.image.clone().into(),
        s.image_user.clone().into(),
        s.last_used_ms.into(),
        s.created_ms.into(),
        s.updated_ms.into(),
        s.source_sandbox_id.clone().into(),
    ];
    (sql, args)
}

fn snapshot_row(row: &Row) -> Result<SnapshotRow, StoreError> {
    let state = row.text(5)?;
    Ok(SnapshotRow {
        id: row.text(0)?,
        organization_id: row.text(1)?,
        name: row.text(2)?,
        general: row.flag(3)?,
        image_name: row.text(4)?,
        state: SnapshotState::parse(&state)
            .ok_or_else(|| StoreError::Unreadable { what: format!("snapshot state {state:?}") })?,
        size_bytes: row.int_or_null(6)?,
        entrypoint: row.text_or_null(7)?.map(|_| row.json(7)).transpose()?,
        cpu: row.int(8)?,
        memory_gib: row.int(9)?,
        disk_gib: row.int(10)?,
        error_reason: row.text_or_null(11)?,
        image: row.text_or_null(12)?,
        image_user: row.text_or_null(13)?,
        last_used_ms: row.int_or_null(14)?,
        created_ms: row.int(15)?,
        updated_ms: row.int(16)?,
        source_sandbox_id: row.text_or_null(17)?,
    })
}
