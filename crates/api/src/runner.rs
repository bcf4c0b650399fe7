//! The seam between the control plane and a host: plain data in and out, every verb idempotent.
//!
//! Implemented by `engine::Engine` (the host itself), `client::RemoteRunner` (over the runner's socket) and a stateful
//! simulation in the tests. A runner knows nothing of users, organizations, quotas or databases.

use crate::SandboxId;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, future::Future, net::Ipv4Addr, os::fd::OwnedFd, pin::Pin};

pub type RunnerFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, RunnerError>> + Send + 'a>>;

/// What a host can do for a control plane.
///
/// Guarantees: a verb that returns `Ok` has reached its effect; one that returns `Err` has undone its own partial work;
/// repeating a verb is harmless. Not guaranteed: any order between verbs on different sandboxes. Verbs on one sandbox are
/// serialized by the runner.
pub trait Runner: Send + Sync + 'static {
    /// Makes the sandbox and starts it. An existing sandbox with the same id is started if it is stopped.
    fn create(&self, spec: SandboxSpec) -> RunnerFuture<'_, Running>;
    /// Starts a stopped sandbox with its files kept. `spec.env`, limits and network replace the recorded ones.
    fn start(&self, spec: SandboxSpec) -> RunnerFuture<'_, Running>;
    /// Ends every process, keeps the files. `force` skips the grace period.
    fn stop(&self, id: SandboxId, force: bool) -> RunnerFuture<'_, ()>;
    /// Removes every trace. `Ok` when there is nothing to remove.
    fn destroy(&self, id: SandboxId) -> RunnerFuture<'_, ()>;
    /// What the host sees of one sandbox; `NotFound` when it holds no record of it.
    fn inspect(&self, id: SandboxId) -> RunnerFuture<'_, Observed>;
    /// Every sandbox this host holds a record of.
    fn list(&self) -> RunnerFuture<'_, Vec<Observed>>;
    /// Resource use now.
    fn stats(&self, id: SandboxId) -> RunnerFuture<'_, Stats>;
    /// A connected stream to the sandbox's agent (HTTP/1.1 speaks over it).
    fn connect(&self, id: SandboxId) -> RunnerFuture<'_, AgentStream>;

    /// Freezes every process.
    fn pause(&self, _id: SandboxId) -> RunnerFuture<'_, ()> {
        unsupported("pause")
    }
    /// Thaws a paused sandbox.
    fn resume(&self, _id: SandboxId) -> RunnerFuture<'_, ()> {
        unsupported("resume")
    }
    /// Changes limits of a running or stopped sandbox.
    fn resize(&self, _spec: SandboxSpec) -> RunnerFuture<'_, ()> {
        unsupported("resize")
    }
    /// Copies the files of `source` into a new sandbox.
    fn fork(&self, _source: SandboxId, _spec: SandboxSpec) -> RunnerFuture<'_, Running> {
        unsupported("fork")
    }
    /// Whether it knows the verb `snapshot`.
    fn makes_snapshots(&self) -> bool {
        false
    }
    /// Turns the files of a sandbox into an image with the given reference.
    fn snapshot(&self, _id: SandboxId, _reference: String) -> RunnerFuture<'_, ImageInfo> {
        unsupported("snapshot")
    }

    /// Packs the files of a stopped sandbox into the object store and frees its disk; `start` brings them back.
    fn archive(&self, _id: SandboxId) -> RunnerFuture<'_, ()> {
        unsupported("archive")
    }

    /// Makes a volume, a directory that outlives sandboxes; `SandboxSpec::volumes` names it.
    fn create_volume(&self, _id: String, _size_mib: u64) -> RunnerFuture<'_, ()> {
        unsupported("create_volume")
    }
    /// Removes a volume and its files. `Conflict` while a sandbox names it, `Ok` when there is none.
    fn remove_volume(&self, _id: String) -> RunnerFuture<'_, ()> {
        unsupported("remove_volume")
    }

    /// Images present on this host.
    fn images(&self) -> RunnerFuture<'_, Vec<ImageInfo>>;
    /// Makes an image present, from the local store or a registry.
    fn pull_image(&self, pull: PullImage) -> RunnerFuture<'_, ImageInfo>;
    /// Forgets a reference; layers that nothing uses any more are collected.
    fn release_image(&self, reference: String) -> RunnerFuture<'_, ()>;
}

