//! Activity of sandboxes, gathered in memory and written in batches: at most 10 s are lost in a crash.

use infield_api::SandboxId;
use infield_store::{Store, StoreError};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// How often the batch is written.
pub const FLUSH_EVERY: Duration = Duration::from_secs(10);
/// A sandbox's clock moves at most this often.
const TOUCH_EVERY_MS: i64 = 5_000;

#[derive(Default)]
pub struct Activity {
    /// Last time noted, and whether it still has to be written.
    noted: Mutex<HashMap<SandboxId, (i64, bool)>>,
}

impl Activity {
    pub fn touch(&self, id: SandboxId) {
        let now = crate::clock::now_ms();
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = noted.entry(id).or_insert((0, false));
        if now - entry.0 >= TOUCH_EVERY_MS {
            *entry = (now, true);
        }
    }

    /// Writes what was noted since the last flush and forgets sandboxes without news.
    pub async fn flush(&self, store: &Store) -> Result<(), StoreError> {
        let batch: Vec<(SandboxId, i64)> = {
            let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            let batch = noted.iter().filter(|(_, (_, dirty))| *dirty).map(|(id, (at, _))| (*id, *at)).collect();
            noted.retain(|_, (_, dirty)| std::mem::replace(dirty, false));
            batch
        };
        if batch.is_empty() { Ok(()) } else { store.touch_sandboxes(&batch).await }
    }
}
