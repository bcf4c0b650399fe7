//! Terminals by name. A name is taken before its shell runs and free again when the shell has ended.

use super::pty::{Pty, Wanted};
use crate::error::Failure;
use crate::state::Shared;
use infield_api::toolbox::DaemonErrorCode as Code;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub const PTYS_MAX: usize = 1000;

#[derive(Default)]
pub struct Ptys(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_id: HashMap<String, Arc<Pty>>,
    born: u64,
}

impl Ptys {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the name; nothing is started.
    pub fn reserve(&self, agent: &Shared, wanted: Wanted) -> Result<Arc<Pty>, Failure> {
        let mut table = self.table();
        if table.by_id.contains_key(&wanted.id) {
            let why = format!("conflict: PTY session with ID '{}' already exists", wanted.id);
            return Err(Failure::new(Code::Conflict, why));
        }
        if table.by_id.len() >= PTYS_MAX {
            let why = format!("this sandbox has {PTYS_MAX} PTY sessions, which is the limit; delete some");
            return Err(Failure::plain(503, why));
        }
        table.born += 1;
        let pty = Arc::new(Pty::new(agent, wanted, table.born));
        table.by_id.insert(pty.id.clone(), pty.clone());
        Ok(pty)
    }

    pub fn find(&self, id: &str) -> Option<Arc<Pty>> {
        self.table().by_id.get(id).cloned()
    }

    pub fn remove(&self, id: &str) -> Option<Arc<Pty>> {
        self.table().by_id.remove(id)
    }

    /// Frees the name if it still belongs to this one.
    pub fn forget(&self, pty: &Arc<Pty>) {
        let mut table = self.table();
        if table.by_id.get(&pty.id).is_some_and(|found| Arc::ptr_eq(found, pty)) {
            table.by_id.remove(&pty.id);
        }
    }

    /// Oldest first.
    pub fn list(&self) -> Vec<Arc<Pty>> {
        let mut all: Vec<_> = self.table().by_id.values().cloned().collect();
        all.sort_unstable_by_key(|p| p.born);
        all
    }
}
