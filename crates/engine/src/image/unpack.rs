//! Applies archive members to one layer directory. Every path is resolved by the kernel below the layer's root
//! (`openat2` with `RESOLVE_IN_ROOT`), so links made by earlier members cannot lead out; no path is joined as text.
//! Knows no registries, digests or references.

use super::{
    entry::{self, Action, LayerPath, XattrAction},
    error::{ImageError, Result},
    tarfile::{Member, TarReader},
};
use rustix::{
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};
use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// Members of one layer.
pub const LAYER_ENTRIES_MAX: u64 = 4_000_000;
/// Bytes of all files of one layer, holes included.
pub const LAYER_BYTES_MAX: u64 = 128 << 30;
const COPY_BUFFER_BYTES: usize = 256 << 10;
/// `openat2` may ask to try again while something on the host renames.
const RESOLVE_TRIES_MAX: usize = 64;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    pub entries: u64,
    pub bytes: u64,
}

/// Unpacks a whole archive into `root`, an empty directory nobody else writes to.
pub fn unpack(reader: impl Read, root: &Path) -> Result<Unpacked> {
    let root = open_dir(root)?;
    let mut unpacker = Unpacker { root, dirs: HashMap::new(), parent: None, done: Unpacked::default() };
    let mut archive = TarReader::new(reader);
    while let Some(member) = archive.next_member().map_err(unreadable)? {
        unpacker.member(&member, &mut archive)?;
    }
    archive.drain().map_err(unreadable)?;
    unpacker.finish()
}

pub(super) fn open_dir(path: &Path) -> Result<OwnedFd> {
    fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(ImageError::os(format!("cannot open {}", path.display())))
}

