//! The engine: every sandbox of this host, and the verbs of `api::Runner` on them.
//!
//! A sandbox is `Creating → Running → Stopped → Starting → Running …`, `Failed` when its agent dies, and `Destroying` at the
//! end; the record on disk always names the state before the kernel is touched. Verbs on one sandbox wait for each other;
//! observers never wait. Work that blocks runs on blocking threads, so verbs may be called from any async task.

use crate::cgroup::{CgroupError, Cgroups};
use crate::disk::{Backend, Disk, DiskConfig, DiskError};
use crate::error::{chain, internal};
use crate::image::{Credentials, Image, ImageError, PullOptions, Reach, RegistriesConfig, Silent, Store};
use crate::net::{Net, NetConfig, NetError};
use crate::proven::Proven;
use crate::record::{Process, Record, RecordError, Records, State};
use crate::slot::{Parts, SlotError, Slots};
use crate::watch::Watch;
use crate::zygote::{ZygoteError, Zygotes};
use crate::{archive, fork, launch, pause, recover, resize, shared_tables, stop, volume, warm};
use infield_api::SandboxId;
use infield_api::runner::*;
use infield_sys::memfd;
use rustix::net::sockopt;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::RuntimeFlavor;
use tokio::sync::Semaphore;

/// Launches beyond this many per zygote wait: more at a time only make each other slower.
const LAUNCHES_PER_ZYGOTE: usize = 2;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const CLOSE_POLL: Duration = Duration::from_millis(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What may be on its way to an agent; the kernel's default is a fifth.
const AGENT_SEND_BUFFER_BYTES: usize = 1 << 20;
/// Characters of the tag that kernel names carry, so that several servers can share a host.
const TAG_HEX_DIGITS: usize = 4;

/// Everything an engine is told. Libraries read no environment.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Records, sockets and disks live here; one runner at a time.
    pub data_dir: PathBuf,
    /// The image store; `None` = `images` in the data directory. May be shared between data directories.
    pub image_dir: Option<PathBuf>,
    /// The agent's executable, linked statically.
    pub agent: Cow<'static, [u8]>,
    pub subnet: (Ipv4Addr, u8),
    /// Name servers for sandboxes; `None` = the host's.
    pub dns: Option<Vec<IpAddr>>,
    /// Size of a new disk pool; `None` = most of the free space.
    pub pool_bytes: Option<u64>,
    pub disk_backend: Backend,
    /// Slots kept ready, with a started sandbox of a lately used image in them where possible.
    pub slots_ready: usize,
    pub zygotes: usize,
    /// Group that may connect to the runner's and the agents' sockets; `None` = root only.
    pub socket_group: Option<u32>,
}

impl EngineConfig {
    /// The usual values for a data directory.
    pub fn new(data_dir: PathBuf, agent: Cow<'static, [u8]>) -> Self {
        Self {
            data_dir,
            image_dir: None,
            agent,
            subnet: (Ipv4Addr::new(10, 213, 0, 0), 16),
            dns: None,
            pool_bytes: None,
            disk_backend: Backend::Auto,
            slots_ready: 64,
            zygotes: std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 16),
            socket_group: None,
        }
    }

    pub fn run_dir(&self) -> PathBuf {
        self.data_dir.join("run")
    }

    pub fn runner_socket(&self) -> PathBuf {
        self.run_dir().join(RUNNER_SOCKET_NAME)
    }
}

