//! What SFTP says of a file, and what it is told to change.

use super::wire::{Reader, Writer};
use crate::timestamp;
use rustix::fs::{Timespec, Timestamps};
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const MODE: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;

/// What a client wants a file to have.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub size: Option<u64>,
    owner: Option<(u32, u32)>,
    pub mode: Option<u32>,
    /// Last access and last change.
    times: Option<(u32, u32)>,
}

impl Wanted {
    pub fn read(from: &mut Reader<'_>) -> Option<Self> {
        let flags = from.u32()?;
        let mut wanted = Self::default();
        if flags & SIZE != 0 {
            wanted.size = Some(from.u64()?);
        }
        if flags & OWNER != 0 {
            wanted.owner = Some((from.u32()?, from.u32()?));
        }
        if flags & MODE != 0 {
            wanted.mode = Some(from.u32()? & 0o7777);
        }
        if flags & TIMES != 0 {
            wanted.times = Some((from.u32()?, from.u32()?));
        }
        if flags & EXTENDED != 0 {
            for _ in 0..from.u32()? {
                let _name_and_value = (from.text()?, from.text()?);
            }
        }
        Some(wanted)
    }

    pub fn apply(&self, file: &File) -> io::Result<()> {
        if let Some(size) = self.size {
            file.set_len(size)?;
        }
        if let Some(mode) = self.mode {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        if let Some(times) = self.timestamps() {
            rustix::fs::futimens(file, &times)?;
        }
        if let Some((user, group)) = self.owner {
            std::os::unix::fs::fchown(file, Some(user), Some(group))?;
        }
        Ok(())
    }

    /// As [`Self::apply`], for a path that may not be one to open.
    pub fn apply_to(&self, path: &std::path::Path) -> io::Result<()> {
        if let Some(size) = self.size {
            File::options().write(true).open(path)?.set_len(size)?;
        }
        if let Some(mode) = self.mode {
            std::fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        if let Some(times) = self.timestamps() {
            rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty())?;
        }
        if let Some((user, group)) = self.owner {
            std::os::unix::fs::chown(path, Some(user), Some(group))?;
        }
        Ok(())
    }

    fn timestamps(&self) -> Option<Timestamps> {
        let at = |seconds: u32| Timespec { tv_sec: i64::from(seconds), tv_nsec: 0 };
        self.times.map(|(access, change)| Timestamps { last_access: at(access), last_modification: at(change) })
    }
}

impl Writer {
    pub fn attributes(self, of: Option<&Metadata>) -> Self {
        let Some(of) = of else { return self.u32(0) };
        let seconds = |at: i64| u32::try_from(at).unwrap_or(0);
        let about = self.u32(SIZE | OWNER | MODE | TIMES).u64(of.size()).u32(of.uid()).u32(of.gid());
        about.u32(of.mode()).u32(seconds(of.atime())).u32(seconds(of.mtime()))
    }
}

/// The line of `ls -l` that clients show as it is.
pub fn long_name(name: &[u8], of: Option<&Metadata>) -> Vec<u8> {
    let Some(of) = of else { return name.to_vec() };
    let at = timestamp::rfc3339(of.mtime(), 0);
    let at = at.get(..16).unwrap_or_default().replace('T', " ");
    let kind = match of.mode() & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o010_000 => 'p',
        0o140_000 => 's',
        0o020_000 => 'c',
        0o060_000 => 'b',
        _ => '-',
    };
    let bits = (0..9).rev().map(|bit| if of.mode() >> bit & 1 == 0 { '-' } else { ['x', 'w', 'r'][bit % 3] });
    let mode: String = std::iter::once(kind).chain(bits).collect();
    let (links, user, group, size) = (of.nlink(), of.uid(), of.gid(), of.size());
    let mut line = format!("{mode} {links:>4} {user:<8} {group:<8} {size:>8} {at} ").into_bytes();
    line.extend_from_slice(name);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_read() {
        let wish = Writer::default().u32(SIZE | MODE | TIMES | EXTENDED).u64(5).u32(0o100_644).u32(1).u32(2);
        let wish = wish.u32(1).text(b"name").text(b"value").0;
        let wanted = Wanted::read(&mut Reader(&wish));
        let expected = Wanted { size: Some(5), owner: None, mode: Some(0o644), times: Some((1, 2)) };
        assert_eq!(wanted, Some(expected));
        assert_eq!(Wanted::read(&mut Reader(&wish[..wish.len() - 1])), None);
    }

    #[test]
    fn long_names() {
        let line = long_name(b"x", Some(&std::fs::metadata("/").unwrap()));
        let line = String::from_utf8(line).unwrap();
        assert!(line.starts_with("dr") && line.ends_with(" x"), "{line}");
    }
}
