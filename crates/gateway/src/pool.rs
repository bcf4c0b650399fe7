//! Keep-alive connections to agents, some per sandbox, and the one retry that makes reusing them safe.
//!
//! An idle connection may turn out dead only when it is used. The request is repeated once on a fresh connection when
//! the old one gave no byte of an answer and no byte of the request's body was taken.

use crate::{GatewayConfig, body::RelayBody};
use http::{Request, Response, StatusCode, request};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use infield_api::{SandboxId, runner::Runner};
use std::{
    collections::HashMap,
    fmt,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};
use tokio::net::UnixStream;

/// Read and write buffer of one connection: what gives a relay its gigabytes per second.
const CONNECTION_BUFFER_BYTES_MAX: usize = 512 << 10;
/// Header lines an agent may answer with.
const AGENT_HEADERS_MAX: usize = 128;
/// How often idle connections are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(15);

type Sender = SendRequest<RelayBody>;

pub struct Pool {
    runner: Arc<dyn Runner>,
    config: GatewayConfig,
    idle: Mutex<HashMap<SandboxId, Vec<Idle>>>,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

/// An agent's answer; `upgrade` is there when it switched protocols.
pub struct Reply {
    response: Response<Incoming>,
    upgrade: Option<OnUpgrade>,
}

/// Why an agent could not be asked. The texts reach callers, so they hold no host path.
pub enum PoolError {
    Connect(String),
    ConnectTimeout(Duration),
    /// The agent closed the stream or answered something that is not HTTP.
    Exchange(hyper::Error),
}

impl Reply {
    pub fn into_parts(self) -> (http::response::Parts, Incoming, Option<OnUpgrade>) {
        let (head, body) = self.response.into_parts();
        (head, body, self.upgrade)
    }
}

impl Pool {
    pub fn start(runner: Arc<dyn Runner>, config: GatewayConfig) -> Arc<Self> {
        let pool = Arc::new(Self { runner, config, idle: Mutex::default() });
        tokio::spawn(sweep(Arc::downgrade(&pool)));
        pool
    }

    /// Sends one request and waits for the head of the answer, however long the agent takes.
    pub async fn send(
        self: &Arc<Self>,
        sandbox: SandboxId,
        parts: &request::Parts,
        body: RelayBody,
        upgrading: bool,
    ) -> Result<Reply, PoolError> {
        if let Some(mut sender) = self.take(sandbox) {
            match exchange(&mut sender, parts, body.clone()).await {
                Ok(response) => return Ok(self.keep(sandbox, sender, response, upgrading)),
                Err(e) if is_stale(&e) && body.untouched() => {}
                Err(e) => return Err(PoolError::Exchange(e)),
            }
        }
        let mut sender = self.connect(sandbox).await?;
        let response = exchange(&mut sender, parts, body).await.map_err(PoolError::Exchange)?;
        Ok(self.keep(sandbox, sender, response, upgrading))
    }

    async fn connect(&self, sandbox: SandboxId) -> Result<Sender, PoolError> {
        let limit = self.config.connect_max;
        let stream = tokio::time::timeout(limit, self.runner.connect(sandbox))
            .await
            .map_err(|_| PoolError::ConnectTimeout(limit))?
            .map_err(|e| PoolError::Connect(e.message))?;
        let io = TokioIo::new(unix_stream(stream).map_err(|e| PoolError::Connect(e.to_string()))?);
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(CONNECTION_BUFFER_BYTES_MAX)
            .max_headers(AGENT_HEADERS_MAX)
            .handshake(io)
            .await
            .map_err(PoolError::Exchange)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%sandbox, %error, "agent connection ended");
            }
        });
        Ok(sender)
    }

    fn take(&self, sandbox: SandboxId) -> Option<Sender> {
        let mut idle = self.lock();
        let list = idle.get_mut(&sandbox)?;
        // Newest first: the rest age out.
        while let Some(candidate) = list.pop() {
            if candidate.sender.is_ready() && candidate.since.elapsed() < self.config.idle_max {
                return Some(candidate.sender);
            }
        }
        None
    }

    /// Puts the connection back once the answer's body is through; an upgraded one never comes back.
    fn keep(
        self: &Arc<Self>,
        sandbox: SandboxId,
        mut sender: Sender,
        mut response: Response<Incoming>,
        upgrading: bool,
    ) -> Reply {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgrade = upgrading.then(|| hyper::upgrade::on(&mut response));
            return Reply { response, upgrade };
        }
        if sender.is_ready() {
            self.put(sandbox, sender);
        } else {
            let pool = Arc::downgrade(self);
            tokio::spawn(async move {
                if sender.ready().await.is_ok()
                    && let Some(pool) = pool.upgrade()
                {
                    pool.put(sandbox, sender);
                }
            });
        }
        Reply { response, upgrade: None }
    }

    fn put(&self, sandbox: SandboxId, sender: Sender) {
        let mut idle = self.lock();
        let list = idle.entry(sandbox).or_default();
        if list.len() < self.config.idle_per_sandbox_max {
            list.push(Idle { sender, since: Instant::now() });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn exchange(
    sender: &mut Sender,
    parts: &request::Parts,
    body: RelayBody,
) -> Result<Response<Incoming>, hyper::Error> {
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.headers_mut() = parts.headers.clone();
    sender.send_request(request).await
}

/// The connection was already gone: nothing of an answer came.
fn is_stale(error: &hyper::Error) -> bool {
    if error.is_parse() || error.is_user() {
        return false;
    }
    error.is_canceled() || error.is_closed() || error.is_incomplete_message() || is_broken_pipe(error)
}

fn is_broken_pipe(error: &hyper::Error) -> bool {
    use std::{error::Error, io};
    let mut source = error.source();
    while let Some(e) = source {
        if let Some(io) = e.downcast_ref::<io::Error>() {
            return matches!(io.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        }
        source = e.source();
    }
    false
}

pub fn unix_stream(stream: OwnedFd) -> std::io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(stream);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(pool) = pool.upgrade() else { return };
        let age_max = pool.config.idle_max;
        pool.lock().retain(|_, list| {
            list.retain(|idle| idle.sender.is_ready() && idle.since.elapsed() < age_max);
            !list.is_empty()
        });
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "no connection ({why})"),
            Self::ConnectTimeout(limit) => write!(f, "no connection within {} s", limit.as_secs()),
            Self::Exchange(e) if e.is_parse() => write!(f, "it answered something that is not HTTP ({e})"),
            Self::Exchange(e) => write!(f, "the connection broke ({e})"),
        }
    }
}
