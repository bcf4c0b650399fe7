//! The listening socket: accepts connections, gives each to hyper, and turns failures into error envelopes.

use crate::error::Failure;
use crate::passwd::Accounts;
use crate::state::{Agent, Shared};
use crate::{entrypoint, routes, telemetry};
use axum::Router;
use axum::body::{Body, Bytes};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

/// Shells, the dynamic loader and the C library of the common distributions.
const LOOKED_UP: [&str; 8] = [
    "/bin/sh",
    "/bin/bash",
    "/usr/bin/env",
    "/usr/bin/python3",
    "/etc/ld.so.cache",
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib/aarch64-linux-gnu/libc.so.6",
];
const REHEARSAL: &[u8] =
    b"POST / HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}";
/// Also how long an unused connection stays open.
const HEADER_READ_SECONDS_MAX: u64 = 70;
/// File work and starts of commands; more wait their turn.
const BLOCKING_THREADS_MAX: usize = 16;
const BLOCKING_STACK_BYTES: usize = 256 << 10;
/// After a failed accept (too many descriptors) the loop breathes before it tries again.
const ACCEPT_RETRY_MILLISECONDS: u64 = 20;

/// What serving needs and no sandbox's configuration changes, made before that is known. No thread begins before the
/// process has become the sandbox's user: a current-thread runtime has none until its first blocking work.
pub struct Server {
    runtime: Runtime,
    table: Router<Shared>,
}

impl Server {
    pub fn new() -> io::Result<Self> {
        Ok(Self { runtime: runtime()?, table: routes::table() })
    }

    /// Answers one request of its own, and looks up what most first commands need. The pages, caches and allocations that
    /// takes are then there for the first real one. Nothing of the image is run.
    pub fn rehearse(&self) -> io::Result<()> {
        drop(Accounts::of_image());
        LOOKED_UP.iter().for_each(|path| drop(File::open(path)));
        let (theirs, mut ours) = StdStream::pair()?;
        ours.write_all(REHEARSAL)?;
        theirs.set_nonblocking(true)?;
        let router = Router::new().fallback(|body: Bytes| std::future::ready(body));
        self.runtime.block_on(async {
            connection(UnixStream::from_std(theirs)?, router).await;
            Ok(())
        })
    }

    /// Serves the toolbox until the process ends.
    pub fn serve(self, listener: StdListener, agent: Agent) -> io::Result<()> {
        let Self { runtime, table } = self;
        runtime.block_on(async {
            let agent = Arc::new(agent);
            // The signal stream exists before the first child can.
            let mut ended = signal(SignalKind::child())?;
            let reaper = agent.clone();
            tokio::spawn(async move {
                loop {
                    reaper.children.collect();
                    if ended.recv().await.is_none() {
                        return;
                    }
                }
            });
            // An endpoint that is no URL is told to whoever calls `/init`.
            let _ = telemetry::begin(&agent, None);
            entrypoint::start(&agent);
            accept(listener, table.with_state(agent)).await
        })
    }

    /// A sandbox that could not start answers every request with the reason.
    pub fn serve_boot_error(self, listener: StdListener, why: &str) -> io::Result<()> {
        let failure = Failure::plain(503, format!("this sandbox did not start: {why}"));
        let router = Router::new().fallback(move || std::future::ready(failure.clone()));
        self.runtime.block_on(accept(listener, router))
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_stack_size(BLOCKING_STACK_BYTES)
        .build()
}

async fn accept(listener: StdListener, router: Router) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, router.clone()));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MILLISECONDS)).await,
        }
    }
}

async fn connection(stream: UnixStream, router: Router) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request| answer(router.clone(), request));
    // An error here is a client that broke off or spoke no HTTP: nothing to do, nobody to tell.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEADER_READ_SECONDS_MAX))
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn answer(router: TowerToHyperService<Router>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let mut response = router.call(request).await?;
    Ok(match response.extensions_mut().remove::<Failure>() {
        Some(failure) => failure.into_envelope(&path, &method),
        None => response,
    })
}
