//! One layer on its way in: recognises the compression, hashes both sides of it and unpacks in the same pass.

use super::{
    error::{ImageError, Result},
    progress::Progress,
    staging,
    unpack::{self, Unpacked},
};
use sha2::{Digest, Sha256};
use std::{
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

/// Stored bytes of one layer, compressed or not.
pub const LAYER_STORED_BYTES_MAX: u64 = 64 << 30;
/// The tar stream of one layer: its files, plus a header and padding for each.
const LAYER_STREAM_BYTES_MAX: u64 = unpack::LAYER_BYTES_MAX + (unpack::LAYER_ENTRIES_MAX << 10);
/// Unpacked or downloaded, before the free space is looked at again. Far less than the reserve: every 512 of these bytes
/// can make a directory, which takes a block.
pub const ROOM_CHECK_BYTES: u64 = 32 << 20;
const READ_BUFFER_BYTES: usize = 256 << 10;
/// Memory a zstd frame may ask for: 128 MiB, the format's own recommended limit.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

pub struct Layer {
    /// `sha256:` of the uncompressed tar stream.
    pub diff_id: String,
    pub unpacked: Unpacked,
}

/// Unpacks the stream, whatever its compression, into the empty directory `root`.
pub fn unpack(stored: impl Read, root: &Path, progress: &dyn Progress) -> Result<Layer> {
    let counted = Counted { inner: stored, progress, left: LAYER_STORED_BYTES_MAX };
    let plain = Bounded { inner: decompress(counted)?, left: LAYER_STREAM_BYTES_MAX };
    let mut plain = Hashing::new(Roomy { inner: plain, root, unchecked: 0 });
    let unpacked = unpack::unpack(&mut plain, root)?;
    Ok(Layer { diff_id: plain.finish(), unpacked })
}

/// By the first bytes: media types lie often enough.
fn decompress<'a>(stored: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut stored = BufReader::with_capacity(READ_BUFFER_BYTES, stored);
    // Short reads at the start are possible with pipes; four bytes arrive together in practice, and `fill_buf` says if not.
    let magic = stored.fill_buf().map_err(unpack::unreadable)?;
    if magic.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(stored)));
    }
    if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(stored).map_err(unpack::unreadable)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(unpack::unreadable)?;
        return Ok(Box::new(decoder));
    }
    for (name, other) in [("bzip2", &b"BZh"[..]), ("xz", b"\xfd7zXZ\0")] {
        if magic.starts_with(other) {
            return Err(ImageError::Archive { why: format!("it is compressed with {name}; use gzip, zstd or none") });
        }
    }
    Ok(Box::new(stored))
}

/// A reader that remembers the digest of what went through.
pub struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    pub fn finish(self) -> String {
        format!("sha256:{}", hex::encode(self.hash.finalize()))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.hash.update(&buffer[..got]);
        Ok(got)
    }
}

struct Counted<'a, R> {
    inner: R,
    progress: &'a dyn Progress,
    left: u64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.progress.advance(got as u64);
        self.left = self.left.checked_sub(got as u64).ok_or_else(too_large)?;
        Ok(got)
    }
}

struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(got as u64).ok_or_else(too_large)?;
        Ok(got)
    }
}

/// Stops when the file system that is unpacked to runs full: a few MiB of gzip can hold a terabyte of zeros.
struct Roomy<'a, R> {
    inner: R,
    root: &'a Path,
    unchecked: u64,
}

impl<R: Read> Read for Roomy<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.unchecked >= ROOM_CHECK_BYTES {
            staging::check_room(self.root).map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))?;
            self.unchecked = 0;
        }
        let got = self.inner.read(buffer)?;
        self.unchecked += got as u64;
        Ok(got)
    }
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it is larger than {} GiB", LAYER_STORED_BYTES_MAX >> 30))
}
