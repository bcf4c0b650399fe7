//! Sandboxes put away: the files of a stopped one in one compressed file, and its disk gone. At every moment either the disk or
//! the archive holds everything, and the record says which: what it does not name is thrown away at the next start.

use crate::disk::{self, Disk};
use crate::engine::{EngineConfig, Inner, not_found};
use crate::error::{chain, internal};
use crate::pack::{self, Form, PackError, Packed};
use crate::record::{Record, State};
use infield_api::SandboxId;
use infield_api::runner::*;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FOLDER: &str = "archive";
const SUFFIX: &str = ".tar.zst";
/// Half-written ones; swept at the next start.
const HALF_MADE: &str = ".new-";
const COMPRESSION: i32 = 3;
const BUFFER_BYTES: usize = 1 << 20;
/// Written before the free space is looked at again.
const ROOM_CHECK_BYTES: u64 = 32 << 20;
/// What a file takes on a disk beside its content.
const ENTRY_BYTES: u64 = 2 << 10;

/// Packs the files of a stopped sandbox and frees its disk.
pub(crate) fn archive(inner: &Arc<Inner>, id: SandboxId) -> Result<(), RunnerError> {
    let sandbox = inner.find(id).ok_or_else(|| not_found(id))?;
    let mut entry = sandbox.entry();
    let record = entry.record.as_mut().ok_or_else(|| not_found(id))?;
    match &record.state {
        State::Archived { .. } => return Ok(()),
        State::Stopped | State::Failed { .. } => {}
        _ => {
            let message = format!("sandbox {id} is running or being changed; stop it first");
            return Err(RunnerError::new(RunnerErrorKind::Conflict, message));
        }
    }
    let packed = write(inner, id)?;
    let former = std::mem::replace(&mut record.state, State::Archived { bytes: needs(packed) });
    let recorded = inner.records.save(record).and_then(|()| inner.records.sync(id)).map_err(|e| internal(&e));
    if let Err(error) = recorded {
        record.state = former;
        // The disk is still there, and only a record on disk may say that it is not needed.
        let undone = inner.records.save(record).map_err(|e| internal(&e)).and_then(|()| remove(&inner.config, id));
        if let Err(error) = undone {
            tracing::error!(sandbox = %id, %error, "an archive that nobody needs stays until the next start");
        }
        return Err(error);
    }
    inner.show(&sandbox, &entry);
    if let Err(error) = inner.disk.destroy(&id.to_string()) {
        tracing::warn!(sandbox = %id, error = chain(&error), "disk of an archived sandbox stays until the next start");
    }
    Ok(())
}

fn needs(packed: Packed) -> u64 {
    packed.bytes + packed.entries * ENTRY_BYTES
}

/// The archive appears under its name when its last byte is on disk.
fn write(inner: &Inner, id: SandboxId) -> Result<Packed, RunnerError> {
    let dir = folder(&inner.config);
    let failed = |what: &str, path: &Path, source: io::Error| {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => RunnerErrorKind::Exhausted,
            _ => RunnerErrorKind::Internal,
        };
        RunnerError::new(kind, format!("{}: cannot {what}: {source}", path.display()))
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| failed("make the folder", &dir, e))?;
    let (new, path) = (dir.join(format!("{HALF_MADE}{id}")), path(&inner.config, id));
    let done = (|| {
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new);
        let file = file.map_err(|e| failed("make the archive", &new, e))?;
        let packed = compress(&file, &dir, &inner.disk.path(&id.to_string()).join("u"))?;
        let sync = file.sync_all().and_then(|()| fs::rename(&new, &path)).and_then(|()| File::open(&dir)?.sync_all());
        sync.map_err(|e| failed("write the archive", &new, e))?;
        Ok(packed)
    })();
    if done.is_err() {
        // The first failure is the one to report.
        let _ = fs::remove_file(&new);
    }
    done
}

fn compress(file: &File, dir: &Path, from: &Path) -> Result<Packed, RunnerError> {
    let out = Careful { file, dir, unchecked: ROOM_CHECK_BYTES };
    let mut encoder = zstd::stream::write::Encoder::new(out, COMPRESSION).map_err(PackError::Write)?;
    encoder.include_checksum(true).map_err(PackError::Write)?;
    let mut buffered = BufWriter::with_capacity(BUFFER_BYTES, encoder);
    let packed = pack::pack(from, Form::Archive, &mut buffered)?;
    let encoder = buffered.into_inner().map_err(|e| PackError::Write(e.into_error()))?;
    encoder.finish().map_err(PackError::Write)?;
    Ok(packed)
}