fn unsupported<T>(verb: &'static str) -> RunnerFuture<'static, T> {
    Box::pin(async move {
        Err(RunnerError::new(RunnerErrorKind::Unsupported, format!("this runner does not know the verb {verb} yet")))
    })
}

/// A stream to an agent: a connected, non-blocking unix or TCP socket.
pub type AgentStream = OwnedFd;

/// Everything a host needs to make one sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    pub id: SandboxId,
    /// Becomes the hostname.
    pub name: String,
    /// A reference or content id (`sha256:…`) in the host's image store.
    pub image: String,
    /// OS user that runs commands; `None` = the image's own.
    pub user: Option<String>,
    /// Added to the image's environment.
    pub env: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Whole cores.
    pub cpu: u32,
    pub memory_mib: u64,
    pub disk_mib: u64,
    /// No egress at all.
    pub network_block_all: bool,
    /// Run beside the agent at start; empty = the image's own, and when that has none either, nothing.
    pub entrypoint: Vec<String>,
    /// Directories of the host that outlive it.
    #[serde(default)]
    pub volumes: Vec<VolumeMount>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// The volume's id, a UUID; names its directory on the host.
    pub volume: String,
    /// Where it is seen inside: absolute.
    pub path: String,
    /// Only this directory of the volume; made when it is missing.
    pub subpath: Option<String>,
}

/// Answer of `create` and `start`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub ip: Option<Ipv4Addr>,
    pub agent_version: String,
    /// Where the time went, for `Server-Timing`.
    pub phases: Vec<Phase>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    pub name: String,
    pub duration_us: u64,
}

/// What a host sees of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    pub id: SandboxId,
    pub state: ObservedState,
    pub ip: Option<Ipv4Addr>,
    /// Host pid of the agent while running.
    pub pid: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObservedState {
    Running,
    Paused,
    Stopped,
    Archived,
    /// The agent died or could not be started; the files are kept.
    Failed {
        reason: String,
    },
}

/// Resource use of one sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    pub cpu_usage_us: u64,
    pub memory_bytes: u64,
    pub pids: u64,
    pub disk_bytes: u64,
    pub oom_kills: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullImage {
    pub reference: String,
    pub username: Option<String>,
    pub password: Option<String>,
}

/// An image in a host's store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// `sha256:` of the image's configuration.
    pub id: String,
    /// Names its operator gave it.
    pub references: Vec<String>,
    /// Names it only has because `pull_image` fetched it.
    #[serde(default)]
    pub pulled: Vec<String>,
    pub size_bytes: u64,
    pub created_at_ms: i64,
    pub entrypoint: Vec<String>,
    pub env: Vec<String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
}

/// Why a verb failed, for the control plane. `message` is for people and names the next step; it never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerError {
    pub kind: RunnerErrorKind,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunnerErrorKind {
    NotFound,
    /// The request itself cannot be met (unknown user, bad limits, unknown image).
    Invalid,
    /// The sandbox is in another state than the verb needs.
    Conflict,
    /// Disk, memory, address or id ranges are used up.
    Exhausted,
    Unsupported,
    /// The runner or the sandbox's agent cannot be reached now.
    Unavailable,
    Internal,
}

impl RunnerError {
    pub fn new(kind: RunnerErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl fmt::Display for RunnerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
impl std::error::Error for RunnerError {}

/// The runner's socket speaks frames: a little-endian u32 length, then this as JSON. Answers carry the request's number,
/// so many requests share one connection and finish in any order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Frame<T> {
    pub seq: u64,
    pub body: T,
}

/// One frame is at most this long; a longer one ends the connection.
pub const RUNNER_FRAME_BYTES_MAX: usize = 4 << 20;

/// A request on the runner's socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunnerRequest {
    Create(Box<SandboxSpec>),
    Start(Box<SandboxSpec>),
    Stop {
        id: SandboxId,
        force: bool,
    },
    Destroy {
        id: SandboxId,
    },
    Inspect {
        id: SandboxId,
    },
    List,
    Stats {
        id: SandboxId,
    },
    Pause {
        id: SandboxId,
    },
    Resume {
        id: SandboxId,
    },
    Resize(Box<SandboxSpec>),
    Fork {
        source: SandboxId,
        spec: Box<SandboxSpec>,
    },
    Snapshot {
        id: SandboxId,
        reference: String,
    },
    Archive {
        id: SandboxId,
    },
    CreateVolume {
        id: String,
        size_mib: u64,
    },
    RemoveVolume {
        id: String,
    },
    Images,
    PullImage(PullImage),
    ReleaseImage {
        reference: String,
    },
    /// Liveness probe: answered with [`RunnerResponse::Done`].
    Ping,
}

/// An answer on the runner's socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunnerResponse {
    Done,
    Running(Running),
    Observed(Observed),
    List(Vec<Observed>),
    Stats(Stats),
    Image(ImageInfo),
    Images(Vec<ImageInfo>),
    Failed(RunnerError),
}

/// Name of the runner's listening socket inside the data directory's `run/` folder.
pub const RUNNER_SOCKET_NAME: &str = "runner.sock";
/// Folder of agent sockets inside `run/`; each is `<sandbox id>.sock`. `RemoteRunner::connect` on the same host dials it.
pub const AGENT_SOCKET_DIR: &str = "agents";
/// What the socket's extension is while the sandbox is paused: nobody is to wait for an answer that cannot come.
pub const PAUSED_SOCKET_EXTENSION: &str = "paused";
