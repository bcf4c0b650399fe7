//! Logs on their way to clients: whole or followed, over HTTP or a WebSocket, in the shape the client understands. Nothing is
//! ever held whole: a log is read as fast as its client takes it.

use super::command::{Command, Phase};
use super::frames::{self, FRAME_BYTES_MAX, Stream, View};
use super::version::Shape;
use super::{ENTRYPOINT_COMMAND, ENTRYPOINT_ID};
use crate::error::{Answer, Failure};
use crate::json_text::JsonText;
use crate::query::Query;
use crate::state::Shared;
use crate::ws::{self, Incoming, Outgoing, Upgrade};
use axum::body::Body;
use axum::extract::ws::Message;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::stream::try_unfold;
use http::{HeaderMap, HeaderValue, header};
use std::io;
use std::sync::Arc;
use tokio::sync::watch;

/// Read at once; also about the size of one message.
const BLOCK_BYTES: usize = 2 * FRAME_BYTES_MAX;
/// Answers of logs up to this size are built in one piece.
const WHOLE_ANSWER_BYTES_MAX: u64 = 64 << 10;
/// What a client says on a log's socket means nothing.
const SOCKET: ws::Limits =
    ws::Limits { message_bytes_max: 64 << 10, queued_messages_max: 8, queued_bytes_max: 128 << 10, write_limit: None };
const CONTENT_JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const CONTENT_TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const CONTENT_BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

pub async fn command(
    State(agent): State<Shared>,
    Path((id, command)): Path<(String, String)>,
    query: Query,
    headers: HeaderMap,
    upgrade: Option<Upgrade>,
) -> Answer {
    let strip = id != ENTRYPOINT_ID;
    let command = agent.sessions.find(&agent, &id)?.command(&command)?;
    answer(command, strip, query.is_true("follow"), &headers, upgrade).await
}

pub async fn entrypoint(
    State(agent): State<Shared>,
    query: Query,
    headers: HeaderMap,
    upgrade: Option<Upgrade>,
) -> Answer {
    let command = agent.sessions.find(&agent, ENTRYPOINT_ID)?.command(ENTRYPOINT_COMMAND)?;
    answer(command, false, query.is_true("follow"), &headers, upgrade).await
}

/// The entry point's log is never stripped.
async fn answer(
    command: Arc<Command>,
    strip: bool,
    follow: bool,
    headers: &HeaderMap,
    upgrade: Option<Upgrade>,
) -> Answer {
    let asker = super::asker(headers);
    let view = |shape| if shape == Shape::Stripped && strip { View::Stripped } else { View::Prefixed };
    if let Some(upgrade) = upgrade {
        let reader = Reader::new(command, view(asker.streamed_shape()), follow);
        return Ok(upgrade.accept(SOCKET, move |incoming, outgoing| socket(reader, incoming, outgoing)));
    }
    if follow {
        let reader = Reader::new(command, view(asker.streamed_shape()), true);
        return Ok(([(header::CONTENT_TYPE, CONTENT_BYTES)], reader.into_body()).into_response());
    }
    match asker.shape() {
        Shape::Apart => apart(&command, "{", "}").await,
        shape => Ok(([(header::CONTENT_TYPE, CONTENT_TEXT)], Reader::new(command, view(shape), false).into_body())
            .into_response()),
    }
}

/// The answer to a command that was waited for.
pub async fn executed(command: &Arc<Command>, shape: Shape) -> Answer {
    let head = format!("{{\"cmdId\":\"{}\",", command.id);
    let code = command.exit_code().unwrap_or(-1);
    match shape {
        Shape::Apart => apart(command, &head, &format!(",\"exitCode\":{code}}}")).await,
        shape => {
            let view = if shape == Shape::Stripped { View::Stripped } else { View::Prefixed };
            let tail = format!(",\"stdout\":null,\"stderr\":null,\"exitCode\":{code}}}");
            let parts = vec![Part::Plain(format!("{head}\"output\":")), Part::Log(view), Part::Plain(tail)];
            json(command, parts).await
        }
    }
}

async fn apart(command: &Arc<Command>, head: &str, tail: &str) -> Answer {
    let parts = vec![
        Part::Plain(format!("{head}\"output\":")),
        Part::Log(View::Prefixed),
        Part::Plain(",\"stdout\":".to_owned()),
        Part::Log(View::Only(Stream::Out)),
        Part::Plain(",\"stderr\":".to_owned()),
        Part::Log(View::Only(Stream::Err)),
        Part::Plain(tail.to_owned()),
    ];
    json(command, parts).await
}

