//! What the runner remembers of a sandbox: one JSON file each, written before anything is made in the kernel and removed
//! after everything is gone, so that a killed runner finds out what it owns. Knows files, not kernels.

use infield_api::SandboxId;
use infield_api::runner::SandboxSpec;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Fields are only added, with defaults: a newer runner reads the records of an older one.
const RECORD_VERSION: u32 = 1;
const RECORD_BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub version: u32,
    pub spec: SandboxSpec,
    /// Content id of the image, so that a reference that moves on does not change an existing sandbox.
    pub image_id: String,
    pub state: State,
    /// A running one whose processes are to stand still. One that stands still without this was held for a moment only.
    #[serde(default)]
    pub paused: bool,
    /// The limits in `spec` may not have reached the kernel yet.
    #[serde(default)]
    pub resizing: bool,
}

impl Record {
    pub(crate) fn new(spec: SandboxSpec, image_id: String, state: State) -> Self {
        Self { version: RECORD_VERSION, spec, image_id, state, paused: false, resizing: false }
    }
}

/// Where a sandbox is in its life on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Being made: found after a crash, everything of it goes.
    Creating {
        slot: u32,
    },
    /// A stopped one being started: found after a crash, its kernel objects go, its files stay.
    Starting {
        slot: u32,
    },
    Running(Process),
    Stopped,
    Failed {
        reason: String,
    },
    /// The files are in an archive; a disk found after a crash is half made or half removed.
    Archived {
        /// Of disk that the files need.
        bytes: u64,
    },
    /// Found after a crash, the removal is finished. The slot it still had, if any.
    Destroying {
        slot: Option<u32>,
    },
}

/// A running agent. The pid alone may be somebody else by now; pid, start time and boot together are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub slot: u32,
    pub pid: i32,
    pub start_time: u64,
    pub boot_id: String,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("{path}: cannot {what} the sandbox record")]
    File { path: PathBuf, what: &'static str, source: io::Error },
    #[error("{path}: the sandbox record is damaged; move it away and remove the sandbox by hand")]
    Damaged { path: PathBuf, source: serde_json::Error },
}

type Result<T> = std::result::Result<T, RecordError>;

fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> RecordError {
    let path = path.to_owned();
    move |source| RecordError::File { path, what, source }
}

/// The folder of records.
#[derive(Debug)]
pub(crate) struct Records {
    dir: PathBuf,
}

impl Records {
    /// Makes the folder; what a crash left half-written goes.
    pub(crate) fn open(dir: PathBuf) -> Result<Self> {
        // Records hold the sandboxes' environments, and with them secrets.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(failed(&dir, "make the folder for"))?;
        only_root(&dir, 0o700)?; // a folder of an earlier version
        let records = Self { dir };
        for path in records.files()? {
            only_root(&path, 0o600)?;
            if path.extension().is_some_and(|e| e == "tmp") {
                fs::remove_file(&path).map_err(failed(&path, "remove a half-written part of"))?;
            }
        }
        Ok(records)
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.dir).map_err(failed(&self.dir, "list"))?;
        entries.map(|entry| Ok(entry.map_err(failed(&self.dir, "list"))?.path())).collect()
    }

    fn path(&self, id: SandboxId, extension: &str) -> PathBuf {
        self.dir.join(format!("{id}.{extension}"))
    }

    /// Every readable record, and what is wrong with the others.
    pub(crate) fn load(&self) -> Result<(Vec<Record>, Vec<RecordError>)> {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for path in self.files()?.into_iter().filter(|p| p.extension().is_some_and(|e| e == "json")) {
            match read(&path) {
                Ok(record) => good.push(record),
                Err(error) => bad.push(error),
            }
        }
        Ok((good, bad))
    }

    /// Replaces a record in one step. Survives a crash of the runner; [`sync`](Self::sync) makes it survive one of the host.
    pub(crate) fn save(&self, record: &Record) -> Result<()> {
        let (path, tmp) = (self.path(record.spec.id, "json"), self.path(record.spec.id, "tmp"));
        let write = || -> io::Result<()> {
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&tmp)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            fs::rename(&tmp, &path)
        };
        write().map_err(failed(&path, "write"))
    }

    /// Brings a record to the disk.
    pub(crate) fn sync(&self, id: SandboxId) -> Result<()> {
        let path = self.path(id, "json");
        let sync = |path: &Path| File::open(path)?.sync_all();
        match sync(&path) {
            // Gone again meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| sync(&self.dir)).map_err(failed(&path, "sync")),
        }
    }

    pub(crate) fn remove(&self, id: SandboxId) -> Result<()> {
        let path = self.path(id, "json");
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(&path, "remove")(e)),
            _ => Ok(()),
        }
    }
}

fn only_root(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed(path, "make private"))
}

fn read(path: &Path) -> Result<Record> {
    let size = fs::metadata(path).map_err(failed(path, "read"))?.len();
    if size > RECORD_BYTES_MAX {
        return Err(failed(path, "read")(io::Error::new(io::ErrorKind::InvalidData, "longer than any record")));
    }
    let text = fs::read(path).map_err(failed(path, "read"))?;
    serde_json::from_slice(&text).map_err(|source| RecordError::Damaged { path: path.to_owned(), source })
}

/// Identifies this boot of the host.
pub(crate) fn boot_id() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(fs::read_to_string(path).map_err(failed(path, "find out the boot for"))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_and_damage_is_reported() {
        let dir = std::env::temp_dir().join(format!("infield-records-{}", std::process::id()));
        let records = Records::open(dir.clone()).unwrap();
        let spec = SandboxSpec {
            id: SandboxId::random(),
            name: "n".into(),
            image: "i".into(),
            user: None,
            env: Default::default(),
            labels: Default::default(),
            cpu: 1,
            memory_mib: 1,
            disk_mib: 1,
            network_block_all: false,
            entrypoint: vec![],
            volumes: vec![],
        };
        let process = Process { slot: 4, pid: 9, start_time: 77, boot_id: "b".into() };
        let record = Record::new(spec, "sha256:x".into(), State::Running(process));
        records.save(&record).unwrap();
        records.sync(record.spec.id).unwrap();
        fs::write(dir.join("broken.json"), "{").unwrap();
        fs::write(dir.join("half.tmp"), "{").unwrap();
        let records = Records::open(dir.clone()).unwrap();
        assert!(!dir.join("half.tmp").exists());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&dir), mode(&records.path(record.spec.id, "json"))), (0o700, 0o600));
        let (good, bad) = records.load().unwrap();
        assert_eq!((good, bad.len()), (vec![record.clone()], 1));
        records.remove(record.spec.id).unwrap();
        records.remove(record.spec.id).unwrap();
        records.sync(record.spec.id).unwrap();
        fs::remove_dir_all(dir).unwrap();
    }
}
