//! The way to one sandbox's agent: a connection for each conversation, as WebSocket, as raw stream or for one request.

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, HOST, SEC_WEBSOCKET_PROTOCOL, UPGRADE},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{client::conn::http1, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use infield_api::{SandboxId, runner::Runner};
use std::{sync::Arc, time::Duration};
use tokio::net::UnixStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, client::IntoClientRequest, protocol::WebSocketConfig},
};

/// For the runner to hand over a stream, and for the agent to answer on it.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// What an agent may say in one message, and about one failure.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
const FAILURE_BYTES_MAX: usize = 64 << 10;

pub type Socket = WebSocketStream<UnixStream>;

#[derive(Clone)]
pub struct Agent {
    pub runner: Arc<dyn Runner>,
    pub sandbox: SandboxId,
}

/// Why the agent is not to be had, for whoever is at the other end of the SSH connection.
pub type Refused = String;

impl Agent {
    /// `path` with its query; `protocols` are offered as one list.
    pub async fn socket(&self, path: &str, protocols: Option<&str>) -> Result<Socket, Refused> {
        within(async {
            let mut request = format!("ws://agent{path}").into_client_request().map_err(|e| e.to_string())?;
            if let Some(protocols) = protocols {
                let list = HeaderValue::from_str(protocols).map_err(|e| e.to_string())?;
                request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, list);
            }
            let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX));
            let stream = self.stream().await?;
            match client_async_with_config(request, stream, Some(config)).await {
                Ok((socket, _)) => Ok(socket),
                Err(tungstenite::Error::Http(answer)) => Err(said(answer.body().as_deref().unwrap_or_default())),
                Err(e) => Err(format!("the sandbox's agent broke off ({e})")),
            }
        })
        .await
    }

    /// A raw stream to a port of the sandbox.
    pub async fn port(&self, port: u16) -> Result<TokioIo<Upgraded>, Refused> {
        let request =
            Request::get(format!("/port/{port}/connect")).header(CONNECTION, "Upgrade").header(UPGRADE, "tcp");
        within(async {
            let answer = self.send(request, Bytes::new()).await?;
            if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                let body = Limited::new(answer.into_body(), FAILURE_BYTES_MAX).collect().await;
                return Err(said(&body.map(|b| b.to_bytes()).unwrap_or_default()));
            }
            let upgraded = hyper::upgrade::on(answer).await.map_err(|e| e.to_string())?;
            Ok(TokioIo::new(upgraded))
        })
        .await
    }

    /// One request whose answer nobody reads.
    pub async fn tell(&self, method: Method, path: &str, body: String) -> Result<(), Refused> {
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json");
        within(async { self.send(request, body.into()).await.map(|_| ()) }).await
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<http::Response<hyper::body::Incoming>, Refused> {
        let broken = |e: &dyn std::fmt::Display| format!("the sandbox's agent broke off ({e})");
        let request = request.header(HOST, "agent").body(Full::new(body)).map_err(|e| e.to_string())?;
        let stream = TokioIo::new(self.stream().await?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(|e| broken(&e))?;
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(|e| broken(&e))
    }

    async fn stream(&self) -> Result<UnixStream, Refused> {
        let fd = self.runner.connect(self.sandbox).await.map_err(|e| e.message)?;
        crate::pool::unix_stream(fd).map_err(|e| e.to_string())
    }
}

async fn within<T>(work: impl Future<Output = Result<T, Refused>>) -> Result<T, Refused> {
    let late = || format!("the sandbox's agent did not answer within {} s", ANSWER_MAX.as_secs());
    tokio::time::timeout(ANSWER_MAX, work).await.unwrap_or_else(|_| Err(late()))
}

/// The message of an error body.
fn said(body: &[u8]) -> Refused {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let message = value["message"].as_str().map(str::to_owned);
    message.unwrap_or_else(|| "the sandbox's agent refused".to_owned())
}
