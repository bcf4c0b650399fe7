//! Sandboxes kept ready: assembled around a slot and started, waiting only to be told whose they are.
//!
//! Each belongs to an image that was asked for lately. Nothing of the image's or anybody's code has run in one: its agent has
//! begun and waits for its configuration. To claim one is to give its parts their names, set what the caller wants
//! differently, and send the configuration; whatever goes wrong then, the sandbox is made the long way instead.
//! When the runner dies, the agents here read the end of their configuration and end too; the next runner sweeps the rest,
//! like that of every slot without a record.

use crate::assemble::{self, Inherited, Phases, Shape, Site};
use crate::engine::{Inner, Live};
use crate::error::{chain, internal};
use crate::image::Image;
use crate::launch::begun;
use crate::record::{Record, State as RecordState};
use crate::{rootfs, stop};
use infield_api::SandboxId;
use infield_api::runner::*;
use infield_sys::ns;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Images for which sandboxes are kept ready at the same time; they share the places.
const IMAGES_MAX: usize = 4;
/// An image nobody asked for during this time gives up its places, unless it was the last one.
const IMAGE_FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// The thread looks this often whether its engine still exists, and whether an image is to be forgotten.
const ENGINE_CHECK: Duration = Duration::from_secs(1);
/// After a failure nothing is made ahead for so long.
const RETRY: Duration = Duration::from_secs(5);
/// A waiting agent takes its configuration at once or not at all.
const CONFIG_TIMEOUT: Duration = Duration::from_secs(5);
/// Stands where the name will be.
const UNNAMED: &str = "sandbox";

/// A started sandbox nobody owns yet.
struct Warm {
    image_id: String,
    shape: Shape,
    live: Live,
    /// The name of its disk and socket until it is claimed.
    name: String,
    socket: PathBuf,
    config: UnixStream,
    names: rootfs::NameFiles,
    inherited: Inherited,
}

struct Wanted {
    image: Arc<Image>,
    shape: Shape,
    at: Instant,
}

#[derive(Default)]
struct State {
    /// The latest first.
    wanted: Vec<Wanted>,
    ready: Vec<Warm>,
    closing: bool,
}

/// The sandboxes one runner keeps ready.
pub(crate) struct Pool {
    places: usize,
    state: Mutex<State>,
    wake: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread does next.
enum Task {
    Make(Arc<Image>, Shape),
    Discard(Box<Warm>),
}

impl State {
    fn want(&mut self, image: &Arc<Image>, shape: Shape) {
        self.wanted.retain(|w| w.image.id != image.id);
        self.wanted.insert(0, Wanted { image: Arc::clone(image), shape, at: Instant::now() });
        self.wanted.truncate(IMAGES_MAX);
    }

    fn forget_old(&mut self) {
        let mut first = true;
        self.wanted.retain(|w| std::mem::take(&mut first) || w.at.elapsed() < IMAGE_FORGOTTEN_AFTER);
    }

    fn count(&self, image_id: &str) -> usize {
        self.ready.iter().filter(|w| w.image_id == image_id).count()
    }

