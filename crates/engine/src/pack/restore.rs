//! From an archive of ours back to a directory. Every name is used below a directory that was made here before it, and what
//! was made is never followed, so a damaged archive cannot lead out.

use super::{PackError, header};
use crate::image::tarfile::{Member, TarReader};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const COPY_BYTES: usize = 256 << 10;

/// Unpacks an archive that `pack` made into `root`, an empty directory nobody else uses.
pub(crate) fn restore(archive: impl Read, root: &Path) -> Result<(), PackError> {
    let opened = fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let opened = opened.map_err(|e| PackError::File { what: "open", path: root.to_owned(), source: e.into() })?;
    let mut tree =
        Tree { open: vec![Open { dir: opened, path: Vec::new(), times: None }], buffer: vec![0; COPY_BYTES] };
    let mut archive = TarReader::new(archive);
    while let Some(member) = archive.next_member().map_err(unreadable)? {
        tree.member(&member, &mut archive)?;
    }
    // To the last byte: its checksum stands there.
    archive.drain().map_err(unreadable)?;
    tree.close_to(0)
}

fn unreadable(source: io::Error) -> PackError {
    match source.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => PackError::Damaged(source.to_string()),
        _ => PackError::Read(source),
    }
}

/// A directory that is being filled. Its times come last, because filling it changes them.
struct Open {
    dir: OwnedFd,
    /// Names from the root.
    path: Vec<Vec<u8>>,
    times: Option<Timestamps>,
}

struct Tree {
    /// The root and the directories down to the one being filled.
    open: Vec<Open>,
    buffer: Vec<u8>,
}

impl Tree {
    fn member(&mut self, member: &Member, data: &mut impl Read) -> Result<(), PackError> {
        let names = names(&member.path)?;
        let shown = PathBuf::from(OsStr::from_bytes(&member.path));
        let failed = |what: &'static str| {
            let path = shown.clone();
            move |source: Errno| PackError::File { what, path, source: source.into() }
        };
        let Some((name, parent)) = names.split_last() else {
            let root = &mut self.open[0];
            root.times = Some(times(member));
            let place = PathBuf::from(format!("/proc/self/fd/{}/.", root.dir.as_raw_fd()));
            return attributes(&place, member).map_err(failed("set the attributes of"));
        };
        while self.open.last().is_some_and(|open| open.path != parent) && self.open.len() > 1 {
            self.close_to(self.open.len() - 1)?;
        }
        let Some(open) = self.open.last().filter(|open| open.path == parent) else {
            return Err(PackError::Damaged(format!("{} comes before its directory", shown.display())));
        };
        let name = OsStr::from_bytes(name);
        match member.kind {
            b'5' => {
                fs::mkdirat(&open.dir, name, Mode::from_raw_mode(0o700)).map_err(failed("make"))?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let dir = fs::openat(&open.dir, name, flags, Mode::empty()).map_err(failed("open"))?;
                finish(&open.dir, name, member).map_err(failed("set the attributes of"))?;
                self.open.push(Open { dir, path: names, times: Some(times(member)) });
                return Ok(());
            }
            b'1' => return link(&self.open[0].dir, &open.dir, name, member).map_err(failed("link")),
            b'0' => write(&open.dir, name, member, data, &mut self.buffer, &shown)?,
            b'2' => fs::symlinkat(OsStr::from_bytes(&member.link), &open.dir, name).map_err(failed("make"))?,
            b'3' => node(&open.dir, name, FileType::CharacterDevice).map_err(failed("make"))?,
            b'6' => node(&open.dir, name, FileType::Fifo).map_err(failed("make"))?,
            header::SOCKET => node(&open.dir, name, FileType::Socket).map_err(failed("make"))?,
            other => return Err(PackError::Damaged(format!("{} has the type {other}", shown.display()))),
        }
        finish(&open.dir, name, member).map_err(failed("set the attributes of"))?;
        fs::utimensat(&open.dir, name, &times(member), AtFlags::SYMLINK_NOFOLLOW).map_err(failed("set the time of"))
    }

    /// Leaves directories until so many are open; they are complete then.
    fn close_to(&mut self, count: usize) -> Result<(), PackError> {
        while self.open.len() > count {
            let Some(Open { dir, path, times }) = self.open.pop() else { return Ok(()) };
            let Some(times) = times else { continue };
            fs::futimens(&dir, &times).map_err(|source| PackError::File {
                what: "set the time of",
                path: path.iter().map(|name| OsStr::from_bytes(name)).collect(),
                source: source.into(),
            })?;
        }
        Ok(())
    }
}