/// The tag of a data directory: it stands in the names of cgroups, links and nftables tables.
pub fn tag_of(data_dir: &Path) -> io::Result<String> {
    let canonical = data_dir.canonicalize()?;
    let digest = Sha256::digest(canonical.as_os_str().as_encoded_bytes());
    Ok(hex::encode(digest)[..TAG_HEX_DIGITS].to_owned())
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("{path}: cannot {what}")]
    Dir { path: PathBuf, what: &'static str, source: io::Error },
    #[error("{path}: another runner works in this data directory; stop it first")]
    Busy { path: PathBuf },
    #[error("cannot keep the agent's program in memory")]
    Agent(#[source] io::Error),
    #[error("cannot start a background thread")]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Zygote(#[from] ZygoteError),
    #[error(transparent)]
    Slot(#[from] SlotError),
    #[error("no sandbox can run on this host: its root cannot be mounted ({0}); `infield doctor` says more")]
    Root(String),
}

impl EngineError {
    /// Whether this host, or what was asked of it, is at fault: opening it again would end the same way.
    pub fn refuses_host(&self) -> bool {
        matches!(self, Self::Root(_) | Self::Cgroup(_) | Self::Net(_) | Self::Disk(_))
    }
}

/// What [`Engine::open`] found from an earlier runner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Living sandboxes taken over.
    pub adopted: usize,
    pub stopped: usize,
    /// Agents that died while no runner watched.
    pub failed: usize,
    /// Sandboxes half made or half removed: gone now.
    pub cleaned: usize,
    /// Kernel objects, disks and sockets without a record: gone now.
    pub orphans: usize,
    /// Records that could not be read; their files are kept.
    pub unreadable: Vec<String>,
}

/// A living agent.
#[derive(Debug)]
pub(crate) struct Live {
    pub process: Process,
    pub pidfd: Arc<OwnedFd>,
    /// Keeps the network namespace until the slot is released.
    pub netns: Option<OwnedFd>,
}

/// What a verb works on, one verb at a time.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// `None` = no such sandbox (any more).
    pub record: Option<Record>,
    pub live: Option<Live>,
}

/// One sandbox: the part verbs lock for long, and the part observers read.
#[derive(Debug, Default)]
pub(crate) struct Sandbox {
    entry: Mutex<Entry>,
    shown: Mutex<Option<Shown>>,
}

/// What observers see.
#[derive(Clone, Debug)]
struct Shown {
    observed: Observed,
    image_id: String,
}

impl Sandbox {
    pub(crate) fn entry(&self) -> MutexGuard<'_, Entry> {
        self.entry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shown(&self) -> MutexGuard<'_, Option<Shown>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn observed(&self) -> Option<Observed> {
        self.shown().as_ref().map(|shown| shown.observed.clone())
    }

    fn image_id(&self) -> Option<String> {
        self.shown().as_ref().map(|shown| shown.image_id.clone())
    }
}

pub(crate) struct Inner {
    pub config: EngineConfig,
    pub records: Records,
    pub slots: Arc<Slots>,
    pub disk: Disk,
    pub images: Arc<Store>,
    pub agent: OwnedFd,
    pub boot_id: String,
    pub sandboxes: Mutex<HashMap<SandboxId, Arc<Sandbox>>>,
    pub runtime: tokio::runtime::Handle,
    pub launches: Semaphore,
    pub watch: Watch,
    pub proven: Proven,
    pub warm: warm::Pool,
    /// Held for the engine's life.
    _lock: File,
}

/// The container runtime of this host. Cheap to clone. Dropping it leaves the sandboxes running.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

