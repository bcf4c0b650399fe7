//! Namespaces: leaving, entering, and making pairs of user and network namespace that no process lives in yet.

use crate::caps;
use crate::fd::{check, own};
use std::ffi::{CString, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

/// Stack of the helper that holds fresh namespaces; it only pauses.
const HELPER_STACK_BYTES: usize = 32 << 10;

/// A mount namespace of its own for this (single-threaded) process.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }).map(|_| ())
}

/// Names the host of the process behind `pidfd`, by visiting its UTS namespace with this thread alone. A thread that could
/// not come back would tell later callers a sandbox's name for the host's: then the whole program ends.
pub fn set_hostname_of(pidfd: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let enter = |fd: BorrowedFd<'_>| {
        // SAFETY: no pointers.
        check(unsafe { libc::setns(fd.as_raw_fd(), libc::CLONE_NEWUTS) })
    };
    let own = File::open("/proc/thread-self/ns/uts")?;
    enter(pidfd)?;
    // SAFETY: a live buffer of the stated size.
    let named = check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) });
    if enter(own.as_fd()).is_err() {
        std::process::abort();
    }
    named.map(|_| ())
}

/// A user namespace with `count` ids from `first`, and a network namespace that belongs to it.
#[derive(Debug)]
pub struct Pair {
    pub user: OwnedFd,
    pub net: OwnedFd,
}

/// Makes a pair. `proc` is an open `/proc` (`O_PATH` suffices), so that callers without a mounted one can use it.
/// The caller must ignore SIGCHLD or not mind one.
///
/// The namespace belongs to `first`, not to root: what the kernel counts per user (inotify instances, timers, message queues,
/// pending signals) it counts against the owner, too, so that otherwise all namespaces and host root shared one budget.
pub fn make_pair(proc: BorrowedFd<'_>, first: u32, count: u32) -> io::Result<Pair> {
    let mut stack = vec![0u128; HELPER_STACK_BYTES / size_of::<u128>()];
    let top = stack.as_mut_ptr_range().end;
    let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::SIGCHLD;
    // SAFETY: `top` is the aligned end of a stack that stays alive until the helper has been killed and waited for below;
    // the helper touches nothing but its own stack.
    let start = || check(unsafe { libc::clone(pause_forever, top.cast(), flags, ptr::null_mut()) });
    let pid = caps::with_effective_id(first, start)??;
    let made = map_and_open(proc, pid, first, count);
    // SAFETY: ends our own helper; it is not collected before the wait, so the number is still its own.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        while libc::waitpid(pid, ptr::null_mut(), 0) < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
    made
}

extern "C" fn pause_forever(_: *mut c_void) -> c_int {
    // SAFETY: no pointers; ends with the process that started it.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        loop {
            libc::pause();
        }
    }
}

fn map_and_open(proc: BorrowedFd<'_>, pid: i32, first: u32, count: u32) -> io::Result<Pair> {
    let map = format!("0 {first} {count}");
    for file in ["uid_map", "gid_map"] {
        let fd = open_below(proc, &format!("{pid}/{file}"), libc::O_WRONLY)?;
        // SAFETY: writes a live buffer of the stated size.
        let wrote = unsafe { libc::write(fd.as_raw_fd(), map.as_ptr().cast(), map.len()) };
        if wrote != map.len() as isize {
            let error = io::Error::last_os_error();
            return Err(io::Error::new(error.kind(), format!("{file} of a new user namespace ({map}): {error}")));
        }
    }
    Ok(Pair {
        user: open_below(proc, &format!("{pid}/ns/user"), libc::O_RDONLY)?,
        net: open_below(proc, &format!("{pid}/ns/net"), libc::O_RDONLY)?,
    })
}

fn open_below(dir: BorrowedFd<'_>, path: &str, flags: i32) -> io::Result<OwnedFd> {
    let name = CString::new(path)?;
    // SAFETY: a live C string.
    own(unsafe { libc::openat(dir.as_raw_fd(), name.as_ptr(), flags | libc::O_CLOEXEC) }.into())
}
