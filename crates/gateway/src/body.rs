//! Bodies on their way through: frames pass one by one, never collected.

use crate::activity::Open;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

/// A client's request body that can be sent a second time as long as no byte of it was taken.
#[derive(Clone)]
pub struct RelayBody {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    incoming: Incoming,
    touched: bool,
}

impl RelayBody {
    pub fn new(incoming: Incoming) -> Self {
        Self { shared: Arc::new(Mutex::new(Shared { incoming, touched: false })) }
    }

    pub fn untouched(&self) -> bool {
        !self.lock().touched
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body for RelayBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut shared = self.lock();
        let polled = Pin::new(&mut shared.incoming).poll_frame(cx);
        shared.touched |= polled.is_ready();
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.lock().incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().incoming.size_hint()
    }
}

/// An agent's response body; while it flows the sandbox counts as used.
pub struct Outgoing {
    incoming: Incoming,
    _open: Open,
}

impl Outgoing {
    pub fn new(incoming: Incoming, open: Open) -> Self {
        Self { incoming, _open: open }
    }
}

/// What the gateway answers with: an agent's stream or a short text of its own.
pub struct GatewayBody(Kind);

enum Kind {
    Relay(Outgoing),
    Text(Full<Bytes>),
}

impl GatewayBody {
    pub(crate) fn relay(outgoing: Outgoing) -> Self {
        Self(Kind::Relay(outgoing))
    }

    pub(crate) fn text(text: String) -> Self {
        Self(Kind::Text(Full::from(text)))
    }

    pub(crate) fn empty() -> Self {
        Self(Kind::Text(Full::default()))
    }
}

impl Body for GatewayBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Kind::Relay(body) => Pin::new(&mut body.incoming).poll_frame(cx),
            Kind::Text(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Relay(body) => body.incoming.is_end_stream(),
            Kind::Text(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Relay(body) => body.incoming.size_hint(),
            Kind::Text(body) => body.size_hint(),
        }
    }
}