impl Engine {
    /// Takes over a data directory: adopts what lives, cleans what is half made, sweeps what has no record. Blocks; call
    /// it in a runtime's context, because the engine watches its sandboxes from there.
    pub fn open(config: EngineConfig, zygotes: Zygotes) -> Result<(Self, Recovery), EngineError> {
        let lock = prepare_dirs(&config)?;
        // First of all: where this fails, nothing is to be left behind.
        crate::doctor::root_mounts(&config.data_dir).map_err(EngineError::Root)?;
        shared_tables::raise();
        let tag = tag_of(&config.data_dir).map_err(dir_error(&config.data_dir, "open the data directory"))?;
        let cgroups = Cgroups::open(&tag)?;
        let net = Net::open(&NetConfig { tag, subnet: config.subnet, dns: config.dns.clone() })?;
        let disk = Disk::open(&DiskConfig {
            data_dir: config.data_dir.clone(),
            pool_bytes: config.pool_bytes,
            backend: config.disk_backend,
        })?;
        let image_dir = config.image_dir.clone().unwrap_or_else(|| config.data_dir.join("images"));
        let images = Arc::new(Store::open_for(image_dir, &config.data_dir)?);
        let agent = memfd::sealed_executable(c"infield-agent", &config.agent).map_err(EngineError::Agent)?;
        let parts = Parts { zygotes, net, cgroups };
        let records = Records::open(config.data_dir.join("sandboxes"))?;
        let boot_id = crate::record::boot_id()?;
        let found = recover::recover(&config, &records, &parts, &disk, &boot_id)?;
        let live = found.entries.iter().filter_map(|e| Some(e.live.as_ref()?.process.slot));
        let used: BTreeSet<u32> = live.chain(found.stuck).collect();
        let slots = Slots::open(parts, used, config.slots_ready);
        let warm = warm::Pool::new(if disk.can_rename() { config.slots_ready } else { 0 });
        let launches = Semaphore::new(config.zygotes.max(1) * LAUNCHES_PER_ZYGOTE);
        let runtime = tokio::runtime::Handle::current();
        let watch = Watch::new().map_err(EngineError::Thread)?;
        let inner = Arc::new(Inner {
            config,
            records,
            slots,
            disk,
            images,
            agent,
            boot_id,
            sandboxes: Mutex::default(),
            runtime,
            launches,
            watch,
            proven: Proven::default(),
            warm,
            _lock: lock,
        });
        for entry in found.entries {
            inner.adopt(entry);
        }
        inner.slots.start_background().map_err(EngineError::Thread)?;
        warm::Pool::start_background(&inner).map_err(EngineError::Thread)?;
        let weak = Arc::downgrade(&inner);
        let watcher = std::thread::Builder::new().name("agent-watch".to_owned());
        watcher.spawn(move || Watch::run(&weak)).map_err(EngineError::Thread)?;
        Ok((Self(inner), found.report))
    }

    /// Takes down the slots and sandboxes made ahead. Sandboxes go on; whoever opens the data directory next adopts them.
    pub fn close(&self) {
        self.0.warm.close(&self.0);
        self.0.slots.close();
        if self.0.all().iter().any(|s| s.entry().live.is_some()) {
            return;
        }
        let Parts { net, cgroups, .. } = &self.0.slots.parts;
        // The links go with their namespaces, which the kernel takes down in its own time.
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let closed = loop {
            match net.close() {
                Ok(false) if Instant::now() < deadline => std::thread::sleep(CLOSE_POLL),
                Ok(false) => break net.sweep(&HashSet::new()).and_then(|_| net.close()).map(drop),
                other => break other.map(drop),
            }
        };
        if let Err(error) = closed {
            tracing::warn!(error = chain(&error), "network rules could not be removed");
        }
        if let Err(error) = cgroups.close() {
            tracing::warn!(error = chain(&error), "control groups stay for the next start");
        }
    }

    /// Mends what others may have changed of the host's packet rules. Call it every few seconds.
    pub fn ensure_host_rules(&self) -> Result<(), RunnerError> {
        self.0.slots.parts.net.ensure_host_rules().map_err(|e| internal(&e))
    }

