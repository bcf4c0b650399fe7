//! The byte layout of tar headers and PAX records: slices in, numbers and names out. Pure, and meant to be fuzzed.

use super::tarfile::{Piece, SPARSE_PIECES_MAX, bad};
use std::io;

pub const BLOCK: usize = 512;

/// One 512-byte header, before extensions.
#[derive(Debug, Default)]
pub struct Header {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: u8,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub size: u64,
    pub mtime: i64,
    pub device: (u64, u64),
    /// The up to four pieces an old GNU sparse header holds.
    pub sparse: Vec<Piece>,
    pub sparse_continues: bool,
    pub sparse_size: u64,
}

impl Header {
    pub fn parse(block: &[u8; BLOCK]) -> io::Result<Self> {
        check_sum(block)?;
        let is_gnu = &block[257..265] == b"ustar  \0";
        let is_ustar = &block[257..263] == b"ustar\0";
        let mut header = Header {
            path: until_nul(&block[..100]).to_vec(),
            link: until_nul(&block[157..257]).to_vec(),
            kind: block[156],
            mode: (unsigned(&block[100..108])? & 0o7777) as u32,
            uid: unsigned(&block[108..116])?,
            gid: unsigned(&block[116..124])?,
            size: unsigned(&block[124..136])?,
            mtime: number(&block[136..148])?,
            ..Header::default()
        };
        if is_gnu || is_ustar {
            header.device = (unsigned(&block[329..337])?, unsigned(&block[337..345])?);
        }
        let prefix = until_nul(&block[345..500]);
        if is_ustar && !prefix.is_empty() {
            header.path = [prefix, b"/", &header.path].concat();
        }
        if header.kind == b'S' {
            pieces(&block[386..482], &mut header.sparse)?;
            header.sparse_continues = block[482] != 0;
            header.sparse_size = unsigned(&block[483..495])?;
        }
        Ok(header)
    }
}

/// One continuation block of an old GNU sparse map; true when another follows.
pub fn sparse_block(block: &[u8; BLOCK], found: &mut Vec<Piece>) -> io::Result<bool> {
    pieces(&block[..504], found)?;
    Ok(block[504] != 0)
}

fn pieces(raw: &[u8], found: &mut Vec<Piece>) -> io::Result<()> {
    for pair in raw.chunks_exact(24) {
        // An unused slot is all NUL.
        if pair[0] != 0 {
            found.push(Piece { offset: unsigned(&pair[..12])?, length: unsigned(&pair[12..])? });
        }
    }
    Ok(())
}

/// What PAX records say about one member.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Option<PaxSparse>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct PaxSparse {
    pub name: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub pieces: Vec<Piece>,
    /// Format 1.0: the map stands before the data.
    pub map_in_data: bool,
    pending: Option<u64>,
}

impl Pax {
    /// Records are `<length> <key>=<value>\n`; the length, not the newline, ends a value.
    pub fn extend(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let space = data.iter().take(20).position(|b| *b == b' ').ok_or_else(malformed)?;
            let length = usize::try_from(decimal(&data[..space])?).map_err(|_| malformed())?;
            if length > data.len() || length < space + 4 || data[length - 1] != b'\n' {
                return Err(malformed());
            }
            let record = &data[space + 1..length - 1];
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(malformed)?;
            self.record(&record[..equals], &record[equals + 1..])?;
            data = &data[length..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(timestamp(value)?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.get_or_insert_default().record(name, value)?;
                }
            }
        }
        Ok(())
    }
}

impl PaxSparse {
    fn record(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(decimal(value)?),
            b"major" => self.map_in_data = decimal(value)? == 1,
            b"offset" => self.pending = Some(decimal(value)?),
            b"numbytes" => {
                let offset = self.pending.take().ok_or_else(malformed)?;
                self.pieces.push(Piece { offset, length: decimal(value)? });
            }
            b"map" => {
                let numbers = value.split(|b| *b == b',').map(decimal).collect::<io::Result<Vec<_>>>()?;
                let pairs = numbers.chunks_exact(2).map(|pair| Piece { offset: pair[0], length: pair[1] });
                self.pieces = pairs.collect();
            }
            _ => {}
        }
        Ok(())
    }
}

/// Collects the decimal lines of a PAX 1.0 sparse map from blocks.
#[derive(Default)]
pub struct DecimalLines {
    numbers: Vec<u64>,
    partial: Vec<u8>,
}

impl DecimalLines {
    /// The pieces, once their announced number is there; what is left of the block is padding.
    pub fn feed(&mut self, block: &[u8]) -> io::Result<Option<Vec<Piece>>> {
        for byte in block {
            if *byte != b'\n' {
                self.partial.push(*byte);
                continue;
            }
            self.numbers.push(decimal(&self.partial)?);
            self.partial.clear();
            let count = self.numbers[0];
            if count > SPARSE_PIECES_MAX as u64 {
                return Err(bad(format!("more than {SPARSE_PIECES_MAX} sparse pieces")));
            }
            if self.numbers.len() as u64 == 1 + 2 * count {
                let pairs = self.numbers[1..].chunks_exact(2);
                return Ok(Some(pairs.map(|pair| Piece { offset: pair[0], length: pair[1] }).collect()));
            }
        }
        if self.partial.len() > 20 { Err(malformed()) } else { Ok(None) }
    }
}

