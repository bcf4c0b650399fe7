//! What each SFTP request does. It is the user's own process, so the kernel decides what it may.

use super::attributes::{Wanted, long_name};
use super::wire::{Reader, Writer};
use crate::error::reason;
use rustix::fs::{Mode, OFlags, RenameFlags};
use std::collections::BTreeMap;
use std::fs::{self, File, ReadDir};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const VERSION: u32 = 3;
/// Open files and directories of one client.
const HANDLES_MAX: usize = 256;
/// One answer's worth of a file.
const READ_BYTES_MAX: u32 = 256 << 10;
/// Entries of a directory in one answer.
const ENTRIES_MAX: usize = 100;
/// As `sftp-server` of OpenSSH; clients look for them by name and version.
const EXTENSIONS: [(&str, &str); 3] =
    [("posix-rename@openssh.com", "1"), ("hardlink@openssh.com", "1"), ("fsync@openssh.com", "1")];

const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAMES: u8 = 104;
const ATTRIBUTES: u8 = 105;

/// Codes of the protocol.
#[derive(Clone, Copy)]
enum Code {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    Denied = 3,
    Failure = 4,
    BadMessage = 5,
    Unsupported = 8,
}

/// Why a request has no better answer.
enum Refused {
    Io(io::Error),
    Said(Code, &'static str),
}

impl From<io::Error> for Refused {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl From<rustix::io::Errno> for Refused {
    fn from(e: rustix::io::Errno) -> Self {
        Self::Io(e.into())
    }
}

const CUT_SHORT: Refused = Refused::Said(Code::BadMessage, "bad message");

type Answer = Result<Writer, Refused>;

enum Open {
    File(File),
    Directory(PathBuf, ReadDir),
}

#[derive(Default)]
pub struct Server {
    open: BTreeMap<u32, Open>,
    next: u32,
}

impl Server {
    /// `None`: nothing that could be answered.
    pub fn answer(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let mut from = Reader(packet);
        let kind = from.u8()?;
        let id = from.u32()?;
        if kind == 1 {
            // What stands in the place of a number is the client's version.
            let hello = Writer(vec![2]).u32(VERSION.min(id));
            let extended = EXTENSIONS.iter().fold(hello, |all, (name, v)| all.text(name.as_bytes()).text(v.as_bytes()));
            return Some(extended.0);
        }
        Some(self.perform(kind, id, &mut from).unwrap_or_else(|refused| refused.answer(id)).0)
    }

    fn perform(&mut self, kind: u8, id: u32, from: &mut Reader<'_>) -> Answer {
        match kind {
            3 => self.open_file(id, from),
            4 => {
                let number = number(from)?;
                self.open.remove(&number).map(|_| done(id)).ok_or(CUT_SHORT)
            }
            5 => self.read(id, from),
            6 => {
                let (file, at) = (self.file(from)?, from.u64().ok_or(CUT_SHORT)?);
                file.write_all_at(from.text().ok_or(CUT_SHORT)?, at)?;
                Ok(done(id))
            }
            7 => about(id, &fs::symlink_metadata(path(from)?)?),
            8 => about(id, &self.file(from)?.metadata()?),
            9 => {
                let path = path(from)?;
                Wanted::read(from).ok_or(CUT_SHORT)?.apply_to(path)?;
                Ok(done(id))
            }
            10 => {
                let file = self.file(from)?;
                Wanted::read(from).ok_or(CUT_SHORT)?.apply(file)?;
                Ok(done(id))
            }
            11 => {
                let path = path(from)?;
                let entries = fs::read_dir(path)?;
                self.keep(id, Open::Directory(path.to_owned(), entries))
            }
            12 => self.list(id, from),
            17 => about(id, &fs::metadata(path(from)?)?),
            200 => self.extended(id, from),
            _ => names(kind, id, from),
        }
    }

    fn open_file(&mut self, id: u32, from: &mut Reader<'_>) -> Answer {
        let path = path(from)?;
        let wishes = from.u32().ok_or(CUT_SHORT)?;
        let mode = Wanted::read(from).ok_or(CUT_SHORT)?.mode.unwrap_or(0o666);
        let mut flags = match wishes & 3 {
            3 => OFlags::RDWR,
            2 => OFlags::WRONLY,
            _ => OFlags::RDONLY,
        };
        for (bit, flag) in [(4, OFlags::APPEND), (8, OFlags::CREATE), (16, OFlags::TRUNC), (32, OFlags::EXCL)] {
            flags.set(flag, wishes & bit != 0);
        }
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = rustix::fs::open(path, flags, Mode::from_raw_mode(mode))?;
        self.keep(id, Open::File(file.into()))
    }

