//! Where logs lie. The first kilobytes of each stay in memory, within a budget for all; the rest goes to a file without a
//! name on the sandbox's own disk, one for each session, which nobody else can open and which goes when its session or the
//! agent does. A disk that takes no more ends a log with a note: what is there stays true, and the command goes on.

use super::frames::{self, Stream};
use crate::error::reason;
use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, fallocate, openat, unlinkat};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// Of one log, before its file is used.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Of all logs together; beyond it new output goes to files at once.
const ALL_HEADS_BYTES_MAX: usize = 8 << 20;
/// Of one log on disk.
const LOG_BYTES_MAX: u64 = 1 << 30;

static ALL_HEADS_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The nameless file of one session, made when it is first needed.
pub struct Spill {
    dirs: Vec<PathBuf>,
    file: Mutex<Option<Arc<File>>>,
    end: AtomicU64,
}

impl Spill {
    /// `home` is tried first.
    pub fn new(home: &str) -> Self {
        let dirs = [home, "/tmp", "/var/tmp"].map(PathBuf::from).into();
        Self { dirs, file: Mutex::new(None), end: AtomicU64::new(0) }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<File>>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self) -> io::Result<Arc<File>> {
        let mut slot = self.slot();
        if let Some(file) = &*slot {
            return Ok(file.clone());
        }
        let mut why = io::Error::from(io::ErrorKind::NotFound);
        for dir in &self.dirs {
            match nameless_file(dir) {
                Ok(file) => return Ok(slot.insert(Arc::new(file)).clone()),
                Err(e) => why = e,
            }
        }
        Err(why)
    }

    /// Gives the disk back what a forgotten log took.
    fn release(&self, at: u64, length: u64) {
        if let Some(file) = &*self.slot() {
            let _ = fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, length);
        }
    }
}

/// Where the file system knows no nameless files, the name is taken away at once.
fn nameless_file(dir: &Path) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(fd) = openat(CWD, dir, flags | OFlags::TMPFILE, mode) {
        return Ok(fd.into());
    }
    let path = dir.join(format!(".infield-log-{}", Uuid::new_v4().simple()));
    let fd = openat(CWD, &path, flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, mode)?;
    unlinkat(CWD, &path, rustix::fs::AtFlags::empty())?;
    Ok(fd.into())
}

/// One log: whole frames, only ever appended. Appending is for one task at a time; reading is for everybody.
pub struct Log {
    spill: Arc<Spill>,
    parts: Mutex<Parts>,
}

#[derive(Default)]
struct Parts {
    head: Vec<u8>,
    /// Where this log begins in the file, and how much of it lies there.
    at: u64,
    filed: u64,
    /// What is said after the disk refused.
    note: Vec<u8>,
}

impl Log {
    pub fn new(spill: Arc<Spill>) -> Self {
        Self { spill, parts: Mutex::default() }
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn bytes(&self) -> u64 {
        let parts = self.parts();
        parts.head.len() as u64 + parts.filed + parts.note.len() as u64
    }

    /// Keeps these frames, or says in the log why it cannot.
    pub async fn append(&self, frames: Vec<u8>) {
        let at = {
            let mut parts = self.parts();
            if frames.is_empty() || !parts.note.is_empty() {
                return;
            }
            if parts.filed == 0 && parts.head.len() + frames.len() <= HEAD_BYTES_MAX && take_room(frames.len()) {
                parts.head.extend_from_slice(&frames);
                return;
            }
            if parts.filed == 0 {
                parts.at = self.spill.end.load(Ordering::Relaxed);
            }
            parts.at + parts.filed
        };
        let length = frames.len() as u64;
        let outcome = if at + length - self.parts().at > LOG_BYTES_MAX {
            Err(io::Error::other(format!("it has {LOG_BYTES_MAX} bytes, which is the limit")))
        } else {
            let spill = self.spill.clone();
            let writing = tokio::task::spawn_blocking(move || spill.file()?.write_all_at(&frames, at));
            writing.await.unwrap_or_else(|e| Err(io::Error::other(e)))
        };
        let mut parts = self.parts();
        match outcome {
            Ok(()) => {
                parts.filed += length;
                self.spill.end.store(at + length, Ordering::Relaxed);
            }
            Err(e) => {
                let text = format!("\n[the log ends here, the command goes on: the log cannot grow: {}]\n", reason(&e));
                frames::write(Stream::Err, text.as_bytes(), &mut parts.note);
            }
        }
    }

    /// Some bytes from `from` on; none at the end.
    pub async fn read(&self, from: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let (at, length) = {
            let parts = self.parts();
            let head = parts.head.len() as u64;
            let note = head + parts.filed;
            if from < head {
                return Ok(some(&parts.head, from, bytes_max));
            }
            if from >= note {
                return Ok(some(&parts.note, from - note, bytes_max));
            }
            (parts.at + (from - head), (note - from).min(bytes_max as u64) as usize)
        };
        let spill = self.spill.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; length];
            spill.file()?.read_exact_at(&mut bytes, at)?;
            Ok(bytes)
        });
        reading.await.unwrap_or_else(|e| Err(io::Error::other(e)))
    }
}

