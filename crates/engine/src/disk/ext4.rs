//! Disks as ext4 images on loop devices, for hosts without btrfs. The size of the filesystem is the limit (ENOSPC).
//!
//! A template per size is made once by mkfs, big enough that its free space is the limit; disks are sparse copies of it
//! (shared blocks where the host's filesystem can), and a few spare copies wait ready.

use super::{DiskError, HOST_RESERVE_BYTES, host, ids_in};
use infield_sys::loopdev;
use rustix::fs::{SeekFrom, ioctl_ficlone, seek, statvfs, syncfs};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

const MOUNT_OPTIONS: &str = "discard,noinit_itable";
const MKFS_OPTIONS: [&str; 10] =
    ["-q", "-F", "-b", "4096", "-m", "0", "-J", "size=4", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"];
const BLOCK_BYTES: u64 = 4096;
/// ext4 keeps this share of its blocks, up to a maximum, for data that is not placed yet.
const PENDING_SHARE: u64 = 50;
const PENDING_BLOCKS_MAX: u64 = 4096;
/// A template may have this much more free space than its limit.
const SLACK_BYTES: u64 = 1 << 20;
const TEMPLATE_TRIES_MAX: u32 = 8;
/// Ready copies of the size that was asked for last.
const SPARES: usize = 2;
const COPY_CHUNK_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub struct Images {
    /// Mount points.
    dir: PathBuf,
    stock: Arc<Stock>,
}

/// The folder of image files.
#[derive(Debug)]
struct Stock {
    dir: PathBuf,
    mkfs: PathBuf,
    /// Held while a template is made.
    templates: Mutex<()>,
    spares: Mutex<Vec<(u64, PathBuf)>>,
    serial: AtomicU64,
}

impl Images {
    pub fn exist(data_dir: &Path) -> Result<bool, DiskError> {
        let dir = data_dir.join("disks");
        Ok(dir.is_dir() && !ids_in(&dir, id_of)?.is_empty())
    }

    pub fn open(data_dir: &Path) -> Result<Self, DiskError> {
        let Some(mkfs) = host::find_tool("mkfs.ext4") else {
            return Err(DiskError::Unusable("mkfs.ext4 is missing; install the package e2fsprogs".into()));
        };
        if !host::kernel_has("ext4") {
            return Err(DiskError::Unusable("this kernel has no ext4".into()));
        }
        let (dir, images) = (data_dir.join("pool"), data_dir.join("disks"));
        for needed in [&dir, &images] {
            host::private_dir(needed)?;
        }
        let stock = Stock {
            dir: images,
            mkfs,
            templates: Mutex::new(()),
            spares: Mutex::new(Vec::new()),
            serial: AtomicU64::new(0),
        };
        stock.remove_scraps()?;
        let images = Self { dir, stock: Arc::new(stock) };
        for id in images.list()? {
            images.mount(&id)?; // after a reboot; already mounted ones are left alone
        }
        Ok(images)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn create(&self, id: &str, limit: u64) -> Result<(), DiskError> {
        let image = self.stock.image(id);
        if image.exists() {
            return Err(DiskError::Exists(id.to_owned()));
        }
        let spare = self.stock.take(limit)?;
        let what = || format!("make disk {id}");
        let done = fs::rename(&spare, &image).map_err(DiskError::io(what())).and_then(|()| self.mount(id));
        let done = done.and_then(|()| {
            ["u", "w"]
                .into_iter()
                .try_for_each(|part| fs::create_dir(self.dir.join(id).join(part)))
                .map_err(DiskError::io(what()))
        });
        if done.is_err() {
            let _ = self.destroy(id); // the first failure is the one to report
        }
        self.stock.refill(limit);
        done
    }

    /// A whole copy, where the host's filesystem cannot share blocks. Nobody may write to the source meanwhile.
    pub fn fork(&self, source: &str, id: &str, limit: u64) -> Result<(), DiskError> {
        let (from, image) = (self.stock.image(source), self.stock.image(id));
        if !from.exists() {
            return Err(DiskError::NotFound(source.to_owned()));
        }
        if image.exists() {
            return Err(DiskError::Exists(id.to_owned()));
        }
        let new = image.with_extension("img.new");
        let what = || format!("copy disk {source} to {id}");
        // What is written is in the image then, at least in its journal.
        let root = File::open(self.dir.join(source)).map_err(DiskError::io(what()))?;
        syncfs(&root).map_err(DiskError::os(what()))?;
        let stored = fs::metadata(&from).map_err(DiskError::io(what()))?.blocks() * 512;
        host::check_reserve(&self.stock.dir, HOST_RESERVE_BYTES + stored)?;
        let copied = copy_sparse(&from, &new).and_then(|()| fs::rename(&new, &image));
        if copied.is_err() {
            let _ = fs::remove_file(&new); // the first failure is the one to report
        }
        copied.map_err(DiskError::io(what()))?;
        let fresh_work = || {
            let work = self.dir.join(id).join("w");
            fs::remove_dir_all(&work).and_then(|()| fs::create_dir(&work)).map_err(DiskError::io(what()))
        };
        let done = self.mount(id).and_then(|()| fresh_work()).and_then(|()| self.set_limit(id, limit));
        if done.is_err() {
            let _ = self.destroy(id);
        }
        done
    }

    fn mount(&self, id: &str) -> Result<(), DiskError> {
        let (image, point) = (self.stock.image(id), self.dir.join(id));
        let what = || format!("mount {} at {}", image.display(), point.display());
        fs::create_dir_all(&point).map_err(DiskError::io(what()))?;
        if host::mounted_at(&point)?.as_deref() == Some("ext4") {
            return host::mend_mount(&point);
        }
        let device = match loopdev::attached(&image).map_err(DiskError::io(what()))? {
            Some(found) => found,
            None => loopdev::attach(&image).map_err(DiskError::io(what()))?,
        };
        host::mount_device(&device.path, &point, "ext4", MOUNT_OPTIONS).map_err(DiskError::io(what()))
    }

    pub fn destroy(&self, id: &str) -> Result<(), DiskError> {
        let (image, point) = (self.stock.image(id), self.dir.join(id));
        if host::mounted_at(&point)?.is_some() {
            // A process that still looks into it must not keep the id; the space comes back when it ends.
            host::unmount_path(&point, true)?;
        }
        let gone = |result: io::Result<()>| match result {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        gone(fs::remove_file(&image)).map_err(DiskError::io(format!("remove {}", image.display())))?;
        gone(fs::remove_dir(&point)).map_err(DiskError::io(format!("remove {}", point.display())))
    }

    pub fn usage(&self, id: &str) -> Result<u64, DiskError> {
        let found = self.stat(id)?;
        Ok((found.f_blocks - found.f_bfree) * found.f_frsize)
    }

    pub fn set_limit(&self, id: &str, limit: u64) -> Result<(), DiskError> {
        let what = || format!("set the limit of disk {id}");
        let image = self.stock.image(id);
        let holds = || self.stat(id).map(|s| (s.f_blocks - pending_blocks(s.f_blocks)) * s.f_frsize);
        let now = holds()?;
        if limit + 2 * SLACK_BYTES < now {
            return Err(DiskError::Unsupported(format!(
                "disk {id} cannot shrink from {} to {} MiB: ext4 images only grow; make a new sandbox",
                now >> 20,
                limit >> 20
            )));
        }
        let file = File::options().write(true).open(&image).map_err(DiskError::io(what()))?;
        let device =
            loopdev::attached(&image).map_err(DiskError::io(what()))?.ok_or(DiskError::NotFound(id.to_owned()))?;
        let root = File::open(self.dir.join(id)).map_err(DiskError::io(what()))?;
        for _ in 0..TEMPLATE_TRIES_MAX {
            let missing = limit.saturating_sub(holds()?);
            if missing == 0 {
                return Ok(());
            }
            let old = file.metadata().map_err(DiskError::io(what()))?.len();
            let size = (old + missing + missing / PENDING_SHARE).next_multiple_of(SLACK_BYTES);
            let grown = file.set_len(size).and_then(|()| device.refresh_capacity());
            let grown = grown.and_then(|()| loopdev::grow_ext4(&root, size / BLOCK_BYTES));
            if grown.is_err() {
                let _ = file.set_len(old).and_then(|()| device.refresh_capacity()); // the first failure is the one to report
            }
            grown.map_err(DiskError::io(format!("{} (needs CAP_SYS_RESOURCE)", what())))?;
        }
        Ok(())
    }

    fn stat(&self, id: &str) -> Result<rustix::fs::StatVfs, DiskError> {
        if !self.stock.image(id).exists() {
            return Err(DiskError::NotFound(id.to_owned()));
        }
        statvfs(self.dir.join(id)).map_err(DiskError::os(format!("ask for the usage of disk {id}")))
    }

    pub fn list(&self) -> Result<Vec<String>, DiskError> {
        ids_in(&self.stock.dir, id_of)
    }

    pub fn close(self) -> Result<(), DiskError> {
        for id in self.list()? {
            host::unmount_path(&self.dir.join(&id), false)?;
        }
        Ok(())
    }
}

fn id_of(file_name: &str) -> Option<&str> {
    file_name.strip_prefix("sandbox-")?.strip_suffix(".img")
}

impl Stock {
    fn image(&self, id: &str) -> PathBuf {
        self.dir.join(format!("sandbox-{id}.img"))
    }

    /// Spares and half-made files of an earlier server.
    fn remove_scraps(&self) -> Result<(), DiskError> {
        let failed = || DiskError::io(format!("clean {}", self.dir.display()));
        for entry in fs::read_dir(&self.dir).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            if entry.file_name().to_str().is_some_and(|n| n.starts_with("spare-") || n.ends_with(".new")) {
                fs::remove_file(entry.path()).map_err(failed())?;
            }
        }
        Ok(())
    }

    /// An unused image of this limit: a spare, or one made now.
    fn take(&self, limit: u64) -> Result<PathBuf, DiskError> {
        let mut spares = self.spares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = spares.iter().position(|(l, _)| *l == limit) {
            return Ok(spares.swap_remove(at).1);
        }
        drop(spares);
        self.copy(limit)
    }

    /// Makes spares of this size in the background and drops those of others.
    fn refill(self: &Arc<Self>, limit: u64) {
        let stock = Arc::clone(self);
        let work = move || {
            let old: Vec<_> = {
                let mut spares = stock.spares.lock().unwrap_or_else(PoisonError::into_inner);
                spares.extract_if(.., |(l, _)| *l != limit).collect()
            };
            for (_, path) in old {
                let _ = fs::remove_file(path); // swept at the next start
            }
            while stock.spares.lock().unwrap_or_else(PoisonError::into_inner).len() < SPARES {
                match stock.copy(limit) {
                    Ok(path) => stock.spares.lock().unwrap_or_else(PoisonError::into_inner).push((limit, path)),
                    Err(e) => return tracing::warn!("no spare disk could be made: {e}"),
                }
            }
        };
        if let Err(e) = thread::Builder::new().name("spare-disks".into()).spawn(work) {
            tracing::warn!("no spare disk could be made: {e}");
        }
    }

    fn copy(&self, limit: u64) -> Result<PathBuf, DiskError> {
        let template = self.template(limit)?;
        let target = self.dir.join(format!("spare-{}.img", self.serial.fetch_add(1, Ordering::Relaxed)));
        let done = copy_sparse(&template, &target);
        if done.is_err() {
            let _ = fs::remove_file(&target); // the first failure is the one to report
        }
        done.map_err(DiskError::io(format!("copy {} to {}", template.display(), target.display())))?;
        Ok(target)
    }

    /// A filesystem whose free space is the limit, made once.
    fn template(&self, limit: u64) -> Result<PathBuf, DiskError> {
        let _one_at_a_time = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.dir.join(format!("template-{limit}.img"));
        if path.exists() {
            return Ok(path);
        }
        let new = path.with_extension("img.new");
        let what = || format!("make {}", path.display());
        let mut bytes = limit.next_multiple_of(BLOCK_BYTES);
        for _ in 0..TEMPLATE_TRIES_MAX {
            let file = host::sparse_file(&new, bytes).map_err(DiskError::io(what()))?;
            host::run_tool(&self.mkfs, &MKFS_OPTIONS, &new)?;
            let free = free_for_data(&file).map_err(DiskError::io(what()))?;
            if free >= limit && free <= limit + SLACK_BYTES {
                fs::rename(&new, &path).map_err(DiskError::io(what()))?;
                return Ok(path);
            }
            bytes = (bytes + limit).saturating_sub(free).next_multiple_of(BLOCK_BYTES) + SLACK_BYTES / 2;
        }
        Err(DiskError::Unusable(format!("mkfs.ext4 made no filesystem of {} MiB", limit >> 20)))
    }
}

fn pending_blocks(blocks: u64) -> u64 {
    (blocks / PENDING_SHARE).min(PENDING_BLOCKS_MAX)
}

/// What the superblock of a fresh ext4 says is free, less what the kernel keeps back.
fn free_for_data(image: &File) -> io::Result<u64> {
    const SUPERBLOCK_AT: u64 = 1024;
    let mut superblock = [0; 1024];
    image.read_exact_at(&mut superblock, SUPERBLOCK_AT)?;
    let word = |at: usize| {
        let bytes = [superblock[at], superblock[at + 1], superblock[at + 2], superblock[at + 3]];
        u64::from(u32::from_le_bytes(bytes))
    };
    let (blocks, free) = (word(0x4) | (word(0x150) << 32), word(0xC) | (word(0x158) << 32));
    Ok(free.saturating_sub(pending_blocks(blocks)) * BLOCK_BYTES)
}

/// Shares blocks where the filesystem can, else copies the parts that hold data.
fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let size = source.metadata()?.len();
    let target = host::sparse_file(to, size)?;
    if ioctl_ficlone(&target, &source).is_ok() {
        return Ok(());
    }
    let mut buffer = vec![0; COPY_CHUNK_BYTES];
    let mut at = 0;
    while at < size {
        let Ok(start) = seek(&source, SeekFrom::Data(at)) else { break }; // ENXIO: only a hole is left
        let end = seek(&source, SeekFrom::Hole(start))?;
        at = start;
        while at < end {
            let wanted = buffer.len().min((end - at) as usize);
            source.read_exact_at(&mut buffer[..wanted], at)?;
            target.write_all_at(&buffer[..wanted], at)?;
            at += wanted as u64;
        }
    }
    Ok(())
}
