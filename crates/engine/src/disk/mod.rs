//! The disks of one host's sandboxes: a directory each, with a limit the kernel enforces.
//!
//! Two ways, chosen once per data directory: subvolumes of one btrfs in one sparse file (microseconds, instant copies), or
//! where btrfs is missing an ext4 image per sandbox on a loop device (milliseconds). Blocking and thread-safe. Mounts are
//! left alone on drop: sandboxes outlive the server, and `open` finds what is mounted. Knows ids and directories; does not
//! know sandboxes, images or overlays.

mod btrfs;
mod ext4;
mod host;

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

pub(crate) use host::{check_reserve, find_tool, free_bytes, kernel_has};

/// No new disk when the filesystem under the data directory has less than this left: a full one would break every sandbox.
pub const HOST_RESERVE_BYTES: u64 = 1 << 30;
/// No new disk when the pool has less than this left.
pub const POOL_RESERVE_BYTES: u64 = 64 << 20;
/// The smallest limit a disk can have.
pub const LIMIT_BYTES_MIN: u64 = 16 << 20;
/// Share of the free space of the host that a new pool may grow to.
const POOL_SHARE_PERCENT: u64 = 80;
const POOL_BYTES_MIN: u64 = 256 << 20;
const ID_BYTES_MAX: usize = 64;
/// Names beginning so are ours: half-made disks.
const HIDDEN: char = '.';

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// What the data directory already has, else btrfs, else ext4 images.
    #[default]
    Auto,
    Btrfs,
    Ext4Loop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    pub data_dir: PathBuf,
    /// Size of a new btrfs pool; `None` = 80 % of the free space of the host. An existing pool keeps its size.
    pub pool_bytes: Option<u64>,
    pub backend: Backend,
}

#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The request is fine, the host has no room for it.
    #[error("{0}")]
    Exhausted(String),
    #[error("disk {0} exists already")]
    Exists(String),
    #[error("there is no disk {0}")]
    NotFound(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Unsupported(String),
    #[error("{0}")]
    Unusable(String),
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
}

impl DiskError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| match source.raw_os_error() {
            Some(ENOSPC | EDQUOT) => Self::Exhausted(format!("{what}: {source}; free space on the host")),
            _ => Self::Io { what, source },
        }
    }
    fn os(what: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let build = Self::io(what);
        move |errno| build(errno.into())
    }
}

const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;

/// The open disks of one data directory.
#[derive(Debug)]
pub struct Disk {
    data_dir: PathBuf,
    kind: Kind,
}

/// Where a sandbox learns what its own disk holds; nothing there tells of other disks.
#[derive(Debug)]
pub enum OwnUsage {
    /// A number of bytes, kept up to date by the kernel.
    File(std::fs::File),
    /// The disk is a file system of its own, so its size and free space say it.
    Root,
    Nowhere,
}

#[derive(Debug)]
enum Kind {
    Btrfs(btrfs::Pool),
    Ext4(ext4::Images),
}

impl Disk {
    /// Mounts the pool or finds it mounted, making it when there is none. Removes half-made disks of a killed server.
    pub fn open(config: &DiskConfig) -> Result<Self, DiskError> {
        let what = format!("use the data directory {}", config.data_dir.display());
        std::fs::create_dir_all(&config.data_dir).map_err(DiskError::io(&what))?;
        let data_dir = config.data_dir.canonicalize().map_err(DiskError::io(&what))?;
        let _lock = host::lock(&data_dir.join("pool.lock"))?;
        let kind = match config.backend {
            Backend::Btrfs => Kind::Btrfs(btrfs::Pool::open(&data_dir, config.pool_bytes)?),
            Backend::Ext4Loop => Kind::Ext4(ext4::Images::open(&data_dir)?),
            Backend::Auto => open_any(&data_dir, config.pool_bytes)?,
        };
        Ok(Self { data_dir, kind })
    }