/// Opens something below `root` as if `root` were `/`: no link, however it is made, leads out.
pub(super) fn open_below(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 1..RESOLVE_TRIES_MAX {
        match fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Errors of the stream itself: malformed archives are told apart from a failing source.
pub(super) fn unreadable(source: io::Error) -> ImageError {
    match source.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => ImageError::Archive { why: source.to_string() },
        io::ErrorKind::StorageFull => ImageError::Exhausted { why: source.to_string() },
        _ => ImageError::Io { what: "cannot read the archive".into(), source },
    }
}

struct Unpacker {
    root: OwnedFd,
    /// Directories and their times, set at the end because filling a directory changes its time.
    dirs: HashMap<LayerPath, Timestamps>,
    /// The last parent; most members follow a sibling.
    parent: Option<(LayerPath, OwnedFd)>,
    done: Unpacked,
}

/// Why one member failed; the caller adds its name.
enum Failure {
    Refused(String),
    Errno(&'static str, Errno),
    Read(io::Error),
}

impl Failure {
    fn at(action: &'static str) -> impl FnOnce(Errno) -> Failure {
        move |errno| Failure::Errno(action, errno)
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Failure::Refused(why)
    }
}

impl Unpacker {
    fn member(&mut self, member: &Member, data: &mut impl Read) -> Result<()> {
        let shown = || String::from_utf8_lossy(&member.path).into_owned();
        self.done.entries += 1;
        if self.done.entries > LAYER_ENTRIES_MAX {
            let limit = format!("{LAYER_ENTRIES_MAX} entries");
            return Err(ImageError::TooLarge { what: format!("the archive at {:?}", shown()), limit });
        }
        self.done.bytes = self.done.bytes.saturating_add(member.size);
        if self.done.bytes > LAYER_BYTES_MAX {
            let limit = format!("{} GiB unpacked", LAYER_BYTES_MAX >> 30);
            return Err(ImageError::TooLarge { what: format!("the archive at {:?}", shown()), limit });
        }
        self.apply(member, data).map_err(|failure| match failure {
            Failure::Refused(why) => ImageError::Refused { entry: shown(), why },
            Failure::Errno(action, errno) => ImageError::Io {
                what: format!("cannot {action} for archive entry {:?}", shown()),
                source: errno.into(),
            },
            Failure::Read(source) => unreadable(source),
        })
    }

    fn apply(&mut self, member: &Member, data: &mut impl Read) -> Result<(), Failure> {
        match entry::decide(member)? {
            Action::Skip => Ok(()),
            Action::Directory(path) => self.directory(path, member),
            Action::File(path) => self.file(&path, member, data),
            Action::Symlink(path, target) => self.symlink(&path, &target, member),
            Action::Hardlink(path, target) => self.hardlink(&path, &target),
            Action::Fifo(path) => self.fifo(&path, member),
            Action::Whiteout(path) => self.whiteout(&path),
            Action::Opaque(path) => self.opaque(&path),
        }
    }

    fn directory(&mut self, path: LayerPath, member: &Member) -> Result<(), Failure> {
        let dir = self.make_directory(&path)?;
        set_xattrs(dir.as_fd(), member)?;
        set_owner_and_mode(dir.as_fd(), member)?;
        self.dirs.insert(path, times(member));
        Ok(())
    }

    /// Makes the directory or opens the one an earlier member made. One made in the place of a whiteout is opaque.
    fn make_directory(&mut self, path: &LayerPath) -> Result<OwnedFd, Failure> {
        let Some((parent, name)) = path.split() else { return self.reopen_dir(path) };
        let parent = self.open_parent(&parent)?;
        let mut opaque = false;
        match fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => match kind_of(parent, name)? {
                Kind::Directory => {}
                found => {
                    opaque = found == Kind::Whiteout;
                    self.remove(path)?;
                    let parent = self.open_parent_of(path)?;
                    fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)).map_err(Failure::at("make a directory"))?;
                }
            },
            other => other.map_err(Failure::at("make a directory"))?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = fs::openat(self.open_parent_of(path)?, name, flags, Mode::empty())
            .map_err(Failure::at("open a directory"))?;
        if opaque {
            mark_opaque(&dir)?;
        }
        Ok(dir)
    }

    fn file(&mut self, path: &LayerPath, member: &Member, data: &mut impl Read) -> Result<(), Failure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self
            .create(path, "make a file", |parent, name| fs::openat(parent, name, flags, Mode::from_raw_mode(0o600)))?;
        match &member.sparse {
            None => copy_at(&file, 0, member.size, data)?,
            Some(pieces) => {
                fs::ftruncate(&file, member.size).map_err(Failure::at("size a file"))?;
                for piece in pieces {
                    copy_at(&file, piece.offset, piece.length, data)?;
                }
            }
        }
        // This order: changing the owner drops capabilities and set-id bits.
        let (uid, gid) = owner(member);
        fs::fchown(&file, Some(uid), Some(gid)).map_err(Failure::at("set the owner"))?;
        set_xattrs(file.as_fd(), member)?;
        fs::fchmod(&file, Mode::from_raw_mode(member.mode)).map_err(Failure::at("set the mode"))?;
        fs::futimens(&file, &times(member)).map_err(Failure::at("set the time"))
    }

    fn symlink(&mut self, path: &LayerPath, target: &OsStr, member: &Member) -> Result<(), Failure> {
        check_xattrs(member)?;
        self.create(path, "make a symbolic link", |parent, name| fs::symlinkat(target, parent, name))?;
        self.finish_node(path, member)
    }

    fn fifo(&mut self, path: &LayerPath, member: &Member) -> Result<(), Failure> {
        check_xattrs(member)?;
        let mode = Mode::from_raw_mode(member.mode);
        self.create(path, "make a fifo", |parent, name| fs::mknodat(parent, name, FileType::Fifo, mode, 0))?;
        let (parent, name) = self.parent_and_name(path)?;
        // Just made here, and nobody else writes in this tree: it is no link.
        fs::chmodat(&parent, &name, mode, AtFlags::empty()).map_err(Failure::at("set the mode"))?;
        self.finish_node(path, member)
    }

    fn finish_node(&mut self, path: &LayerPath, member: &Member) -> Result<(), Failure> {
        let (parent, name) = self.parent_and_name(path)?;
        let (uid, gid) = owner(member);
        let at = AtFlags::SYMLINK_NOFOLLOW;
        fs::chownat(&parent, &name, Some(uid), Some(gid), at).map_err(Failure::at("set the owner"))?;
        fs::utimensat(&parent, &name, &times(member), at).map_err(Failure::at("set the time"))
    }

    fn hardlink(&mut self, path: &LayerPath, target: &LayerPath) -> Result<(), Failure> {
        let (target_parent, target_name) = target.split().ok_or_else(|| "its hard link target is empty".to_string())?;
        let shown = || target.to_path().display().to_string();
        let from = match open_below(self.root.as_fd(), &target_parent.to_path(), OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR) => {
                return Err(Failure::Refused(format!("its hard link target {:?} is not in this archive", shown())));
            }
            other => other.map_err(Failure::at("find the hard link target"))?,
        };
        if path == target {
            return Ok(());
        }
        match kind_of(&from, target_name)? {
            Kind::Absent => Err(Failure::Refused(format!("its hard link target {:?} is not in this archive", shown()))),
            Kind::Directory => Err(Failure::Refused(format!("its hard link target {:?} is a directory", shown()))),
            Kind::Whiteout => Err(Failure::Refused(format!("its hard link target {:?} is a whiteout", shown()))),
            Kind::Link | Kind::Other => self.create(path, "make a hard link", |parent, name| {
                fs::linkat(&from, target_name, parent, name, AtFlags::empty())
            }),
        }
    }

    fn whiteout(&mut self, path: &LayerPath) -> Result<(), Failure> {
        let (parent, name) = self.parent_and_name(path)?;
        match kind_of(&parent, &name)? {
            Kind::Absent => fs::mknodat(&parent, &name, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(Failure::at("make a whiteout")),
            // The layer both hides and makes the directory: hide only what is below.
            Kind::Directory => mark_opaque(&self.reopen_dir(path)?),
            Kind::Whiteout | Kind::Link | Kind::Other => Ok(()),
        }
    }

    fn opaque(&mut self, path: &LayerPath) -> Result<(), Failure> {
        let dir = if path.parts().is_empty() { self.reopen_dir(path)? } else { self.make_directory(path)? };
        mark_opaque(&dir)
    }

    /// Runs `make` in the parent directory; when something has the name already, it gives way.
    fn create<T>(
        &mut self,
        path: &LayerPath,
        what: &'static str,
        make: impl Fn(&OwnedFd, &OsStr) -> rustix::io::Result<T>,
    ) -> Result<T, Failure> {
        let (_, name) = path.split().ok_or_else(|| "the root of a layer must be a directory".to_string())?;
        let name = name.to_owned();
        match make(self.open_parent_of(path)?, &name) {
            Err(Errno::EXIST) => {
                self.remove(path)?;
                make(self.open_parent_of(path)?, &name).map_err(Failure::at(what))
            }
            other => other.map_err(Failure::at(what)),
        }
    }

    /// A later member replaces an earlier one of the same name, but never a directory that is in use.
    fn remove(&mut self, path: &LayerPath) -> Result<(), Failure> {
        let (parent, name) = self.parent_and_name(path)?;
        let removed = match fs::unlinkat(&parent, &name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR),
            other => other,
        };
        // What was remembered by name may now be another thing.
        self.parent = None;
        self.dirs.remove(path);
        match removed {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                Err(Failure::Refused("it replaces a directory that already has entries".into()))
            }
            other => other.map_err(Failure::at("replace an earlier entry")),
        }
    }

    fn parent_and_name(&mut self, path: &LayerPath) -> Result<(OwnedFd, OsString), Failure> {
        let (_, name) = path.split().ok_or_else(|| "the root of a layer must be a directory".to_string())?;
        let name = name.to_owned();
        let parent = self.open_parent_of(path)?.try_clone();
        let parent = parent.map_err(Failure::Read)?;
        Ok((parent, name))
    }

    fn open_parent_of(&mut self, path: &LayerPath) -> Result<&OwnedFd, Failure> {
        let (parent, _) = path.split().ok_or_else(|| "the root of a layer must be a directory".to_string())?;
        self.open_parent(&parent)
    }

    /// The directory itself, made with its missing ancestors when no member did.
    fn open_parent(&mut self, path: &LayerPath) -> Result<&OwnedFd, Failure> {
        if self.parent.as_ref().is_none_or(|(known, _)| known != path) {
            let dir = match open_below(self.root.as_fd(), &path.to_path(), OFlags::PATH | OFlags::DIRECTORY) {
                Err(Errno::NOENT | Errno::NOTDIR) => self.make_ancestors(path)?,
                Err(Errno::LOOP) => {
                    return Err(Failure::Refused("a parent of it is a link that leads in circles".into()));
                }
                other => other.map_err(Failure::at("open the parent directory"))?,
            };
            self.parent = Some((path.clone(), dir));
        }
        match &self.parent {
            Some((_, dir)) => Ok(dir),
            None => Err(Failure::Refused("its parent directory vanished".into())),
        }
    }

    fn make_ancestors(&self, path: &LayerPath) -> Result<OwnedFd, Failure> {
        let mut so_far = PathBuf::from(".");
        let mut dir = self.reopen_dir(&LayerPath::default())?;
        for name in path.parts() {
            so_far.push(name);
            let open = || open_below(self.root.as_fd(), &so_far, OFlags::PATH | OFlags::DIRECTORY);
            dir = match open() {
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    make_ancestor(&dir, name)?;
                    open()
                }
                other => other,
            }
            .map_err(Failure::at("open a parent directory"))?;
        }
        Ok(dir)
    }

    fn reopen_dir(&self, path: &LayerPath) -> Result<OwnedFd, Failure> {
        open_below(self.root.as_fd(), &path.to_path(), OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(Failure::at("open a directory"))
    }

    fn finish(self) -> Result<Unpacked> {
        for (path, times) in &self.dirs {
            let shown = path.to_path();
            let dir = open_below(self.root.as_fd(), &shown, OFlags::RDONLY | OFlags::DIRECTORY)
                .and_then(|dir| fs::futimens(&dir, times));
            dir.map_err(ImageError::os(format!("cannot set the time of {}", shown.display())))?;
        }
        Ok(self.done)
    }
}

