//! The runner's process: an engine behind a unix socket that speaks the frames of `api::runner`.
//!
//! Whoever may open the socket may do everything; the file's permissions are the whole access control. A connection carries
//! many requests at a time and gets the answers as they come.

use crate::engine::{Engine, EngineConfig, EngineError, Recovery, share};
use crate::error::chain;
use crate::zygote::{self, ZygoteError};
use infield_api::runner::*;
use infield_sys::process;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Semaphore, oneshot};

/// Connections at a time; more wait in the socket's queue.
const CONNECTIONS_MAX: usize = 256;
/// Requests of one connection that are worked on at a time.
const REQUESTS_PER_CONNECTION_MAX: usize = 512;
/// Wanted for the runner itself; less when the host allows less.
const OPEN_FILES: u64 = 1 << 20;
const HOST_RULES_PERIOD: Duration = Duration::from_secs(5);
/// Images whose last sandbox has gone stay at most so long.
const IMAGES_PERIOD: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, thiserror::Error)]
pub enum RunnerProcessError {
    #[error(transparent)]
    Zygote(#[from] ZygoteError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("{path}: cannot listen")]
    Listen { path: PathBuf, source: io::Error },
    #[error("cannot start the async runtime")]
    Runtime(#[source] io::Error),
}

impl RunnerProcessError {
    /// See [`EngineError::refuses_host`].
    pub fn refuses_host(&self) -> bool {
        matches!(self, Self::Engine(error) if error.refuses_host())
    }
}

/// Runs a runner until SIGTERM or SIGINT. Call it before anything starts threads: the zygotes are made first. `ready` hears
/// what was found from an earlier runner as soon as requests are answered.
pub fn run_runner(config: EngineConfig, ready: impl FnOnce(&Recovery)) -> Result<(), RunnerProcessError> {
    let zygotes = zygote::spawn(config.zygotes)?;
    // Each sandbox costs a few descriptors here.
    if let Err(error) = process::set_limit(process::Limit::OpenFiles, OPEN_FILES, OPEN_FILES) {
        tracing::warn!(%error, "the limit of open files cannot be raised; many sandboxes may not fit");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(RunnerProcessError::Runtime)?;
    runtime.block_on(async move {
        let (path, group) = (config.runner_socket(), config.socket_group);
        let (engine, recovery) = Engine::open(config, zygotes)?;
        let listener =
            listen(&path, group).map_err(|source| RunnerProcessError::Listen { path: path.clone(), source })?;
        ready(&recovery);
        let guard = tokio::spawn(keep_house(engine.clone()));
        tokio::select! {
            () = serve(listener, Arc::new(engine.clone())) => {}
            () = asked_to_end() => {}
        }
        guard.abort();
        let _ = std::fs::remove_file(&path);
        engine.close();
        Ok(())
    })
}

fn listen(path: &Path, group: Option<u32>) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    share(path, 0o660, group)?;
    Ok(listener)
}

async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// What the runner does by itself every now and then, until it is dropped.
async fn keep_house(engine: Engine) {
    tokio::join!(
        every(HOST_RULES_PERIOD, &engine, "check the host's packet rules", Engine::ensure_host_rules),
        every(IMAGES_PERIOD, &engine, "collect images nobody uses", Engine::collect_images),
    );
}

async fn every(period: Duration, engine: &Engine, what: &str, work: fn(&Engine) -> Result<(), RunnerError>) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let engine = engine.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || work(&engine)).await {
            tracing::warn!(%error, "cannot {what}; trying again later");
        }
    }
}

