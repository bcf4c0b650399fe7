//! An image being made: a temporary directory under a shared lock, moved into place at the end or swept after a crash.
//! While any staging area lives, in any process, nothing is collected.

use super::{
    config::Document,
    error::{ImageError, Result},
    layer::{self, Layer},
    progress::Progress,
    reference::{Reference, hex_of, sha256_of},
    store::{Giver, Image, LayerMeta, Store},
    unpack,
};
use crate::disk::{self, DiskError};
use rustix::{
    fs::{self, FlockOperation, Mode, OFlags},
    io::Errno,
};
use std::{
    io::Read,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

pub struct Staging {
    dir: PathBuf,
    next: AtomicU64,
    /// Shared; released when dropped, by the kernel even when the process is killed.
    _lock: OwnedFd,
}

/// A layer waiting to be moved into the store.
pub struct Staged {
    dir: PathBuf,
    pub layer: Layer,
}

fn temporary_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Staging {
    pub(super) fn begin(store: &Store) -> Result<Self> {
        let lock = lock(store.dir(), FlockOperation::LockShared)?;
        check_room(store.dir())?;
        loop {
            let dir = store.dir().join("tmp").join(temporary_name());
            match fs::mkdir(&dir, Mode::from_raw_mode(0o700)) {
                Ok(()) => return Ok(Self { dir, next: AtomicU64::new(0), _lock: lock }),
                // A leftover, or a process in another pid namespace: take the next number.
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(ImageError::os(format!("cannot make {}", dir.display()))(errno)),
            }
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A fresh path in the staging area.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{}-{name}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// Unpacks one layer. Blocks; call from a thread that may.
    pub fn unpack(&self, stored: impl Read, progress: &dyn Progress) -> Result<Staged> {
        let dir = self.path("layer");
        make_dir(&dir, 0o755)?;
        make_dir(&dir.join("fs"), 0o755)?;
        let layer = layer::unpack(stored, &dir.join("fs"), progress)?;
        let meta = LayerMeta { size_bytes: layer.unpacked.bytes, entries: layer.unpacked.entries };
        let meta = serde_json::to_vec(&meta).map_err(|error| ImageError::Config { why: error.to_string() })?;
        let path = dir.join("meta.json");
        std::fs::write(&path, meta).map_err(ImageError::io(format!("cannot write {}", path.display())))?;
        Ok(Staged { dir, layer })
    }

    /// Makes the image visible: layers first, then the configuration, then the name. `config` must be the exact bytes its
    /// digest was taken of.
    pub fn commit(
        self,
        store: &Store,
        config: &[u8],
        staged: Vec<Staged>,
        reference: &Reference,
        giver: Giver,
    ) -> Result<Arc<Image>> {
        let document = Document::parse(config)?;
        for layer in &staged {
            if !document.rootfs.diff_ids.contains(&layer.layer.diff_id) {
                return Err(ImageError::Digest {
                    what: "an unpacked layer".into(),
                    expected: document.rootfs.diff_ids.join(" or "),
                    found: layer.layer.diff_id.clone(),
                });
            }
        }
        // A layer found by name later is trusted, so its files must be on disk before it gets the name.
        let dir = unpack::open_dir(&self.dir)?;
        fs::syncfs(&dir).map_err(ImageError::os(format!("cannot write {} to disk", self.dir.display())))?;
        for layer in staged {
            let hex = hex_of(&layer.layer.diff_id).unwrap_or_default();
            rename_new(&layer.dir, &store.dir().join("layers").join(hex))?;
        }
        let id = sha256_of(config);
        write_atomic(store.dir(), &format!("configs/{}.json", hex_of(&id).unwrap_or_default()), config)?;
        store.name(reference, &id, giver)
    }
}

impl Staged {
    /// The unpacked files.
    pub fn root(&self) -> PathBuf {
        self.dir.join("fs")
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Best effort: what stays is swept when the store is opened next.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Sandboxes' disks live on the same file system as a rule: an image must not take their last bytes.
pub(super) fn check_room(path: &Path) -> Result<()> {
    disk::check_reserve(path, disk::HOST_RESERVE_BYTES).map_err(|error| match error {
        DiskError::Io { what, source } => ImageError::Io { what, source },
        other => ImageError::Exhausted { why: other.to_string() },
    })
}

pub(super) fn lock(store: &Path, how: FlockOperation) -> Result<OwnedFd> {
    try_lock(store, how)?.ok_or_else(|| ImageError::io(format!("cannot lock {}", store.display()))(Errno::AGAIN.into()))
}

/// `None` when a non-blocking lock is held by somebody else.
pub(super) fn try_lock(store: &Path, how: FlockOperation) -> Result<Option<OwnedFd>> {
    let path = store.join("lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = fs::open(&path, flags, Mode::from_raw_mode(0o600))
        .map_err(ImageError::os(format!("cannot open {}", path.display())))?;
    loop {
        match fs::flock(&file, how) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(ImageError::os(format!("cannot lock {}", path.display()))(errno)),
        }
    }
}

pub(super) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(path)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
        .map_err(ImageError::io(format!("cannot make {}", path.display())))
}

/// Somebody else having made the same content first is success.
fn rename_new(from: &Path, to: &Path) -> Result<()> {
    match fs::renameat_with(fs::CWD, from, fs::CWD, to, fs::RenameFlags::NOREPLACE) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(ImageError::os(format!("cannot move a layer to {}", to.display()))(errno)),
    }
}

/// Readers see the old file or the new one, also after a power cut. `name` is below the store.
pub(super) fn write_atomic(store: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let (temporary, path) = (store.join("tmp").join(temporary_name()), store.join(name));
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        std::fs::File::open(path.parent().unwrap_or(store))?.sync_all()
    };
    write().map_err(|source| {
        let _ = std::fs::remove_file(&temporary);
        ImageError::Io { what: format!("cannot write {}", path.display()), source }
    })
}
