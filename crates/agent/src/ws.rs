//! WebSockets of the toolbox: the handshake, subprotocols as a channel for headers, and a socket in two halves: [`Incoming`]
//! is read by its handler, [`Outgoing`] is a bounded queue that a task of its own writes. Pings are answered by whoever reads,
//! so a handler never stops reading. Knows no route and no message of any.

pub mod code;
mod offered;
mod queue;

pub use offered::Offered;
pub use queue::{Outgoing, Refused};

use crate::error::Failure;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::request::Parts;
use http::{HeaderValue, header};
use std::time::Duration;
use tokio::time::timeout;

/// Both buffers of a connection; larger messages make them larger.
const BUFFER_BYTES: usize = 4 << 10;
/// For a client to take our closing.
const CLOSING_LIMIT: Duration = Duration::from_secs(30);
/// For a client to answer it.
const FAREWELL_LIMIT: Duration = Duration::from_secs(5);
/// What a close frame holds after its code.
const REASON_BYTES_MAX: usize = 123;
/// Of a message that is over the limit, this much more is read so that the client gets told why it is closed.
const EXCESS_FACTOR: usize = 2;

/// What one kind of socket may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// One message of the client; longer ones end the connection with 1009.
    pub message_bytes_max: usize,
    /// Messages that wait for the client; also bounded in bytes.
    pub queued_messages_max: usize,
    pub queued_bytes_max: usize,
    /// A client that does not take one message in this time is gone. `None`: it may take as long as it likes.
    pub write_limit: Option<Duration>,
}

/// A request that wants to become a socket. As `Option` it is `None` for plain HTTP.
pub struct Upgrade {
    inner: WebSocketUpgrade,
    pub offered: Offered,
}

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let offered = Offered::of(&parts.headers);
        match <WebSocketUpgrade as FromRequestParts<S>>::from_request_parts(parts, state).await {
            Ok(inner) => Ok(Self { inner, offered }),
            Err(why) => Err(Failure::bad_request(format!("not a WebSocket handshake: {}", why.body_text()))),
        }
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for Upgrade {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Failure> {
        let wanted = parts.headers.get(header::UPGRADE);
        if !wanted.is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket")) {
            return Ok(None);
        }
        <Self as FromRequestParts<S>>::from_request_parts(parts, state).await.map(Some)
    }
}

impl Upgrade {
    /// Answers 101 and lets `handler` have the socket.
    pub fn accept<F, Fut>(self, limits: Limits, handler: F) -> Response
    where
        F: FnOnce(Incoming, Outgoing) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (outgoing, prepared) = self.prepare(limits);
        prepared.accept(move |incoming| handler(incoming, outgoing))
    }

    /// The client's queue ahead of its socket: what is put into it before the answer is written right behind it.
    pub fn prepare(self, limits: Limits) -> (Outgoing, Prepared) {
        let (outgoing, queue) = queue::queue(&limits);
        (outgoing, Prepared { upgrade: self, limits, queue })
    }
}

/// A handshake that is still to be answered. Without an answer, its queue says that the client is gone.
pub struct Prepared {
    upgrade: Upgrade,
    limits: Limits,
    queue: queue::Written,
}

impl Prepared {
    /// Answers 101. If the client does not get that any more, `handler` is dropped unused.
    pub fn accept<F, Fut>(self, handler: F) -> Response
    where
        F: FnOnce(Incoming) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let Self { upgrade: Upgrade { mut inner, offered }, limits, queue } = self;
        if let Some(token) = offered.selected().and_then(|t| HeaderValue::from_str(t).ok()) {
            inner.set_selected_protocol(token);
        }
        let bytes_max = limits.message_bytes_max.saturating_mul(EXCESS_FACTOR);
        let inner = inner.max_message_size(bytes_max).max_frame_size(bytes_max);
        let inner = inner.read_buffer_size(BUFFER_BYTES).write_buffer_size(0);
        inner.on_upgrade(move |socket| async move {
            let (sink, stream) = socket.split();
            let message_bytes_max = limits.message_bytes_max;
            let incoming = Incoming { stream, end: queue.end(), message_bytes_max, closed: false };
            tokio::spawn(write_out(sink, queue, limits.write_limit));
            handler(incoming).await;
        })
    }
}

/// Writes what waits until it is to be closed or the client takes nothing any more.
async fn write_out(mut sink: SplitSink<WebSocket, Message>, mut queue: queue::Written, limit: Option<Duration>) {
    while let Some(message) = queue.next().await {
        let sent = queue.unless_cut(async {
            match limit {
                Some(limit) => timeout(limit, sink.send(message)).await.is_ok_and(|r| r.is_ok()),
                None => sink.send(message).await.is_ok(),
            }
        });
        if sent.await == Some(false) {
            return;
        }
    }
    if let Some((code, reason)) = queue.farewell() {
        let close = Message::Close(Some(CloseFrame { code, reason: fitting(&reason).into() }));
        if timeout(CLOSING_LIMIT, sink.send(close)).await.is_ok_and(|r| r.is_ok()) {
            queue.said_farewell(FAREWELL_LIMIT);
        }
    }
}

/// The longest beginning of a reason that a close frame can hold.
fn fitting(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}

/// A message of the client.
#[derive(Debug)]
pub enum Inbound {
    Text(String),
    Binary(Bytes),
}

impl Inbound {
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Text(text) => text.into(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// The client's messages. Read it to the end: what we sent last could be lost otherwise.
pub struct Incoming {
    stream: SplitStream<WebSocket>,
    end: queue::End,
    message_bytes_max: usize,
    closed: bool,
}

impl Incoming {
    /// The next message; `None` once the client is gone or has had its time to answer our closing. Cancel safe.
    pub async fn next(&mut self) -> Option<Inbound> {
        while !self.closed {
            let message = tokio::select! {
                message = self.stream.next() => message,
                () = self.end.over() => None,
            };
            let inbound = match message {
                Some(Ok(Message::Text(text))) => Inbound::Text(text.as_str().to_owned()),
                Some(Ok(Message::Binary(bytes))) => Inbound::Binary(bytes),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                // The answer to it goes out while reading goes on.
                Some(Ok(Message::Close(_))) => {
                    self.end.client_left();
                    continue;
                }
                Some(Err(_)) => {
                    self.end.cut(code::PROTOCOL, "message not understood or too long");
                    self.closed = true;
                    break;
                }
                None => break,
            };
            let len = match &inbound {
                Inbound::Text(text) => text.len(),
                Inbound::Binary(bytes) => bytes.len(),
            };
            if len <= self.message_bytes_max {
                return Some(inbound);
            }
            self.end.cut(code::TOO_BIG, "message too long");
        }
        if !self.closed {
            self.closed = true;
            self.end.client_left();
        }
        None
    }

    /// Ignores whatever the client still says.
    pub async fn drain(mut self) {
        while self.next().await.is_some() {}
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.closed {
            self.end.client_left();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_fit() {
        assert_eq!(fitting(&"ä".repeat(100)).len(), 122);
        assert_eq!(fitting("short"), "short");
    }
}
