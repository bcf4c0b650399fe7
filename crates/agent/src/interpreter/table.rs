//! Contexts by their ids, and the default one, which exists as soon as somebody wants it.

use super::context::Context;
use crate::error::Failure;
use crate::state::Shared;
use infield_api::toolbox::DaemonErrorCode as Code;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

pub const DEFAULT_ID: &str = "default";
const CONTEXTS_MAX: usize = 100;

#[derive(Default)]
pub struct Contexts {
    table: Mutex<Table>,
    default: tokio::sync::Mutex<Option<Arc<Context>>>,
}

#[derive(Default)]
struct Table {
    /// `None`: it is being started.
    by_id: HashMap<String, Option<Arc<Context>>>,
    born: u64,
}

impl Contexts {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn create(&self, agent: &Shared, cwd: Option<PathBuf>) -> Result<Arc<Context>, Failure> {
        let id = Uuid::new_v4().to_string();
        let born = {
            let mut table = self.table();
            if table.by_id.len() >= CONTEXTS_MAX {
                let why =
                    format!("this sandbox has {CONTEXTS_MAX} interpreter contexts, which is the limit; delete some");
                return Err(Failure::plain(503, why));
            }
            table.by_id.insert(id.clone(), None);
            table.born += 1;
            table.born
        };
        let started = Context::start(agent, id.clone(), born, cwd).await;
        let mut table = self.table();
        match started {
            Ok(context) => {
                table.by_id.insert(id, Some(context.clone()));
                Ok(context)
            }
            Err(why) => {
                table.by_id.remove(&id);
                Err(Failure::new(Code::Internal, format!("failed to create interpreter context: {why}")))
            }
        }
    }

    /// Oldest first, without the default one.
    pub fn list(&self) -> Vec<Arc<Context>> {
        let mut all: Vec<_> = self.table().by_id.values().flatten().cloned().collect();
        all.sort_unstable_by_key(|c| c.born);
        all
    }

    pub fn find(&self, id: &str) -> Option<Arc<Context>> {
        self.table().by_id.get(id).cloned().flatten()
    }

    pub fn remove(&self, id: &str) -> Option<Arc<Context>> {
        let mut table = self.table();
        if !matches!(table.by_id.get(id), Some(Some(_))) {
            return None;
        }
        table.by_id.remove(id).flatten()
    }

    /// The default context, with a new worker if its last one is gone.
    pub async fn default_one(&self, agent: &Shared) -> Result<Arc<Context>, String> {
        let mut slot = self.default.lock().await;
        if let Some(context) = slot.as_ref().filter(|c| c.is_active()) {
            return Ok(context.clone());
        }
        let context = Context::start(agent, DEFAULT_ID.to_owned(), 0, None).await?;
        *slot = Some(context.clone());
        Ok(context)
    }
}