    fn keep(&mut self, id: u32, open: Open) -> Answer {
        if self.open.len() >= HANDLES_MAX {
            return Err(Refused::Said(Code::Failure, "too many files are open"));
        }
        while self.open.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.open.insert(number, open);
        Ok(Writer::answer(HANDLE, id).text(&number.to_be_bytes()))
    }

    fn file(&self, from: &mut Reader<'_>) -> Result<&File, Refused> {
        match self.open.get(&number(from)?) {
            Some(Open::File(file)) => Ok(file),
            _ => Err(Refused::Said(Code::Failure, "no such open file")),
        }
    }

    fn read(&self, id: u32, from: &mut Reader<'_>) -> Answer {
        let file = self.file(from)?;
        let (at, wanted) = (from.u64().ok_or(CUT_SHORT)?, from.u32().ok_or(CUT_SHORT)?);
        let mut bytes = vec![0; wanted.min(READ_BYTES_MAX) as usize];
        match file.read_at(&mut bytes, at)? {
            0 => Err(Refused::Said(Code::Eof, "end of file")),
            n => Ok(Writer::answer(DATA, id).text(&bytes[..n])),
        }
    }

    fn list(&mut self, id: u32, from: &mut Reader<'_>) -> Answer {
        let Some(Open::Directory(folder, entries)) = self.open.get_mut(&number(from)?) else {
            return Err(Refused::Said(Code::Failure, "no such open directory"));
        };
        let some: Vec<_> = entries.by_ref().take(ENTRIES_MAX).collect::<io::Result<_>>()?;
        if some.is_empty() {
            return Err(Refused::Said(Code::Eof, "end of directory"));
        }
        let count = u32::try_from(some.len()).unwrap_or(0);
        Ok(some.iter().fold(Writer::answer(NAMES, id).u32(count), |all, entry| {
            let (name, of) = (entry.file_name(), fs::symlink_metadata(folder.join(entry.file_name())).ok());
            let name = name.as_bytes();
            all.text(name).text(&long_name(name, of.as_ref())).attributes(of.as_ref())
        }))
    }

    fn extended(&self, id: u32, from: &mut Reader<'_>) -> Answer {
        match from.text().ok_or(CUT_SHORT)? {
            b"posix-rename@openssh.com" => fs::rename(path(from)?, path(from)?)?,
            b"hardlink@openssh.com" => fs::hard_link(path(from)?, path(from)?)?,
            b"fsync@openssh.com" => self.file(from)?.sync_all()?,
            _ => return Err(UNSUPPORTED),
        }
        Ok(done(id))
    }
}

const UNSUPPORTED: Refused = Refused::Said(Code::Unsupported, "not supported");

/// Requests about names only.
fn names(kind: u8, id: u32, from: &mut Reader<'_>) -> Answer {
    match kind {
        13 => fs::remove_file(path(from)?)?,
        14 => {
            let path = path(from)?;
            let mode = Wanted::read(from).ok_or(CUT_SHORT)?.mode.unwrap_or(0o777);
            rustix::fs::mkdir(path, Mode::from_raw_mode(mode))?;
        }
        15 => fs::remove_dir(path(from)?)?,
        16 => return Ok(one_name(id, &real(path(from)?)?)),
        18 => {
            // Without the extension's name, what is there stays.
            let (old, new) = (path(from)?, path(from)?);
            rustix::fs::renameat_with(rustix::fs::CWD, old, rustix::fs::CWD, new, RenameFlags::NOREPLACE)?;
        }
        19 => return Ok(one_name(id, &fs::read_link(path(from)?)?)),
        // OpenSSH's order: what the link says comes first.
        20 => std::os::unix::fs::symlink(path(from)?, path(from)?)?,
        _ => return Err(UNSUPPORTED),
    }
    Ok(done(id))
}

/// The whole path, also of something that is still to be made.
fn real(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                Ok(fs::canonicalize(parent)?.join(name))
            }
            _ => Err(e),
        },
        found => found,
    }
}

fn path<'a>(from: &mut Reader<'a>) -> Result<&'a Path, Refused> {
    from.path().ok_or(CUT_SHORT)
}

fn number(from: &mut Reader<'_>) -> Result<u32, Refused> {
    let text = from.text().and_then(|text| text.try_into().ok());
    text.map(u32::from_be_bytes).ok_or(CUT_SHORT)
}

fn about(id: u32, of: &fs::Metadata) -> Answer {
    Ok(Writer::answer(ATTRIBUTES, id).attributes(Some(of)))
}

