//! Sandbox rows: one insert, reads, and changes that compare (state, desired state) before they set.

use crate::{
    Changed, Store, StoreError,
    db::{Row, json_text},
};
use infield_api::{
    SandboxId,
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
    pub created_ms: i64,
    pub updated_ms: i64,
    pub activity_ms: i64,
}

/// What a change expects to find.
pub type Pair = (SandboxState, DesiredState);

/// Where the driver found or brought a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub state: SandboxState,
    pub desired: DesiredState,
    pub reason: Option<String>,
    /// Of an error: the files are kept, and the sandbox may be tried again.
    pub recoverable: bool,
    pub daemon_version: Option<String>,
}

/// Which interval a setter changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    Stop,
    Archive,
    Delete,
}

macro_rules! columns {
    () => {
        "id, organization_id, name, state, desired_state, snapshot, image, run_as, shown_user, entrypoint, env, labels, \
         public, network_block_all, target, cpu, memory_gib, disk_gib, auto_stop, auto_archive, auto_delete, \
         error_reason, recoverable, auth_token, daemon_version, runner_id, force_stop, created_at, updated_at, \
         last_activity_at"
    };
}
pub(crate) use columns;

impl Store {
    /// `NameTaken` when a live sandbox of the organization has the name.
    pub async fn insert_sandbox(&self, s: &SandboxRow) -> Result<(), StoreError> {
        let sql = concat!(
            "INSERT INTO sandboxes (",
            columns!(),
            ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, \
             $21, $22, $23, $24, $25, $26, $27, $28, $29, $30)"
        );
        let args = vec![
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

    /// Intent: run, with a new token for previews.
    pub async fn intend_start(&self, id: SandboxId, was: Pair, token: &str, now_ms: i64) -> Result<bool, StoreError> {
        let sql = "UPDATE sandboxes SET desired_state = 'started', auth_token = $4, updated_at = $5 \
                   WHERE id = $1 AND state = $2 AND desired_state = $3";
        let args = vec![id.to_string().into(), was.0.as_str().into(), was.1.as_str().into()];
        self.compare_and_set(id, was, sql, args, vec![token.into(), now_ms.into()]).await
    }

    /// Intent: forget the error. What is known of a recoverable sandbox is that its files are there, so it counts as stopped.
    pub async fn intend_recover(
        &self,
        id: SandboxId,
        was: Pair,
        wanted: DesiredState,
        token: &str,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE sandboxes SET state = 'stopped', desired_state = $4, auth_token = $5, updated_at = $6, \
                   error_reason = NULL, recoverable = 0 \
                   WHERE id = $1 AND state = $2 AND desired_state = $3 AND recoverable = 1";
        let args = vec![id.to_string().into(), was.0.as_str().into(), was.1.as_str().into()];
        self.compare_and_set(id, was, sql, args, vec![wanted.as_str().into(), token.into(), now_ms.into()]).await
    }

    /// Intent: stop.
    pub async fn intend_stop(&self, id: SandboxId, was: Pair, force: bool, now_ms: i64) -> Result<bool, StoreError> {
        let sql = "UPDATE sandboxes SET desired_state = 'stopped', force_stop = $4, updated_at = $5 \
                   WHERE id = $1 AND state = $2 AND desired_state = $3";
        let args = vec![id.to_string().into(), was.0.as_str().into(), was.1.as_str().into()];
        self.compare_and_set(id, was, sql, args, vec![force.into(), now_ms.into()]).await
    }

    /// Intent: be gone. The name becomes `new_name`, so that the old one is free at once.
    pub async fn intend_destroy(&self, id: SandboxId, was: Pair, new_name: &str, now: i64) -> Result<bool, StoreError> {
        let sql = "UPDATE sandboxes SET desired_state = 'destroyed', name = $4, updated_at = $5 \
                   WHERE id = $1 AND state = $2 AND desired_state = $3";
        let args = vec![id.to_string().into(), was.0.as_str().into(), was.1.as_str().into()];
        self.compare_and_set(id, was, sql, args, vec![new_name.into(), now.into()]).await
    }

    /// The driver's own write. A change of state counts as activity, so the idle clocks begin again.
    pub async fn settle(&self, id: SandboxId, was: Pair, to: &Settled, now_ms: i64) -> Result<bool, StoreError> {
        let sql = "UPDATE sandboxes SET state = $4, desired_state = $5, error_reason = $6, recoverable = $9, \
                   daemon_version = COALESCE($7, daemon_version), \
                   runner_id = CASE WHEN $4 = 'destroyed' THEN NULL ELSE runner_id END, \
                   last_activity_at = CASE WHEN state = $4 THEN last_activity_at ELSE $8 END, updated_at = $8 \
                   WHERE id = $1 AND state = $2 AND desired_state = $3";
        let args = vec![id.to_string().into(), was.0.as_str().into(), was.1.as_str().into()];
        let sets = vec![
            to.state.as_str().into(),
            to.desired.as_str().into(),
            to.reason.clone().into(),
            to.daemon_version.clone().into(),
            now_ms.into(),
            to.recoverable.into(),
        ];
        self.compare_and_set(id, was, sql, args, sets).await
    }

    async fn compare_and_set(
        &self,
        id: SandboxId,
        was: Pair,
        sql: &'static str,
        mut args: Vec<crate::db::Arg>,
        sets: Vec<crate::db::Arg>,
    ) -> Result<bool, StoreError> {
        args.extend(sets);
        let written = self.db.execute(sql, args).await? > 0;
        if written {
            self.changes.tell(Changed { id, organization: None, was: Some(was) });
        }
        Ok(written)
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

    pub async fn set_interval(
        &self,
        id: SandboxId,
        which: Interval,
        minutes: i64,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let sql = match which {
            Interval::Stop => "UPDATE sandboxes SET auto_stop = $2, updated_at = $3 WHERE id = $1",
            Interval::Archive => "UPDATE sandboxes SET auto_archive = $2, updated_at = $3 WHERE id = $1",
            Interval::Delete => "UPDATE sandboxes SET auto_delete = $2, updated_at = $3 WHERE id = $1",
        };
        self.db.execute(sql, vec![id.to_string().into(), minutes.into(), now_ms.into()]).await.map(|_| ())
    }
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
    })
}

pub(crate) fn id_of(row: &Row, column: usize) -> Result<SandboxId, StoreError> {
    let text = row.text(column)?;
    text.parse().map_err(|_| StoreError::Unreadable { what: format!("sandbox id {text:?}") })
}

pub(crate) fn state_of(row: &Row, column: usize) -> Result<SandboxState, StoreError> {
    let text = row.text(column)?;
    SandboxState::parse(&text).ok_or_else(|| StoreError::Unreadable { what: format!("sandbox state {text:?}") })
}

pub(crate) fn desired_of(row: &Row, column: usize) -> Result<DesiredState, StoreError> {
    let text = row.text(column)?;
    DesiredState::parse(&text).ok_or_else(|| StoreError::Unreadable { what: format!("desired state {text:?}") })
}
