//! Sandbox rows: one insert, reads, and settings that do not touch the (state, desired state).

use crate::{
    Changed, Store, StoreError,
    db::{Arg, Row, Tx, json_text},
    sandbox_change::Job,
};
use infield_api::{
    SandboxId,
    sandbox::SandboxVolume,
    state::{DesiredState, SandboxState},
};
use std::collections::BTreeMap;

/// A sandbox as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxRow {
    pub id: SandboxId,
    pub organization_id: String,
    pub name: String,
    pub state: SandboxState,
    pub desired: DesiredState,
    /// Name of the snapshot.
    pub snapshot: String,
    /// Reference or content id in the host's image store.
    pub image: String,
    /// OS user; `None` = the image's own.
    pub run_as: Option<String>,
    /// OS user as shown to clients.
    pub shown_user: String,
    pub entrypoint: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub public: bool,
    pub network_block_all: bool,
    pub target: String,
    pub cpu: i64,
    pub memory_gib: i64,
    pub disk_gib: i64,
    pub auto_stop_min: i64,
    pub auto_archive_min: i64,
    pub auto_delete_min: i64,
    pub error_reason: Option<String>,
    pub recoverable: bool,
    pub auth_token: String,
    pub daemon_version: Option<String>,
    pub runner_id: Option<String>,
    /// The stop in progress skips the grace period.
    pub force_stop: bool,
    /// 0 = never.
    pub auto_pause_min: i64,
    /// When its time to live ends.
    pub auto_destroy_ms: Option<i64>,
    /// The sandbox it was forked from.
    pub parent_id: Option<SandboxId>,
    /// The sandbox it lives and dies with.
    pub linked_id: Option<SandboxId>,
    /// What the change under way is about.
    pub job: Option<Job>,
    pub volumes: Vec<SandboxVolume>,
    pub created_ms: i64,
    pub updated_ms: i64,
    pub activity_ms: i64,
}

/// Which interval a setter changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    Stop,
    Pause,
    Archive,
    Delete,
}

macro_rules! columns {
    () => {
        "id, organization_id, name, state, desired_state, snapshot, image, run_as, shown_user, entrypoint, env, labels, \
         public, network_block_all, target, cpu, memory_gib, disk_gib, auto_stop, auto_archive, auto_delete, \
         error_reason, recoverable, auth_token, daemon_version, runner_id, force_stop, created_at, updated_at, \
         last_activity_at, auto_pause, auto_destroy_at, parent_id, linked_id, job, volumes"
    };
}
pub(crate) use columns;

impl Store {
    /// `NameTaken` when a live sandbox of the organization has the name.
    pub async fn insert_sandbox(&self, s: &SandboxRow) -> Result<(), StoreError> {
        let (sql, args) = insertion(s);
        self.db.execute(sql, args).await?;
        self.changes.tell(Changed { id: s.id, organization: Some(s.organization_id.clone()), was: None });
        Ok(())
    }

    /// A sandbox in whatever state.
    pub async fn sandbox(&self, id: SandboxId) -> Result<Option<SandboxRow>, StoreError> {
        let sql = concat!("SELECT ", columns!(), " FROM sandboxes WHERE id = $1");
        let rows = self.db.fetch(sql, vec![id.to_string().into()]).await?;
        rows.first().map(sandbox_row).transpose()
    }

    /// A live sandbox of an organization by id, else by name. Destroyed ones, and failed ones on their way there, are
    /// not found.
    pub async fn find_sandbox(&self, organization: &str, id_or_name: &str) -> Result<Option<SandboxRow>, StoreError> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM sandboxes WHERE organization_id = $1 AND (id = $2 OR name = $3) AND state <> 'destroyed' \
             AND NOT (state IN ('error', 'build_failed') AND desired_state = 'destroyed') \
             ORDER BY CASE WHEN id = $2 THEN 0 ELSE 1 END LIMIT 1"
        );
        let id = id_or_name.to_ascii_lowercase();
        let rows = self.db.fetch(sql, vec![organization.into(), id.into(), id_or_name.into()]).await?;
        rows.first().map(sandbox_row).transpose()
    }

    /// Replaces the whole map.
    pub async fn set_labels(
        &self,
        id: SandboxId,
        labels: &BTreeMap<String, String>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE sandboxes SET labels = $2, updated_at = $3 WHERE id = $1";
        self.db.execute(sql, vec![id.to_string().into(), json_text(labels).into(), now_ms.into()]).await.map(|_| ())
    }

    pub async fn set_public(&self, id: SandboxId, public: bool, now_ms: i64) -> Result<(), StoreError> {
        let sql = "UPDATE sandboxes SET public = $2, updated_at = $3 WHERE id = $1";
        self.db.execute(sql, vec![id.to_string().into(), public.into(), now_ms.into()]).await.map(|_| ())
    }

    /// When its time to live ends; `None` = never.
    pub async fn set_auto_destroy(&self, id: SandboxId, at_ms: Option<i64>, now_ms: i64) -> Result<(), StoreError> {
        let sql = "UPDATE sandboxes SET auto_destroy_at = $2, updated_at = $3 WHERE id = $1";
        self.db.execute(sql, vec![id.to_string().into(), at_ms.into(), now_ms.into()]).await.map(|_| ())
    }

    /// Sandboxes forked from this one, the oldest first; at most `limit`.
    pub async fn forks_of(&self, id: SandboxId, destroyed: bool, limit: i64) -> Result<Vec<SandboxRow>, StoreError> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM sandboxes WHERE parent_id = $1 AND ($2 = 1 OR state <> 'destroyed') ORDER BY created_at, id LIMIT $3"
        );
        let rows = self.db.fetch(sql, vec![id.to_string().into(), destroyed.into(), limit.into()]).await?;
        rows.iter().map(sandbox_row).collect()
    }

    /// Sandboxes linked to this one that nobody deletes yet.
    pub async fn followers_of(&self, id: SandboxId) -> Result<Vec<SandboxRow>, StoreError> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM sandboxes WHERE linked_id = $1 AND desired_state <> 'destroyed' ORDER BY created_at, id"
        );
        self.db.fetch(sql, vec![id.to_string().into()]).await?.iter().map(sandbox_row).collect()
    }

    pub async fn set_interval(
        &self,
        id: SandboxId,
        which: Interval,
        minutes: i64,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let sql = match which {
            Interval::Pause => "UPDATE sandboxes SET auto_pause = $2, updated_at = $3 WHERE id = $1",
            Interval::Stop => "UPDATE sandboxes SET auto_stop = $2, updated_at = $3 WHERE id = $1",
            Interval::Archive => "UPDATE sandboxes SET auto_archive = $2, updated_at = $3 WHERE id = $1",
            Interval::Delete => "UPDATE sandboxes SET auto_delete = $2, updated_at = $3 WHERE id = $1",
        };
        self.db.execute(sql, vec![id.to_string().into(), minutes.into(), now_ms.into()]).await.map(|_| ())
    }
}

