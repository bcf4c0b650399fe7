//! A file being written as a whole: through a hidden sibling and a rename, so that readers see the old or the new content
//! and nothing is left when the writer gives up. Symbolic links stay, and the new file gets the old one's mode and owner.
//!
//! Where a sibling cannot stand in for the file (another hard link, an owner that cannot be given, a mount point), its
//! content is copied into the file at the end. Only where no sibling can be made is the file written from the start.

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, File, Metadata};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// As many links as the kernel follows.
const LINKS_MAX: usize = 40;
const NAME_TRIES_MAX: usize = 16;

pub struct Target {
    /// Where the links lead.
    path: PathBuf,
    file: File,
    /// The sibling, while it has not become the file.
    sibling: Option<PathBuf>,
    /// The file it replaces, opened for writing.
    replaced: Option<File>,
    /// The file keeps its place, because it has other names or an owner that cannot be given.
    in_place: bool,
    committed: AtomicBool,
    /// Folders made for it, outermost first.
    made: Vec<PathBuf>,
}

/// What failed, in the words of the upload's error texts (`mkdir <dir>`, `create`).
#[derive(Debug)]
pub struct OpenError {
    pub step: String,
    pub source: io::Error,
}

impl Target {
    /// Makes missing parents and prepares the write. Nothing of an existing file has changed yet, except when only the file
    /// itself can be written.
    pub fn open(wanted: &Path) -> Result<Self, OpenError> {
        let mut made = Vec::new();
        if let Some(parent) = wanted.parent().filter(|p| !p.as_os_str().is_empty())
            && let Err(source) = make_parents(parent, &mut made)
        {
            unmake(&made);
            return Err(OpenError { step: format!("mkdir {}", parent.display()), source });
        }
        match Self::prepare(wanted) {
            Ok(mut target) => {
                target.made = made;
                Ok(target)
            }
            Err(source) => {
                unmake(&made);
                Err(OpenError { step: "create".to_owned(), source })
            }
        }
    }

    fn prepare(wanted: &Path) -> io::Result<Self> {
        let path = follow_links(wanted)?;
        let committed = AtomicBool::new(false);
        let Some(old) = open_existing(&path)? else {
            let (sibling, file) = create_sibling(&path, 0o666)?;
            let (sibling, replaced, made) = (Some(sibling), None, Vec::new());
            return Ok(Self { path, file, sibling, replaced, in_place: false, committed, made });
        };
        let Ok((sibling, file)) = create_sibling(&path, 0o600) else {
            old.set_len(0)?;
            let (sibling, replaced, made) = (None, None, Vec::new());
            return Ok(Self { path, file: old, sibling, replaced, in_place: true, committed, made });
        };
        let (in_place, sibling) = (!stands_in(&file, &old.metadata()?), Some(sibling));
        Ok(Self { path, file, sibling, replaced: Some(old), in_place, committed, made: Vec::new() })
    }

    pub fn write(&self, pieces: &[Bytes]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|p| IoSlice::new(p)).collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            match (&self.file).write_vectored(left) {
                Ok(0) if left.iter().all(|s| s.is_empty()) => return Ok(()),
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => IoSlice::advance_slices(&mut left, n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The new content becomes the file.
    pub fn commit(&self) -> io::Result<()> {
        let Some(sibling) = &self.sibling else { return Ok(()) };
        if !self.in_place {
            match (fs::rename(sibling, &self.path), &self.replaced) {
                (Ok(()), _) => {
                    self.committed.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                (Err(e), None) => return Err(e),
                // A mount point cannot be renamed over, but written.
                (Err(_), Some(_)) => {}
            }
        }
        let Some(mut old) = self.replaced.as_ref() else { return Ok(()) };
        let mut new = File::open(sibling)?;
        old.set_len(0)?;
        io::copy(&mut new, &mut old).map(|_| ())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(sibling) = &self.sibling
            && !self.committed.load(Ordering::Relaxed)
        {
            let _ = fs::remove_file(sibling);
            unmake(&self.made);
        }
    }
}

/// As `create_dir_all`, noting what was not there before.
fn make_parents(dir: &Path, made: &mut Vec<PathBuf>) -> io::Result<()> {
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|p| !p.as_os_str().is_empty() && fs::metadata(p).is_err()).collect();
    for dir in missing.into_iter().rev() {
        match fs::create_dir(dir) {
            Ok(()) => made.push(dir.to_owned()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            Err(e) => return Err(e),
        }
    }
    if dir.is_dir() { Ok(()) } else { Err(Errno::NOTDIR.into()) }
}

/// Folders in which something else appeared meanwhile stay.
fn unmake(made: &[PathBuf]) {
    for dir in made.iter().rev() {
        if fs::remove_dir(dir).is_err() {
            return;
        }
    }
}

/// The path behind a chain of symbolic links; its last element need not exist.
fn follow_links(wanted: &Path) -> io::Result<PathBuf> {
    let mut path = wanted.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(link) => path = path.parent().unwrap_or(Path::new("")).join(link),
            Err(_) => return Ok(path),
        }
    }
    Err(Errno::LOOP.into())
}

/// The existing regular file, which must be writable; `None` when there is none.
fn open_existing(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(None),
        // A FIFO without a reader.
        Err(Errno::NXIO) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        Err(e) => return Err(e.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(Some(file))
}

/// Gives a sibling the mode and owner of the file, if it may take its place.
fn stands_in(file: &File, old: &Metadata) -> bool {
    if old.nlink() != 1 {
        return false;
    }
    let same_owner = |m: Metadata| m.uid() == old.uid() && m.gid() == old.gid();
    (file.metadata().is_ok_and(same_owner) || fchown(file, Some(old.uid()), Some(old.gid())).is_ok())
        && file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777)).is_ok()
}

fn create_sibling(path: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    if path.file_name().is_none() {
        return Err(Errno::ISDIR.into());
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    for _ in 0..NAME_TRIES_MAX {
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let sibling = path.with_file_name(format!(".infield-{:x}-{now:x}-{count:x}.part", std::process::id()));
        match rustix::fs::open(&sibling, flags, Mode::from_raw_mode(mode)) {
            Ok(fd) => return Ok((sibling, File::from(fd))),
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(Errno::EXIST.into())
}