    pub fn backend_name(&self) -> &'static str {
        match &self.kind {
            Kind::Btrfs(_) => "btrfs",
            Kind::Ext4(_) => "ext4-loop",
        }
    }

    /// Where a disk is, or would be. It holds the directories `u` (the overlay's upper) and `w` (its work directory).
    pub fn path(&self, id: &str) -> PathBuf {
        self.pool_dir().join(id)
    }

    /// Makes an empty disk that takes `limit_bytes` of data and no more.
    pub fn create(&self, id: &str, limit_bytes: u64) -> Result<PathBuf, DiskError> {
        self.check_new(id, limit_bytes)?;
        match &self.kind {
            Kind::Btrfs(pool) => pool.create(id, limit_bytes)?,
            Kind::Ext4(images) => images.create(id, limit_bytes)?,
        }
        Ok(self.path(id))
    }

    /// Makes a disk that starts with the files of `source` (its `u`; `w` starts empty): instantly with btrfs, else by a whole
    /// copy. Nobody may write to the source meanwhile: freeze its processes first.
    pub fn fork(&self, source: &str, id: &str, limit_bytes: u64) -> Result<PathBuf, DiskError> {
        self.check_new(id, limit_bytes)?;
        check_id(source)?;
        match &self.kind {
            Kind::Btrfs(pool) => pool.fork(source, id, limit_bytes)?,
            Kind::Ext4(images) => images.fork(source, id, limit_bytes)?,
        }
        Ok(self.path(id))
    }

    /// Whether disks can get another name while they are in use.
    pub fn can_rename(&self) -> bool {
        matches!(self.kind, Kind::Btrfs(_))
    }

    /// Gives a disk another name; mounts of it go on.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        check_id(from)?;
        check_id(to)?;
        match &self.kind {
            Kind::Btrfs(pool) => pool.rename(from, to),
            Kind::Ext4(_) => {
                Err(DiskError::Unsupported(format!("cannot rename the disk {from}: that needs the btrfs pool")))
            }
        }
    }

    fn check_new(&self, id: &str, limit_bytes: u64) -> Result<(), DiskError> {
        check_id(id)?;
        check_limit(limit_bytes)?;
        host::check_reserve(&self.data_dir, HOST_RESERVE_BYTES)
    }

    /// Removes a disk and its files; `Ok` when there is none. The space comes back within seconds.
    pub fn destroy(&self, id: &str) -> Result<(), DiskError> {
        check_id(id)?;
        match &self.kind {
            Kind::Btrfs(pool) => pool.destroy(id),
            Kind::Ext4(images) => images.destroy(id),
        }
    }

    /// Bytes the disk holds; may lag behind writes by some seconds.
    pub fn usage(&self, id: &str) -> Result<u64, DiskError> {
        check_id(id)?;
        match &self.kind {
            Kind::Btrfs(pool) => pool.usage(id),
            Kind::Ext4(images) => images.usage(id),
        }
    }

    /// The same with everything that was written before the call: waits until it is on disk.
    pub fn usage_now(&self, id: &str) -> Result<u64, DiskError> {
        self.sync(id)?;
        self.usage(id)
    }

    /// Brings everything that was written to the disk's files to the host's disk.
    pub fn sync(&self, id: &str) -> Result<(), DiskError> {
        check_id(id)?;
        let path = self.path(id);
        let what = || format!("write disk {id} to the host's disk");
        let dir = std::fs::File::open(&path).map_err(DiskError::io(what()))?;
        rustix::fs::syncfs(&dir).map_err(DiskError::os(what()))
    }

    /// Where a sandbox may read what its own disk holds.
    pub fn own_usage(&self, id: &str) -> OwnUsage {
        match &self.kind {
            Kind::Btrfs(pool) => pool.accounting_file(id).map_or(OwnUsage::Nowhere, OwnUsage::File),
            Kind::Ext4(_) => OwnUsage::Root,
        }
    }

    /// Changes the limit. An ext4 image can only grow.
    pub fn set_limit(&self, id: &str, limit_bytes: u64) -> Result<(), DiskError> {
        check_id(id)?;
        check_limit(limit_bytes)?;
        match &self.kind {
            Kind::Btrfs(pool) => pool.set_limit(id, limit_bytes),
            Kind::Ext4(images) => images.set_limit(id, limit_bytes),
        }
    }

    /// Lets a disk take `bytes` whatever its limit is, until a limit is set again: for files it held before, when some of
    /// them were shared with another disk. An ext4 image stays as large as it is.
    pub fn lift_limit(&self, id: &str, bytes: u64) -> Result<(), DiskError> {
        check_id(id)?;
        let Kind::Btrfs(pool) = &self.kind else { return Ok(()) };
        host::check_reserve(pool.dir(), POOL_RESERVE_BYTES.saturating_add(bytes))?;
        pool.lift_limit(id)
    }

    /// Ids of all disks, sorted.
    pub fn list(&self) -> Result<Vec<String>, DiskError> {
        let mut ids = match &self.kind {
            Kind::Btrfs(pool) => pool.list()?,
            Kind::Ext4(images) => images.list()?,
        };
        ids.sort_unstable();
        Ok(ids)
    }

    /// Removes every disk that is not in `keep`; answers how many.
    pub fn sweep(&self, keep: &HashSet<String>) -> Result<usize, DiskError> {
        let dead: Vec<String> = self.list()?.into_iter().filter(|id| !keep.contains(id)).collect();
        for id in &dead {
            self.destroy(id)?;
        }
        Ok(dead.len())
    }

    /// Unmounts everything. Fails while a sandbox uses its disk; a later `open` mounts again.
    pub fn close(self) -> Result<(), DiskError> {
        match self.kind {
            Kind::Btrfs(pool) => pool.close(),
            Kind::Ext4(images) => images.close(),
        }
    }

    fn pool_dir(&self) -> &Path {
        match &self.kind {
            Kind::Btrfs(pool) => pool.dir(),
            Kind::Ext4(images) => images.dir(),
        }
    }
}

