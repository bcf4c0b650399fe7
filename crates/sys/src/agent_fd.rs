//! Descriptors that a process inherits by number from the one that started it.

use crate::fd::{check, own};
use std::io;
use std::os::fd::{OwnedFd, RawFd};

/// Takes over the inherited descriptor `raw`: it moves to a new number that closes on exec, and the old number is closed.
///
/// Meant for the first moments of a program, when nothing else in it can own `raw`. An unused number is an error.
pub fn take_inherited(raw: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl on a number that may be invalid only answers EBADF.
    let fd = own(unsafe { libc::fcntl(raw, libc::F_DUPFD_CLOEXEC, 3) }.into())?;
    // SAFETY: the number was handed over by the parent for us to take; no object of this program owns it.
    check(unsafe { libc::close(raw) })?;
    Ok(fd)
}
