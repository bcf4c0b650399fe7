//! A WebSocket client of the agent for tests.

use super::Agent;
use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// Generous: the machine may be busy with other builds.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Socket {
    pub inner: WebSocketStream<UnixStream>,
    pub selected: Option<String>,
}

/// The status and body of an answer that was no upgrade.
pub type NoSocket = (u16, String);

impl Socket {
    pub async fn open(agent: &Agent, target: &str, protocols: &[&str]) -> Result<Self, NoSocket> {
        let stream = UnixStream::connect(&agent.socket).await.unwrap();
        let mut request = format!("ws://agent{target}").into_client_request().unwrap();
        if !protocols.is_empty() {
            request.headers_mut().insert("sec-websocket-protocol", protocols.join(", ").parse().unwrap());
        }
        match client_async(request, stream).await {
            Ok((inner, answer)) => {
                let selected = answer.headers().get("sec-websocket-protocol");
                Ok(Self { inner, selected: selected.map(|v| v.to_str().unwrap().to_owned()) })
            }
            Err(Error::Http(answer)) => {
                let body = answer.body().as_deref().unwrap_or_default();
                Err((answer.status().as_u16(), String::from_utf8_lossy(body).into_owned()))
            }
            Err(e) => panic!("{e}"),
        }
    }

    pub async fn send(&mut self, text: &str) {
        self.inner.send(Message::text(text)).await.unwrap();
    }

    pub async fn next(&mut self) -> Option<Message> {
        match timeout(PATIENCE, self.inner.next()).await.expect("a message in time") {
            Some(Ok(message)) => Some(message),
            _ => None,
        }
    }

    /// The next text message as JSON.
    pub async fn json(&mut self) -> serde_json::Value {
        loop {
            match self.next().await {
                Some(Message::Text(text)) => return serde_json::from_str(&text).unwrap(),
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("a text message, not {other:?}"),
            }
        }
    }

    /// Everything up to the end: output, text messages, close code and reason.
    pub async fn rest(&mut self) -> Rest {
        let mut rest = Rest::default();
        while let Some(message) = self.next().await {
            match message {
                Message::Binary(bytes) => rest.output.extend_from_slice(&bytes),
                Message::Text(text) => rest.texts.push(serde_json::from_str(&text).unwrap()),
                Message::Close(Some(frame)) => (rest.code, rest.reason) = (frame.code.into(), frame.reason.to_string()),
                _ => {}
            }
        }
        rest
    }

    /// Reads output until it contains the text; answers all of it.
    pub async fn until(&mut self, text: &str) -> String {
        let mut all = Vec::new();
        loop {
            match self.next().await {
                Some(Message::Binary(bytes)) => {
                    let from = all.len().saturating_sub(text.len());
                    all.extend_from_slice(&bytes);
                    if all[from..].windows(text.len()).any(|w| w == text.as_bytes()) {
                        return String::from_utf8_lossy(&all).into_owned();
                    }
                }
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => {
                    let tail = &all[all.len().saturating_sub(1000)..];
                    panic!("waited for {text:?}, got {other:?} after {:?}", String::from_utf8_lossy(tail));
                }
            }
        }
    }
}

#[derive(Debug, Default)]
pub struct Rest {
    pub output: Vec<u8>,
    pub texts: Vec<serde_json::Value>,
    pub code: u16,
    pub reason: String,
}
