//! WebSocket `GET /process/execute/stream`: a command with its input and output as they come (an Infield extension).
//!
//! Three tasks share one socket: one reads the client's messages, one writes ours, and the one that owns the child decides.
//! A slow client slows the command down; nothing is dropped and little is buffered.

use crate::children::Exit;
use crate::error::Failure;
use crate::execute::{Line, Notice, Stdin};
use crate::launch::{Child, signal_group};
use crate::state::Shared;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use infield_api::toolbox::{STREAM_STDERR, STREAM_STDOUT, StreamControl, StreamEnd, StreamRequest};
use rustix::process::Signal;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// One message of the client.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Input messages that wait for the command to read.
const INPUT_MESSAGES_MAX: usize = 8;
/// Output messages that wait for the client to read.
const OUTPUT_MESSAGES_MAX: usize = 4;
const OUTPUT_MESSAGE_BYTES_MAX: usize = 64 << 10;
/// How long output of children that outlive the command is waited for.
const DRAIN_SECONDS_MAX: u64 = 30;
/// Between SIGHUP and SIGKILL when the client is gone.
const HANGUP_GRACE_SECONDS: u64 = 2;
/// For the client to answer our closing.
const FAREWELL_SECONDS_MAX: u64 = 5;

pub async fn execute_stream(State(agent): State<Shared>, upgrade: WebSocketUpgrade) -> Response {
    // A client that offers subprotocols needs one of them back; which one means nothing here.
    let offered: Vec<String> =
        upgrade.requested_protocols().filter_map(|p| p.to_str().ok().map(str::to_owned)).collect();
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX);
    upgrade.protocols(offered).on_upgrade(move |socket| session(agent, socket))
}

async fn session(agent: Shared, mut socket: WebSocket) {
    let line = match first_message(&agent, &mut socket).await {
        Ok(first) => first,
        Err(Some(failure)) => return refuse(socket, &failure.message).await,
        Err(None) => return,
    };
    let (line, stdin) = line;
    let (mut sink, source) = socket.split();
    match line.start(&agent, stdin, true).await {
        Ok((child, notice)) => drive(child, notice, sink, source).await,
        Err(no_start) => {
            let _ = sink.send(Message::Binary(tagged(STREAM_STDERR, no_start.text.as_bytes()))).await;
            finish(sink, no_start.code).await;
            farewell(source).await;
        }
    }
}

/// Reads on until the client has closed too: a socket closed on unread data would throw away what we sent last.
async fn farewell<S: StreamExt + Unpin>(mut source: S) {
    let reading = async { while source.next().await.is_some() {} };
    let _ = timeout(Duration::from_secs(FAREWELL_SECONDS_MAX), reading).await;
}

async fn first_message(agent: &Shared, socket: &mut WebSocket) -> Result<(Line, Stdin), Option<Failure>> {
    let text = loop {
        match socket.recv().await {
            Some(Ok(Message::Text(text))) => break text,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Binary(_))) => {
                return Err(Some(Failure::bad_request("the first message must be JSON text with the command")));
            }
            _ => return Err(None),
        }
    };
    let request: StreamRequest = serde_json::from_str(&text).map_err(|e| Some(Failure::invalid_body(e)))?;
    let stdin = if request.stdin { Stdin::Caller } else { Stdin::Script };
    Ok((Line::new(agent, request.command, request.cwd, request.envs.as_ref())?, stdin))
}

async fn refuse(mut socket: WebSocket, why: &str) {
    let mut reason = why.to_owned();
    while reason.len() > 120 {
        reason.pop();
    }
    let _ = socket.send(Message::Close(Some(CloseFrame { code: close_code::POLICY, reason: reason.into() }))).await;
    farewell(socket).await;
}

/// What the client's messages ask of the child's owner.
enum Wish {
    Signal(Signal),
    Gone,
}

async fn drive(
    mut child: Child,
    notice: Notice,
    mut sink: SplitSink<WebSocket, Message>,
    source: SplitStream<WebSocket>,
) {
    let (messages, mut outgoing) = mpsc::channel::<Message>(OUTPUT_MESSAGES_MAX);
    let (wishes, mut wished) = mpsc::channel(OUTPUT_MESSAGES_MAX);
    let mut reader = tokio::spawn(listen(source, child.input.take(), wishes));
    let writer = tokio::spawn(async move {
        while let Some(message) = outgoing.recv().await {
            if sink.send(message).await.is_err() {
                return None;
            }
        }
        Some(sink)
    });
    let end = follow(&mut child, &notice, messages, &mut wished).await;
    match end {
        Some(exit) => {
            if let Ok(Some(sink)) = writer.await {
                finish(sink, exit.code()).await;
                drop(wished);
                let _ = timeout(Duration::from_secs(FAREWELL_SECONDS_MAX), &mut reader).await;
            }
        }
        None => {
            writer.abort();
            hang_up(child).await;
        }
    }
    reader.abort();
}

async fn finish(mut sink: SplitSink<WebSocket, Message>, exit_code: i32) {
    let end = serde_json::to_string(&StreamEnd { exit_code }).unwrap_or_default();
    let _ = sink.send(Message::Text(end.into())).await;
    let _ = sink.send(Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: "".into() }))).await;
}