/// A parent directory no member described. In the place of a whiteout it hides what lower layers have there.
fn make_ancestor(parent: &OwnedFd, name: &OsStr) -> Result<(), Failure> {
    let found = kind_of(parent, name)?;
    match found {
        Kind::Absent => {}
        Kind::Whiteout => {
            fs::unlinkat(parent, name, AtFlags::empty()).map_err(Failure::at("replace a whiteout"))?;
        }
        Kind::Link => return Err(Failure::Refused("a parent of it is a dangling link".into())),
        Kind::Directory | Kind::Other => return Err(Failure::Refused("a parent of it is not a directory".into())),
    }
    let mode = Mode::from_raw_mode(0o755);
    fs::mkdirat(parent, name, mode).map_err(Failure::at("make a parent directory"))?;
    // Whatever the umask is; a directory made just now is no link.
    fs::chmodat(parent, name, mode, AtFlags::empty()).map_err(Failure::at("set the mode"))?;
    if found == Kind::Whiteout {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = fs::openat(parent, name, flags, Mode::empty()).map_err(Failure::at("open a parent directory"))?;
        mark_opaque(&dir)?;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Absent,
    Directory,
    Whiteout,
    Link,
    Other,
}

fn kind_of(parent: &OwnedFd, name: &OsStr) -> Result<Kind, Failure> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(Kind::Absent),
        Err(errno) => Err(Failure::Errno("look at an earlier entry", errno)),
        Ok(stat) => Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::CharacterDevice => Kind::Whiteout,
            FileType::Symlink => Kind::Link,
            _ => Kind::Other,
        }),
    }
}