/// Serves any runner on a listening socket, for ever.
pub async fn serve(listener: UnixListener, runner: Arc<dyn Runner>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let runner = Arc::clone(&runner);
                tokio::spawn(async move {
                    if let Err(error) = connection(stream, runner).await {
                        tracing::debug!(error = chain(&error), "a connection to the runner ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: the sandboxes that run are not to suffer.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, runner: Arc<dyn Runner>) -> io::Result<()> {
    let (read, write) = stream.into_split();
    let mut read = BufReader::new(read);
    let write = Arc::new(Mutex::new(write));
    let places = Arc::new(Semaphore::new(REQUESTS_PER_CONNECTION_MAX));
    let (broken, mut is_broken) = oneshot::channel::<()>();
    let broken = Arc::new(std::sync::Mutex::new(Some(broken)));
    loop {
        let frame = tokio::select! {
            frame = read_frame(&mut read) => frame?,
            _ = &mut is_broken => return Ok(()),
        };
        let Some(frame) = frame else { return Ok(()) };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let (runner, write, broken) = (Arc::clone(&runner), Arc::clone(&write), Arc::clone(&broken));
        tokio::spawn(async move {
            let body = answer(&*runner, frame.body).await;
            if write_frame(&write, &Frame { seq: frame.seq, body }).await.is_err() {
                let tell = broken.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                // Another answer may have said so already.
                let _ = tell.map(|tell| tell.send(()));
            }
            drop(place);
        });
    }
}

async fn answer(runner: &dyn Runner, request: RunnerRequest) -> RunnerResponse {
    let done = |()| RunnerResponse::Done;
    let answer = match request {
        RunnerRequest::Create(spec) => runner.create(*spec).await.map(RunnerResponse::Running),
        RunnerRequest::Start(spec) => runner.start(*spec).await.map(RunnerResponse::Running),
        RunnerRequest::Stop { id, force } => runner.stop(id, force).await.map(done),
        RunnerRequest::Destroy { id } => runner.destroy(id).await.map(done),
        RunnerRequest::Inspect { id } => runner.inspect(id).await.map(RunnerResponse::Observed),
        RunnerRequest::List => runner.list().await.map(RunnerResponse::List),
        RunnerRequest::Stats { id } => runner.stats(id).await.map(RunnerResponse::Stats),
        RunnerRequest::Pause { id } => runner.pause(id).await.map(done),
        RunnerRequest::Resume { id } => runner.resume(id).await.map(done),
        RunnerRequest::Resize(spec) => runner.resize(*spec).await.map(done),
        RunnerRequest::Fork { source, spec } => runner.fork(source, *spec).await.map(RunnerResponse::Running),
        RunnerRequest::Snapshot { id, reference } => runner.snapshot(id, reference).await.map(RunnerResponse::Image),
        RunnerRequest::Archive { id } => runner.archive(id).await.map(done),
        RunnerRequest::CreateVolume { id, size_mib } => runner.create_volume(id, size_mib).await.map(done),
        RunnerRequest::RemoveVolume { id } => runner.remove_volume(id).await.map(done),
        RunnerRequest::Images => runner.images().await.map(RunnerResponse::Images),
        RunnerRequest::PullImage(pull) => runner.pull_image(pull).await.map(RunnerResponse::Image),
        RunnerRequest::ReleaseImage { reference } => runner.release_image(reference).await.map(done),
        RunnerRequest::Ping => Ok(RunnerResponse::Done),
    };
    answer.unwrap_or_else(RunnerResponse::Failed)
}

/// The next request; `None` = the client is done.
async fn read_frame(read: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Frame<RunnerRequest>>> {
    let length = match read.read_u32_le().await {
        Ok(length) => length as usize,
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    };
    if length > RUNNER_FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("frame of {length} bytes")));
    }
    let mut text = vec![0; length];
    read.read_exact(&mut text).await?;
    Ok(Some(serde_json::from_slice(&text)?))
}

async fn write_frame(write: &Mutex<OwnedWriteHalf>, frame: &Frame<RunnerResponse>) -> io::Result<()> {
    let mut text = serde_json::to_vec(frame)?;
    if text.len() > RUNNER_FRAME_BYTES_MAX {
        let message = "the answer is longer than a frame; ask for less at a time";
        let body = RunnerResponse::Failed(RunnerError::new(RunnerErrorKind::Internal, message));
        text = serde_json::to_vec(&Frame { seq: frame.seq, body })?;
    }
    let mut bytes = (text.len() as u32).to_le_bytes().to_vec();
    bytes.extend(text);
    write.lock().await.write_all(&bytes).await
}
