//! Says in this process which sandboxes were written, after it happened. Whoever must not miss one reads the rows.

use crate::{Pair, Store};
use infield_api::SandboxId;
use tokio::sync::broadcast;

/// Changes a slow reader may lag behind.
const BEHIND_MAX: usize = 4096;

/// A sandbox whose state or desired state was written.
#[derive(Clone, Debug)]
pub struct Changed {
    pub id: SandboxId,
    /// Where the writer knows it.
    pub organization: Option<String>,
    /// `None`: it is new.
    pub was: Option<Pair>,
}

#[derive(Clone)]
pub(crate) struct Changes(broadcast::Sender<Changed>);

impl Changes {
    pub(crate) fn new() -> Self {
        Self(broadcast::channel(BEHIND_MAX).0)
    }

    pub(crate) fn tell(&self, changed: Changed) {
        // Nobody listening is no trouble.
        let _ = self.0.send(changed);
    }
}

impl Store {
    /// Every change that this process writes from now on.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changes.0.subscribe()
    }
}