    fn next(&mut self, places: usize) -> Option<Task> {
        self.forget_old();
        let share = places / self.wanted.len().max(1);
        if let Some(w) = self.wanted.iter().find(|w| self.count(&w.image.id) < share) {
            return Some(Task::Make(Arc::clone(&w.image), w.shape));
        }
        let surplus = |warm: &Warm| {
            self.count(&warm.image_id) > share || !self.wanted.iter().any(|w| w.image.id == warm.image_id)
        };
        let at = self.ready.iter().position(surplus)?;
        Some(Task::Discard(Box::new(self.ready.remove(at))))
    }
}

impl Pool {
    pub(crate) fn new(places: usize) -> Self {
        Self { places, state: Mutex::default(), wake: Condvar::new(), thread: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        self.wake.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0
    }

    /// A ready sandbox of this image, one of the same shape if there is one. Says that the image is wanted.
    fn take(&self, image: &Arc<Image>, shape: Shape) -> Option<Warm> {
        if self.places == 0 {
            return None;
        }
        let mut state = self.lock();
        state.want(image, shape);
        let fits = |w: &Warm| w.image_id == image.id;
        let at = state.ready.iter().position(|w| fits(w) && w.shape == shape).or(state.ready.iter().position(fits));
        let warm = at.map(|at| state.ready.remove(at));
        drop(state);
        self.wake.notify_all();
        warm
    }

    /// Images that are in use although no sandbox has them.
    pub(crate) fn images(&self) -> Vec<String> {
        self.lock().ready.iter().map(|w| w.image_id.clone()).collect()
    }

    /// Nothing of a removed image stays.
    pub(crate) fn forget(&self, inner: &Inner, is_there: impl Fn(&str) -> bool) {
        let mut state = self.lock();
        state.wanted.retain(|w| is_there(&w.image.id));
        let (stay, go) = std::mem::take(&mut state.ready).into_iter().partition(|w| is_there(&w.image_id));
        state.ready = stay;
        drop(state);
        go.into_iter().for_each(|warm| discard(inner, warm, None));
    }

    /// Keeps the places filled until [`close`](Self::close) or the end of the engine.
    pub(crate) fn start_background(inner: &Arc<Inner>) -> std::io::Result<()> {
        if inner.warm.places == 0 {
            return Ok(());
        }
        let weak = Arc::downgrade(inner);
        let thread = std::thread::Builder::new().name("warm-refill".to_owned());
        let thread = thread.spawn(move || {
            crate::slot::step_back();
            while refill(&weak) {}
        })?;
        *inner.warm.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    pub(crate) fn close(&self, inner: &Inner) {
        self.lock().closing = true;
        self.wake.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|t| t.join().is_err()) {
            tracing::error!("the background thread for ready sandboxes had failed");
        }
        let ready = std::mem::take(&mut self.lock().ready);
        ready.into_iter().for_each(|warm| discard(inner, warm, None));
    }
}

/// One round of the background thread; `false` ends it.
fn refill(engine: &Weak<Inner>) -> bool {
    let Some(inner) = engine.upgrade() else { return false };
    let pool = &inner.warm;
    let mut state = pool.lock();
    if state.closing {
        return false;
    }
    // When several are asked for at a time, whoever asks makes its own: made here first, each would only cost more.
    if inner.slots.is_crowded() {
        drop(pool.wait(state, crate::slot::QUIET));
        return true;
    }
    let Some(task) = state.next(pool.places) else {
        // Not holding the engine while nothing is to be done.
        drop(pool.wait(state, ENGINE_CHECK));
        return true;
    };
    inner.slots.leave_room(state.ready.len());
    drop(state);
    match task {
        Task::Discard(warm) => discard(&inner, *warm, None),
        Task::Make(image, shape) => match make(&inner, &image, shape) {
            Ok(warm) => put(&inner, warm),
            Err(error) => {
                tracing::warn!(image = image.id, error = chain(&error), "cannot keep a sandbox of this image ready");
                let mut state = pool.lock();
                state.wanted.retain(|w| w.image.id != image.id);
                drop(pool.wait(state, RETRY));
            }
        },
    }
    true
}

fn put(inner: &Inner, warm: Warm) {
    let mut state = inner.warm.lock();
    if !state.closing {
        state.ready.push(warm);
        return;
    }
    drop(state);
    discard(inner, warm, None);
}

fn make(inner: &Inner, image: &Image, shape: Shape) -> Result<Warm, RunnerError> {
    let slot = inner.slots.take()?;
    let number = slot.number;
    let name = format!("ready-{number}");
    let socket = inner.agent_socket(&name);
    let made = (|| {
        let (config, theirs) = UnixStream::pair().map_err(|e| internal(&e))?;
        config.set_write_timeout(Some(CONFIG_TIMEOUT)).map_err(|e| internal(&e))?;
        let site = Site {
            disk: &name,
            socket: &socket,
            hostname: UNNAMED.to_owned(),
            shape,
            network_block_all: false,
            volumes: &[],
            fresh: true,
        };
        let channel = |_: &Inherited| Ok(theirs.into());
        let (live, inherited) = assemble::assemble(inner, image, slot, site, channel, &mut Phases::begin())?;
        let names = rootfs::NameFiles::open(&inner.disk.path(&name)).map_err(|e| internal(&e))?;
        Ok((live, config, names, inherited))
    })();
    match made {
        Ok((live, config, names, inherited)) => {
            let image_id = image.id.clone();
            Ok(Warm { image_id, shape, live, name, socket, config, names, inherited })
        }
        Err(error) => {
            stop::kill_all(&inner.slots.parts.cgroups, number);
            inner.slots.release(number, None);
            stop::remove_socket(&socket);
            remove_disk(inner, &name);
            Err(error)
        }
    }
}

/// A ready sandbox made into the one that is asked for. `None` = there is none, or it could not be; then nothing of it is left.
pub(crate) fn claim(
    inner: &Inner,
    spec: &SandboxSpec,
    image: &Arc<Image>,
    phases: &mut Phases,
) -> Option<(Record, Live, String)> {
    let warm = inner.warm.take(image, Shape::of(spec))?;
    match name(inner, spec, image, &warm, phases) {
        Ok((record, version)) => Some((record, warm.live, version)),
        Err(error) => {
            tracing::warn!(sandbox = %spec.id, error = chain(&error), "a ready sandbox was of no use");
            discard(inner, warm, Some(spec.id));
            None
        }
    }
}

/// The record comes last: until it is there, a crash leaves a slot without a record, which is swept.
fn name(
    inner: &Inner,
    spec: &SandboxSpec,
    image: &Image,
    warm: &Warm,
    phases: &mut Phases,
) -> Result<(Record, String), RunnerError> {
    let (id, slot, shape) = (spec.id, warm.live.process.slot, Shape::of(spec));
    let parts = &inner.slots.parts;
    inner.disk.rename(&warm.name, &id.to_string())?;
    if shape.disk_bytes != warm.shape.disk_bytes {
        inner.disk.set_limit(&id.to_string(), shape.disk_bytes)?;
    }
    phases.mark("disk");
    if shape.limits != warm.shape.limits {
        parts.cgroups.limit(slot, shape.limits).map_err(|e| internal(&e))?;
    }
    if spec.network_block_all {
        parts.net.set_blocked(slot, true).map_err(|e| internal(&e))?;
    }
    phases.mark("limits");
    let hostname = rootfs::hostname(&spec.name);
    warm.names.write(&hostname, parts.net.address(slot)).map_err(|e| internal(&e))?;
    ns::set_hostname_of(warm.live.pidfd.as_fd(), &hostname).map_err(|e| internal(&e))?;
    let socket = inner.socket_path(id);
    fs::rename(&warm.socket, &socket).map_err(|e| internal(&e))?;
    phases.mark("name");
    let config = assemble::agent_config(spec, image, &warm.inherited)?;
    (&warm.config).write_all(&config).map_err(|e| internal(&e))?;
    warm.config.shutdown(std::net::Shutdown::Both).map_err(|e| internal(&e))?;
    phases.mark("config");
    let state = RecordState::Running(warm.live.process.clone());
    let record = Record::new(spec.clone(), image.id.clone(), state);
    inner.records.save(&record).map_err(|e| internal(&e))?;
    phases.mark("record");
    let version = begun(inner, &record, true)?;
    phases.mark("agent");
    Ok((record, version))
}

/// Takes every trace away, also what was already named `id`.
fn discard(inner: &Inner, warm: Warm, id: Option<SandboxId>) {
    let Warm { live, name, socket, config, names, .. } = warm;
    drop((config, names));
    let slot = live.process.slot;
    stop::kill_all(&inner.slots.parts.cgroups, slot);
    inner.slots.release(slot, live.netns);
    stop::remove_socket(&socket);
    remove_disk(inner, &name);
    let Some(id) = id else { return };
    stop::remove_socket(&inner.socket_path(id));
    remove_disk(inner, &id.to_string());
    if let Err(error) = inner.records.remove(id) {
        tracing::warn!(sandbox = %id, error = chain(&error), "record of a failed create stays until the next start");
    }
}

fn remove_disk(inner: &Inner, name: &str) {
    if let Err(error) = inner.disk.destroy(name) {
        tracing::warn!(disk = name, error = chain(&error), "disk of a ready sandbox stays until the next start");
    }
}
