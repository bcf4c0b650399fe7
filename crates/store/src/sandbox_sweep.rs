//! What the background work asks of the sandbox rows: who is unsettled, idle, expired, long gone.

use crate::{
    Pair, Store, StoreError,
    sandbox::SandboxRow,
    sandbox::{columns, desired_of, id_of, sandbox_row, state_of},
};
use infield_api::SandboxId;

/// A live row, as far as reconciliation needs it.
pub type Known = (SandboxId, Pair);

/// What time wants of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Running without activity for its auto-stop interval.
    Stop,
    /// The same for its auto-pause interval.
    Pause,
    /// Stopped for its auto-archive interval.
    Archive,
    /// Stopped for its auto-delete interval.
    Delete,
    /// Its time to live is over, whatever it is doing.
    EndOfLife,
    /// The sandbox it is linked to is gone or going.
    FollowLink,
}

macro_rules! due {
    ($condition:literal) => {
        concat!("SELECT ", columns!(), " FROM sandboxes WHERE ", $condition, " ORDER BY last_activity_at, id LIMIT $2")
    };
}

/// Rows one sweep takes at most; the rest waits for the next.
const SWEEP_ROWS_MAX: i64 = 500;

impl Store {
    /// Every row that is not destroyed.
    pub async fn known_sandboxes(&self) -> Result<Vec<Known>, StoreError> {
        let sql = "SELECT id, state, desired_state FROM sandboxes WHERE state <> 'destroyed'";
        let rows = self.db.fetch(sql, vec![]).await?;
        rows.iter().map(|row| Ok((id_of(row, 0)?, (state_of(row, 1)?, desired_of(row, 2)?)))).collect()
    }

    /// Whether this database has (or in the last day had) any sandbox at all.
    pub async fn any_sandbox(&self) -> Result<bool, StoreError> {
        Ok(!self.db.fetch("SELECT id FROM sandboxes LIMIT 1", vec![]).await?.is_empty())
    }

    /// Rows on their way somewhere: what a driver has to wake after a restart.
    pub async fn unsettled_sandboxes(&self) -> Result<Vec<SandboxId>, StoreError> {
        let sql = "SELECT id FROM sandboxes WHERE state <> 'destroyed' AND (desired_state = 'destroyed' OR \
                   (state <> desired_state AND state NOT IN ('error', 'build_failed')))";
        self.db.fetch(sql, vec![]).await?.iter().map(|row| id_of(row, 0)).collect()
    }

    /// Sandboxes whose clock has run out, the longest ago first.
    pub async fn due_sandboxes(&self, wish: Wish, now_ms: i64) -> Result<Vec<SandboxRow>, StoreError> {
        let sql = match wish {
            Wish::Stop => due!(
                "state = 'started' AND desired_state = 'started' AND auto_stop > 0 \
                 AND last_activity_at + auto_stop * 60000 <= $1"
            ),
            Wish::Pause => due!(
                "state = 'started' AND desired_state = 'started' AND auto_pause > 0 \
                 AND last_activity_at + auto_pause * 60000 <= $1"
            ),
            Wish::Archive => due!(
                "state = 'stopped' AND desired_state = 'stopped' AND auto_delete <> 0 \
                 AND last_activity_at + auto_archive * 60000 <= $1"
            ),
            Wish::Delete => due!(
                "state = 'stopped' AND desired_state = 'stopped' AND auto_delete >= 0 \
                 AND last_activity_at + auto_delete * 60000 <= $1"
            ),
            Wish::EndOfLife => due!("desired_state <> 'destroyed' AND auto_destroy_at <= $1"),
            Wish::FollowLink => due!(
                "desired_state <> 'destroyed' AND linked_id IS NOT NULL AND created_at <= $1 AND NOT EXISTS \
                 (SELECT 1 FROM sandboxes t WHERE t.id = sandboxes.linked_id AND t.desired_state <> 'destroyed')"
            ),
        };
        let rows = self.db.fetch(sql, vec![now_ms.into(), SWEEP_ROWS_MAX.into()]).await?;
        rows.iter().map(sandbox_row).collect()
    }

    /// Forgets sandboxes destroyed before `before_ms`. Returns how many.
    pub async fn purge_destroyed(&self, before_ms: i64) -> Result<u64, StoreError> {
        let sql = "DELETE FROM sandboxes WHERE state = 'destroyed' AND updated_at < $1";
        self.db.execute(sql, vec![before_ms.into()]).await
    }

    /// Notes activity; never moves a clock back.
    pub async fn touch_sandboxes(&self, touched: &[(SandboxId, i64)]) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        for (id, at_ms) in touched {
            let sql = "UPDATE sandboxes SET last_activity_at = $2 WHERE id = $1 AND last_activity_at < $2";
            tx.execute(sql, vec![id.to_string().into(), (*at_ms).into()]).await?;
        }
        tx.commit().await
    }
}
