//! A client's stream with a time limit on logging in: after it reading fails, unless somebody was let in. What is small is
//! acknowledged at once: OpenSSH sends several small packets in a row and holds each back until the one before has arrived.

use std::{
    io,
    os::{fd::AsFd, linux::net::TcpStreamExt},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

/// To be set once somebody is let in.
pub type Admitted = Arc<AtomicBool>;

/// Reads of fewer bytes are not part of a stream of data.
const SMALL_BYTES: usize = 2 << 10;

pub struct Guarded {
    stream: TcpStream,
    /// The same socket, for what only the standard library can set.
    socket: Option<std::net::TcpStream>,
    limit: Option<Pin<Box<Sleep>>>,
    admitted: Admitted,
}

impl Guarded {
    pub fn new(stream: TcpStream, limit: Duration) -> (Self, Admitted) {
        let admitted = Admitted::default();
        let socket = stream.as_fd().try_clone_to_owned().ok().map(Into::into);
        (Self { stream, socket, limit: Some(Box::pin(sleep(limit))), admitted: admitted.clone() }, admitted)
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(limit) = &mut self.limit else { return Ok(()) };
        if self.admitted.load(Ordering::Relaxed) {
            self.limit = None;
            return Ok(());
        }
        match limit.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let (Poll::Ready(Ok(())), Some(socket)) = (&read, &self.socket)
            && buf.filled().len() - before < SMALL_BYTES
        {
            let _ = socket.set_quickack(true);
        }
        read
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
