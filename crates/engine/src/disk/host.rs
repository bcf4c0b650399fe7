//! What disks need from the host: free space, mounts, tools, a lock. Knows no backend.

use super::DiskError;
use rustix::{
    fs::{FlockOperation, flock, statvfs},
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount},
};
use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::{
        ffi::OsStringExt,
        fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const TOOL_DIRS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// How long an unmount goes on asking, and its pauses.
const BUSY_MAX: Duration = Duration::from_secs(2);
const BUSY_PAUSE: Duration = Duration::from_millis(5);
/// What a failed tool says beyond this is cut.
const TOOL_MESSAGE_CHARS_MAX: usize = 500;

/// A set-uid file counts in the overlay, which has flags of its own, and nowhere else.
const MOUNT_FLAGS: MountFlags = MountFlags::NOATIME.union(MountFlags::NODEV).union(MountFlags::NOSUID);

/// Only one server at a time opens a data directory's pool. Released with the file.
pub fn lock(path: &Path) -> Result<File, DiskError> {
    let what = || format!("lock {}", path.display());
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    let file = file.map_err(DiskError::io(what()))?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(DiskError::io(what()))?;
    flock(&file, FlockOperation::LockExclusive).map_err(DiskError::os(what()))?;
    Ok(file)
}

/// Bytes that may still be written below `path`.
pub fn free_bytes(path: &Path) -> Result<u64, DiskError> {
    let found = statvfs(path).map_err(DiskError::os(format!("ask for the free space of {}", path.display())))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

pub fn check_reserve(path: &Path, reserve_bytes: u64) -> Result<(), DiskError> {
    let free = free_bytes(path)?;
    if free < reserve_bytes {
        return Err(DiskError::Exhausted(format!(
            "only {} MiB are free in {}, {} MiB are kept in reserve; free some space or remove sandboxes",
            free >> 20,
            path.display(),
            reserve_bytes >> 20
        )));
    }
    Ok(())
}

/// The filesystem type mounted exactly at `path`, if any (the topmost).
pub fn mounted_at(path: &Path) -> Result<Option<String>, DiskError> {
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(DiskError::io("read the mount table"))?;
    Ok(find_mount(&table, path))
}

fn find_mount(table: &str, path: &Path) -> Option<String> {
    let mut found = None;
    for line in table.lines() {
        let mut halves = line.splitn(2, " - ");
        let point = halves.next().and_then(|h| h.split(' ').nth(4)).map(unescape);
        let kind = halves.next().and_then(|h| h.split(' ').next());
        if point.as_deref() == Some(path) {
            found = kind.map(str::to_owned);
        }
    }
    found
}

/// The mount table writes blanks, tabs, newlines and backslashes as `\` and three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u8::from_str_radix(d, 8).ok());
        match code.filter(|_| *first == b'\\') {
            Some(code) => {
                bytes.push(code);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

pub fn mount_device(device: &Path, target: &Path, kind: &str, options: &str) -> Result<(), io::Error> {
    let options = CString::new(options)?;
    mount(device, target, kind, MOUNT_FLAGS, options.as_c_str()).map_err(io::Error::from)
}

/// What is mounted at `path` gets the flags it must have: an earlier server may have mounted it with fewer.
pub fn mend_mount(path: &Path) -> Result<(), DiskError> {
    mount_remount(path, MOUNT_FLAGS | MountFlags::BIND, c"")
        .map_err(DiskError::os(format!("remount {} with nosuid and nodev", path.display())))
}

/// Makes a folder, or takes the one there is, so that only root passes through it.
pub fn private_dir(path: &Path) -> Result<(), DiskError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(DiskError::io(format!("make {}", path.display())))?;
    keep_private(path)
}

/// Sandboxes' files lie on disk with their own owners, root's set-uid programs among them: no user of the host may
/// reach them.
pub fn keep_private(path: &Path) -> Result<(), DiskError> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .map_err(DiskError::io(format!("make {} private", path.display())))
}

/// Unmounts; absent mounts are fine. `lazily` lets go even while something uses it.
pub fn unmount_path(path: &Path, lazily: bool) -> Result<(), DiskError> {
    let flags = if lazily { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    let began = Instant::now();
    loop {
        match unmount(path, flags | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            // A child between its fork and its exec holds every file of its parent for a moment.
            Err(Errno::BUSY) if began.elapsed() < BUSY_MAX => std::thread::sleep(BUSY_PAUSE),
            Err(e) => return Err(DiskError::os(format!("unmount {}", path.display()))(e)),
        }
    }
}

/// Whether the kernel knows a filesystem, loading its module if it must.
pub fn kernel_has(filesystem: &str) -> bool {
    let listed = || {
        let table = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        table.lines().any(|line| line.split_whitespace().next_back() == Some(filesystem))
    };
    if listed() {
        return true;
    }
    let loaded = find_tool("modprobe").map(|tool| Command::new(tool).args(["-q", filesystem]).status());
    matches!(loaded, Some(Ok(status)) if status.success()) && listed()
}

/// A program of the host, also when `PATH` lacks the sbin folders.
pub fn find_tool(name: &str) -> Option<PathBuf> {
    TOOL_DIRS.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

/// Runs a tool to its end; what it said goes into the error.
pub fn run_tool(tool: &Path, args: &[&str], file: &Path) -> Result<(), DiskError> {
    let what = || format!("run {} on {}", tool.display(), file.display());
    let done = Command::new(tool).args(args).arg(file).stdin(Stdio::null()).output().map_err(DiskError::io(what()))?;
    if !done.status.success() {
        let said: String = String::from_utf8_lossy(&done.stderr).trim().chars().take(TOOL_MESSAGE_CHARS_MAX).collect();
        return Err(DiskError::Io {
            what: format!("{}: {said}", what()),
            source: io::Error::other(done.status.to_string()),
        });
    }
    Ok(())
}

/// Makes a sparse file of this size that only root reads; an older one of the name goes.
pub fn sparse_file(path: &Path, bytes: u64) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    file.set_len(bytes)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_understood() {
        let table = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
                     30 22 7:1 / /a\\040b/pool rw,noatime shared:3 - btrfs /dev/loop1 rw\n\
                     31 22 7:2 / /a/pool rw - tmpfs x rw\n32 31 7:3 / /a/pool rw - btrfs /dev/loop2 rw\n";
        assert_eq!(find_mount(table, Path::new("/a b/pool")).as_deref(), Some("btrfs"));
        assert_eq!(find_mount(table, Path::new("/a/pool")).as_deref(), Some("btrfs"));
        assert_eq!(find_mount(table, Path::new("/a")), None);
    }

    #[test]
    fn octal_escapes_at_the_end_and_broken_ones() {
        assert_eq!(unescape("/x\\134"), PathBuf::from("/x\\"));
        assert_eq!(unescape("/x\\9"), PathBuf::from("/x\\9"));
    }
}
