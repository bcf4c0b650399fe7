//! A client's stream with a time limit on logging in: after it reading fails, unless somebody was let in.

use std::{
    io,
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

pub struct Guarded {
    stream: TcpStream,
    limit: Option<Pin<Box<Sleep>>>,
    admitted: Admitted,
}

impl Guarded {
    pub fn new(stream: TcpStream, limit: Duration) -> (Self, Admitted) {
        let admitted = Admitted::default();
        (Self { stream, limit: Some(Box::pin(sleep(limit))), admitted: admitted.clone() }, admitted)
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
        Pin::new(&mut self.stream).poll_read(cx, buf)
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
