//! What every request shares: the user, the environment, the table of children.

use crate::children::Children;
use crate::env::Env;
use crate::interpreter::Contexts;
use crate::lsp::Registry;
use crate::metrics::Usage;
use crate::passwd::User;
use crate::pty::Ptys;
use crate::session::Sessions;
use crate::telemetry::Telemetry;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

pub struct Agent {
    pub(crate) user: User,
    pub(crate) home: String,
    /// The process's own working directory; relative paths of requests mean this one.
    pub(crate) workdir: PathBuf,
    pub(crate) env: Env,
    pub(crate) entrypoint: Vec<String>,
    /// A child writes `0` to each to get under the limits for commands.
    pub(crate) cgroups: Vec<OwnedFd>,
    pub(crate) children: Children,
    pub(crate) sessions: Sessions,
    pub(crate) usage: Usage,
    pub(crate) telemetry: Telemetry,
    pub(crate) lsp: Registry,
    pub(crate) ptys: Ptys,
    pub(crate) contexts: Contexts,
}

/// How handlers see it.
pub(crate) type Shared = Arc<Agent>;

impl Agent {
    pub(crate) fn new(
        user: User,
        home: String,
        workdir: PathBuf,
        env: Env,
        entrypoint: Vec<String>,
        cgroups: Vec<OwnedFd>,
        usage: Usage,
    ) -> Self {
        Self {
            user,
            home,
            workdir,
            env,
            entrypoint,
            cgroups,
            children: Children::default(),
            sessions: Sessions::default(),
            usage,
            telemetry: Telemetry::default(),
            lsp: Registry::default(),
            ptys: Ptys::default(),
            contexts: Contexts::default(),
        }
    }
}
