//! The WebSocket that streams a command.

#![allow(clippy::unwrap_used, reason = "a test that stops says where")]

mod common;

use common::{Agent, until};
use futures_util::{SinkExt, StreamExt};
use tokio::net::UnixStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

async fn open(agent: &Agent, first: &str) -> WebSocketStream<UnixStream> {
    let stream = UnixStream::connect(&agent.socket).await.unwrap();
    let (mut socket, _) = client_async("ws://agent/process/execute/stream", stream).await.unwrap();
    socket.send(Message::text(first)).await.unwrap();
    socket
}

/// stdout, stderr, last text, close code.
async fn finish(mut socket: WebSocketStream<UnixStream>) -> (Vec<u8>, Vec<u8>, String, u16) {
    let (mut out, mut err, mut last, mut code) = (Vec::new(), Vec::new(), String::new(), 0);
    while let Some(message) = socket.next().await {
        match message.unwrap() {
            Message::Binary(bytes) if bytes[0] == 1 => out.extend_from_slice(&bytes[1..]),
            Message::Binary(bytes) => err.extend_from_slice(&bytes[1..]),
            Message::Text(text) => last = text.as_str().to_owned(),
            Message::Close(frame) => code = frame.unwrap().code.into(),
            _ => {}
        }
    }
    (out, err, last, code)
}

#[tokio::test]
async fn output_comes_apart_and_the_code_last() {
    let agent = Agent::start();
    let socket = open(&agent, r#"{"command": "echo out; echo err >&2; exit 3"}"#).await;
    let (out, err, last, code) = finish(socket).await;
    assert_eq!((&out[..], &err[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!((last.as_str(), code), (r#"{"exitCode":3}"#, 1000));
}

#[tokio::test]
async fn an_sftp_server_needs_nothing_of_the_image() {
    let agent = Agent::start();
    let mut socket = open(&agent, r#"{"subsystem": "sftp"}"#).await;
    // Hello, then the whole path of the working directory.
    socket.send(Message::binary(&b"\0\0\0\x05\x01\0\0\0\x03\0\0\0\x0a\x10\0\0\0\x07\0\0\0\x01."[..])).await.unwrap();
    socket.send(Message::text(r#"{"eof":true}"#)).await.unwrap();
    let (out, err, last, code) = finish(socket).await;
    assert_eq!((&out[4..9], &err[..], code), (&b"\x02\0\0\0\x03"[..], &b""[..], 1000));
    let answer = out.windows(10).position(|w| w[4..] == b"\x68\0\0\0\x07\0"[..]);
    assert!(answer.is_some() && last == r#"{"exitCode":0}"#, "{out:?} {last}");
    let other = open(&agent, r#"{"subsystem": "other"}"#).await;
    assert_eq!(finish(other).await.3, 1008);
}

#[tokio::test]
async fn large_output_is_complete() {
    let agent = Agent::start();
    let socket = open(&agent, r#"{"command": "head -c 20000000 /dev/zero"}"#).await;
    let (out, _, last, _) = finish(socket).await;
    assert_eq!((out.len(), last.as_str()), (20_000_000, r#"{"exitCode":0}"#));
}

#[tokio::test]
async fn input_and_its_end() {
    let agent = Agent::start();
    for command in ["cat", "cat; exit 0"] {
        let mut socket = open(&agent, &format!(r#"{{"command": "{command}", "stdin": true}}"#)).await;
        socket.send(Message::binary(&b"one "[..])).await.unwrap();
        socket.send(Message::binary(&b"two"[..])).await.unwrap();
        socket.send(Message::text(r#"{"eof":true}"#)).await.unwrap();
        let (out, _, last, _) = finish(socket).await;
        assert_eq!((&out[..], last.as_str()), (&b"one two"[..], r#"{"exitCode":0}"#), "{command}");
    }
}

#[tokio::test]
async fn signals_reach_the_group() {
    let agent = Agent::start();
    let mut socket =
        open(&agent, r#"{"command": "trap 'echo got; exit 5' INT; echo ready; while :; do sleep 0.05; done"}"#).await;
    let first = socket.next().await.unwrap().unwrap();
    assert_eq!(&first.into_data()[..], b"\x01ready\n");
    socket.send(Message::text(r#"{"signal":"INT"}"#)).await.unwrap();
    let (out, _, last, _) = finish(socket).await;
    assert_eq!((&out[..], last.as_str()), (&b"got\n"[..], r#"{"exitCode":5}"#));
}

#[tokio::test]
async fn a_client_that_leaves_takes_the_command_with_it() {
    let agent = Agent::start();
    let mut socket = open(&agent, r#"{"command": "trap '' HUP; echo $$; while :; do sleep 0.05; done"}"#).await;
    let first = socket.next().await.unwrap().unwrap().into_data();
    let pid = String::from_utf8_lossy(&first[1..]).trim().to_owned();
    drop(socket);
    let gone = move || !std::path::Path::new("/proc").join(&pid).exists();
    tokio::task::spawn_blocking(move || until("the command is killed", gone)).await.unwrap();
}

#[tokio::test]
async fn refusals() {
    let agent = Agent::start();
    let (_, _, _, code) = finish(open(&agent, r#"{"command": ""}"#).await).await;
    assert_eq!(code, 1008);
    let (_, err, last, code) = finish(open(&agent, r#"{"command": "ls", "cwd": "/nope"}"#).await).await;
    assert!(String::from_utf8_lossy(&err).contains("/nope"));
    assert_eq!((last.as_str(), code), (r#"{"exitCode":-1}"#, 1000));
}
