//! Volumes: directories with a limit that outlive sandboxes and may be seen by many at once.
//!
//! A volume is a disk under a name of its own. Its files have the owners that sandboxes see, and each sandbox gets a mount that
//! shifts them into its own range, as with image layers. Where it goes may have been arranged by the last inhabitant, and
//! what is in it by any: no link is followed on either side.

use crate::disk::{Disk, DiskError};
use crate::engine::Inner;
use infield_api::runner::{RunnerError, RunnerErrorKind, VolumeMount};
use infield_sys::{beneath, caps, mount};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Disks whose name begins so are volumes; the rest of it is the volume's id.
pub(crate) const PREFIX: &str = "volume-";
/// Whoever works in a sandbox may write.
const MODE: u32 = 0o777;
const MOUNTS_MAX: usize = 32;
const MIB: u64 = 1 << 20;

/// Makes the volume; one that exists stays as it is.
pub(crate) fn create(inner: &Inner, id: &str, size_mib: u64) -> Result<(), RunnerError> {
    let name = disk_name(id)?;
    let path = match inner.disk.create(&name, size_mib.saturating_mul(MIB)) {
        Err(DiskError::Exists(_)) => inner.disk.path(&name),
        other => other?,
    };
    let files = path.join("u");
    fs::set_permissions(&files, fs::Permissions::from_mode(MODE))
        .map_err(|e| failed(&files, "open it to everybody", &e))
}

/// Removes the volume with its files; `Ok` when there is none. Refused while a sandbox on this host names it.
pub(crate) fn remove(inner: &Inner, id: &str) -> Result<(), RunnerError> {
    let name = disk_name(id)?;
    let sandboxes = inner.all();
    let names = |sandbox: &std::sync::Arc<crate::engine::Sandbox>| {
        let entry = sandbox.entry();
        let record = entry.record.as_ref()?;
        record.spec.volumes.iter().any(|mount| mount.volume == id).then_some(record.spec.id)
    };
    if let Some(user) = sandboxes.iter().find_map(names) {
        let message = format!("volume {id} is used by sandbox {user}; delete that first");
        return Err(RunnerError::new(RunnerErrorKind::Conflict, message));
    }
    Ok(inner.disk.destroy(&name)?)
}

/// Disks that no sweep may take for a sandbox's.
pub(crate) fn disks(disk: &Disk) -> Result<Vec<String>, DiskError> {
    Ok(disk.list()?.into_iter().filter(|name| name.starts_with(PREFIX)).collect())
}

/// Puts the volumes into a root that nobody lives in yet. `first_id` is the host's id of its root user.
pub(crate) fn attach(
    disk: &Disk,
    root: &OwnedFd,
    volumes: &[VolumeMount],
    userns: BorrowedFd<'_>,
    first_id: u32,
) -> Result<(), RunnerError> {
    if volumes.len() > MOUNTS_MAX {
        let message = format!("{} volumes are too many, at most {MOUNTS_MAX} are possible", volumes.len());
        return Err(RunnerError::new(RunnerErrorKind::Invalid, message));
    }
    for volume in volumes {
        let source = source(disk, volume)?;
        let attributes = mount::ATTR_NODEV | mount::ATTR_NOSUID;
        let tree = mount::clone_tree(&shown(&source), Some(userns), attributes)
            .map_err(|e| failed(&disk.path(&volume.volume), "shift the ids of the volume", &e))?;
        place(root, volume, &tree, first_id)?;
    }
    Ok(())
}

/// What of the volume is shown.
fn source(disk: &Disk, volume: &VolumeMount) -> Result<OwnedFd, RunnerError> {
    let files = disk.path(&disk_name(&volume.volume)?).join("u");
    let mut dir = match File::open(&files) {
        Ok(dir) => OwnedFd::from(dir),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let message = format!("volume {} is not on this host", volume.volume);
            return Err(RunnerError::new(RunnerErrorKind::NotFound, message));
        }
        Err(e) => return Err(failed(&files, "open the volume", &e)),
    };
    let subpath = volume.subpath.as_deref().unwrap_or_default();
    for part in parts(subpath)? {
        dir = open_or_make(&dir, part).map_err(|e| {
            let message = format!("the subpath {subpath:?} of volume {} cannot be used: {e}", volume.volume);
            RunnerError::new(RunnerErrorKind::Invalid, message)
        })?;
    }
    Ok(dir)
}

/// One that is there is taken as it is.
fn open_or_make(dir: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    match beneath::open_directory(dir.as_fd(), name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let made = beneath::ensure_directory(dir.as_fd(), name, MODE)?;
    fs::set_permissions(shown(&made), fs::Permissions::from_mode(MODE))?;
    Ok(made)
}

/// A path for what is open.
fn shown(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn place(root: &OwnedFd, volume: &VolumeMount, tree: &OwnedFd, first_id: u32) -> Result<(), RunnerError> {
    let path = &volume.path;
    let invalid =
        |why: String| RunnerError::new(RunnerErrorKind::Invalid, format!("cannot mount a volume at {path}: {why}"));
    let parts = parts(path.strip_prefix('/').ok_or_else(|| invalid("the path is not absolute".to_owned()))?)?;
    if parts.is_empty() {
        return Err(invalid("it would hide everything".to_owned()));
    }
    let walk = || {
        let mut dir = root.try_clone()?;
        for part in &parts {
            dir = beneath::ensure_directory(dir.as_fd(), part, 0o755)?;
        }
        Ok::<_, io::Error>(dir)
    };
    let dir = caps::with_fs_ids(first_id, walk).and_then(|walked| walked);
    let dir = dir.map_err(|e| invalid(format!("{e}; it must be a directory and no link")))?;
    mount::attach_to(tree.as_fd(), dir.as_fd()).map_err(|e| match e.raw_os_error() {
        Some(EINVAL) => RunnerError::new(RunnerErrorKind::Unsupported, "volumes need Linux 6.15 or newer"),
        _ => invalid(e.to_string()),
    })
}

const EINVAL: i32 = 22;

fn disk_name(id: &str) -> Result<String, RunnerError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if id.is_empty() || !id.bytes().all(good) {
        return Err(RunnerError::new(RunnerErrorKind::Invalid, format!("{id:?} is no id of a volume")));
    }
    Ok(format!("{PREFIX}{id}"))
}

/// The names a path goes through; nothing but names.
fn parts(path: &str) -> Result<Vec<&str>, RunnerError> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| matches!(*part, "." | "..") || part.contains('\0')) {
        return Err(RunnerError::new(RunnerErrorKind::Invalid, format!("{path:?} is no plain path")));
    }
    Ok(parts)
}

fn failed(path: &Path, what: &str, source: &io::Error) -> RunnerError {
    RunnerError::new(RunnerErrorKind::Internal, format!("{}: cannot {what}: {source}", path.display()))
}
