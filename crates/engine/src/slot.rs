//! Slots: the parts of a sandbox that need no identity (id range, namespaces, address, link, control groups), made ahead.
//!
//! A slot is used once: its kernel objects end with its sandbox, and its number is given out again only after everything
//! that carried it is gone. Making one takes 1-2 ms, so a thread keeps a few ready; when none is, the caller makes its own.
//! Network namespaces are given up a little later and together: the kernel takes a batch down as cheaply as one, and not
//! while somebody waits for a new sandbox.

use crate::cgroup::{CgroupError, Cgroups, JoinFiles, Limits};
use crate::net::{Net, NetError};
use crate::zygote::{ZygoteError, Zygotes};
use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Host ids of slot 0 start here, above what distributions give to people and to `/etc/subuid`.
const HOST_ID_FIRST: u32 = 0x2000_0000;
/// Ids per slot: what a Linux image may use.
pub const HOST_IDS_PER_SLOT: u32 = 65_536;
/// More slots would leave the range of ids below 2^31.
pub const SLOTS_MAX: u32 = 16_384;
/// Dead network namespaces wait at most this long for company, or until this many are there.
const NETNS_LINGER: Duration = Duration::from_millis(250);
const NETNS_BATCH_MAX: usize = 64;
/// The refill thread keeps out of the way of creates, and of what their callers do next, until none ran for this long...
pub(crate) const QUIET: Duration = Duration::from_millis(20);
/// ...unless fewer than this part of the slots is left.
const RESERVE_PART: usize = 4;
/// What follows when several were asked for at the same moment (their first commands) takes about so long.
const CROWD_LINGERS: Duration = Duration::from_millis(100);
/// Niceness of the background threads.
const BACKGROUND_NICE: i32 = 10;
/// After a failure the refill thread waits before it tries again; meanwhile callers make their own and see the error.
const REFILL_RETRY: Duration = Duration::from_secs(1);

/// First host id of a slot.
pub(crate) fn first_id(slot: u32) -> u32 {
    HOST_ID_FIRST + slot * HOST_IDS_PER_SLOT
}

/// For a background thread: whoever waits for a sandbox comes first.
pub(crate) fn step_back() {
    // Without it the background work only competes harder.
    let _ = rustix::process::setpriority_process(None, BACKGROUND_NICE);
}

/// A slot nobody lives in yet.
#[derive(Debug)]
pub(crate) struct Slot {
    pub number: u32,
    pub userns: OwnedFd,
    pub netns: OwnedFd,
    pub join: JoinFiles,
}

