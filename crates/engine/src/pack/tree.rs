//! From a directory to a stream: every entry once, a directory before what is in it. Entries are looked at by name below an
//! open directory and never followed.

use super::header::{self, BLOCK, Head};
use super::{Form, PackError, Packed};
use crate::image::tarfile::{EXTENSION_BYTES_MAX, Piece, SPARSE_PIECES_MAX};
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Directories in each other. Each holds a descriptor while it is read.
const DEPTH_MAX: usize = 1000;
/// As in Linux; somebody who moves about can make longer ones.
const PATH_BYTES_MAX: usize = 4095;
/// Names of files that have several, remembered to find out which belong together.
const LINK_BYTES_MAX: usize = 128 << 20;
/// What the kernel allows for all names, and for a value.
const XATTR_BYTES_MAX: usize = 64 << 10;
const COPY_BYTES: usize = 256 << 10;
/// Holes shorter than this are filled when a file has more pieces than a reader takes; then twice as long ones, and so on.
const HOLE_BYTES_MIN: u64 = 64 << 10;
/// Written anew at every start of a sandbox.
const OWN_FILES: [&[u8]; 3] = [b"./etc/hosts", b"./etc/hostname", b"./etc/resolv.conf"];
const OVERLAY: &[u8] = b"trusted.overlay.";

/// Packs everything in `root`, which nobody changes meanwhile.
pub(crate) fn pack(root: &Path, form: Form, out: impl Write) -> Result<Packed, PackError> {
    let failed = |source: Errno| PackError::File { what: "open", path: root.to_owned(), source: source.into() };
    let dir = fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let mut walk = Walk {
        out,
        form,
        path: b".".to_vec(),
        links: HashMap::new(),
        link_bytes: 0,
        buffer: vec![0; COPY_BYTES],
        done: Packed::default(),
    };
    let stat = fs::fstat(&dir).map_err(failed)?;
    let xattrs = walk.xattrs(Path::new(&format!("/proc/self/fd/{}/.", dir.as_raw_fd())))?;
    walk.directory(&stat, xattrs)?;
    let mut stack = vec![(Dir::new(dir).map_err(failed)?, walk.path.len())];
    while let Some((dir, length)) = stack.last_mut() {
        walk.path.truncate(*length);
        let Some(next) = dir.read() else {
            stack.pop();
            continue;
        };
        let next = next.map_err(|e| walk.failed("list")(e))?;
        let name = next.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let parent = dir.fd().map_err(|e| walk.failed("list")(e))?;
        walk.path.push(b'/');
        walk.path.extend(name.to_bytes());
        if walk.path.len() > PATH_BYTES_MAX {
            return Err(walk.refused(format!("has a path longer than {PATH_BYTES_MAX} bytes; move it up or remove it")));
        }
        if let Some(inside) = walk.entry(parent, name)? {
            if stack.len() >= DEPTH_MAX {
                return Err(walk.refused(format!("lies deeper than {DEPTH_MAX} directories; move it up or remove it")));
            }
            let length = walk.path.len();
            stack.push((Dir::new(inside).map_err(|e| walk.failed("list")(e))?, length));
        }
    }
    walk.out.write_all(&[0; 2 * BLOCK]).map_err(PackError::Write)?;
    walk.out.flush().map_err(PackError::Write)?;
    Ok(walk.done)
}

struct Walk<W> {
    out: W,
    form: Form,
    /// Of the entry at hand, beginning with `.`.
    path: Vec<u8>,
    /// The first name of every file that has more.
    links: HashMap<u64, Vec<u8>>,
    link_bytes: usize,
    buffer: Vec<u8>,
    done: Packed,
}

type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