    /// Collects image layers nobody uses. Sandboxes kept ready do not count as users of an image that has lost its names.
    pub fn collect_images(&self) -> Result<(), RunnerError> {
        let named: HashSet<String> = self.0.images.list()?.into_iter().map(|image| image.id).collect();
        self.0.warm.forget(&self.0, |id| named.contains(id));
        // Not asked of those that verbs work on: an archive in the making takes minutes.
        let of_sandboxes = self.0.all().into_iter().filter_map(|s| s.image_id());
        let in_use: HashSet<String> = of_sandboxes.chain(self.0.warm.images()).collect();
        self.0.images.gc(&in_use).map(drop).map_err(RunnerError::from)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Inner>) -> Result<T, RunnerError> + Send + 'static,
    ) -> Result<T, RunnerError> {
        let inner = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(answer) => answer,
            Err(error) => Err(RunnerError::new(RunnerErrorKind::Internal, format!("the runner failed: {error}"))),
        }
    }

    async fn launch(&self, spec: SandboxSpec, must_exist: bool) -> Result<Running, RunnerError> {
        if self.observed(spec.id).is_ok_and(|seen| seen.state == ObservedState::Archived) {
            // Its files come back first, which takes long: nobody else is to wait for it.
            return self.blocking(move |inner| launch::launch(inner, spec, must_exist)).await;
        }
        let closed = |_| RunnerError::new(RunnerErrorKind::Unavailable, "the runner is stopping");
        let _permit = self.0.launches.acquire().await.map_err(closed)?;
        let work = move |inner: &Arc<Inner>| launch::launch(inner, spec, must_exist);
        match self.0.runtime.runtime_flavor() {
            // On this thread: to wake another one takes a good part of the time a sandbox that was kept ready takes.
            RuntimeFlavor::MultiThread => tokio::task::block_in_place(|| work(&self.0)),
            _ => self.blocking(work).await,
        }
    }

    fn observed(&self, id: SandboxId) -> Result<Observed, RunnerError> {
        self.0.find(id).and_then(|s| s.observed()).ok_or_else(|| not_found(id))
    }
}

impl Inner {
    /// The sandbox with this id, made as an empty entry when there is none.
    pub(crate) fn find_or_insert(&self, id: SandboxId) -> Arc<Sandbox> {
        Arc::clone(self.table().entry(id).or_default())
    }

