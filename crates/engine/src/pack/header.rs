//! The bytes before a member's data: a ustar header, and PAX records for what does not fit into it.

use crate::image::tarfile::{EXTENSION_BYTES_MAX, Piece};

pub(super) const BLOCK: usize = 512;
/// A name that is longer goes into a record.
const NAME_BYTES_MAX: usize = 99;
/// What seven and eleven octal digits can say.
const ID_MAX: u32 = 0o777_7777;
const SIZE_MAX: u64 = 0o777_7777_7777;

/// The type of a socket in our own archives; tar has none.
pub(super) const SOCKET: u8 = b'Z';

/// What is said of a member.
#[derive(Debug, Default)]
pub(super) struct Head<'a> {
    pub path: &'a [u8],
    pub link: &'a [u8],
    pub kind: u8,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of the file, holes included.
    pub size: u64,
    pub mtime: (i64, u32),
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
    /// Where the stored bytes belong; `None` = the whole file is stored.
    pub sparse: Option<&'a [Piece]>,
}

impl Head<'_> {
    /// Everything before the data. `None` when it would be longer than any reader takes.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        let map = self.sparse.map(sparse_map);
        let stored = match (&map, self.sparse) {
            (Some(map), Some(pieces)) => map.len() as u64 + pieces.iter().map(|p| p.length).sum::<u64>(),
            _ => self.size,
        };
        let records = self.records(stored);
        if records.len() as u64 > EXTENSION_BYTES_MAX {
            return None;
        }
        let mut bytes = Vec::new();
        if !records.is_empty() {
            bytes.extend(ustar(
                &Head { path: b"pax", kind: b'x', mode: 0o644, ..Head::default() },
                records.len() as u64,
            ));
            bytes.extend(&records);
            pad(&mut bytes);
        }
        bytes.extend(ustar(self, stored));
        bytes.extend(map.unwrap_or_default());
        Some(bytes)
    }

    fn records(&self, stored: u64) -> Vec<u8> {
        let mut all = Vec::new();
        let mut add = |key: &[u8], value: &[u8]| record(&mut all, key, value);
        if self.path.len() > NAME_BYTES_MAX {
            add(b"path", self.path);
        }
        if self.link.len() > NAME_BYTES_MAX {
            add(b"linkpath", self.link);
        }
        if stored > SIZE_MAX {
            add(b"size", stored.to_string().as_bytes());
        }
        for (key, id) in [("uid", self.uid), ("gid", self.gid)] {
            if id > ID_MAX {
                add(key.as_bytes(), id.to_string().as_bytes());
            }
        }
        if self.mtime.1 != 0 || !(0..=SIZE_MAX as i64).contains(&self.mtime.0) {
            add(b"mtime", time(self.mtime).as_bytes());
        }
        if self.sparse.is_some() {
            for (key, value) in [("major", "1"), ("minor", "0"), ("realsize", &self.size.to_string())] {
                add(format!("GNU.sparse.{key}").as_bytes(), value.as_bytes());
            }
        }
        for (name, value) in self.xattrs {
            add(&[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        all
    }
}

/// `<length> <key>=<value>\n`; the length counts its own digits.
fn record(all: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    all.extend(length.to_string().as_bytes());
    all.push(b' ');
    all.extend(key);
    all.push(b'=');
    all.extend(value);
    all.push(b'\n');
}

/// Seconds with a fraction that always counts away from zero, as the format has it.
fn time((seconds, nanos): (i64, u32)) -> String {
    match (seconds, nanos) {
        (seconds, nanos) if seconds >= 0 || nanos == 0 => format!("{seconds}.{nanos:09}"),
        (seconds, nanos) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
    }
}

/// Decimal lines (how many, then offset and length of each), padded to a block.
fn sparse_map(pieces: &[Piece]) -> Vec<u8> {
    let mut text = format!("{}\n", pieces.len());
    for piece in pieces {
        text.push_str(&format!("{}\n{}\n", piece.offset, piece.length));
    }
    let mut bytes = text.into_bytes();
    pad(&mut bytes);
    bytes
}

pub(super) fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
}

fn ustar(head: &Head<'_>, stored: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    let short = |name: &[u8]| name[..name.len().min(NAME_BYTES_MAX)].to_vec();
    let octal = |value: u64, digits: usize| format!("{value:0digits$o}").into_bytes();
    put(0, &short(head.path));
    put(100, &octal(u64::from(head.mode & 0o7777), 7));
    put(108, &octal(u64::from(head.uid.min(ID_MAX)), 7));
    put(116, &octal(u64::from(head.gid.min(ID_MAX)), 7));
    put(124, &octal(stored.min(SIZE_MAX), 11));
    put(136, &octal(head.mtime.0.clamp(0, SIZE_MAX as i64) as u64, 11));
    put(148, b"        ");
    put(156, &[head.kind]);
    put(157, &short(head.link));
    put(257, b"ustar\x0000");
    put(329, &octal(0, 7));
    put(337, &octal(0, 7));
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}