/// Passes output on until everything has ended. `None`: the client is gone.
async fn follow(
    child: &mut Child,
    notice: &Notice,
    messages: mpsc::Sender<Message>,
    wished: &mut mpsc::Receiver<Wish>,
) -> Option<Exit> {
    let mut err = child.err.take()?;
    let (mut out_open, mut err_open) = (true, true);
    let mut waiting: Option<Bytes> = None;
    let mut ended = None;
    let drained = sleep_until(Instant::now());
    tokio::pin!(drained);
    loop {
        if let (Some(exit), false, true) = (ended, out_open || err_open, waiting.is_none()) {
            let text = notice.text(child.pid, exit);
            if !text.is_empty() {
                messages.send(Message::Binary(tagged(STREAM_STDERR, &text))).await.ok()?;
            }
            return Some(exit);
        }
        let ready = waiting.is_none();
        tokio::select! {
            read = read_tagged(&mut child.out, STREAM_STDOUT), if out_open && ready => match read {
                Some(bytes) => waiting = Some(bytes),
                None => out_open = false,
            },
            read = read_tagged(&mut err, STREAM_STDERR), if err_open && ready => match read {
                Some(bytes) => waiting = Some(bytes),
                None => err_open = false,
            },
            permit = messages.reserve(), if !ready => match (permit, waiting.take()) {
                (Ok(permit), Some(bytes)) => permit.send(Message::Binary(bytes)),
                _ => return None,
            },
            exit = &mut child.exit, if ended.is_none() => {
                ended = Some(exit.unwrap_or(Exit::Code(-1)));
                drained.as_mut().reset(Instant::now() + Duration::from_secs(DRAIN_SECONDS_MAX));
            },
            wish = wished.recv() => match wish {
                Some(Wish::Signal(signal)) if ended.is_none() && child.exit.is_empty() => signal_group(child.pid, signal),
                Some(Wish::Signal(_)) => {}
                Some(Wish::Gone) | None => return None,
            },
            () = &mut drained, if ended.is_some() => (out_open, err_open) = (false, false),
        }
    }
}

async fn read_tagged(pipe: &mut pipe::Receiver, tag: u8) -> Option<Bytes> {
    // Waiting comes before allocating: an idle command holds no buffer.
    pipe.readable().await.ok()?;
    let mut bytes = BytesMut::with_capacity(OUTPUT_MESSAGE_BYTES_MAX);
    bytes.put_u8(tag);
    let n = pipe.read_buf(&mut bytes).await.ok()?;
    (n > 0).then(|| bytes.freeze())
}

fn tagged(tag: u8, text: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(text.len() + 1);
    bytes.put_u8(tag);
    bytes.extend_from_slice(text);
    bytes.freeze()
}

/// Reads the client's messages: input goes to the command, wishes to its owner.
async fn listen(mut source: SplitStream<WebSocket>, input: Option<pipe::Sender>, wishes: mpsc::Sender<Wish>) {
    let (feed, mut fed) = mpsc::channel::<Bytes>(INPUT_MESSAGES_MAX);
    let mut feed = input.map(|mut pipe| {
        tokio::spawn(async move {
            while let Some(bytes) = fed.recv().await {
                if pipe.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        });
        feed
    });
    while let Some(Ok(message)) = source.next().await {
        match message {
            Message::Binary(bytes) => {
                if let Some(queue) = &feed
                    && queue.send(bytes).await.is_err()
                {
                    feed = None;
                }
            }
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(StreamControl::Eof(true)) => feed = None,
                Ok(StreamControl::Signal(name)) => {
                    if let Some(signal) = signal_of(&name)
                        && wishes.send(Wish::Signal(signal)).await.is_err()
                    {
                        return;
                    }
                }
                // Unknown words come from a newer client; what is known still works.
                Ok(StreamControl::Eof(false)) | Err(_) => {}
            },
            Message::Close(_) => break,
            Message::Ping(_) | Message::Pong(_) => {}
        }
    }
    let _ = wishes.send(Wish::Gone).await;
}

fn signal_of(name: &str) -> Option<Signal> {
    Some(match name.strip_prefix("SIG").unwrap_or(name) {
        "INT" => Signal::INT,
        "TERM" => Signal::TERM,
        "HUP" => Signal::HUP,
        "KILL" => Signal::KILL,
        "QUIT" => Signal::QUIT,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "STOP" => Signal::STOP,
        "TSTP" => Signal::TSTP,
        "CONT" => Signal::CONT,
        "WINCH" => Signal::WINCH,
        _ => return None,
    })
}

/// The client went away: the command is told, and then made to end.
async fn hang_up(mut child: Child) {
    for signal in [Signal::HUP, Signal::KILL] {
        if child.exit.try_recv() != Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            return;
        }
        signal_group(child.pid, signal);
        if timeout(Duration::from_secs(HANGUP_GRACE_SECONDS), &mut child.exit).await.is_ok() {
            return;
        }
    }
}