    pub(crate) fn find(&self, id: SandboxId) -> Option<Arc<Sandbox>> {
        self.table().get(&id).cloned()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<SandboxId, Arc<Sandbox>>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Sandbox>> {
        self.table().values().cloned().collect()
    }

    pub(crate) fn socket_path(&self, id: SandboxId) -> PathBuf {
        socket_path(&self.config, id)
    }

    /// The socket of an agent that has no sandbox id yet.
    pub(crate) fn agent_socket(&self, name: &str) -> PathBuf {
        agent_socket(&self.config, name)
    }

    fn adopt(self: &Arc<Self>, entry: Entry) {
        let Some(id) = entry.record.as_ref().map(|r| r.spec.id) else { return };
        let sandbox = self.find_or_insert(id);
        let mut held = sandbox.entry();
        *held = entry;
        self.show(&sandbox, &held);
        if let Some(live) = &held.live {
            self.watch(id, live);
        }
    }

    /// Lets observers see what the entry says now; an entry without a record leaves the table.
    pub(crate) fn show(&self, sandbox: &Arc<Sandbox>, entry: &Entry) {
        let shown = entry
            .record
            .as_ref()
            .and_then(|record| Some(Shown { observed: self.observe(record)?, image_id: record.image_id.clone() }));
        let gone = entry.record.is_none();
        *sandbox.shown() = shown;
        if gone {
            // The table's and the caller's; more means that another verb waits for this very entry and may fill it again.
            self.table().retain(|_, other| !Arc::ptr_eq(other, sandbox) || Arc::strong_count(other) > 2);
        }
    }

    fn observe(&self, record: &Record) -> Option<Observed> {
        let (state, process) = match &record.state {
            State::Running(process) if record.paused => (ObservedState::Paused, Some(process)),
            State::Running(process) => (ObservedState::Running, Some(process)),
            State::Stopped | State::Starting { .. } => (ObservedState::Stopped, None),
            State::Failed { reason } => (ObservedState::Failed { reason: reason.clone() }, None),
            State::Archived { .. } => (ObservedState::Archived, None),
            State::Creating { .. } | State::Destroying { .. } => return None,
        };
        let ip = process.map(|p| self.slots.parts.net.address(p.slot));
        Some(Observed { id: record.spec.id, state, ip, pid: process.map(|p| p.pid) })
    }

    /// Marks the sandbox failed when its agent ends without having been stopped.
    pub(crate) fn watch(&self, id: SandboxId, live: &Live) {
        if let Err(error) = self.watch.add(id, live) {
            tracing::error!(sandbox = %id, %error, "cannot watch the agent of a sandbox");
        }
    }
}

pub(crate) fn socket_path(config: &EngineConfig, id: SandboxId) -> PathBuf {
    agent_socket(config, &id.to_string())
}

fn agent_socket(config: &EngineConfig, name: &str) -> PathBuf {
    config.run_dir().join(AGENT_SOCKET_DIR).join(format!("{name}.sock"))
}

pub(crate) fn not_found(id: SandboxId) -> RunnerError {
    RunnerError::new(RunnerErrorKind::NotFound, format!("sandbox {id} does not exist on this host"))
}

fn dir_error<'a>(path: &'a Path, what: &'static str) -> impl FnOnce(io::Error) -> EngineError + 'a {
    move |source| EngineError::Dir { path: path.to_owned(), what, source }
}

/// Makes the folders and takes the lock that keeps a second runner out.
fn prepare_dirs(config: &EngineConfig) -> Result<File, EngineError> {
    let run = config.run_dir();
    let agents = run.join(AGENT_SOCKET_DIR);
    let mode = if config.socket_group.is_some() { 0o750 } else { 0o700 };
    fs::create_dir_all(&config.data_dir).map_err(dir_error(&config.data_dir, "make the data directory"))?;
    for dir in [&run, &agents] {
        fs::DirBuilder::new().recursive(true).mode(mode).create(dir).map_err(dir_error(dir, "make the folder"))?;
        share(dir, mode, config.socket_group).map_err(dir_error(dir, "set the permissions"))?;
    }
    let path = run.join("runner.lock");
    let lock = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = lock.map_err(dir_error(&path, "open the lock"))?;
    // Whoever can open it can lock it, the API's user too.
    lock.set_permissions(fs::Permissions::from_mode(0o600)).map_err(dir_error(&path, "set the permissions"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(EngineError::Busy { path }),
        Err(fs::TryLockError::Error(source)) => Err(EngineError::Dir { path, what: "take the lock", source }),
    }
}

/// Lets the given group use a socket or folder.
pub(crate) fn share(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    std::os::unix::fs::chown(path, Some(0), Some(group.unwrap_or(0)))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

impl From<&Image> for ImageInfo {
    fn from(image: &Image) -> Self {
        Self {
            id: image.id.clone(),
            references: image.references.clone(),
            pulled: image.pulled.clone(),
            size_bytes: image.size_bytes,
            created_at_ms: image.created_at_ms,
            entrypoint: image.config.entrypoint.iter().chain(&image.config.cmd).cloned().collect(),
            env: image.config.env.clone(),
            workdir: image.config.workdir.clone(),
            user: image.config.user.clone(),
        }
    }
}

/// From a registry. Blocks: downloads are rare, and unpacking them blocks anyway.
fn fetch(inner: &Inner, pull: PullImage) -> Result<ImageInfo, RunnerError> {
    let registries = RegistriesConfig::load(&inner.config.data_dir.join(RegistriesConfig::FILE))?;
    let auth = pull.username.zip(pull.password).map(|(username, password)| Credentials { username, password });
    // The caller may be any holder of an API key.
    let reach = Some(Arc::new(Reach::new(crate::net::never_reached().chain([inner.config.subnet]))));
    let options = PullOptions { auth, registries, platform: None, reach };
    let image = inner.runtime.block_on(inner.images.pull(&pull.reference, &options, &Silent))?;
    Ok(ImageInfo::from(&*image))
}

impl Runner for Engine {
    fn create(&self, spec: SandboxSpec) -> RunnerFuture<'_, Running> {
        Box::pin(self.launch(spec, false))
    }

    fn start(&self, spec: SandboxSpec) -> RunnerFuture<'_, Running> {
        Box::pin(self.launch(spec, true))
    }

    fn stop(&self, id: SandboxId, force: bool) -> RunnerFuture<'_, ()> {
        Box::pin(self.blocking(move |inner| stop::stop(inner, id, force)))
    }

