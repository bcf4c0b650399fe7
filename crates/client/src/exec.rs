//! A command whose output streams: WebSocket `/process/execute/stream` on the toolbox (an extension of this project).
//!
//! Text frames carry JSON (the command, signals, the exit code), binary frames carry bytes; the server marks each binary
//! frame with 1 for stdout or 2 for stderr.

use crate::{
    dto::Execute,
    error::ClientError,
    transport::{Connector, Endpoint, refusal_of},
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream::SplitSink, stream::SplitStream};
use http::{Uri, header::AUTHORIZATION};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, client::IntoClientRequest},
};
use tower_service::Service;

type Stream = TokioIo<<Connector as Service<Uri>>::Response>;
type Socket = WebSocketStream<Stream>;

const STDOUT: u8 = 1;
const STDERR: u8 = 2;

/// What a running command says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecEvent {
    Stdout(Bytes),
    Stderr(Bytes),
    Exit(i32),
}

/// A running command: the two directions, to be used side by side.
pub struct ExecStream {
    pub input: ExecInput,
    pub output: ExecOutput,
}

pub struct ExecInput {
    sink: SplitSink<Socket, Message>,
    url: String,
}

pub struct ExecOutput {
    stream: SplitStream<Socket>,
    url: String,
}

#[derive(Deserialize)]
struct FromServer {
    #[serde(rename = "exitCode")]
    exit_code: Option<i32>,
    error: Option<String>,
    message: Option<String>,
}

impl ExecStream {
    pub(crate) async fn open(
        endpoint: &Endpoint,
        url: &str,
        command: &Execute,
        stdin: bool,
    ) -> Result<Self, ClientError> {
        let mut socket = dial(endpoint, url).await?;
        let mut first = json!({"command": command.command, "stdin": stdin});
        if let Some(cwd) = &command.cwd {
            first["cwd"] = json!(cwd);
        }
        if !command.envs.is_empty() {
            first["envs"] = json!(command.envs);
        }
        socket.send(Message::text(first.to_string())).await.map_err(|e| broken(url, e))?;
        let (sink, stream) = socket.split();
        let input = ExecInput { sink, url: url.to_owned() };
        Ok(Self { input, output: ExecOutput { stream, url: url.to_owned() } })
    }
}

impl ExecInput {
    pub async fn stdin(&mut self, bytes: Bytes) -> Result<(), ClientError> {
        self.send(Message::Binary(bytes)).await
    }

    pub async fn end_of_stdin(&mut self) -> Result<(), ClientError> {
        self.send(Message::text(json!({"eof": true}).to_string())).await
    }

    /// `INT`, `TERM`, … to the command's whole process group.
    pub async fn signal(&mut self, name: &str) -> Result<(), ClientError> {
        self.send(Message::text(json!({"signal": name}).to_string())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), ClientError> {
        self.sink.send(message).await.map_err(|e| broken(&self.url, e))
    }
}

impl ExecOutput {
    /// The next thing the command says; `None` when the server ended without an exit code.
    pub async fn next(&mut self) -> Result<Option<ExecEvent>, ClientError> {
        loop {
            let Some(message) = self.stream.next().await else { return Ok(None) };
            match message.map_err(|e| broken(&self.url, e))? {
                Message::Binary(bytes) => {
                    if let Some(event) = output_event(bytes) {
                        return Ok(Some(event));
                    }
                }
                Message::Text(text) => return self.last_word(&text).map(Some),
                Message::Close(_) => return Ok(None),
                _ => {}
            }
        }
    }

    fn last_word(&self, text: &str) -> Result<ExecEvent, ClientError> {
        let unexpected = |why: String| ClientError::Unexpected { url: self.url.clone(), why };
        let said: FromServer = serde_json::from_str(text).map_err(|e| unexpected(e.to_string()))?;
        match (said.exit_code, said.message.or(said.error)) {
            (Some(code), _) => Ok(ExecEvent::Exit(code)),
            (None, Some(why)) => {
                Err(ClientError::Http { status: http::StatusCode::BAD_REQUEST, code: None, message: why })
            }
            (None, None) => Err(unexpected(format!("neither exit code nor error in {text:?}"))),
        }
    }
}

fn output_event(bytes: Bytes) -> Option<ExecEvent> {
    match bytes.first() {
        Some(&STDOUT) => Some(ExecEvent::Stdout(bytes.slice(1..))),
        Some(&STDERR) => Some(ExecEvent::Stderr(bytes.slice(1..))),
        // A newer server's channel: not for us.
        _ => None,
    }
}

async fn dial(endpoint: &Endpoint, url: &str) -> Result<Socket, ClientError> {
    let uri: Uri = url.parse().map_err(|_| ClientError::Invalid(format!("{url:?} is not an address")))?;
    let mut request = ws_url(url).into_client_request().map_err(|e| ClientError::Invalid(e.to_string()))?;
    request.headers_mut().insert(AUTHORIZATION, endpoint.authorization());
    let stream = endpoint
        .connector(&uri)?
        .call(uri)
        .await
        .map_err(|source| ClientError::Refused { url: url.to_owned(), source })?;
    match tokio_tungstenite::client_async(request, TokioIo::new(stream)).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => {
            Err(refusal_of(response.status(), response.body().as_deref().unwrap_or_default()))
        }
        Err(e) => Err(broken(url, e)),
    }
}

fn ws_url(url: &str) -> String {
    match url.strip_prefix("http") {
        Some(rest) => format!("ws{rest}"),
        None => url.to_owned(),
    }
}

fn broken(url: &str, error: tungstenite::Error) -> ClientError {
    ClientError::Broken { url: url.to_owned(), source: error.into() }
}
