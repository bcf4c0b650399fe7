//! Raw netlink: building messages, sending them as one transaction, decoding what the kernel answers.
//!
//! Exists because the usual crates cannot create a veth whose peer is born inside another network namespace (50 times
//! quicker than moving it there), and because one `nft` command costs more than a whole sandbox. Knows bytes, attributes,
//! acknowledgements and dumps; does not know what a link, a route or a rule is.

use std::{
    collections::BTreeSet,
    fmt,
    fs::File,
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::Duration,
};

pub const REQUEST: u16 = 0x1;
pub const ACK: u16 = 0x4;
pub const DUMP: u16 = 0x300;
pub const REPLACE: u16 = 0x100;
pub const EXCL: u16 = 0x200;
pub const CREATE: u16 = 0x400;
pub const APPEND: u16 = 0x800;

const HEADER_BYTES: usize = 16;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
const MSG_ERROR: u16 = 2;
const MSG_DONE: u16 = 3;
const FLAG_DUMP_INTERRUPTED: u16 = 0x10;
const FLAG_CAPPED: u16 = 0x100;
const FLAG_ACK_TLVS: u16 = 0x200;
const ERROR_ATTR_MSG: u16 = 1;
const RECEIVE_BYTES: usize = 64 << 10;
/// Acknowledgements of one large batch wait here until we read them.
const KERNEL_RECEIVE_BUFFER_BYTES: libc::c_int = 4 << 20;
/// A batch is sent whole or not at all; tens of thousands of set elements fit.
const KERNEL_SEND_BUFFER_BYTES: libc::c_int = 16 << 20;
/// A dump that other people's changes keep interrupting is tried this often.
const DUMP_TRIES_MAX: u32 = 8;
const DUMP_WAIT_MAX: Duration = Duration::from_secs(10);

/// Which kernel subsystem a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Route,
    Netfilter,
}

/// Why the kernel (or the way to it) refused. `what` names the message of the batch that failed.
#[derive(Debug)]
pub struct NetlinkError {
    pub what: &'static str,
    /// The kernel's extended acknowledgement, when it gave one.
    pub hint: Option<String>,
    pub source: io::Error,
}

impl NetlinkError {
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

impl fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hint {
            Some(hint) => write!(f, "{} (the kernel says: {hint})", self.what),
            None => f.write_str(self.what),
        }
    }
}

impl std::error::Error for NetlinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Messages that are sent together. Route messages take effect one by one; netfilter ones between a begin and an end
/// message take effect together or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    messages: Vec<(usize, &'static str, bool)>,
    overflow: bool,
}

impl Batch {
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(1024), messages: Vec::new(), overflow: false }
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Adds one message. `header` is the fixed part behind the netlink header; `body` adds the attributes.
    pub fn message(&mut self, what: &'static str, kind: u16, flags: u16, header: &[u8], body: impl FnOnce(&mut Attrs)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(header);
        pad(&mut self.bytes);
        body(&mut Attrs { bytes: &mut self.bytes, overflow: &mut self.overflow });
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.messages.push((start, what, flags & ACK != 0));
    }
}

/// Attributes of one message or one nest.
#[derive(Debug)]
pub struct Attrs<'a> {
    bytes: &'a mut Vec<u8>,
    overflow: &'a mut bool,
}

impl Attrs<'_> {
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.wrap(kind, |a| a.bytes.extend_from_slice(value));
    }
    /// NUL-terminated, as the kernel wants names.
    pub fn str(&mut self, kind: u16, value: &str) {
        self.wrap(kind, |a| {
            a.bytes.extend_from_slice(value.as_bytes());
            a.bytes.push(0);
        });
    }
    /// Host byte order (rtnetlink).
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }
    /// Network byte order (nfnetlink).
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }
    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Attrs)) {
        self.wrap(kind | NESTED, body);
    }
    /// Bytes without an attribute header: a fixed structure inside a nest.
    pub fn raw(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        pad(self.bytes);
    }

    fn wrap(&mut self, kind: u16, body: impl FnOnce(&mut Attrs)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        body(&mut Attrs { bytes: self.bytes, overflow: self.overflow });
        match u16::try_from(self.bytes.len() - start) {
            Ok(length) => self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => *self.overflow = true,
        }
        pad(self.bytes);
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// One message from the kernel: its kind and everything behind the netlink header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: u16,
    pub payload: Vec<u8>,
}

impl Message {
    /// The attributes behind a fixed header of `header_bytes`.
    pub fn attributes(&self, header_bytes: usize) -> Attributes<'_> {
        Attributes { bytes: self.payload.get(header_bytes.next_multiple_of(4)..).unwrap_or_default() }
    }
}