pub(crate) async fn insert_in(tx: &mut Tx, s: &SandboxRow) -> Result<(), StoreError> {
    let (sql, args) = insertion(s);
    tx.execute(sql, args).await.map(|_| ())
}

fn insertion(s: &SandboxRow) -> (&'static str, Vec<Arg>) {
    let sql = concat!(
        "INSERT INTO sandboxes (",
        columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, \
         $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36)"
    );
    let mut args: Vec<Arg> = vec![
        s.id.to_string().into(),
        s.organization_id.as_str().into(),
        s.name.as_str().into(),
        s.state.as_str().into(),
        s.desired.as_str().into(),
        s.snapshot.as_str().into(),
        s.image.as_str().into(),
        s.run_as.clone().into(),
        s.shown_user.as_str().into(),
        json_text(&s.entrypoint).into(),
        json_text(&s.env).into(),
        json_text(&s.labels).into(),
        s.public.into(),
        s.network_block_all.into(),
        s.target.as_str().into(),
        s.cpu.into(),
        s.memory_gib.into(),
        s.disk_gib.into(),
        s.auto_stop_min.into(),
        s.auto_archive_min.into(),
        s.auto_delete_min.into(),
        s.error_reason.clone().into(),
        s.recoverable.into(),
        s.auth_token.as_str().into(),
        s.daemon_version.clone().into(),
        s.runner_id.clone().into(),
        s.force_stop.into(),
        s.created_ms.into(),
        s.updated_ms.into(),
        s.activity_ms.into(),
    ];
    args.extend([
        s.auto_pause_min.into(),
        s.auto_destroy_ms.into(),
        s.parent_id.map(|id| id.to_string()).into(),
        s.linked_id.map(|id| id.to_string()).into(),
        s.job.as_ref().map(json_text).into(),
        json_text(&s.volumes).into(),
    ]);
    (sql, args)
}

pub(crate) fn sandbox_row(row: &Row) -> Result<SandboxRow, StoreError> {
    Ok(SandboxRow {
        id: id_of(row, 0)?,
        organization_id: row.text(1)?,
        name: row.text(2)?,
        state: state_of(row, 3)?,
        desired: desired_of(row, 4)?,
        snapshot: row.text(5)?,
        image: row.text(6)?,
        run_as: row.text_or_null(7)?,
        shown_user: row.text(8)?,
        entrypoint: row.json(9)?,
        env: row.json(10)?,
        labels: row.json(11)?,
        public: row.flag(12)?,
        network_block_all: row.flag(13)?,
        target: row.text(14)?,
        cpu: row.int(15)?,
        memory_gib: row.int(16)?,
        disk_gib: row.int(17)?,
        auto_stop_min: row.int(18)?,
        auto_archive_min: row.int(19)?,
        auto_delete_min: row.int(20)?,
        error_reason: row.text_or_null(21)?,
        recoverable: row.flag(22)?,
        auth_token: row.text(23)?,
        daemon_version: row.text_or_null(24)?,
        runner_id: row.text_or_null(25)?,
        force_stop: row.flag(26)?,
        created_ms: row.int(27)?,
        updated_ms: row.int(28)?,
        activity_ms: row.int(29)?,
        auto_pause_min: row.int(30)?,
        auto_destroy_ms: row.int_or_null(31)?,
        parent_id: id_or_null(row, 32)?,
        linked_id: id_or_null(row, 33)?,
        job: row.text_or_null(34)?.map(|_| row.json(34)).transpose()?,
        volumes: row.json(35)?,
    })
}

pub(crate) fn id_of(row: &Row, column: usize) -> Result<SandboxId, StoreError> {
    let text = row.text(column)?;
    text.parse().map_err(|_| StoreError::Unreadable { what: format!("sandbox id {text:?}") })
}

fn id_or_null(row: &Row, column: usize) -> Result<Option<SandboxId>, StoreError> {
    row.text_or_null(column)?.map(|_| id_of(row, column)).transpose()
}

pub(crate) fn state_of(row: &Row, column: usize) -> Result<SandboxState, StoreError> {
    let text = row.text(column)?;
    SandboxState::parse(&text).ok_or_else(|| StoreError::Unreadable { what: format!("sandbox state {text:?}") })
}

pub(crate) fn desired_of(row: &Row, column: usize) -> Result<DesiredState, StoreError> {
    let text = row.text(column)?;
    DesiredState::parse(&text).ok_or_else(|| StoreError::Unreadable { what: format!("desired state {text:?}") })
}
