//! `Runner` over the runner's unix socket: one connection, many requests in flight, told apart by number.
//!
//! When the runner goes away every call in flight fails with `Unavailable`, and the next call connects anew; verbs are
//! idempotent, so whoever called may simply call again. Streams to agents do not pass through the runner at all.

mod dial;
mod link;

use infield_api::{
    SandboxId,
    runner::{
        AGENT_SOCKET_DIR, AgentStream, ImageInfo, Observed, PAUSED_SOCKET_EXTENSION, PullImage, RUNNER_SOCKET_NAME,
        Runner, RunnerError, RunnerErrorKind, RunnerFuture, RunnerRequest, RunnerResponse, Running, SandboxSpec, Stats,
    },
};
use link::Link;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::Instant};

/// How long a call waits for a runner that is being restarted.
const RESTART_WAIT: Duration = Duration::from_secs(3);
const RESTART_POLL: Duration = Duration::from_millis(20);

/// A runner on this host, reached through its `run/` folder.
pub struct RemoteRunner {
    run_dir: PathBuf,
    link: Mutex<Option<Arc<Link>>>,
}

impl RemoteRunner {
    /// `run_dir` holds `runner.sock` and `agents/`. Nothing is opened before the first call.
    pub fn new(run_dir: impl Into<PathBuf>) -> Self {
        Self { run_dir: run_dir.into(), link: Mutex::new(None) }
    }

    /// Whether the runner answers now; does not wait for one that is starting.
    pub async fn ping(&self) -> Result<(), RunnerError> {
        let link = Link::open(&self.run_dir.join(RUNNER_SOCKET_NAME)).await.map_err(|e| self.unreachable(&e))?;
        done(link.call(RunnerRequest::Ping).await?)
    }

    async fn call(&self, request: RunnerRequest) -> Result<RunnerResponse, RunnerError> {
        self.link().await?.call(request).await
    }

    async fn link(&self) -> Result<Arc<Link>, RunnerError> {
        // Counted from here: calls that queue behind another's attempts do not each wait anew.
        let deadline = Instant::now() + RESTART_WAIT;
        let mut slot = self.link.lock().await;
        if let Some(link) = slot.as_ref().filter(|link| link.is_alive()) {
            return Ok(link.clone());
        }
        let socket = self.run_dir.join(RUNNER_SOCKET_NAME);
        loop {
            match Link::open(&socket).await {
                Ok(link) => return Ok(slot.insert(link).clone()),
                Err(e) if Instant::now() >= deadline => return Err(self.unreachable(&e)),
                Err(_) => tokio::time::sleep(RESTART_POLL).await,
            }
        }
    }

    fn unreachable(&self, error: &std::io::Error) -> RunnerError {
        let socket = self.run_dir.join(RUNNER_SOCKET_NAME);
        let message =
            format!("the runner does not answer at {}: {error}; is `infield runner` running?", socket.display());
        RunnerError::new(RunnerErrorKind::Unavailable, message)
    }

    async fn dial_agent(&self, id: SandboxId) -> Result<AgentStream, RunnerError> {
        let socket = self.run_dir.join(AGENT_SOCKET_DIR).join(format!("{id}.sock"));
        dial::connect(&socket).await.and_then(dial::into_fd).map_err(|e| {
            if socket.with_extension(PAUSED_SOCKET_EXTENSION).exists() {
                let message = format!("sandbox {id} is paused; resume it first");
                return RunnerError::new(RunnerErrorKind::Conflict, message);
            }
            let message = format!("the agent of sandbox {id} does not answer: {e}");
            RunnerError::new(RunnerErrorKind::Unavailable, message)
        })
    }
}