/// A piece of a JSON answer.
enum Part {
    Plain(String),
    /// The log in this view, as a string.
    Log(View),
}

/// Every view shows the log as far as it is now.
async fn json(command: &Arc<Command>, parts: Vec<Part>) -> Answer {
    let until = command.log.bytes();
    let mut writer = JsonWriter { command: command.clone(), until, parts: parts.into_iter(), now: None };
    let body = if until <= WHOLE_ANSWER_BYTES_MAX {
        let mut whole = Vec::new();
        while let Some(piece) = writer.next().await.map_err(|e| unreadable(&e))? {
            whole.extend_from_slice(&piece);
        }
        Body::from(whole)
    } else {
        Body::from_stream(try_unfold(writer, async |mut writer| {
            let piece = writer.next().await?;
            Ok::<_, io::Error>(piece.map(|piece| (Bytes::from(piece), writer)))
        }))
    };
    Ok(([(header::CONTENT_TYPE, CONTENT_JSON)], body).into_response())
}

fn unreadable(e: &io::Error) -> Failure {
    Failure::internal(format!("the log cannot be read: {e}"))
}

struct JsonWriter {
    command: Arc<Command>,
    until: u64,
    parts: std::vec::IntoIter<Part>,
    now: Option<(Reader, JsonText)>,
}

impl JsonWriter {
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if let Some((reader, text)) = &mut self.now {
            let mut out = Vec::new();
            match reader.next().await? {
                Some(block) => text.push(&mut out, &block),
                None => {
                    text.finish(&mut out);
                    out.push(b'"');
                    self.now = None;
                }
            }
            return Ok(Some(out));
        }
        Ok(match self.parts.next() {
            Some(Part::Plain(text)) => Some(text.into_bytes()),
            Some(Part::Log(view)) => {
                let reader = Reader { until: Some(self.until), ..Reader::new(self.command.clone(), view, false) };
                self.now = Some((reader, JsonText::default()));
                Some(vec![b'"'])
            }
            None => None,
        })
    }
}

/// Reads a log from its beginning.
struct Reader {
    command: Arc<Command>,
    progress: watch::Receiver<super::command::Progress>,
    view: View,
    at: u64,
    /// Where to stop; `None` = when the command is done.
    until: Option<u64>,
}

impl Reader {
    fn new(command: Arc<Command>, view: View, follow: bool) -> Self {
        let until = (!follow).then(|| command.log.bytes());
        let progress = command.watch();
        Self { command, progress, view, at: 0, until }
    }

    /// The next block, which begins and ends with a frame; `None` at the end. Waits for more while it follows.
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let now = *self.progress.borrow_and_update();
            let until = self.until.unwrap_or(now.log_bytes);
            let mut block = Vec::new();
            while self.at < until && block.is_empty() {
                self.read(until, &mut block).await?;
            }
            if !block.is_empty() {
                return Ok(Some(block));
            }
            if self.until.is_some() || now.phase == Phase::Done || self.progress.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Memory ends with a whole frame, so every piece that is read holds at least one.
    async fn read(&mut self, until: u64, block: &mut Vec<u8>) -> io::Result<()> {
        let bytes_max = (until - self.at).min(BLOCK_BYTES as u64) as usize;
        let bytes = self.command.log.read(self.at, bytes_max).await?;
        let taken = frames::render(&bytes, self.view, usize::MAX, block);
        if taken == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the log is damaged"));
        }
        self.at += taken as u64;
        Ok(())
    }

    fn into_body(self) -> Body {
        Body::from_stream(try_unfold(self, async |mut reader| {
            let block = reader.next().await?;
            Ok::<_, io::Error>(block.map(|block| (Bytes::from(block), reader)))
        }))
    }
}

/// Nothing is dropped for a slow client; the log waits for it.
async fn socket(mut reader: Reader, incoming: Incoming, outgoing: Outgoing) {
    let reading = tokio::spawn(incoming.drain());
    loop {
        let block = tokio::select! {
            block = reader.next() => block,
            () = outgoing.ended() => break,
        };
        match block {
            Ok(Some(block)) => {
                if outgoing.send(Message::Binary(block.into())).await.is_err() {
                    break;
                }
            }
            Ok(None) => {
                outgoing.finish(ws::code::NORMAL, "");
                break;
            }
            Err(_) => {
                outgoing.finish(ws::code::ERROR, "the log cannot be read");
                break;
            }
        }
    }
    drop(outgoing);
    let _ = reading.await;
}