/// The sum of all bytes, the sum's own field counted as spaces; some old programs summed signed bytes.
fn check_sum(block: &[u8; BLOCK]) -> io::Result<()> {
    let expected = number(&block[148..156])?;
    let bytes = block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { b' ' } else { *b });
    let (plain, signed) = bytes.fold((0i64, 0i64), |(p, s), b| (p + i64::from(b), s + i64::from(b as i8)));
    if expected == plain || expected == signed { Ok(()) } else { Err(bad("a header's checksum is wrong")) }
}

pub fn until_nul(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    &field[..end]
}

fn unsigned(field: &[u8]) -> io::Result<u64> {
    u64::try_from(number(field)?).map_err(|_| bad("a header holds a negative number"))
}

/// Octal digits with spaces or NULs around, or big-endian two's complement when the top bit is set.
fn number(field: &[u8]) -> io::Result<i64> {
    let first = *field.first().ok_or_else(malformed)?;
    if first & 0x80 != 0 {
        let start = i128::from(first & 0x3f) - if first & 0x40 != 0 { 0x40 } else { 0 };
        let value = field[1..].iter().take(12).fold(start, |value, b| (value << 8) | i128::from(*b));
        return i64::try_from(value).map_err(|_| bad("a number in a header is out of range"));
    }
    let digits = until_nul(field).trim_ascii();
    let mut value: i64 = 0;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return Err(bad("a header holds something that is not a number"));
        }
        value = value.checked_mul(8).map(|v| v + i64::from(digit - b'0')).ok_or_else(malformed)?;
    }
    Ok(value)
}

fn decimal(text: &[u8]) -> io::Result<u64> {
    let digits = std::str::from_utf8(text).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|t| t.parse().ok()).ok_or_else(malformed)
}

/// Seconds with an optional sign and fraction.
fn timestamp(text: &[u8]) -> io::Result<(i64, u32)> {
    let text = std::str::from_utf8(text).map_err(|_| malformed())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| malformed())?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed());
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().map_err(|_| malformed())?;
    // The fraction counts away from zero; the kernel wants it counted upwards.
    match whole.starts_with('-') && nanos > 0 {
        true => Ok((seconds.saturating_sub(1), 1_000_000_000 - nanos)),
        false => Ok((seconds, nanos)),
    }
}

fn malformed() -> io::Error {
    bad("a header record is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tarfile::TarReader;
    use proptest::prelude::*;
    use std::io::Read;

    /// Makes the checksum right, so that the fields behind it are reached.
    fn summed(mut block: Vec<u8>) -> Vec<u8> {
        block.resize(BLOCK, 0);
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    proptest! {
        #[test]
        fn no_archive_makes_the_reader_panic_or_grow(
            blocks in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..BLOCK), any::<bool>(), 0usize..12), 1..6)
        ) {
            let mut archive = Vec::new();
            for (mut block, is_header, kind) in blocks {
                block.resize(BLOCK, b'0');
                block[156] = b"0125xLKgS37z"[kind];
                // Numbers are mostly numbers.
                block[100..148].fill(b'0');
                block[135] = b' ';
                archive.extend(if is_header { summed(block) } else { block });
            }
            let length = archive.len() as u64;
            let mut reader = TarReader::new(&archive[..]);
            while let Ok(Some(member)) = reader.next_member() {
                prop_assert!(member.sparse.is_some() || member.size <= 8 << 30);
                let mut stored = Vec::new();
                let _ = (&mut reader).take(length).read_to_end(&mut stored);
            }
        }

        #[test]
        fn pax_values_are_binary_and_come_back(key in "[a-zA-Z.]{1,20}", value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut record = Vec::new();
            let rest = key.len() + value.len() + b"SCHILY.xattr.".len() + 3;
            let length = (rest + 1..rest + 6).find(|length| *length == rest + length.to_string().len()).unwrap();
            record.extend(format!("{length} SCHILY.xattr.{key}=").as_bytes());
            record.extend(&value);
            record.push(b'\n');
            let mut pax = Pax::default();
            pax.extend(&record).unwrap();
            prop_assert_eq!(pax.xattrs, [(key.into_bytes(), value)]);
        }

        #[test]
        fn any_pax_bytes_are_read_or_refused(data in proptest::collection::vec(prop_oneof![Just(b' '), Just(b'='), Just(b'\n'), Just(b'1'), any::<u8>()], 0..64)) {
            let _ = Pax::default().extend(&data);
        }
    }

    #[test]
    fn an_impossible_length_is_refused() {
        for record in ["29 size=18446744073709551615\n", "28 size=9223372036854775807\n"] {
            let mut header = vec![b'0'; BLOCK];
            (header[135], header[156]) = (b' ', b'x');
            header[124..135].copy_from_slice(format!("{:011o}", record.len()).as_bytes());
            let mut archive = summed(header.clone());
            archive.extend(record.as_bytes());
            archive.resize(2 * BLOCK, 0);
            header[156] = b'0';
            archive.extend(summed(header));
            let mut reader = TarReader::new(&archive[..]);
            assert!(reader.next_member().unwrap_err().to_string().contains("impossible length"));
        }
    }

    #[test]
    fn numbers_in_every_notation() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"8", None),
            (b"0x10", None),
        ] {
            assert_eq!(number(field).ok(), value, "{field:?}");
        }
        assert_eq!(timestamp(b"12.5").unwrap(), (12, 500_000_000));
        assert_eq!(timestamp(b"-1.25").unwrap(), (-2, 750_000_000));
        assert!(timestamp(b"1.-5").is_err() && timestamp(b"x").is_err());
    }
}