    fn destroy(&self, id: SandboxId) -> RunnerFuture<'_, ()> {
        Box::pin(self.blocking(move |inner| stop::destroy(inner, id)))
    }

    fn inspect(&self, id: SandboxId) -> RunnerFuture<'_, Observed> {
        Box::pin(async move { self.observed(id) })
    }

    fn list(&self) -> RunnerFuture<'_, Vec<Observed>> {
        Box::pin(async move { Ok(self.0.all().iter().filter_map(|s| s.observed()).collect()) })
    }

    fn stats(&self, id: SandboxId) -> RunnerFuture<'_, Stats> {
        Box::pin(async move {
            let observed = self.observed(id)?;
            self.blocking(move |inner| stop::stats(inner, &observed)).await
        })
    }

    fn connect(&self, id: SandboxId) -> RunnerFuture<'_, AgentStream> {
        Box::pin(async move {
            let message = match self.observed(id)?.state {
                ObservedState::Running => None,
                ObservedState::Paused => Some(format!("sandbox {id} is paused; resume it first")),
                _ => Some(format!("sandbox {id} is not running; start it first")),
            };
            if let Some(message) = message {
                return Err(RunnerError::new(RunnerErrorKind::Conflict, message));
            }
            let path = self.0.socket_path(id);
            let unavailable = |why: &dyn std::fmt::Display| {
                let message = format!("the agent of sandbox {id} cannot be reached: {why}");
                RunnerError::new(RunnerErrorKind::Unavailable, message)
            };
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::UnixStream::connect(&path)).await;
            let stream = connected.map_err(|e| unavailable(&e))?.map_err(|e| unavailable(&e))?;
            // Uploads: every time the buffer is full, somebody falls asleep and has to be woken. The API's process may not ask
            // for this much itself; without it uploads are only slower.
            let _ = sockopt::set_socket_send_buffer_size_force(&stream, AGENT_SEND_BUFFER_BYTES);
            Ok(stream.into_std().map_err(|e| unavailable(&e))?.into())
        })
    }

    fn pause(&self, id: SandboxId) -> RunnerFuture<'_, ()> {
        Box::pin(self.blocking(move |inner| pause::pause(inner, id)))
    }

    fn resume(&self, id: SandboxId) -> RunnerFuture<'_, ()> {
        Box::pin(self.blocking(move |inner| pause::resume(inner, id)))
    }

    fn resize(&self, spec: SandboxSpec) -> RunnerFuture<'_, ()> {
        Box::pin(self.blocking(move |inner| resize::resize(inner, &spec)))
    }

    fn fork(&self, source: SandboxId, spec: SandboxSpec) -> RunnerFuture<'_, Running> {
        Box::pin(self.blocking(move |inner| fork::fork(inner, source, spec)))
    }

    fn archive(&self, id: SandboxId) -> RunnerFuture<'_, ()> {
        Box::pin(self.blocking(move |inner| archive::archive(inner, id)))
    }

    fn images(&self) -> RunnerFuture<'_, Vec<ImageInfo>> {
        Box::pin(self.blocking(|inner| Ok(inner.images.list()?.iter().map(ImageInfo::from).collect())))
    }

    fn pull_image(&self, pull: PullImage) -> RunnerFuture<'_, ImageInfo> {
        Box::pin(self.blocking(move |inner| match inner.images.resolve(&pull.reference) {
            Ok(image) => Ok(ImageInfo::from(&*image)),
            Err(ImageError::Missing { .. }) => fetch(inner, pull),
            Err(error) => Err(error.into()),
        }))
    }

    fn create_volume(&self, id: String, size_mib: u64) -> RunnerFuture<'_, ()> {
        Box::pin(self.blocking(move |inner| volume::create(inner, &id, size_mib)))
    }

    fn remove_volume(&self, id: String) -> RunnerFuture<'_, ()> {
        Box::pin(self.blocking(move |inner| volume::remove(inner, &id)))
    }

    fn release_image(&self, reference: String) -> RunnerFuture<'_, ()> {
        Box::pin(async move {
            self.blocking(move |inner| Ok(inner.images.release(&reference)?)).await?;
            let engine = self.clone();
            self.blocking(move |_| engine.collect_images()).await
        })
    }
}
