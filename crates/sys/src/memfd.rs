//! Anonymous files: the sealed executable the agent runs from, and small read-only messages.
//!
//! The agent is executed from a sealed memfd so that root inside a sandbox can never reach and overwrite a host file through
//! `/proc/1/exe` (the runc flaw CVE-2019-5736).

use crate::fd::{check, check_long, own};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};

const SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
/// Linux 6.3; without it newer kernels may make a memfd that cannot be executed.
const MFD_EXEC: u32 = 0x10;

/// An executable with this content that nobody can change any more.
pub fn sealed_executable(name: &CStr, content: &[u8]) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let created = create(name, flags | MFD_EXEC).or_else(|e| match e.raw_os_error() {
        // Kernels before 6.3 do not know the flag and make every memfd executable.
        Some(libc::EINVAL) => create(name, flags),
        _ => Err(e),
    })?;
    let mut file = File::from(created);
    file.write_all(content)?;
    // SAFETY: plain calls on a descriptor we own.
    unsafe {
        check(libc::fchmod(file.as_raw_fd(), 0o555))?;
        check(libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS))?;
    }
    // A file open for writing cannot be executed (ETXTBSY): keep only a read-only descriptor.
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    // SAFETY: a live C string.
    own(unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) }.into())
}

/// A sealed anonymous file positioned at its start, to be read by whoever inherits it.
pub fn sealed_message(name: &CStr, content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(create(name, libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)?);
    file.write_all(content)?;
    // SAFETY: plain call on a descriptor we own.
    unsafe { check(libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS))? };
    file.rewind()?;
    Ok(file.into())
}

fn create(name: &CStr, flags: u32) -> io::Result<OwnedFd> {
    // SAFETY: a live C string.
    let raw = check_long(unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), flags) })?;
    own(raw)
}
