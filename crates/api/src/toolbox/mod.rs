//! Bodies of the in-sandbox toolbox API, shared by the agent that answers and the client that asks.
//!
//! Names and case are the published contract's (`spec/toolbox.json`): camelCase, except Git bodies. Fields a caller must give
//! are `Option` or empty by default here, because a missing and an empty value get the same answer: 400.

mod error;
mod files;
mod git;
mod info;
mod interpreter;
mod lsp;
mod process;
mod pty;
mod session;

pub use error::{DaemonErrorCode, ERROR_SOURCE, ErrorBody};
pub use files::*;
pub use git::*;
pub use info::*;
pub use interpreter::*;
pub use lsp::*;
pub use process::*;
pub use pty::*;
pub use session::*;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the engine hands to a fresh agent as JSON on [`AGENT_CONFIG_FD`].
///
/// A running sandbox keeps its agent for life, so fields are only ever added, with defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentConfig {
    pub generation: u32,
    pub sandbox_id: String,
    /// OS user that runs commands: a name or a number, optionally `:group`. `None` = root.
    pub user: Option<String>,
    /// The image's environment with the sandbox's own laid over it.
    pub env: BTreeMap<String, String>,
    /// The image's WORKDIR; `None` = the user's home.
    pub workdir: Option<String>,
    /// Run beside the agent at start; empty = nothing.
    pub entrypoint: Vec<String>,
    /// Inherited descriptors; a child writes "0" to each to join the cgroup with the user's limits.
    pub user_cgroup_fds: Vec<i32>,
    pub usage: UsageConfig,
}

/// What an agent tells of its sandbox's use, and where it reads it: inherited descriptors of single files, so that nothing
/// of the host lies beside them. A reading nobody gave is not shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UsageConfig {
    pub cpu_cores: u32,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    /// Processor time: `cpuacct.usage` or `cpu.stat`.
    pub cpu_fd: Option<i32>,
    /// `memory.usage_in_bytes` or `memory.current`.
    pub memory_fd: Option<i32>,
    /// `memory.stat`.
    pub memory_stat_fd: Option<i32>,
    /// A file that says how many bytes the sandbox's disk holds.
    pub disk_fd: Option<i32>,
    /// The root file system is the sandbox's alone: what it says of itself is the disk's use.
    pub disk_is_root: bool,
}

/// Generation of the agreement between engine and agent.
pub const AGENT_GENERATION: u32 = 1;
/// The listening unix socket an agent inherits.
pub const AGENT_LISTEN_FD: i32 = 3;
/// The descriptor an agent reads its [`AgentConfig`] from, to the end.
pub const AGENT_CONFIG_FD: i32 = 5;