fn mark_opaque(dir: &OwnedFd) -> Result<(), Failure> {
    fs::fsetxattr(dir, "trusted.overlay.opaque", b"y", XattrFlags::empty())
        .map_err(Failure::at("make a directory opaque"))
}

fn check_xattrs(member: &Member) -> Result<(), Failure> {
    member.xattrs.iter().try_for_each(|(key, _)| entry::decide_xattr(key).map(|_| ()).map_err(Failure::Refused))
}

fn set_xattrs(node: BorrowedFd<'_>, member: &Member) -> Result<(), Failure> {
    for (key, value) in &member.xattrs {
        if entry::decide_xattr(key)? == XattrAction::Keep {
            fs::fsetxattr(node, OsStr::from_bytes(key), value, XattrFlags::empty())
                .map_err(Failure::at("set an extended attribute"))?;
        }
    }
    Ok(())
}

fn set_owner_and_mode(node: BorrowedFd<'_>, member: &Member) -> Result<(), Failure> {
    let (uid, gid) = owner(member);
    fs::fchown(node, Some(uid), Some(gid)).map_err(Failure::at("set the owner"))?;
    fs::fchmod(node, Mode::from_raw_mode(member.mode)).map_err(Failure::at("set the mode"))
}

/// Both ids were checked by `entry::decide`.
fn owner(member: &Member) -> (Uid, Gid) {
    (Uid::from_raw(member.uid as u32), Gid::from_raw(member.gid as u32))
}

fn times(member: &Member) -> Timestamps {
    let (seconds, nanos) = member.mtime;
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn copy_at(file: &OwnedFd, mut offset: u64, length: u64, data: &mut impl Read) -> Result<(), Failure> {
    let mut left = length;
    let mut buffer = vec![0; COPY_BUFFER_BYTES.min(usize::try_from(length).unwrap_or(COPY_BUFFER_BYTES))];
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let got = match data.read(&mut buffer[..want]) {
            Ok(0) => return Err(Failure::Read(io::ErrorKind::UnexpectedEof.into())),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::Read(error)),
        };
        let mut chunk = &buffer[..got];
        while !chunk.is_empty() {
            let written = rustix::io::pwrite(file, chunk, offset).map_err(Failure::at("write a file"))?;
            chunk = &chunk[written..];
            offset += written as u64;
        }
        left -= got as u64;
    }
    Ok(())
}
