//! Changes of a sandbox's (state, desired state): compared before they are set, checked against the contract's table, and
//! metered, all in one transaction.

use crate::{
    Changed, Pair, SandboxRow, SnapshotRow, Store, StoreError,
    db::{Arg, Tx, json_text},
    pair, usage,
};
use infield_api::{
    SandboxId,
    state::{DesiredState, SandboxState},
};
use serde::{Deserialize, Serialize};

/// What a sandbox in state resizing, snapshotting or forking is about; nothing else survives a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    Resize(Size),
    /// Id of the snapshot.
    Snapshot(String),
    /// The new sandbox.
    Fork(SandboxId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub cpu: i64,
    pub memory_gib: i64,
    pub disk_gib: i64,
}

/// What a row becomes. `None` keeps what is there, except `reason` and `job`, which it clears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub state: SandboxState,
    pub desired: DesiredState,
    pub reason: Option<String>,
    /// Of an error: the files are kept, and the sandbox may be tried again.
    pub recoverable: bool,
    pub job: Option<Job>,
    pub daemon_version: Option<String>,
    pub auth_token: Option<String>,
    pub name: Option<String>,
    pub force_stop: Option<bool>,
    pub runner_id: Option<String>,
    pub size: Option<Size>,
}

impl Change {
    pub fn to(state: SandboxState, desired: DesiredState) -> Self {
        Self {
            state,
            desired,
            reason: None,
            recoverable: false,
            job: None,
            daemon_version: None,
            auth_token: None,
            name: None,
            force_stop: None,
            runner_id: None,
            size: None,
        }
    }

    pub fn pair(&self) -> Pair {
        (self.state, self.desired)
    }

    /// The row with the change in it, as [`Store::change`] writes it.
    pub fn applied(&self, mut row: SandboxRow, now_ms: i64) -> SandboxRow {
        if row.state != self.state {
            row.activity_ms = now_ms;
        }
        (row.state, row.desired, row.updated_ms) = (self.state, self.desired, now_ms);
        row.error_reason = self.reason.clone();
        row.recoverable = self.recoverable;
        row.job = self.job.clone();
        row.daemon_version = self.daemon_version.clone().or(row.daemon_version);
        row.auth_token = self.auth_token.clone().unwrap_or(row.auth_token);
        row.name = self.name.clone().unwrap_or(row.name);
        row.force_stop = self.force_stop.unwrap_or(row.force_stop);
        row.runner_id = match self.state {
            SandboxState::Destroyed | SandboxState::Archived => None,
            _ => self.runner_id.clone().or(row.runner_id),
        };
        if let Some(size) = self.size {
            (row.cpu, row.memory_gib, row.disk_gib) = (size.cpu, size.memory_gib, size.disk_gib);
        }
        row
    }
}

impl Store {
    /// Writes the change if the row still is as expected; false when somebody else was quicker. A change of state counts as
    /// activity, so the idle clocks begin again.
    pub async fn change(&self, id: SandboxId, was: Pair, to: &Change, now_ms: i64) -> Result<bool, StoreError> {
        let mut tx = self.db.begin().await?;
        let changed = change_in(&mut tx, id, was, to, now_ms).await?;
        tx.commit().await?;
        if changed {
            self.changes.tell(Changed { id, organization: None, was: Some(was) });
        }
        Ok(changed)
    }

    /// The source begins to fork and the new sandbox has its row, or neither.
    pub async fn begin_fork(&self, source: &SandboxRow, child: &SandboxRow, now_ms: i64) -> Result<bool, StoreError> {
        let forking = Change { job: Some(Job::Fork(child.id)), ..Change::to(SandboxState::Forking, source.desired) };
        let mut tx = self.db.begin().await?;
        if !change_in(&mut tx, source.id, (source.state, source.desired), &forking, now_ms).await? {
            return Ok(false);
        }
        crate::sandbox::insert_in(&mut tx, child).await?;
        tx.commit().await?;
        self.tell_of(source, Some((source.state, source.desired)));
        self.tell_of(child, None);
        Ok(true)
    }

    /// The sandbox begins to be turned into an image and the snapshot has its row, or neither.
    pub async fn begin_snapshot(&self, s: &SandboxRow, made: &SnapshotRow, now_ms: i64) -> Result<bool, StoreError> {
        let job = Some(Job::Snapshot(made.id.clone()));
        let to = Change { job, ..Change::to(SandboxState::Snapshotting, s.desired) };
        let mut tx = self.db.begin().await?;
        if !change_in(&mut tx, s.id, (s.state, s.desired), &to, now_ms).await? {
            return Ok(false);
        }
        crate::snapshot::insert_in(&mut tx, made).await?;
        tx.commit().await?;
        self.tell_of(s, Some((s.state, s.desired)));
        Ok(true)
    }

    fn tell_of(&self, row: &SandboxRow, was: Option<Pair>) {
        self.changes.tell(Changed { id: row.id, organization: Some(row.organization_id.clone()), was });
    }
}

async fn change_in(tx: &mut Tx, id: SandboxId, was: Pair, to: &Change, now_ms: i64) -> Result<bool, StoreError> {
    if !pair::allowed(to.pair()) {
        return Err(StoreError::Impossible { sandbox: id, state: to.state.as_str(), desired: to.desired.as_str() });
    }
    let sql = "UPDATE sandboxes SET state = $4, desired_state = $5, error_reason = $6, recoverable = $7, job = $8, \
               daemon_version = COALESCE($9, daemon_version), auth_token = COALESCE($10, auth_token), \
               name = COALESCE($11, name), force_stop = COALESCE($12, force_stop), \
               runner_id = CASE WHEN $4 IN ('destroyed', 'archived') THEN NULL ELSE COALESCE($13, runner_id) END, \
               cpu = COALESCE($14, cpu), memory_gib = COALESCE($15, memory_gib), disk_gib = COALESCE($16, disk_gib), \
               last_activity_at = CASE WHEN state = $4 THEN last_activity_at ELSE $17 END, updated_at = $17 \
               WHERE id = $1 AND state = $2 AND desired_state = $3";
    let args: Vec<Arg> = vec![
        id.to_string().into(),
        was.0.as_str().into(),
        was.1.as_str().into(),
        to.state.as_str().into(),
        to.desired.as_str().into(),
        to.reason.clone().into(),
        to.recoverable.into(),
        to.job.as_ref().map(json_text).into(),
        to.daemon_version.clone().into(),
        to.auth_token.clone().into(),
        to.name.clone().into(),
        to.force_stop.map(i64::from).into(),
        to.runner_id.clone().into(),
        to.size.map(|size| size.cpu).into(),
        to.size.map(|size| size.memory_gib).into(),
        to.size.map(|size| size.disk_gib).into(),
        now_ms.into(),
    ];
    if tx.execute(sql, args).await? == 0 {
        return Ok(false);
    }
    usage::turn(tx, id, was, to.pair(), now_ms).await?;
    Ok(true)
}