fn one_name(id: u32, path: &Path) -> Writer {
    let name = path.as_os_str().as_bytes();
    Writer::answer(NAMES, id).u32(1).text(name).text(name).attributes(None)
}

fn done(id: u32) -> Writer {
    status(id, Code::Ok, "success")
}

fn status(id: u32, code: Code, text: &str) -> Writer {
    Writer::answer(STATUS, id).u32(code as u32).text(text.as_bytes()).text(b"")
}

impl Refused {
    fn answer(self, id: u32) -> Writer {
        match self {
            Self::Said(code, text) => status(id, code, text),
            Self::Io(e) => {
                let code = match e.kind() {
                    ErrorKind::NotFound | ErrorKind::NotADirectory => Code::NoSuchFile,
                    ErrorKind::PermissionDenied => Code::Denied,
                    _ => Code::Failure,
                };
                status(id, code, &reason(&e))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A conversation of one request: kind and code or first field of the answer.
    fn ask(server: &mut Server, packet: Writer) -> (u8, Vec<u8>) {
        let answer = server.answer(&packet.0).unwrap();
        (answer[0], answer[5..].to_vec())
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("infield-sftp-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn request(kind: u8, path: &Path) -> Writer {
        Writer::answer(kind, 9).text(path.as_os_str().as_bytes())
    }

    #[test]
    fn a_file_is_written_listed_and_read() {
        let (folder, mut server) = (folder("file"), Server::default());
        let path = folder.join("a");
        let (kind, handle) = ask(&mut server, request(3, &path).u32(2 | 8 | 16).u32(4).u32(0o600));
        assert_eq!(kind, HANDLE);
        let number = &handle[4..];
        let (kind, _) = ask(&mut server, Writer::answer(6, 9).text(number).u64(3).text(b"body"));
        assert_eq!((kind, fs::read(&path).unwrap()), (STATUS, b"\0\0\0body".to_vec()));
        assert_eq!(ask(&mut server, Writer::answer(4, 9).text(number)).1[..4], [0, 0, 0, 0]);

        let (_, handle) = ask(&mut server, request(3, &path).u32(1).u32(0));
        let (kind, data) = ask(&mut server, Writer::answer(5, 9).text(&handle[4..]).u64(3).u32(100));
        assert_eq!((kind, &data[4..]), (DATA, &b"body"[..]));
        let (kind, end) = ask(&mut server, Writer::answer(5, 9).text(&handle[4..]).u64(7).u32(100));
        assert_eq!((kind, &end[..4]), (STATUS, &[0, 0, 0, Code::Eof as u8][..]));

        let (_, listing) = ask(&mut server, request(11, &folder));
        let (kind, names) = ask(&mut server, Writer::answer(12, 9).text(&listing[4..]));
        assert_eq!((kind, &names[..9]), (NAMES, &[0, 0, 0, 1, 0, 0, 0, 1, b'a'][..]));
        assert_eq!(ask(&mut server, Writer::answer(12, 9).text(&listing[4..])).0, STATUS);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn renaming_replaces_only_when_told() {
        let (folder, mut server) = (folder("rename"), Server::default());
        let (one, two) = (folder.join("1"), folder.join("2"));
        fs::write(&one, "1").unwrap();
        fs::write(&two, "2").unwrap();
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        assert_eq!(ask(&mut server, request(18, &one).text(&bytes(&two))).1[3], Code::Failure as u8);
        let rename = Writer::answer(200, 9).text(b"posix-rename@openssh.com").text(&bytes(&one)).text(&bytes(&two));
        assert_eq!(ask(&mut server, rename).1[3], Code::Ok as u8);
        assert_eq!((one.exists(), fs::read(&two).unwrap()), (false, b"1".to_vec()));
        let new = folder.canonicalize().unwrap().join("new");
        assert_eq!(ask(&mut server, request(16, &folder.join("./new"))).1[8..][..bytes(&new).len()], bytes(&new));
        assert_eq!(ask(&mut server, request(17, &folder.join("none"))).1[3], Code::NoSuchFile as u8);
        fs::remove_dir_all(&folder).unwrap();
    }

    proptest! {
        /// Only reading kinds: the rest would do to this machine what it says.
        #[test]
        fn no_packet_breaks_it(kind in prop::sample::select(vec![1u8, 4, 5, 7, 8, 12, 16, 17, 19, 99]), bytes: Vec<u8>) {
            let mut server = Server::default();
            let _ = server.answer(&[&[kind][..], &bytes].concat());
        }
    }
}