fn open_any(data_dir: &Path, pool_bytes: Option<u64>) -> Result<Kind, DiskError> {
    if btrfs::Pool::exists(data_dir) {
        return btrfs::Pool::open(data_dir, pool_bytes).map(Kind::Btrfs);
    }
    if ext4::Images::exist(data_dir)? {
        return ext4::Images::open(data_dir).map(Kind::Ext4);
    }
    match btrfs::Pool::open(data_dir, pool_bytes) {
        Ok(pool) => Ok(Kind::Btrfs(pool)),
        Err(reason @ DiskError::Unusable(_)) => {
            let images = ext4::Images::open(data_dir).map_err(|second| match second {
                DiskError::Unusable(second) => DiskError::Unusable(format!("{reason}; {second}")),
                other => other,
            })?;
            tracing::warn!("sandbox disks are ext4 images, slower than btrfs: {reason}");
            Ok(Kind::Ext4(images))
        }
        Err(other) => Err(other),
    }
}

fn check_id(id: &str) -> Result<(), DiskError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if id.is_empty() || id.len() > ID_BYTES_MAX || id.starts_with(HIDDEN) || !id.bytes().all(good) {
        return Err(DiskError::Invalid(format!("{id:?} cannot name a disk")));
    }
    Ok(())
}

fn check_limit(bytes: u64) -> Result<(), DiskError> {
    if bytes < LIMIT_BYTES_MIN {
        return Err(DiskError::Invalid(format!("a disk of {bytes} bytes is below the minimum of {LIMIT_BYTES_MIN}")));
    }
    Ok(())
}

/// Reads the names in a directory that are ids of disks.
fn ids_in(dir: &Path, id_of: impl Fn(&str) -> Option<&str>) -> Result<Vec<String>, DiskError> {
    let failed = || DiskError::io(format!("list {}", dir.display()));
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        ids.extend(name.to_str().and_then(&id_of).filter(|id| check_id(id).is_ok()).map(str::to_owned));
    }
    Ok(ids)
}