/// Walks attributes; ends at the first malformed one.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }
    /// The first attribute of this kind.
    pub fn find_kind(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().find(|(k, _)| *k == kind).map(|(_, value)| value)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.bytes.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let value = self.bytes.get(4..length)?;
        self.bytes = self.bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// The text of a NUL-terminated attribute.
pub fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

/// A netlink socket bound to the network namespace in which it was opened, for ever.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(protocol: Protocol) -> io::Result<Self> {
        let number = match protocol {
            Protocol::Route => libc::NETLINK_ROUTE,
            Protocol::Netfilter => libc::NETLINK_NETFILTER,
        };
        // SAFETY: socket() takes no pointers; the result is checked before it is owned.
        let raw = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, number) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `raw` is a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        set_option(&fd, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, &1i32)?;
        set_option(&fd, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, &1i32)?;
        set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &KERNEL_RECEIVE_BUFFER_BYTES)
            .or_else(|_| set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &KERNEL_RECEIVE_BUFFER_BYTES))?;
        set_option(&fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &KERNEL_SEND_BUFFER_BYTES)
            .or_else(|_| set_option(&fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &KERNEL_SEND_BUFFER_BYTES))?;
        let wait = libc::timeval { tv_sec: DUMP_WAIT_MAX.as_secs() as libc::time_t, tv_usec: 0 };
        set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &wait)?;
        Ok(Self { fd, seq: 1, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// Sends the batch and returns what the kernel answered beside acknowledgements. The first refusal is the error; in
    /// route batches the other messages took effect nevertheless.
    ///
    /// The kernel handles netlink requests inside `send`, so every acknowledgement is there when it returns: nothing here
    /// can hang, and a missing acknowledgement is an error.
    pub fn transact(&mut self, batch: &Batch) -> Result<Vec<Message>, NetlinkError> {
        let Some((_, first, _)) = batch.messages.first().copied() else { return Ok(Vec::new()) };
        if batch.overflow {
            return Err(fail(first, None, io::Error::other("a netlink attribute is longer than 64 KiB")));
        }
        let base = self.send(batch).map_err(|e| fail(first, None, e))?;
        let mut missing: BTreeSet<usize> =
            batch.messages.iter().enumerate().filter(|(_, m)| m.2).map(|(index, _)| index).collect();
        let mut answers = Vec::new();
        let mut refusal: Option<(usize, NetlinkError)> = None;
        loop {
            let length = match self.receive(libc::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(fail(first, None, e)),
            };
            for raw in Frames::new(&self.buffer[..length]) {
                let index = raw.seq.wrapping_sub(base) as usize;
                let Some((_, what, _)) = batch.messages.get(index) else { continue };
                if raw.kind != MSG_ERROR {
                    answers.push(Message { kind: raw.kind, payload: raw.payload.to_vec() });
                    continue;
                }
                missing.remove(&index);
                if let Err((hint, source)) = decode_ack(&raw)
                    && refusal.as_ref().is_none_or(|(earlier, _)| index < *earlier)
                {
                    refusal = Some((index, fail(what, hint, source)));
                }
            }
        }
        match (refusal, missing.first()) {
            (Some((_, error)), _) => Err(error),
            (None, Some(index)) => {
                Err(fail(batch.messages[*index].1, None, io::Error::other("the kernel did not acknowledge")))
            }
            (None, None) => Ok(answers),
        }
    }

    /// Lists objects. `batch` holds exactly one message with [`DUMP`].
    pub fn dump(&mut self, batch: &Batch) -> Result<Vec<Message>, NetlinkError> {
        let what = batch.messages.first().map_or("empty dump", |m| m.1);
        for _ in 0..DUMP_TRIES_MAX {
            if let Some(messages) = self.dump_once(batch, what)? {
                return Ok(messages);
            }
        }
        Err(fail(what, None, io::Error::from_raw_os_error(libc::EINTR)))
    }

    fn dump_once(&mut self, batch: &Batch, what: &'static str) -> Result<Option<Vec<Message>>, NetlinkError> {
        let base = self.send(batch).map_err(|e| fail(what, None, e))?;
        let mut messages = Vec::new();
        let mut interrupted = false;
        loop {
            let length = match self.receive(0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(|e| fail(what, None, e))?,
            };
            for raw in Frames::new(&self.buffer[..length]) {
                if raw.seq != base {
                    continue;
                }
                interrupted |= raw.flags & FLAG_DUMP_INTERRUPTED != 0;
                match raw.kind {
                    MSG_DONE => {
                        decode_ack(&raw).map_err(|(hint, source)| fail(what, hint, source))?;
                        return Ok((!interrupted).then_some(messages));
                    }
                    MSG_ERROR => decode_ack(&raw).map_err(|(hint, source)| fail(what, hint, source))?,
                    kind => messages.push(Message { kind, payload: raw.payload.to_vec() }),
                }
            }
        }
    }

    fn send(&mut self, batch: &Batch) -> io::Result<u32> {
        let base = self.seq;
        self.seq = self.seq.wrapping_add(batch.messages.len() as u32).max(1);
        let mut bytes = batch.bytes.clone();
        for (index, (start, _, _)) in batch.messages.iter().enumerate() {
            let seq = base.wrapping_add(index as u32);
            bytes[start + 8..start + 12].copy_from_slice(&seq.to_ne_bytes());
        }
        // SAFETY: the pointer and the length describe `bytes`, which outlives the call.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        match sent {
            n if n < 0 => Err(io::Error::last_os_error()),
            n if n as usize != bytes.len() => Err(io::Error::other("netlink took only a part of the batch")),
            _ => Ok(base),
        }
    }

    fn receive(&mut self, flags: libc::c_int) -> io::Result<usize> {
        // SAFETY: the pointer and the length describe our own buffer, which the kernel may overwrite.
        let length = unsafe {
            libc::recv(self.fd.as_raw_fd(), self.buffer.as_mut_ptr().cast(), self.buffer.len(), flags | libc::MSG_TRUNC)
        };
        match length {
            n if n < 0 => Err(io::Error::last_os_error()),
            n if n as usize > self.buffer.len() => Err(io::Error::other("netlink message longer than the buffer")),
            n => Ok(n as usize),
        }
    }
}

