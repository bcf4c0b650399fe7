//! The language servers of this sandbox, one for each pair of language and project as the caller writes them. Empty, and
//! without any memory of its own, until the first start.

use super::language::Language;
use super::server::{Server, Trouble};
use crate::state::Shared;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Each is a process of the user's and some buffers of the agent's.
const SERVERS_MAX: usize = 8;

pub type Key = (String, String);
/// Locked while its server starts or stops, so that others wait for the outcome.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Server>>>>;

#[derive(Default)]
pub struct Registry(Mutex<BTreeMap<Key, Slot>>);

/// What an operation finds.
pub enum Found {
    Server(Arc<Server>),
    Nothing,
    /// It was there, and ended by itself.
    Ended(String),
}

impl Registry {
    fn slots(&self) -> MutexGuard<'_, BTreeMap<Key, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, key: &Key) -> Option<Slot> {
        self.slots().get(key).cloned()
    }

    /// Takes the slot out unless somebody put a server there meanwhile.
    fn forget(&self, key: &Key, slot: &Slot) {
        let mut slots = self.slots();
        let same = slots.get(key).is_some_and(|known| Arc::ptr_eq(known, slot));
        if same && slot.try_lock().is_ok_and(|server| server.is_none()) {
            slots.remove(key);
        }
    }

    /// Starts the server unless it runs.
    pub async fn start(&self, agent: &Shared, key: Key, language: Language, project: PathBuf) -> Result<(), Trouble> {
        let slot = {
            let mut slots = self.slots();
            if !slots.contains_key(&key) && slots.len() >= SERVERS_MAX {
                let message = format!("{SERVERS_MAX} language servers are started; stop one of them first");
                return Err(Trouble::Request(message));
            }
            slots.entry(key.clone()).or_default().clone()
        };
        let outcome = {
            let mut server = slot.lock().await;
            if server.as_ref().is_some_and(|s| s.over().is_none()) {
                return Ok(());
            }
            *server = None;
            Server::start(agent, language, project).await.map(|started| *server = Some(Arc::new(started)))
        };
        if outcome.is_err() {
            self.forget(&key, &slot);
        }
        outcome
    }

    pub async fn find(&self, key: &Key) -> Found {
        let Some(slot) = self.slot(key) else { return Found::Nothing };
        let server = slot.lock().await.clone();
        match server {
            Some(server) => match server.over() {
                Some(why) => Found::Ended(why),
                None => Found::Server(server),
            },
            None => Found::Nothing,
        }
    }

    /// Says whether there was one to stop.
    pub async fn stop(&self, key: &Key) -> bool {
        let Some(slot) = self.slot(key) else { return false };
        let stopped = {
            let mut server = slot.lock().await;
            match server.take() {
                Some(server) => {
                    let ran = server.over().is_none();
                    server.stop().await;
                    ran
                }
                None => false,
            }
        };
        self.forget(key, &slot);
        stopped
    }
}