fn some(bytes: &[u8], from: u64, bytes_max: usize) -> Vec<u8> {
    let rest = bytes.get(from as usize..).unwrap_or_default();
    rest[..rest.len().min(bytes_max)].to_vec()
}

fn take_room(bytes: usize) -> bool {
    let before = ALL_HEADS_BYTES.fetch_add(bytes, Ordering::Relaxed);
    let fits = before + bytes <= ALL_HEADS_BYTES_MAX;
    if !fits {
        ALL_HEADS_BYTES.fetch_sub(bytes, Ordering::Relaxed);
    }
    fits
}

impl Drop for Log {
    fn drop(&mut self) {
        let parts = std::mem::take(&mut *self.parts());
        ALL_HEADS_BYTES.fetch_sub(parts.head.len(), Ordering::Relaxed);
        // The last user of a file frees it whole.
        if parts.filed > 0 && Arc::strong_count(&self.spill) > 1 {
            self.spill.release(parts.at, parts.filed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(log: &Log, step: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let more = log.read(bytes.len() as u64, step).await.unwrap();
            if more.is_empty() {
                return bytes;
            }
            bytes.extend(more);
        }
    }

    fn frame(n: usize, size: usize) -> Vec<u8> {
        let mut frames = Vec::new();
        frames::write(Stream::Out, &vec![b'a' + (n % 26) as u8; size], &mut frames);
        frames
    }

    #[tokio::test]
    async fn memory_then_disk_and_several_logs_in_one_file() {
        let spill = Arc::new(Spill::new("/nonexistent"));
        let mut kept = Vec::new();
        for size in [10, 3000, 9000] {
            let log = Log::new(spill.clone());
            let mut expected = Vec::new();
            for n in 0..20 {
                log.append(frame(n, size)).await;
                expected.extend(frame(n, size));
            }
            kept.push((log, expected));
        }
        for (log, expected) in &kept {
            assert_eq!(log.bytes(), expected.len() as u64);
            assert_eq!(&all(log, 1000).await, expected);
        }
        kept.remove(1);
        let (log, expected) = &kept[1];
        assert!(&all(log, 1 << 20).await == expected, "what another log took is given back without harm");
        assert!(
            std::fs::read_dir("/tmp")
                .unwrap()
                .flatten()
                .all(|e| { !e.file_name().to_string_lossy().starts_with(".infield-log-") })
        );
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_is_said_once() {
        let mut spill = Spill::new("/nonexistent");
        spill.dirs = vec!["/proc".into()];
        let log = Log::new(Arc::new(spill));
        log.append(frame(0, 100)).await;
        for n in 0..3 {
            log.append(frame(n, 9000)).await;
        }
        let mut text = Vec::new();
        frames::render(&all(&log, 50).await, frames::View::Only(Stream::Err), usize::MAX, &mut text);
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("\n[the log ends here") && text.lines().count() == 2, "{text}");
        let mut out = Vec::new();
        frames::render(&all(&log, 50).await, frames::View::Only(Stream::Out), usize::MAX, &mut out);
        assert_eq!(out.len(), 100);
    }
}