/// Stops before the host's disk is full.
struct Careful<'a> {
    file: &'a File,
    dir: &'a Path,
    unchecked: u64,
}

impl Write for Careful<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.unchecked >= ROOM_CHECK_BYTES {
            let room = disk::check_reserve(self.dir, disk::HOST_RESERVE_BYTES);
            room.map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))?;
            self.unchecked = 0;
        }
        let written = self.file.write(bytes)?;
        self.unchecked += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Gives an archived sandbox its disk back. The archive stays until [`forget`]; on failure only it is left.
pub(crate) fn restore(inner: &Inner, former: &Record, spec: &SandboxSpec) -> Result<(), RunnerError> {
    let State::Archived { bytes } = former.state else { return Ok(()) };
    let id = former.spec.id.to_string();
    // What an earlier attempt could not take away, and what it could not write down.
    inner.records.save(former).map_err(|e| internal(&e))?;
    inner.disk.destroy(&id)?;
    let path = path(&inner.config, former.spec.id);
    let file = File::open(&path).map_err(|e| {
        RunnerError::new(RunnerErrorKind::Internal, format!("{}: cannot open the archive: {e}", path.display()))
    })?;
    let restored = inner.disk.create(&id, spec.disk_mib << 20).map_err(RunnerError::from).and_then(|disk| {
        inner.disk.lift_limit(&id, bytes)?;
        let reader = zstd::stream::read::Decoder::new(BufReader::with_capacity(BUFFER_BYTES, file));
        pack::restore(BufReader::with_capacity(BUFFER_BYTES, reader.map_err(PackError::Read)?), &disk.join("u"))?;
        // The limit comes back at once: whoever starts the sandbox may set another.
        inner.disk.set_limit(&id, spec.disk_mib << 20)?;
        Ok(inner.disk.sync(&id)?)
    });
    restored.inspect_err(|_| drop_disk(inner, former.spec.id))
}

pub(crate) fn drop_disk(inner: &Inner, id: SandboxId) {
    if let Err(error) = inner.disk.destroy(&id.to_string()) {
        tracing::warn!(sandbox = %id, error = chain(&error), "disk of an archived sandbox stays until the next start");
    }
}

/// Removes the archive of a sandbox that has its disk back, once a record that says so is on disk.
pub(crate) fn forget(inner: &Inner, id: SandboxId) {
    let gone = inner.records.sync(id).map_err(|e| internal(&e)).and_then(|()| remove(&inner.config, id));
    if let Err(error) = gone {
        tracing::warn!(sandbox = %id, %error, "an archive that nobody needs stays until the next start");
    }
}

/// `Ok` when there is none.
pub(crate) fn remove(config: &EngineConfig, id: SandboxId) -> Result<(), RunnerError> {
    let path = path(config, id);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            let message = format!("{}: cannot remove the archive: {e}", path.display());
            Err(RunnerError::new(RunnerErrorKind::Internal, message))
        }
        _ => Ok(()),
    }
}

fn folder(config: &EngineConfig) -> PathBuf {
    config.data_dir.join(FOLDER)
}

fn path(config: &EngineConfig, id: SandboxId) -> PathBuf {
    folder(config).join(format!("{id}{SUFFIX}"))
}

/// After a start, for a sandbox whose record says that it is archived: a disk beside the archive is half made or half removed.
pub(crate) fn settle(config: &EngineConfig, disk: &Disk, record: &Record) -> State {
    let id = record.spec.id;
    let has_disk = disk.list().is_ok_and(|disks| disks.contains(&id.to_string()));
    if path(config, id).exists() {
        if has_disk && let Err(error) = disk.destroy(&id.to_string()) {
            tracing::error!(sandbox = %id, error = chain(&error), "disk of an archived sandbox stays");
        }
        return record.state.clone();
    }
    tracing::error!(sandbox = %id, "the archive of a sandbox is missing");
    match has_disk {
        true => State::Stopped,
        false => {
            State::Failed { reason: "the sandbox's archive is missing on this host; delete the sandbox".to_owned() }
        }
    }
}

/// Removes archives, whole and half, of sandboxes that are not in `keep`; answers how many.
pub(crate) fn sweep(config: &EngineConfig, keep: &HashSet<String>) -> usize {
    let entries = fs::read_dir(folder(config)).into_iter().flatten().flatten();
    let dead = entries.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.strip_suffix(SUFFIX).is_none_or(|id| !keep.contains(id))
    });
    let removed = dead.map(|entry| fs::remove_file(entry.path()));
    removed
        .filter(|gone| gone.as_ref().inspect_err(|error| tracing::error!(%error, "an archive stays")).is_ok())
        .count()
}
