//! Disks as subvolumes of one btrfs, which lives in one sparse file of the data directory.
//!
//! The limit is a quota of the subvolume: writing beyond it fails with EDQUOT, deleting always works. A disk is made under a
//! hidden name and renamed when its limit is set: there is never a visible disk without a limit.

use super::{DiskError, HIDDEN, POOL_BYTES_MIN, POOL_RESERVE_BYTES, POOL_SHARE_PERCENT, host, ids_in};
use infield_sys::{
    btrfs,
    loopdev::{self, LoopDevice},
};
use rustix::fs::{Mode, RenameFlags, mkdirat, renameat_with};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Removed disks are emptied after the next commit: the default of 30 s would hold their space back for too long.
const MOUNT_OPTIONS: &str = "discard=async,commit=5";
/// The pool's file is sparse and replaceable: no second copy of metadata, nothing to discard, the sector size of the loop.
const MKFS_OPTIONS: [&str; 8] = ["-q", "-K", "--sectorsize", "4096", "-m", "single", "-d", "single"];
const HALF_MADE: &str = ".new-";
/// So many more removed disks are collected before the accounting of those that are left is looked at again.
const GONE_BATCH: usize = 256;

#[derive(Debug)]
pub struct Pool {
    dir: PathBuf,
    root: File,
    /// Where the kernel tells what each subvolume holds, without writing anything to disk first.
    accounting: PathBuf,
    gone: Mutex<Gone>,
}

/// Removed subvolumes whose accounting the kernel may still keep. Their numbers are never used again.
#[derive(Debug, Default)]
struct Gone {
    numbers: Vec<u64>,
    /// Looked at when there are so many: those still being emptied are not asked about at every removal.
    look_at: usize,
}

impl Pool {
    pub fn exists(data_dir: &Path) -> bool {
        data_dir.join("pool.img").exists()
    }