#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    #[error("all {0} sandbox slots of this host are in use; delete a sandbox, or start with a larger subnet")]
    Exhausted(u32),
    #[error(transparent)]
    Zygote(#[from] ZygoteError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

/// The parts slots are made from.
pub(crate) struct Parts {
    pub zygotes: Zygotes,
    pub net: Net,
    pub cgroups: Cgroups,
}

impl Parts {
    pub(crate) fn slots_max(&self) -> u32 {
        self.net.slots_max().min(SLOTS_MAX)
    }

    fn make(&self, number: u32) -> Result<Slot, SlotError> {
        let pair = self.zygotes.make_pair(first_id(number), HOST_IDS_PER_SLOT)?;
        let made = self.net.plug(number, pair.net.as_fd()).map_err(SlotError::from);
        let join = made.and_then(|()| Ok(self.cgroups.create(number)?));
        match join {
            Ok(join) => Ok(Slot { number, userns: pair.user, netns: pair.net, join }),
            Err(error) => {
                self.take_down(number);
                Err(error)
            }
        }
    }

    /// Sets the limits. Groups that somebody tidied away since the slot was taken are made again.
    pub(crate) fn limit(&self, slot: &mut Slot, limits: Limits) -> Result<(), SlotError> {
        match self.cgroups.limit(slot.number, limits) {
            Err(_) if !self.cgroups.intact(slot.number) => {
                slot.join = self.cgroups.create(slot.number)?;
                Ok(self.cgroups.limit(slot.number, limits)?)
            }
            other => Ok(other?),
        }
    }

    /// Takes away what belongs to a slot whose processes have ended. Failures are logged, not returned: the caller has
    /// nothing better to do, and the sweep at the next start tries again.
    fn take_down(&self, number: u32) {
        self.unplug(number);
        self.remove_groups(number);
    }

    fn unplug(&self, number: u32) {
        if let Err(error) = self.net.unplug(number) {
            tracing::warn!(
                slot = number,
                error = crate::error::chain(&error),
                "network of a slot could not be removed"
            );
        }
    }

    fn remove_groups(&self, number: u32) {
        if let Err(error) = self.cgroups.remove(number) {
            tracing::warn!(
                slot = number,
                error = crate::error::chain(&error),
                "control groups of a slot could not be removed"
            );
        }
    }
}

#[derive(Default)]
struct State {
    ready: VecDeque<Slot>,
    used: BTreeSet<u32>,
    next: u32,
    dying: Vec<(u32, Option<OwnedFd>)>,
    dying_since: Option<Instant>,
    closing: bool,
}

/// The slots of one runner.
pub(crate) struct Slots {
    pub parts: Parts,
    /// Slots kept ready at most.
    most: usize,
    /// Slots kept ready now.
    target: AtomicUsize,
    state: Mutex<State>,
    wake: Condvar,
    creating: AtomicUsize,
    /// When the last create ended.
    created_at: Mutex<Option<Instant>>,
    /// When creates were last in progress at the same time.
    crowded_at: Mutex<Option<Instant>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// While one of these lives, the background threads keep out of the way.
pub(crate) struct Creating<'a>(&'a Slots);

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        if self.0.creating.fetch_sub(1, Ordering::Relaxed) > 1 {
            *self.0.crowded_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        *self.0.created_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

impl Slots {
    /// `used` are the slots of living sandboxes; `target` slots are kept ready.
    pub(crate) fn open(parts: Parts, used: BTreeSet<u32>, target: usize) -> Arc<Self> {
        let next = used.last().map_or(0, |last| last + 1);
        let state = State { used, next, ..State::default() };
        Arc::new(Self {
            parts,
            most: target,
            target: AtomicUsize::new(target),
            state: Mutex::new(state),
            wake: Condvar::new(),
            creating: AtomicUsize::new(0),
            created_at: Mutex::default(),
            crowded_at: Mutex::default(),
            threads: Mutex::default(),
        })
    }

    /// Runs the refill and the clean-up until [`close`](Self::close).
    pub(crate) fn start_background(self: &Arc<Self>) -> std::io::Result<()> {
        type Work = fn(&Slots);
        for (name, work) in [("slot-refill", Self::refill as Work), ("slot-cleanup", Self::clean_up as Work)] {
            let slots = Arc::clone(self);
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
                step_back();
                work(&slots);
            })?;
            self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(())
    }

    pub(crate) fn creating(&self) -> Creating<'_> {
        self.creating.fetch_add(1, Ordering::Relaxed);
        Creating(self)
    }

    /// A slot, ready-made if possible.
    pub(crate) fn take(&self) -> Result<Slot, SlotError> {
        loop {
            let ready = self.lock().ready.pop_front();
            self.wake.notify_all();
            match ready {
                Some(slot) if self.parts.cgroups.intact(slot.number) => return Ok(slot),
                Some(slot) => {
                    tracing::warn!(slot = slot.number, "somebody removed the control groups of a prepared slot");
                    self.release(slot.number, Some(slot.netns));
                }
                None => return self.make(),
            }
        }
    }

    fn make(&self) -> Result<Slot, SlotError> {
        let number = self.reserve()?;
        self.parts.make(number).inspect_err(|_| {
            self.lock().used.remove(&number);
        })
    }

    /// The next free number, going round: a number comes back as late as possible.
    fn reserve(&self) -> Result<u32, SlotError> {
        let max = self.parts.slots_max();
        let mut state = self.lock();
        let start = if state.next < max { state.next } else { 0 };
        let free = (start..max).chain(0..start).find(|n| !state.used.contains(n));
        let number = free.ok_or(SlotError::Exhausted(max))?;
        state.used.insert(number);
        state.next = number + 1;
        Ok(number)
    }

    /// Gives up a slot whose processes have ended: cut off at once, cleaned up a little later. `netns` keeps the network
    /// alive until then.
    pub(crate) fn release(&self, number: u32, netns: Option<OwnedFd>) {
        self.parts.unplug(number);
        let mut state = self.lock();
        state.dying.push((number, netns));
        state.dying_since.get_or_insert_with(Instant::now);
        drop(state);
        self.wake.notify_all();
    }

    /// Stops the background threads and takes down the slots nobody lives in.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a background thread for sandbox slots had failed");
            }
        }
        let (ready, dying) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.ready), std::mem::take(&mut state.dying))
        };
        dying.iter().for_each(|(number, _)| self.parts.remove_groups(*number));
        drop(dying);
        for slot in ready {
            let number = slot.number;
            drop(slot);
            self.parts.take_down(number);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        self.wake.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0
    }

    fn refill(&self) {
        loop {
            let mut state = self.lock();
            while !state.closing && state.ready.len() >= self.target.load(Ordering::Relaxed) {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.closing {
                return;
            }
            if state.ready.len() > self.target.load(Ordering::Relaxed) / RESERVE_PART && self.is_busy() {
                drop(self.wait(state, QUIET));
                continue;
            }
            drop(state);
            match self.make() {
                Ok(slot) => self.put(slot),
                Err(error) => {
                    tracing::warn!(error = crate::error::chain(&error), "cannot prepare a sandbox slot");
                    let state = self.lock();
                    drop(self.wait(state, REFILL_RETRY));
                }
            }
        }
    }

    /// So many slots are ready with a sandbox in them: fewer empty ones are needed, but never none.
    pub(crate) fn leave_room(&self, inhabited: usize) {
        let least = self.most.div_ceil(RESERVE_PART);
        self.target.store(self.most.saturating_sub(inhabited).max(least), Ordering::Relaxed);
        self.wake.notify_all();
    }

    /// Creates are in progress, or were a moment ago.
    fn is_busy(&self) -> bool {
        let last = *self.created_at.lock().unwrap_or_else(PoisonError::into_inner);
        self.creating.load(Ordering::Relaxed) > 0 || last.is_some_and(|at| at.elapsed() < QUIET)
    }

    /// A create is in progress, or several were a moment ago.
    pub(crate) fn is_crowded(&self) -> bool {
        let last = *self.crowded_at.lock().unwrap_or_else(PoisonError::into_inner);
        self.creating.load(Ordering::Relaxed) > 0 || last.is_some_and(|at| at.elapsed() < CROWD_LINGERS)
    }

    fn put(&self, slot: Slot) {
        let mut state = self.lock();
        if !state.closing {
            state.ready.push_back(slot);
            return;
        }
        drop(state);
        let number = slot.number;
        drop(slot);
        self.parts.take_down(number);
    }

    fn clean_up(&self) {
        loop {
            let mut state = self.lock();
            let batch = loop {
                if state.closing {
                    return;
                }
                let age = state.dying_since.map(|since| since.elapsed());
                let busy = self.creating.load(Ordering::Relaxed) > 0;
                match age {
                    None => state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                    Some(age)
                        if state.dying.len() < NETNS_BATCH_MAX
                            && (age < NETNS_LINGER || busy && age < 4 * NETNS_LINGER) =>
                    {
                        state = self.wait(state, NETNS_LINGER);
                    }
                    Some(_) => {
                        state.dying_since = None;
                        break std::mem::take(&mut state.dying);
                    }
                }
            };
            drop(state);
            let numbers: Vec<u32> = batch.iter().map(|(number, _)| *number).collect();
            // The last references: the kernel takes the namespaces and their links down together.
            drop(batch);
            numbers.iter().for_each(|number| self.parts.remove_groups(*number));
            let mut state = self.lock();
            for number in numbers {
                state.used.remove(&number);
            }
        }
    }
}