impl<W: Write> Walk<W> {
    fn shown(&self) -> PathBuf {
        let path = self.path.get(1..).filter(|p| !p.is_empty()).unwrap_or(b"/");
        PathBuf::from(OsStr::from_bytes(path))
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(Errno) -> PackError + use<W> {
        let path = self.shown();
        move |source| PackError::File { what, path, source: source.into() }
    }

    fn refused(&self, why: impl Into<String>) -> PackError {
        PackError::Refused { path: self.shown(), why: why.into() }
    }

    /// Writes one entry; a directory is answered so that its entries follow.
    fn entry(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>, PackError> {
        let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(self.failed("look at"))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.form == Form::Layer {
            if kind != FileType::Directory && OWN_FILES.contains(&&self.path[..]) || kind == FileType::Socket {
                return Ok(None);
            }
            if name.to_bytes().starts_with(b".wh.") {
                return Err(self.refused("has a name that an image cannot hold (it begins with .wh.); rename it first"));
            }
        }
        let place =
            PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd())).join(OsStr::from_bytes(name.to_bytes()));
        match kind {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let dir = fs::openat(parent, name, flags, Mode::empty()).map_err(self.failed("open"))?;
                let xattrs = self.xattrs(&place)?;
                self.directory(&stat, xattrs)?;
                return Ok(Some(dir));
            }
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                // Overlayfs makes one inode serve many deletions; what else is known of it means nothing.
                let xattrs = if self.form == Form::Archive { self.xattrs(&place)? } else { Vec::new() };
                self.member(&stat, Head { kind: b'3', xattrs: &xattrs, ..Head::default() })?;
                return Ok(None);
            }
            FileType::RegularFile | FileType::Symlink | FileType::Fifo | FileType::Socket => {}
            _ => return Err(self.refused("is a device, which cannot be kept; remove it first")),
        }
        if self.link(&stat)? {
            return Ok(None);
        }
        let xattrs = self.xattrs(&place)?;
        let xattrs = &xattrs[..];
        match kind {
            FileType::RegularFile => self.file(parent, name, &stat, xattrs)?,
            FileType::Symlink => {
                let target = fs::readlinkat(parent, name, Vec::new()).map_err(self.failed("read"))?;
                self.member(&stat, Head { kind: b'2', link: target.to_bytes(), xattrs, ..Head::default() })?;
            }
            FileType::Fifo => self.member(&stat, Head { kind: b'6', xattrs, ..Head::default() })?,
            _ => self.member(&stat, Head { kind: header::SOCKET, xattrs, ..Head::default() })?,
        }
        Ok(None)
    }

    fn directory(&mut self, stat: &Stat, mut xattrs: Xattrs) -> Result<(), PackError> {
        let opaque = (b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
        let is_opaque = self.form == Form::Layer && xattrs.contains(&opaque);
        xattrs.retain(|(key, _)| self.form == Form::Archive || !key.starts_with(OVERLAY));
        self.member(stat, Head { kind: b'5', xattrs: &xattrs, ..Head::default() })?;
        if is_opaque {
            let length = self.path.len();
            self.path.extend(b"/.wh..wh..opq");
            self.member(stat, Head { kind: b'0', ..Head::default() })?;
            self.path.truncate(length);
        }
        Ok(())
    }

    /// A further name of a file that was written already.
    fn link(&mut self, stat: &Stat) -> Result<bool, PackError> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        if let Some(first) = self.links.get(&stat.st_ino) {
            let first = first.clone();
            self.member(stat, Head { kind: b'1', link: &first, ..Head::default() })?;
            return Ok(true);
        }
        self.link_bytes += self.path.len();
        if self.link_bytes > LINK_BYTES_MAX {
            return Err(self.refused("is one of too many files with several names; remove some of them first"));
        }
        self.links.insert(stat.st_ino, self.path.clone());
        Ok(false)
    }

    fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), PackError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = fs::openat(parent, name, flags, Mode::empty()).map_err(self.failed("open"))?;
        let size = stat.st_size as u64;
        let pieces = self.pieces(&file, size)?;
        let whole = pieces.iter().map(|p| p.length).sum::<u64>() == size;
        let sparse = (!whole).then_some(&pieces[..]);
        self.member(stat, Head { kind: b'0', size, xattrs, sparse, ..Head::default() })?;
        let mut stored = 0;
        for piece in &pieces {
            self.copy(&file, *piece)?;
            stored += piece.length;
        }
        self.done.bytes += stored;
        let rest = stored.next_multiple_of(BLOCK as u64) - stored;
        self.out.write_all(&[0; BLOCK][..rest as usize]).map_err(PackError::Write)
    }

    /// Where the file has data.
    fn pieces(&self, file: &OwnedFd, size: u64) -> Result<Vec<Piece>, PackError> {
        let mut pieces: Vec<Piece> = Vec::new();
        let (mut at, mut least) = (0, 0);
        while at < size {
            let start = match fs::seek(file, SeekFrom::Data(at)) {
                Err(Errno::NXIO) => break, // only a hole is left
                other => other.map_err(self.failed("read"))?,
            };
            let end = fs::seek(file, SeekFrom::Hole(start)).map_err(self.failed("read"))?.min(size);
            if start >= size || end <= start {
                break;
            }
            add(&mut pieces, Piece { offset: start, length: end - start }, least);
            while pieces.len() > SPARSE_PIECES_MAX {
                least = (least * 2).max(HOLE_BYTES_MIN);
                for piece in std::mem::take(&mut pieces) {
                    add(&mut pieces, piece, least);
                }
            }
            at = end;
        }
        Ok(pieces)
    }

    fn copy(&mut self, file: &OwnedFd, piece: Piece) -> Result<(), PackError> {
        let (mut at, end) = (piece.offset, piece.offset + piece.length);
        while at < end {
            let wanted = self.buffer.len().min((end - at) as usize);
            let got = match rustix::io::pread(file, &mut self.buffer[..wanted], at) {
                Err(Errno::INTR) => continue,
                other => other.map_err(self.failed("read"))?,
            };
            if got == 0 {
                return Err(self.refused("changed while it was copied"));
            }
            self.out.write_all(&self.buffer[..got]).map_err(PackError::Write)?;
            at += got as u64;
        }
        Ok(())
    }

    fn member(&mut self, stat: &Stat, head: Head<'_>) -> Result<(), PackError> {
        self.done.entries += 1;
        let head = Head {
            path: &self.path,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            ..head
        };
        let bytes = head.bytes();
        let bytes = bytes.ok_or_else(|| {
            self.refused(format!("has extended attributes of more than {} KiB; remove some", EXTENSION_BYTES_MAX >> 10))
        })?;
        self.out.write_all(&bytes).map_err(PackError::Write)
    }

    /// The extended attributes that go along.
    fn xattrs(&self, place: &Path) -> Result<Xattrs, PackError> {
        let mut names = vec![0u8; XATTR_BYTES_MAX];
        let length = match fs::llistxattr(place, &mut names[..]) {
            Err(Errno::NOTSUP) => 0,
            Err(Errno::TOOBIG) => return Err(self.refused("has too many extended attributes; remove some")),
            other => other.map_err(self.failed("read the attributes of"))?,
        };
        let mut value = vec![0u8; XATTR_BYTES_MAX];
        let mut found = Vec::new();
        for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
            if self.form == Form::Layer && !self.is_for_layer(name)? {
                continue;
            }
            let length = fs::lgetxattr(place, OsStr::from_bytes(name), &mut value[..]);
            let length = length.map_err(self.failed("read the attributes of"))?;
            let mut value = value[..length].to_vec();
            if self.form == Form::Layer && name == b"security.capability" {
                of_any_owner(&mut value);
            }
            found.push((name.to_vec(), value));
        }
        Ok(found)
    }

    fn is_for_layer(&self, name: &[u8]) -> Result<bool, PackError> {
        match name.strip_prefix(OVERLAY) {
            Some(b"opaque") => return Ok(true),
            Some(b"metacopy" | b"redirect" | b"whiteout") => {
                let why = "is held partly by the image below it, which a new layer cannot say; write it anew first";
                return Err(self.refused(why));
            }
            _ => {}
        }
        if name.starts_with(b"user.overlay.") {
            return Err(self.refused("has an extended attribute (user.overlay.*) that an image cannot hold; remove it"));
        }
        Ok(name == b"security.capability" || name.starts_with(b"user."))
    }
}

/// Appends a piece, or makes the last one longer when the hole between them is shorter than `least`.
fn add(pieces: &mut Vec<Piece>, piece: Piece, least: u64) {
    match pieces.last_mut() {
        Some(last) if piece.offset - (last.offset + last.length) < least => {
            last.length = piece.offset + piece.length - last.offset;
        }
        _ => pieces.push(piece),
    }
}

/// A capability that counts for one range of ids made into one that counts for whoever owns the file's user namespace.
fn of_any_owner(value: &mut Vec<u8>) {
    const WITH_OWNER: u8 = 3;
    const PLAIN: u8 = 2;
    const PLAIN_BYTES: usize = 20;
    if value.len() > PLAIN_BYTES && value[3] == WITH_OWNER {
        value[3] = PLAIN;
        value.truncate(PLAIN_BYTES);
    }
}
