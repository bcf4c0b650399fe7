//! Usage periods: what each sandbox was given, from when until when. Opened and closed in the transaction that changes the
//! row, so that no crash loses or doubles a second.

use crate::{
    Store, StoreError,
    db::{Row, Tx},
    pair::{Metered, Pair, metered},
};
use infield_api::SandboxId;

/// No period is longer.
pub const PERIOD_MS_MAX: i64 = 24 * 60 * 60 * 1000;
/// Periods one sweep splits at most; the rest waits for the next.
const SPLITS_MAX: i64 = 500;

/// One stretch of time with one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsagePeriod {
    pub sandbox_id: SandboxId,
    pub organization_id: String,
    pub cpu: i64,
    pub memory_gib: i64,
    pub disk_gib: i64,
    pub start_ms: i64,
    /// `None` = still going on.
    pub end_ms: Option<i64>,
}

/// What an organization's live sandboxes hold now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageNow {
    pub cpu: i64,
    pub memory_gib: i64,
    pub disk_gib: i64,
    pub snapshots: i64,
}

/// After a row became `to`: closes the open period and opens the one that fits.
pub(crate) async fn turn(tx: &mut Tx, id: SandboxId, was: Pair, to: Pair, now_ms: i64) -> Result<(), StoreError> {
    let next = metered(to);
    if next == Metered::AsBefore || next == metered(was) {
        return Ok(());
    }
    close(tx, id, now_ms).await?;
    match next {
        Metered::Full => open(tx, id, now_ms, true).await,
        Metered::Disk => open(tx, id, now_ms, false).await,
        Metered::Nothing | Metered::AsBefore => Ok(()),
    }
}

/// A clock that went back makes a period of no length, never a negative one.
async fn close(tx: &mut Tx, id: SandboxId, now_ms: i64) -> Result<(), StoreError> {
    let sql = "UPDATE usage_periods SET end_at = CASE WHEN start_at > $2 THEN start_at ELSE $2 END \
               WHERE sandbox_id = $1 AND end_at IS NULL";
    tx.execute(sql, vec![id.to_string().into(), now_ms.into()]).await.map(|_| ())
}

/// Never begins before the last one ended.
async fn open(tx: &mut Tx, id: SandboxId, now_ms: i64, running: bool) -> Result<(), StoreError> {
    let sql = "INSERT INTO usage_periods (id, sandbox_id, organization_id, region, region_type, sandbox_class, cpu, gpu, \
               memory_gib, disk_gib, start_at) SELECT $2, id, organization_id, target, 'shared', 'container', \
               cpu * $4, 0, memory_gib * $4, disk_gib, COALESCE((SELECT MAX(p.end_at) FROM usage_periods p \
               WHERE p.sandbox_id = $1 AND p.end_at > $3), $3) FROM sandboxes WHERE sandboxes.id = $1";
    let args = vec![id.to_string().into(), fresh_id(), now_ms.into(), i64::from(running).into()];
    tx.execute(sql, args).await.map(|_| ())
}

fn fresh_id() -> crate::db::Arg {
    SandboxId::random().to_string().into()
}

impl Store {
    /// Splits open periods that are a day old, so that none spans more. Returns how many it split.
    pub async fn split_usage(&self, now_ms: i64) -> Result<u64, StoreError> {
        let mut tx = self.db.begin().await?;
        let sql = "SELECT id FROM usage_periods WHERE end_at IS NULL AND start_at <= $1 LIMIT $2";
        let old = tx.fetch(sql, vec![(now_ms - PERIOD_MS_MAX).into(), SPLITS_MAX.into()]).await?;
        for row in &old {
            let id = row.text(0)?;
            let close = "UPDATE usage_periods SET end_at = start_at + $2 WHERE id = $1 AND end_at IS NULL";
            if tx.execute(close, vec![id.as_str().into(), PERIOD_MS_MAX.into()]).await? == 0 {
                continue;
            }
            let again = "INSERT INTO usage_periods (id, sandbox_id, organization_id, region, region_type, sandbox_class, \
                         cpu, gpu, gpu_type, memory_gib, disk_gib, start_at) SELECT $2, sandbox_id, organization_id, \
                         region, region_type, sandbox_class, cpu, gpu, gpu_type, memory_gib, disk_gib, end_at \
                         FROM usage_periods WHERE id = $1";
            tx.execute(again, vec![id.as_str().into(), fresh_id()]).await?;
        }
        tx.commit().await?;
        Ok(old.len() as u64)
    }

    /// Every period of a sandbox, the oldest first.
    pub async fn usage_of(&self, id: SandboxId) -> Result<Vec<UsagePeriod>, StoreError> {
        let sql = "SELECT sandbox_id, organization_id, cpu, memory_gib, disk_gib, start_at, end_at FROM usage_periods \
                   WHERE sandbox_id = $1 ORDER BY start_at, end_at IS NULL, end_at";
        self.db.fetch(sql, vec![id.to_string().into()]).await?.iter().map(period).collect()
    }

    /// What the organization's sandboxes hold at this moment.
    pub async fn usage_now(&self, organization: &str) -> Result<UsageNow, StoreError> {
        let sql = "SELECT CAST(COALESCE(SUM(cpu), 0) AS BIGINT), CAST(COALESCE(SUM(memory_gib), 0) AS BIGINT), \
                   CAST(COALESCE(SUM(disk_gib), 0) AS BIGINT), \
                   (SELECT COUNT(*) FROM snapshots WHERE organization_id = $1) \
                   FROM usage_periods WHERE organization_id = $1 AND end_at IS NULL";
        let rows = self.db.fetch(sql, vec![organization.into()]).await?;
        let Some(row) = rows.first() else { return Ok(UsageNow::default()) };
        Ok(UsageNow { cpu: row.int(0)?, memory_gib: row.int(1)?, disk_gib: row.int(2)?, snapshots: row.int(3)? })
    }
}

fn period(row: &Row) -> Result<UsagePeriod, StoreError> {
    Ok(UsagePeriod {
        sandbox_id: crate::sandbox::id_of(row, 0)?,
        organization_id: row.text(1)?,
        cpu: row.int(2)?,
        memory_gib: row.int(3)?,
        disk_gib: row.int(4)?,
        start_ms: row.int(5)?,
        end_ms: row.int_or_null(6)?,
    })
}