    /// `Unusable` when this host cannot have btrfs at all.
    pub fn open(data_dir: &Path, pool_bytes: Option<u64>) -> Result<Self, DiskError> {
        let (image, dir) = (data_dir.join("pool.img"), data_dir.join("pool"));
        let what = || format!("mount {} at {}", image.display(), dir.display());
        host::private_dir(&dir)?;
        if host::mounted_at(&dir)?.as_deref() == Some("btrfs") {
            host::mend_mount(&dir)?;
        } else {
            if !host::kernel_has("btrfs") {
                return Err(DiskError::Unusable(
                    "this kernel has no btrfs; install its module (linux-modules-extra)".into(),
                ));
            }
            if !Self::exists(data_dir) {
                make_image(data_dir, &image, pool_bytes)?;
            }
            let device = loop_of(&image)?;
            host::mount_device(&device.path, &dir, "btrfs", MOUNT_OPTIONS).map_err(DiskError::io(what()))?;
        }
        host::keep_private(&dir)?;
        let root = File::open(&dir).map_err(DiskError::io(what()))?;
        btrfs::enable_quota(root.as_fd()).map_err(DiskError::io(format!("turn on quotas of {}", dir.display())))?;
        let id = btrfs::filesystem_id(root.as_fd()).map_err(DiskError::io(what()))?;
        let accounting = Path::new("/sys/fs/btrfs").join(id).join("qgroups");
        let pool = Self { dir, root, accounting, gone: Mutex::default() };
        pool.remove_half_made()?;
        pool.find_gone()?;
        Ok(pool)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn remove_half_made(&self) -> Result<(), DiskError> {
        for entry in fs::read_dir(&self.dir).map_err(DiskError::io(format!("list {}", self.dir.display())))? {
            let name = entry.map_err(DiskError::io(format!("list {}", self.dir.display())))?.file_name();
            if name.to_str().is_some_and(|n| n.starts_with(HALF_MADE)) {
                self.delete(&name)?;
            }
        }
        Ok(())
    }

    pub fn create(&self, id: &str, limit: u64) -> Result<(), DiskError> {
        self.make(id, limit, |name| btrfs::create_subvolume(self.root.as_fd(), name))
    }

    pub fn fork(&self, source: &str, id: &str, limit: u64) -> Result<(), DiskError> {
        let from = self.open_disk(source)?;
        self.make(id, limit, |name| {
            btrfs::snapshot(from.as_fd(), self.root.as_fd(), name)?;
            fs::remove_dir_all(self.dir.join(name).join("w"))
        })
    }

    fn make(&self, id: &str, limit: u64, fill: impl FnOnce(&OsStr) -> io::Result<()>) -> Result<(), DiskError> {
        if self.dir.join(id).exists() {
            return Err(DiskError::Exists(id.to_owned()));
        }
        host::check_reserve(&self.dir, POOL_RESERVE_BYTES)?;
        let hidden = format!("{HALF_MADE}{id}");
        let done = fill(hidden.as_ref()).and_then(|()| self.finish(&hidden, id, limit));
        if done.is_err() {
            let _ = self.delete(hidden.as_ref()); // the first failure is the one to report
        }
        done.map_err(DiskError::io(format!("make disk {id} in {}", self.dir.display())))
    }

    fn finish(&self, hidden: &str, id: &str, limit: u64) -> io::Result<()> {
        let disk = File::open(self.dir.join(hidden))?;
        btrfs::limit(self.root.as_fd(), btrfs::subvolume_id(disk.as_fd())?, Some(limit))?;
        for part in ["u", "w"] {
            match mkdirat(&disk, part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
        }
        fs::rename(self.dir.join(hidden), self.dir.join(id))
    }

    pub fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let what = || format!("rename disk {from} to {to}");
        renameat_with(&self.root, from, &self.root, to, RenameFlags::NOREPLACE).map_err(|errno| match errno {
            rustix::io::Errno::EXIST => DiskError::Exists(to.to_owned()),
            rustix::io::Errno::NOENT => DiskError::NotFound(from.to_owned()),
            _ => DiskError::os(what())(errno),
        })
    }

    pub fn destroy(&self, id: &str) -> Result<(), DiskError> {
        let number = self.subvolume(id);
        self.delete(id.as_ref())?;
        if let Ok(number) = number {
            let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
            gone.numbers.push(number);
            if gone.numbers.len() >= gone.look_at {
                self.forget_gone(&mut gone);
            }
        }
        Ok(())
    }

    /// Accounting that an earlier server left. Nobody else makes disks yet.
    fn find_gone(&self) -> Result<(), DiskError> {
        let live: Vec<u64> = self.list()?.iter().filter_map(|id| self.subvolume(id).ok()).collect();
        let Ok(known) = fs::read_dir(&self.accounting) else { return Ok(()) };
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let numbers = known.flatten().filter_map(|e| e.file_name().to_str()?.strip_prefix("0_")?.parse().ok());
        gone.numbers.extend(numbers.filter(|n| *n >= btrfs::FIRST_SUBVOLUME && !live.contains(n)));
        self.forget_gone(&mut gone);
        Ok(())
    }

    /// Kernels before 6.11 keep the accounting of removed subvolumes until they are told; those still being emptied wait.
    fn forget_gone(&self, gone: &mut Gone) {
        gone.numbers.retain(|number| {
            let kept = self.accounting.join(format!("0_{number}")).exists();
            kept && btrfs::forget_qgroup(self.root.as_fd(), *number).is_err()
        });
        gone.look_at = gone.numbers.len() + GONE_BATCH;
    }

    fn delete(&self, name: &OsStr) -> Result<(), DiskError> {
        match btrfs::delete_subvolume(self.root.as_fd(), name) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(DiskError::io(format!("remove disk {}", self.dir.join(name).display()))(e))
            }
            _ => Ok(()),
        }
    }

    /// The one file with the disk's use.
    pub fn accounting_file(&self, id: &str) -> Option<File> {
        File::open(self.accounting_path(id).ok()?).ok()
    }

    fn accounting_path(&self, id: &str) -> Result<PathBuf, DiskError> {
        Ok(self.accounting.join(format!("0_{}", self.subvolume(id)?)).join("referenced"))
    }

    pub fn usage(&self, id: &str) -> Result<u64, DiskError> {
        let file = self.accounting_path(id)?;
        let what = || format!("read the usage of disk {id} from {}", file.display());
        let text = fs::read_to_string(&file).map_err(DiskError::io(what()))?;
        text.trim().parse().map_err(|e| DiskError::io(what())(io::Error::other(e)))
    }

    pub fn set_limit(&self, id: &str, limit: u64) -> Result<(), DiskError> {
        btrfs::limit(self.root.as_fd(), self.subvolume(id)?, Some(limit))
            .map_err(DiskError::io(format!("set the limit of disk {id}")))
    }

    pub fn lift_limit(&self, id: &str) -> Result<(), DiskError> {
        btrfs::limit(self.root.as_fd(), self.subvolume(id)?, None)
            .map_err(DiskError::io(format!("lift the limit of disk {id}")))
    }

    pub fn list(&self) -> Result<Vec<String>, DiskError> {
        ids_in(&self.dir, |name| (!name.starts_with(HIDDEN)).then_some(name))
    }

    pub fn close(self) -> Result<(), DiskError> {
        drop(self.root); // our own descriptor would keep the mount busy
        host::unmount_path(&self.dir, false)
    }

    fn open_disk(&self, id: &str) -> Result<File, DiskError> {
        File::open(self.dir.join(id)).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => DiskError::NotFound(id.to_owned()),
            _ => DiskError::io(format!("open disk {id}"))(e),
        })
    }

    fn subvolume(&self, id: &str) -> Result<u64, DiskError> {
        let disk = self.open_disk(id)?;
        btrfs::subvolume_id(disk.as_fd()).map_err(DiskError::io(format!("look up disk {id}")))
    }
}

fn make_image(data_dir: &Path, image: &Path, pool_bytes: Option<u64>) -> Result<(), DiskError> {
    let Some(mkfs) = host::find_tool("mkfs.btrfs") else {
        return Err(DiskError::Unusable("mkfs.btrfs is missing; install the package btrfs-progs".into()));
    };
    let default = || Ok(host::free_bytes(data_dir)? / 100 * POOL_SHARE_PERCENT);
    let bytes = pool_bytes.map_or_else(default, Ok)? & !0xfffff;
    if bytes < POOL_BYTES_MIN {
        return Err(DiskError::Exhausted(format!(
            "a pool of {} MiB in {} is too small, it needs {} MiB; free some space",
            bytes >> 20,
            data_dir.display(),
            POOL_BYTES_MIN >> 20
        )));
    }
    // A half-made image of a killed server has another name and is overwritten.
    let new = data_dir.join("pool.img.new");
    let what = || format!("make the pool {}", image.display());
    let file = host::sparse_file(&new, bytes).map_err(DiskError::io(what()))?;
    host::run_tool(&mkfs, &MKFS_OPTIONS, &new)?;
    file.sync_all().map_err(DiskError::io(what()))?;
    fs::rename(&new, image).map_err(DiskError::io(what()))
}

/// The device of the image: the one it has, never a second one.
fn loop_of(image: &Path) -> Result<LoopDevice, DiskError> {
    let what = || format!("attach {} to a loop device", image.display());
    if let Some(found) = loopdev::attached(image).map_err(DiskError::io(what()))? {
        return Ok(found);
    }
    loopdev::attach(image).map_err(DiskError::io(what()))
}
