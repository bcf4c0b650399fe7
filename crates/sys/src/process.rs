//! What a process says about itself: limits, signals, keyring, name. Each acts on the caller (or only its thread, where said).

use crate::fd::{check, check_long};
use std::ffi::CStr;
use std::io;
use std::mem::zeroed;

/// Which limit [`set_limit`] sets.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    CoreBytes,
    OpenFiles,
}

/// Ended children vanish by themselves; `waitpid` then only waits.
pub fn ignore_child_signals() {
    // SAFETY: SIG_IGN is a valid disposition for SIGCHLD.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Gives SIGSEGV and SIGBUS their default action again. Rust's own handlers only add a message to a fault, but a PID 1 with
/// handlers gets those signals from its commands, and a few at once overflow the small stack they run on.
pub fn forget_fault_handlers() {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: SIG_DFL is a valid disposition for both.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Leaves the inherited session keyring for an empty one, so that children cannot search the host's keys.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) };
    match check_long(ret) {
        // A kernel without keyrings has nothing to leak.
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Sets soft and hard limit; a hard limit above the present one is lowered to it.
pub fn set_limit(limit: Limit, soft: u64, hard: u64) -> io::Result<()> {
    let which = match limit {
        Limit::CoreBytes => libc::RLIMIT_CORE,
        Limit::OpenFiles => libc::RLIMIT_NOFILE,
    };
    // SAFETY: plain data read and written by the kernel.
    unsafe {
        let mut now: libc::rlimit = zeroed();
        check(libc::getrlimit(which, &mut now))?;
        let hard = hard.min(now.rlim_max);
        let new = libc::rlimit { rlim_cur: soft.min(hard), rlim_max: hard };
        check(libc::setrlimit(which, &new)).map(|_| ())
    }
}

/// The short name shown by `ps`.
pub fn set_name(name: &CStr) {
    // SAFETY: a live C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Nanoseconds of the monotonic clock.
pub fn monotonic_ns() -> u64 {
    // SAFETY: writes one live timespec.
    unsafe {
        let mut now: libc::timespec = zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }
}
