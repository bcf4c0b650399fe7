//! A command without a terminal, or the SFTP server: the toolbox's stream of a command, spoken over a channel.

use super::{
    agent::{Agent, Socket},
    connection::{Output, What, Wish},
    inbox::Inbox,
};
use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use infield_api::toolbox::{STREAM_STDERR, STREAM_STDOUT, StreamControl, StreamEnd, StreamRequest};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

/// A channel on which nothing moved for so long is closed.
pub const IDLE_MAX: Duration = Duration::from_secs(12 * 3600);
pub const FORGOTTEN: &str = "closed, because nothing has moved here for 12 hours";
/// Clients know this one as "the connection broke".
pub const EXIT_BROKEN: u32 = 255;
/// `ssh_ext_data`: standard error.
const EXTENDED_STDERR: u32 = 1;

pub async fn run(agent: Agent, wish: Wish, what: What, output: Output, inbox: Arc<Inbox>) {
    let code = match begin(&agent, &wish, what).await {
        Ok(socket) => {
            let (sink, stream) = socket.split();
            tokio::select! {
                code = follow(stream, &output, &inbox) => code,
                () = inbox.idle(IDLE_MAX) => complain(&output, FORGOTTEN).await,
                // The input ends before the command does; then only the command's end counts.
                () = feed(sink, &inbox, wish.signals) => EXIT_BROKEN,
            }
        }
        Err(why) => complain(&output, &why).await,
    };
    finish(&output, code).await;
}

async fn begin(agent: &Agent, wish: &Wish, what: What) -> Result<Socket, String> {
    let (command, subsystem) = match what {
        What::Command(command) => (command, None),
        What::Shell => ("exec \"${SHELL:-/bin/sh}\"".to_owned(), None),
        What::Sftp => (String::new(), Some("sftp".to_owned())),
    };
    let envs = Some(wish.variables.clone()).filter(|variables| !variables.is_empty());
    let request = StreamRequest { command, cwd: None, envs, stdin: true, subsystem };
    let text = serde_json::to_string(&request).map_err(|e| e.to_string())?;
    let mut socket = agent.socket("/process/execute/stream", None).await?;
    socket.send(Message::text(text)).await.map_err(|e| format!("the sandbox's agent broke off ({e})"))?;
    Ok(socket)
}

/// Passes output on until the command's end is known.
async fn follow(mut stream: SplitStream<Socket>, output: &Output, inbox: &Inbox) -> u32 {
    while let Some(Ok(message)) = stream.next().await {
        inbox.touch();
        match message {
            Message::Binary(bytes) => {
                let (tag, rest) = (bytes.first().copied(), bytes.slice(bytes.len().min(1)..));
                let sent = match tag {
                    Some(STREAM_STDOUT) => output.data_bytes(rest).await,
                    Some(STREAM_STDERR) => output.extended_data_bytes(EXTENDED_STDERR, rest).await,
                    _ => Ok(()),
                };
                if sent.is_err() {
                    return EXIT_BROKEN;
                }
            }
            Message::Text(text) => {
                if let Ok(StreamEnd { exit_code }) = serde_json::from_str(&text) {
                    return u32::try_from(exit_code).unwrap_or(EXIT_BROKEN);
                }
            }
            Message::Close(Some(why)) => return complain(output, &why.reason).await,
            _ => {}
        }
    }
    complain(output, "the sandbox's agent broke off").await
}

/// Passes input and signals on. Ends only when the agent takes nothing any more.
async fn feed(mut sink: SplitSink<Socket, Message>, inbox: &Inbox, mut signals: mpsc::Receiver<String>) {
    let mut open = true;
    loop {
        let message = tokio::select! {
            piece = inbox.next(), if open => match piece {
                Some(bytes) => Message::Binary(bytes),
                None => {
                    open = false;
                    control(&StreamControl::Eof(true))
                }
            },
            Some(name) = signals.recv() => control(&StreamControl::Signal(name)),
            else => return std::future::pending().await,
        };
        if sink.send(message).await.is_err() {
            // What is left to be said comes by the other direction.
            return std::future::pending().await;
        }
    }
}

fn control(what: &StreamControl) -> Message {
    Message::text(serde_json::to_string(what).unwrap_or_default())
}

/// Says on standard error why nothing more will come.
pub async fn complain(output: &Output, why: &str) -> u32 {
    let text = Bytes::from(format!("infield: {why}\r\n"));
    let _ = output.extended_data_bytes(EXTENDED_STDERR, text).await;
    EXIT_BROKEN
}

pub async fn finish(output: &Output, code: u32) {
    let _ = output.eof().await;
    let _ = output.exit_status(code).await;
    let _ = output.close().await;
}
