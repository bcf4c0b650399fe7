//! WebSocket `GET /process/execute/stream`: a command with its input and output as they come (an Infield extension).
//!
//! One task reads the client's messages, another owns the child and decides. A slow client slows the command down; nothing is
//! dropped and little is buffered.

use crate::children::Exit;
use crate::error::Failure;
use crate::execute::{Line, NoStart, Notice, Stdin};
use crate::launch::{Child, Launch, LaunchError, launch, signal_group};
use crate::sftp;
use crate::state::Shared;
use crate::ws::{Inbound, Incoming, Limits, Outgoing, Refused, Upgrade, code};
use axum::extract::State;
use axum::extract::ws::Message;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use infield_api::toolbox::{STREAM_STDERR, STREAM_STDOUT, StreamControl, StreamEnd, StreamRequest};
use rustix::process::Signal;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// Input messages that wait for the command to read.
const INPUT_MESSAGES_MAX: usize = 8;
/// Signals that wait for the child's owner.
const WISHES_MAX: usize = 4;
const LIMITS: Limits = Limits {
    message_bytes_max: 1 << 20,
    queued_messages_max: 4,
    queued_bytes_max: 4 * OUTPUT_MESSAGE_BYTES_MAX,
    write_limit: None,
};
const OUTPUT_MESSAGE_BYTES_MAX: usize = 64 << 10;
/// How long output of children that outlive the command is waited for.
const DRAIN_SECONDS_MAX: u64 = 30;
/// Between SIGHUP and SIGKILL when the client is gone.
const HANGUP_GRACE_SECONDS: u64 = 2;

pub async fn execute_stream(State(agent): State<Shared>, upgrade: Upgrade) -> Response {
    upgrade.accept(LIMITS, move |incoming, outgoing| session(agent, incoming, outgoing))
}

async fn session(agent: Shared, mut incoming: Incoming, outgoing: Outgoing) {
    match first_message(&agent, &mut incoming).await {
        Ok(wanted) => match wanted.start(&agent).await {
            Ok((child, notice)) => return drive(child, notice, incoming, outgoing).await,
            Err(no_start) => {
                let text = Message::Binary(tagged(STREAM_STDERR, no_start.text.as_bytes()));
                let _ = outgoing.send(text).await;
                finish(&outgoing, no_start.code).await;
            }
        },
        Err(Some(failure)) => outgoing.finish(code::POLICY, &failure.message),
        Err(None) => {}
    }
    incoming.drain().await;
}

/// What is to be run.
enum Wanted {
    Command(Line, Stdin),
    Sftp(Launch),
}

impl Wanted {
    async fn start(self, agent: &Shared) -> Result<(Child, Notice), NoStart> {
        match self {
            Self::Command(line, stdin) => line.start(agent, stdin, true).await,
            Self::Sftp(what) => {
                let failed = |e: LaunchError| NoStart { code: -1, text: format!("no SFTP server: {}", e.source()) };
                Ok((launch(agent, what).await.map_err(failed)?, Notice::silent()))
            }
        }
    }
}

async fn first_message(agent: &Shared, incoming: &mut Incoming) -> Result<Wanted, Option<Failure>> {
    let text = match incoming.next().await {
        Some(Inbound::Text(text)) => text,
        Some(Inbound::Binary(_)) => {
            return Err(Some(Failure::bad_request("the first message must be JSON text with the command")));
        }
        None => return Err(None),
    };
    let request: StreamRequest = serde_json::from_str(&text).map_err(|e| Some(Failure::invalid_body(e)))?;
    match request.subsystem.as_deref() {
        None => {}
        Some("sftp") => return Ok(Wanted::Sftp(sftp::launch(agent))),
        Some(other) => return Err(Some(Failure::bad_request(format!("there is no subsystem {other:?}, only sftp")))),
    }
    let stdin = if request.stdin { Stdin::Caller } else { Stdin::Script };
    Ok(Wanted::Command(Line::new(agent, request.command, request.cwd, request.envs.as_ref())?, stdin))
}

/// What the client's messages ask of the child's owner.
enum Wish {
    Signal(Signal),
    Gone,
}

async fn drive(mut child: Child, notice: Notice, incoming: Incoming, outgoing: Outgoing) {
    let (wishes, mut wished) = mpsc::channel(WISHES_MAX);
    let reader = tokio::spawn(listen(incoming, child.input.take(), wishes));
    match follow(&mut child, &notice, &outgoing, &mut wished).await {
        Some(exit) => {
            finish(&outgoing, exit.code()).await;
            drop(wished);
            let _ = reader.await;
        }
        None => {
            reader.abort();
            hang_up(child).await;
        }
    }
}

async fn finish(outgoing: &Outgoing, exit_code: i32) {
    let end = serde_json::to_string(&StreamEnd { exit_code }).unwrap_or_default();
    let _ = outgoing.send(Message::Text(end.into())).await;
    outgoing.finish(code::NORMAL, "");
}

/// Passes output on until everything has ended. `None`: the client is gone.
async fn follow(
    child: &mut Child,
    notice: &Notice,
    messages: &Outgoing,
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
            room = messages.room(), if !ready => match (room, waiting.take()) {
                (Ok(()), Some(bytes)) => match messages.offer(Message::Binary(bytes.clone())) {
                    Ok(()) => {}
                    Err(Refused::Full) => waiting = Some(bytes),
                    Err(Refused::Gone) => return None,
                },
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
async fn listen(mut incoming: Incoming, input: Option<pipe::Sender>, wishes: mpsc::Sender<Wish>) {
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
    while let Some(message) = incoming.next().await {
        match message {
            Inbound::Binary(bytes) => {
                if let Some(queue) = &feed
                    && queue.send(bytes).await.is_err()
                {
                    feed = None;
                }
            }
            Inbound::Text(text) => match serde_json::from_str(&text) {
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
