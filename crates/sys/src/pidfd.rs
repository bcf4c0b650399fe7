//! Processes held by descriptor: a number can be reused, a pidfd cannot.

use crate::fd::{check, check_long, own};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::time::Duration;

/// Refers to a living (or not yet collected) process.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    own(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0u32) })
}

/// Sends a signal; `ESRCH` = it has ended.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo pointer is allowed.
    let ret = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, ptr::null::<libc::siginfo_t>(), 0u32)
    };
    check_long(ret).map(|_| ())
}

/// Waits until the process has ended; `false` = still running after `limit`.
pub fn wait(pidfd: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one live pollfd.
    match check(unsafe { libc::poll(&mut poll, 1, millis) }) {
        Ok(n) => Ok(n > 0),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(e) => Err(e),
    }
}

/// When a process started, in clock ticks since boot: with the pid it names one process for the lifetime of a boot.
pub fn start_time(pid: i32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))?;
    parse_start_time(&text)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{path}: unexpected text")))
}

/// Field 22 of `stat`; the command name in field 2 may hold blanks and parentheses, so counting starts after the last `)`.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn start_time_survives_hostile_command_names() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
        assert_eq!(parse_start_time(stat), Some(4242));
        assert!(start_time(std::process::id() as i32).unwrap() > 0);
    }

    #[test]
    fn ended_process_is_seen() {
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let fd = open(child.id() as i32).unwrap();
        assert!(!wait(fd.as_fd(), Duration::ZERO).unwrap());
        signal(fd.as_fd(), libc::SIGKILL).unwrap();
        assert!(wait(fd.as_fd(), Duration::from_secs(10)).unwrap());
        child.wait().unwrap();
    }
}
