//! Small helpers around descriptors and raw return values.

use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Turns `-1` into the current `errno`.
pub(crate) fn check(ret: i32) -> io::Result<i32> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// The same for the wider return value of `syscall`.
pub(crate) fn check_long(ret: libc::c_long) -> io::Result<libc::c_long> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// Takes ownership of a descriptor the kernel just returned.
pub(crate) fn own(ret: libc::c_long) -> io::Result<OwnedFd> {
    let raw = check_long(ret)? as RawFd;
    // SAFETY: the kernel has just handed us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A path as the kernel wants it; a path with a NUL byte is refused.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{}: path contains a NUL byte", path.display()))
    })
}
