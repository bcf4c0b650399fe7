//! Hears of every agent's end: one thread, one epoll, any number of pidfds.

use crate::engine::{Inner, Live};
use crate::record::Process;
use crate::stop;
use infield_api::SandboxId;
use rustix::event::{Timespec, epoll};
use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The thread looks this often whether its engine still exists.
const ENGINE_CHECK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
const EVENTS_PER_WAIT: usize = 64;

struct Watched {
    id: SandboxId,
    process: Process,
    /// Closing it takes it out of the epoll.
    _pidfd: Arc<OwnedFd>,
}

/// The watched agents.
pub(crate) struct Watch {
    epoll: OwnedFd,
    table: Mutex<(u64, HashMap<u64, Watched>)>,
}

impl Watch {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, table: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, (u64, HashMap<u64, Watched>)> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches an agent until it ends, however it ends.
    pub(crate) fn add(&self, id: SandboxId, live: &Live) -> io::Result<()> {
        let mut table = self.lock();
        table.0 += 1;
        let key = table.0;
        let watched = Watched { id, process: live.process.clone(), _pidfd: Arc::clone(&live.pidfd) };
        table.1.insert(key, watched);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        epoll::add(&self.epoll, &*live.pidfd, epoll::EventData::new_u64(key), flags).map_err(|error| {
            table.1.remove(&key);
            error.into()
        })
    }

    /// Waits for ends until the engine is gone.
    pub(crate) fn run(engine: &Weak<Inner>) {
        loop {
            // Not held while waiting: the engine's last owner must be able to go.
            let Some(epoll) = engine.upgrade().and_then(|inner| inner.watch.epoll.try_clone().ok()) else { return };
            let mut events = [MaybeUninit::<epoll::Event>::uninit(); EVENTS_PER_WAIT];
            let keys: Vec<u64> = match epoll::wait(&epoll, &mut events, Some(&ENGINE_CHECK)) {
                Ok((events, _)) => events.iter().map(|event| event.data.u64()).collect(),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "ends of sandboxes are no longer noticed; restart the runner");
                    return;
                }
            };
            for key in keys {
                let Some(inner) = engine.upgrade() else { return };
                let Some(watched) = inner.watch.lock().1.remove(&key) else { continue };
                let runtime = inner.runtime.clone();
                // Waits for a verb on the same sandbox, if one runs: that is usually the `stop` that made it end.
                runtime.spawn_blocking(move || stop::agent_died(&inner, watched.id, &watched.process));
            }
        }
    }
}
