//! A directory of one sandbox, agents that are scripts over unix sockets, and a raw client that sends what it is told.

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use infield_api::{
    SandboxId,
    directory::{Credential, Directory, DirectoryError, DirectoryFuture, SignedFile, Target},
    runner::*,
};
use infield_gateway::{Gateway, GatewayConfig};
use std::{
    convert::Infallible,
    future::Future,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, UnixStream},
    sync::mpsc,
};

pub const KEY: &str = "dtn_good";
pub const TOKEN: &str = "preview-token";
pub const SIGNATURE: &str = "v1_good";
pub const LINK: &str = "abcdefghij012345";

/// Everything a test holds on to.
pub struct Bench {
    pub id: SandboxId,
    pub address: std::net::SocketAddr,
    pub touches: Arc<AtomicUsize>,
    pub connects: Arc<AtomicUsize>,
}

struct OneSandbox {
    id: SandboxId,
    running: bool,
    touches: Arc<AtomicUsize>,
}

impl OneSandbox {
    fn found(&self) -> Result<Target, DirectoryError> {
        let state = if self.running { "started" } else { "stopped" };
        Ok(Target { sandbox: self.id, running: self.running, state })
    }
}

impl Directory for OneSandbox {
    fn resolve<'a>(&'a self, sandbox: &'a str, credential: Credential<'a>) -> DirectoryFuture<'a, Target> {
        Box::pin(async move {
            match credential {
                Credential::Bearer(KEY) => {}
                Credential::PreviewToken(TOKEN) => {}
                Credential::Link(3000) if sandbox == LINK => return self.found(),
                Credential::Session { cookie, scope } if *cookie == format!("session-of-{scope}") => {
                    return self.found();
                }
                Credential::SignedFile(SignedFile { path: None, .. }) => {
                    return Err(DirectoryError::Incomplete("path"));
                }
                Credential::SignedFile(file) if file.signature == SIGNATURE && file.path == Some(b"/a b") => {}
                _ => return Err(DirectoryError::Unauthorized),
            }
            if sandbox != self.id.to_string() && sandbox != "box" {
                return Err(DirectoryError::NotFound);
            }
            self.found()
        })
    }

    fn session<'a>(&'a self, _: SandboxId, scope: &'a str, _: u64) -> DirectoryFuture<'a, String> {
        Box::pin(async move { Ok(format!("session-of-{scope}")) })
    }

    fn touch(&self, _sandbox: SandboxId) {
        self.touches.fetch_add(1, Ordering::SeqCst);
    }
}

/// A runner that only knows how to connect: each connection's agent side goes to the test's script.
struct Agents {
    connects: Arc<AtomicUsize>,
    accepted: mpsc::UnboundedSender<UnixStream>,
}

fn unused<T>() -> RunnerFuture<'static, T> {
    Box::pin(async { Err(RunnerError::new(RunnerErrorKind::Unsupported, "not in this test")) })
}

impl Runner for Agents {
    fn create(&self, _: SandboxSpec) -> RunnerFuture<'_, Running> {
        unused()
    }
    fn start(&self, _: SandboxSpec) -> RunnerFuture<'_, Running> {
        unused()
    }
    fn stop(&self, _: SandboxId, _: bool) -> RunnerFuture<'_, ()> {
        unused()
    }
    fn destroy(&self, _: SandboxId) -> RunnerFuture<'_, ()> {
        unused()
    }
    fn inspect(&self, _: SandboxId) -> RunnerFuture<'_, Observed> {
        unused()
    }
    fn list(&self) -> RunnerFuture<'_, Vec<Observed>> {
        unused()
    }
    fn stats(&self, _: SandboxId) -> RunnerFuture<'_, Stats> {
        unused()
    }
    fn images(&self) -> RunnerFuture<'_, Vec<ImageInfo>> {
        unused()
    }
    fn pull_image(&self, _: PullImage) -> RunnerFuture<'_, ImageInfo> {
        unused()
    }
    fn release_image(&self, _: String) -> RunnerFuture<'_, ()> {
        unused()
    }
    fn connect(&self, _: SandboxId) -> RunnerFuture<'_, AgentStream> {
        Box::pin(async {
            let gone = |_| RunnerError::new(RunnerErrorKind::Unavailable, "no agent listens");
            let (ours, theirs) = UnixStream::pair().expect("socket pair");
            self.accepted.send(theirs).map_err(gone)?;
            self.connects.fetch_add(1, Ordering::SeqCst);
            Ok(OwnedFd::from(ours.into_std().expect("std stream")))
        })
    }
}

/// A gateway on loopback whose agent connections are each handled by `script`.
pub async fn bench<F>(running: bool, script: impl Fn(usize, UnixStream) -> F + Send + 'static) -> Bench
where
    F: Future<Output = ()> + Send + 'static,
{
    let (accepted, mut connections) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut number = 0;
        while let Some(stream) = connections.recv().await {
            tokio::spawn(script(number, stream));
            number += 1;
        }
    });
    let (id, touches, connects) = (SandboxId::random(), Arc::default(), Arc::default());
    let directory = OneSandbox { id, running, touches: Arc::clone(&touches) };
    let runner = Agents { connects: Arc::clone(&connects), accepted };
    let config = GatewayConfig { connect_max: Duration::from_secs(5), ..GatewayConfig::default() };
    let gateway = Gateway::new(Arc::new(directory), Arc::new(runner), config);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let gateway = gateway.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                let gateway = gateway.clone();
                request.extensions_mut().insert(peer);
                async move { Ok::<_, Infallible>(gateway.call(request).await) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades());
        }
    });
    Bench { id, address, touches, connects }
}

/// What came over a connection, head and body apart.
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Bench {
    pub async fn dial(&self) -> BufReader<TcpStream> {
        BufReader::new(TcpStream::connect(self.address).await.expect("connect"))
    }

    /// Sends raw bytes on a fresh connection and reads one answer.
    pub async fn raw(&self, request: &str) -> Reply {
        let mut stream = self.dial().await;
        stream.write_all(request.as_bytes()).await.expect("write");
        read_reply(&mut stream).await
    }

    /// A GET with the good key and extra header lines (each ending in CRLF).
    pub async fn get(&self, path: &str, headers: &str) -> Reply {
        let id = self.id;
        self.raw(&format!(
            "GET /toolbox/{id}{path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\n{headers}\r\n"
        ))
        .await
    }
}

/// Reads the bytes of one head, blank line included.
pub async fn read_head(stream: &mut (impl AsyncBufReadExt + Unpin)) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.expect("read") == 0 {
            break;
        }
    }
    head
}

pub async fn read_reply(stream: &mut BufReader<TcpStream>) -> Reply {
    let head = read_head(stream).await;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length_of(&head)];
    stream.read_exact(&mut body).await.expect("body");
    Reply { status, head, body: String::from_utf8_lossy(&body).into_owned() }
}

pub fn length_of(head: &str) -> usize {
    let lower = head.to_lowercase();
    let line = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// An agent that answers every request with the head it received, for as long as the connection lives.
pub async fn echo_heads(stream: UnixStream) {
    let mut stream = BufReader::new(stream);
    loop {
        let head = read_head(&mut stream).await;
        if head.is_empty() {
            return;
        }
        let mut body = vec![0; length_of(&head)];
        stream.read_exact(&mut body).await.expect("body");
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
        stream.write_all(answer.as_bytes()).await.expect("answer");
    }
}
