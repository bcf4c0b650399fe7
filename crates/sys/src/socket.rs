//! SEQPACKET pairs that carry bytes and descriptors together. Message boundaries are kept, so no framing is needed.

use crate::fd::{check, check_long};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Most descriptors in one message (the kernel's own bound is 253).
pub const FDS_PER_MESSAGE_MAX: usize = 64;
/// Room for one control message with that many descriptors, as aligned words.
const CONTROL_WORDS: usize = (FDS_PER_MESSAGE_MAX * size_of::<RawFd>()) / 8 + 4;

/// A connected pair; both ends close on exec.
pub fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut pair = [-1; 2];
    // SAFETY: `pair` has room for the two descriptors the kernel writes.
    check(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr()) })?;
    // SAFETY: both were just created for us.
    Ok(unsafe { (OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1])) })
}

/// Sends one message. The descriptors are duplicated into the receiver.
pub fn send(socket: BorrowedFd<'_>, data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.len() > FDS_PER_MESSAGE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    let raw: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let bytes = size_of::<RawFd>() * raw.len();
    let mut control = [0u64; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: an all-zero msghdr is valid; every pointer put into it lives until sendmsg returns; `control` is aligned and
    // large enough for FDS_PER_MESSAGE_MAX descriptors.
    let sent = unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        if !raw.is_empty() {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(bytes as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(bytes as u32) as _;
            ptr::copy_nonoverlapping(raw.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), bytes);
        }
        retry(|| libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL))
    };
    check_long(sent as libc::c_long).map(|_| ())
}

/// Receives one message into `buffer`; `Ok((0, _))` = the other end is gone. A message that does not fit is an error.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = [0u64; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut fds = Vec::new();
    // SAFETY: as in `send`; descriptors found in the control message were created for us by the kernel.
    let (got, flags) = unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<[u64; CONTROL_WORDS]>() as _;
        let got = retry(|| libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC));
        let got = check_long(got as libc::c_long)? as usize;
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let count = ((*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                for i in 0..count {
                    let mut raw: RawFd = -1;
                    let at = libc::CMSG_DATA(header).add(i * size_of::<RawFd>());
                    ptr::copy_nonoverlapping(at, ptr::from_mut(&mut raw).cast::<u8>(), size_of::<RawFd>());
                    fds.push(OwnedFd::from_raw_fd(raw));
                }
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
        (got, message.msg_flags)
    };
    if flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message was cut off"));
    }
    Ok((got, fds))
}

/// Bounds how long `receive` and `send` wait on this socket; they then fail with `WouldBlock`.
pub fn set_timeout(socket: BorrowedFd<'_>, limit: std::time::Duration) -> io::Result<()> {
    let time = libc::timeval { tv_sec: limit.as_secs() as _, tv_usec: limit.subsec_micros() as _ };
    for option in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        // SAFETY: `time` is a live timeval of the stated size.
        check(unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                ptr::from_ref(&time).cast(),
                size_of::<libc::timeval>() as u32,
            )
        })?;
    }
    Ok(())
}

fn retry(mut call: impl FnMut() -> isize) -> isize {
    loop {
        let got = call();
        if got >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return got;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn bytes_and_descriptors_arrive_together() {
        let (a, b) = seqpacket_pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        send(a.as_fd(), b"hello", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut buffer = [0; 16];
        let (n, fds) = receive(b.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..n], fds.len()), (&b"hello"[..], 1));
        std::fs::File::from(fds.into_iter().next().unwrap()).write_all(b"through").unwrap();
        let mut text = String::new();
        let mut reader = reader;
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        drop(a);
        assert_eq!(receive(b.as_fd(), &mut buffer).unwrap().0, 0);
    }
}
