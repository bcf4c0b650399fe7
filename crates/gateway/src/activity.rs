//! Tells the directory that a sandbox is in use: at each request, and again while a request stays open.
//!
//! One ticker serves all open requests, so that an exec of a millisecond costs no task of its own.

use http::HeaderMap;
use infield_api::{SandboxId, directory::Directory};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

const SKIP: &str = "x-daytona-skip-last-activity-update";

#[derive(Clone)]
pub struct Activity {
    shared: Arc<Shared>,
}

struct Shared {
    directory: Arc<dyn Directory>,
    open: Mutex<HashMap<SandboxId, usize>>,
}

/// An open request. Dropping it ends the repeated touching.
pub struct Open {
    shared: Option<(Arc<Shared>, SandboxId)>,
}

impl Activity {
    pub fn start(directory: Arc<dyn Directory>, every: Duration) -> Self {
        let shared = Arc::new(Shared { directory, open: Mutex::default() });
        tokio::spawn(tick(Arc::downgrade(&shared), every));
        Self { shared }
    }

    pub fn open(&self, sandbox: SandboxId, headers: &HeaderMap) -> Open {
        if headers.get(SKIP).is_some_and(|v| v == "true") {
            return Open { shared: None };
        }
        self.begin(sandbox)
    }

    pub fn begin(&self, sandbox: SandboxId) -> Open {
        self.shared.directory.touch(sandbox);
        *self.shared.lock().entry(sandbox).or_default() += 1;
        Open { shared: Some((self.shared.clone(), sandbox)) }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SandboxId, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some((shared, sandbox)) = self.shared.take() else { return };
        let mut open = shared.lock();
        if let Some(count) = open.get_mut(&sandbox) {
            *count -= 1;
            if *count == 0 {
                open.remove(&sandbox);
            }
        }
    }
}

async fn tick(shared: Weak<Shared>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(shared) = shared.upgrade() else { return };
        let open: Vec<SandboxId> = shared.lock().keys().copied().collect();
        for sandbox in open {
            shared.directory.touch(sandbox);
        }
    }
}