impl Runner for RemoteRunner {
    fn create(&self, spec: SandboxSpec) -> RunnerFuture<'_, Running> {
        Box::pin(async move { running(self.call(RunnerRequest::Create(Box::new(spec))).await?) })
    }

    fn start(&self, spec: SandboxSpec) -> RunnerFuture<'_, Running> {
        Box::pin(async move { running(self.call(RunnerRequest::Start(Box::new(spec))).await?) })
    }

    fn stop(&self, id: SandboxId, force: bool) -> RunnerFuture<'_, ()> {
        Box::pin(async move { done(self.call(RunnerRequest::Stop { id, force }).await?) })
    }

    fn destroy(&self, id: SandboxId) -> RunnerFuture<'_, ()> {
        Box::pin(async move { done(self.call(RunnerRequest::Destroy { id }).await?) })
    }

    fn inspect(&self, id: SandboxId) -> RunnerFuture<'_, Observed> {
        Box::pin(async move {
            match self.call(RunnerRequest::Inspect { id }).await? {
                RunnerResponse::Observed(observed) => Ok(observed),
                other => Err(unexpected(other)),
            }
        })
    }

    fn list(&self) -> RunnerFuture<'_, Vec<Observed>> {
        Box::pin(async move {
            match self.call(RunnerRequest::List).await? {
                RunnerResponse::List(list) => Ok(list),
                other => Err(unexpected(other)),
            }
        })
    }

    fn stats(&self, id: SandboxId) -> RunnerFuture<'_, Stats> {
        Box::pin(async move {
            match self.call(RunnerRequest::Stats { id }).await? {
                RunnerResponse::Stats(stats) => Ok(stats),
                other => Err(unexpected(other)),
            }
        })
    }

    fn connect(&self, id: SandboxId) -> RunnerFuture<'_, AgentStream> {
        Box::pin(self.dial_agent(id))
    }

    fn pause(&self, id: SandboxId) -> RunnerFuture<'_, ()> {
        Box::pin(async move { done(self.call(RunnerRequest::Pause { id }).await?) })
    }

    fn resume(&self, id: SandboxId) -> RunnerFuture<'_, ()> {
        Box::pin(async move { done(self.call(RunnerRequest::Resume { id }).await?) })
    }

    fn resize(&self, spec: SandboxSpec) -> RunnerFuture<'_, ()> {
        Box::pin(async move { done(self.call(RunnerRequest::Resize(Box::new(spec))).await?) })
    }

    fn fork(&self, source: SandboxId, spec: SandboxSpec) -> RunnerFuture<'_, Running> {
        let spec = Box::new(spec);
        Box::pin(async move { running(self.call(RunnerRequest::Fork { source, spec }).await?) })
    }

    fn snapshot(&self, id: SandboxId, reference: String) -> RunnerFuture<'_, ImageInfo> {
        Box::pin(async move { image(self.call(RunnerRequest::Snapshot { id, reference }).await?) })
    }

    fn archive(&self, id: SandboxId) -> RunnerFuture<'_, ()> {
        Box::pin(async move { done(self.call(RunnerRequest::Archive { id }).await?) })
    }

    fn create_volume(&self, id: String, size_mib: u64) -> RunnerFuture<'_, ()> {
        Box::pin(async move { done(self.call(RunnerRequest::CreateVolume { id, size_mib }).await?) })
    }

    fn remove_volume(&self, id: String) -> RunnerFuture<'_, ()> {
        Box::pin(async move { done(self.call(RunnerRequest::RemoveVolume { id }).await?) })
    }

    fn images(&self) -> RunnerFuture<'_, Vec<ImageInfo>> {
        Box::pin(async move {
            match self.call(RunnerRequest::Images).await? {
                RunnerResponse::Images(images) => Ok(images),
                other => Err(unexpected(other)),
            }
        })
    }

    fn pull_image(&self, pull: PullImage) -> RunnerFuture<'_, ImageInfo> {
        Box::pin(async move { image(self.call(RunnerRequest::PullImage(pull)).await?) })
    }

    fn release_image(&self, reference: String) -> RunnerFuture<'_, ()> {
        Box::pin(async move { done(self.call(RunnerRequest::ReleaseImage { reference }).await?) })
    }
}

fn done(response: RunnerResponse) -> Result<(), RunnerError> {
    match response {
        RunnerResponse::Done => Ok(()),
        other => Err(unexpected(other)),
    }
}

fn image(response: RunnerResponse) -> Result<ImageInfo, RunnerError> {
    match response {
        RunnerResponse::Image(image) => Ok(image),
        other => Err(unexpected(other)),
    }
}

fn running(response: RunnerResponse) -> Result<Running, RunnerError> {
    match response {
        RunnerResponse::Running(running) => Ok(running),
        other => Err(unexpected(other)),
    }
}

fn unexpected(response: RunnerResponse) -> RunnerError {
    match response {
        RunnerResponse::Failed(error) => error,
        _ => RunnerError::new(
            RunnerErrorKind::Internal,
            "the runner answered something that was not asked; restart both with one version of infield",
        ),
    }
}

#[cfg(test)]
mod tests;
