//! Files inside a tree that somebody hostile may have arranged: every path is walked below one directory descriptor, and no
//! symbolic link is ever followed (`openat2` with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_XDEV).

use crate::fd::{check, check_long, own};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

const RESOLVE_NO_XDEV: u64 = 0x01;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_BENEATH: u64 = 0x08;

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

fn open(dir: BorrowedFd<'_>, path: &str, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    let name = CString::new(path)?;
    let how = OpenHow {
        flags: (flags | libc::O_CLOEXEC) as u64,
        mode: mode.into(),
        resolve: RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
    };
    // SAFETY: a live C string and a live struct of the stated size.
    own(unsafe {
        libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), name.as_ptr(), ptr::from_ref(&how), size_of::<OpenHow>())
    })
}

/// A directory below `dir`; `ELOOP` or `ENOTDIR` when something else stands in its place.
pub fn open_directory(dir: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    open(dir, path, libc::O_PATH | libc::O_DIRECTORY, 0)
}

/// Makes `name` in the directory `dir` a fresh regular file with this content. What stood there (a link, a pipe, a file with
/// other names) is unlinked first and never opened.
pub fn replace_file(dir: BorrowedFd<'_>, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
    let c_name = CString::new(name)?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let created = open(dir, name, flags, mode).or_else(|e| {
        if e.raw_os_error() != Some(libc::EEXIST) && e.raw_os_error() != Some(libc::ELOOP) {
            return Err(e);
        }
        // SAFETY: a live C string.
        check(unsafe { libc::unlinkat(dir.as_raw_fd(), c_name.as_ptr(), 0) })?;
        open(dir, name, flags, mode)
    })?;
    // SAFETY: a descriptor we own; the mode argument of open obeys the umask, this does not.
    check(unsafe { libc::fchmod(created.as_raw_fd(), mode) })?;
    File::from(created).write_all(content)
}

/// Makes sure that `name` in `dir` is a directory and opens it. An existing one is kept, anything else is an error.
pub fn ensure_directory(dir: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<OwnedFd> {
    let c_name = CString::new(name)?;
    // SAFETY: a live C string.
    match check_long(unsafe { libc::mkdirat(dir.as_raw_fd(), c_name.as_ptr(), mode) }.into()) {
        Err(e) if e.raw_os_error() != Some(libc::EEXIST) => return Err(e),
        _ => {}
    }
    open_directory(dir, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn links_are_never_followed() {
        let base = std::env::temp_dir().join(format!("infield-beneath-{}", std::process::id()));
        std::fs::create_dir_all(base.join("tree")).unwrap();
        std::fs::write(base.join("secret"), "host").unwrap();
        std::os::unix::fs::symlink("../secret", base.join("tree/hosts")).unwrap();
        std::os::unix::fs::symlink("..", base.join("tree/up")).unwrap();
        let dir = File::open(base.join("tree")).unwrap();
        assert!(open_directory(dir.as_fd(), "../tree").is_err());
        assert!(open_directory(dir.as_fd(), "up").is_err());
        assert!(ensure_directory(dir.as_fd(), "up", 0o755).is_err());
        replace_file(dir.as_fd(), "hosts", b"mine", 0o644).unwrap();
        replace_file(dir.as_fd(), "hosts", b"again", 0o644).unwrap();
        assert_eq!(std::fs::read_to_string(base.join("secret")).unwrap(), "host");
        assert_eq!(std::fs::read_to_string(base.join("tree/hosts")).unwrap(), "again");
        std::fs::remove_dir_all(base).unwrap();
    }
}