fn set_option<T>(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is a plain C value of the size we state and is only read.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn fail(what: &'static str, hint: Option<String>, source: io::Error) -> NetlinkError {
    NetlinkError { what, hint, source }
}

struct Frame<'a> {
    kind: u16,
    flags: u16,
    seq: u32,
    payload: &'a [u8],
}

struct Frames<'a> {
    bytes: &'a [u8],
}

impl<'a> Frames<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let length = u32::from_ne_bytes(self.bytes.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(self.bytes.get(4..6)?.try_into().ok()?);
        let flags = u16::from_ne_bytes(self.bytes.get(6..8)?.try_into().ok()?);
        let seq = u32::from_ne_bytes(self.bytes.get(8..12)?.try_into().ok()?);
        let payload = self.bytes.get(HEADER_BYTES..length)?;
        self.bytes = self.bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Frame { kind, flags, seq, payload })
    }
}

/// Errors travel as a negative errno, the header of the refused message, then optional attributes with a text.
fn decode_ack(raw: &Frame) -> Result<(), (Option<String>, io::Error)> {
    let code = raw.payload.get(..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if code >= 0 {
        return Ok(());
    }
    let attrs_at = match raw.kind {
        MSG_DONE => Some(4),
        _ if raw.flags & FLAG_CAPPED != 0 => Some(4 + HEADER_BYTES),
        _ => raw.payload.get(4..8).and_then(|b| b.try_into().ok()).map(|b| 4 + u32::from_ne_bytes(b) as usize),
    };
    let hint = attrs_at
        .filter(|_| raw.flags & FLAG_ACK_TLVS != 0)
        .and_then(|at| raw.payload.get(at.next_multiple_of(4)..))
        .and_then(|bytes| Attributes::new(bytes).find_kind(ERROR_ATTR_MSG))
        .map(text);
    Err((hint, io::Error::from_raw_os_error(-code)))
}

/// Runs `work` with the calling thread inside another network namespace, and brings the thread back.
///
/// A thread that cannot come back would do host work inside a sandbox's network: the process ends instead.
pub fn with_netns<T>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T) -> io::Result<T> {
    struct Return(File);
    impl Drop for Return {
        fn drop(&mut self) {
            // SAFETY: setns() takes no pointers.
            if unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) } < 0 {
                std::process::abort();
            }
        }
    }
    let home = File::open("/proc/thread-self/ns/net")?;
    // SAFETY: setns() takes no pointers.
    if unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let home = Return(home);
    let result = work();
    drop(home);
    Ok(result)
}

/// A fresh network namespace; the calling thread stays where it is.
pub fn new_netns() -> io::Result<OwnedFd> {
    let home = File::open("/proc/thread-self/ns/net")?;
    // Entering our own namespace first gives `with_netns`'s guard to the unshare below.
    with_netns(home.as_fd(), || {
        // SAFETY: unshare() takes no pointers and affects only this thread; the guard restores its namespace.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
            return Err(io::Error::last_os_error());
        }
        File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
    })?
}

#[cfg(test)]
#[path = "netlink_tests.rs"]
mod tests;
