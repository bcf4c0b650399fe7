//! Bodies of the in-sandbox toolbox API, shared by the agent that answers and the client that asks.
//!
//! Names and case are the published contract's (`spec/toolbox.json`): camelCase, except Git bodies. Fields a caller must give
//! are `Option` or empty by default here, because a missing and an empty value get the same answer: 400.

mod error;
mod files;
mod git;
mod info;
mod process;

pub use error::{DaemonErrorCode, ERROR_SOURCE, ErrorBody};
pub use files::*;
pub use git::*;
pub use info::*;
pub use process::*;

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
}

/// Generation of the agreement between engine and agent.
pub const AGENT_GENERATION: u32 = 1;
/// The listening unix socket an agent inherits.
pub const AGENT_LISTEN_FD: i32 = 3;
/// The descriptor an agent reads its [`AgentConfig`] from, to the end.
pub const AGENT_CONFIG_FD: i32 = 5;