fn names(path: &[u8]) -> Result<Vec<Vec<u8>>, PackError> {
    let parts = path.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let names: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
    match names.iter().any(|name| name == b"..") {
        true => Err(PackError::Damaged(format!("it names {}", String::from_utf8_lossy(path)))),
        false => Ok(names),
    }
}

fn node(dir: &OwnedFd, name: &OsStr, kind: FileType) -> rustix::io::Result<()> {
    fs::mknodat(dir, name, kind, Mode::from_raw_mode(0o600), 0)
}

/// Another name for a file that was made before.
fn link(root: &OwnedFd, dir: &OwnedFd, name: &OsStr, member: &Member) -> rustix::io::Result<()> {
    let names = names(&member.link).map_err(|_| Errno::INVAL)?;
    let Some((last, parents)) = names.split_last() else { return Err(Errno::INVAL) };
    let mut at: Option<OwnedFd> = None;
    for parent in parents {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        at = Some(fs::openat(at.as_ref().unwrap_or(root), OsStr::from_bytes(parent), flags, Mode::empty())?);
    }
    fs::linkat(at.as_ref().unwrap_or(root), OsStr::from_bytes(last), dir, name, AtFlags::empty())
}

fn write(
    dir: &OwnedFd,
    name: &OsStr,
    member: &Member,
    data: &mut impl Read,
    buffer: &mut [u8],
    shown: &Path,
) -> Result<(), PackError> {
    let failed = |source: Errno| PackError::File { what: "write", path: shown.to_owned(), source: source.into() };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::openat(dir, name, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
    let whole = [crate::image::tarfile::Piece { offset: 0, length: member.size }];
    let pieces = member.sparse.as_deref().unwrap_or(&whole);
    for piece in pieces {
        let (mut at, end) = (piece.offset, piece.offset + piece.length);
        while at < end {
            let wanted = buffer.len().min((end - at) as usize);
            data.read_exact(&mut buffer[..wanted]).map_err(unreadable)?;
            let mut rest = &buffer[..wanted];
            while !rest.is_empty() {
                let written = rustix::io::pwrite(&file, rest, at).map_err(failed)?;
                (rest, at) = (&rest[written..], at + written as u64);
            }
        }
    }
    fs::ftruncate(&file, member.size).map_err(failed)
}

/// Owner, attributes and mode, in the order in which none takes away what another gave.
fn finish(dir: &OwnedFd, name: &OsStr, member: &Member) -> rustix::io::Result<()> {
    let place = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
    attributes(&place, member)
}

fn attributes(place: &Path, member: &Member) -> rustix::io::Result<()> {
    let owner = (Uid::from_raw(member.uid as u32), Gid::from_raw(member.gid as u32));
    fs::chownat(fs::CWD, place, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
    for (key, value) in &member.xattrs {
        match fs::lsetxattr(place, OsStr::from_bytes(key), value, XattrFlags::empty()) {
            // Labels of the host's own policy, on a host that has none any more.
            Err(Errno::NOTSUP) if !key.starts_with(b"user.") && !key.starts_with(b"trusted.") => {}
            other => other?,
        }
    }
    if member.kind != b'2' {
        // Made just now and no link.
        fs::chmodat(fs::CWD, place, Mode::from_raw_mode(member.mode), AtFlags::empty())?;
    }
    Ok(())
}

fn times(member: &Member) -> Timestamps {
    let time = Timespec { tv_sec: member.mtime.0, tv_nsec: member.mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}
