//! PID 1 and the toolbox API inside every sandbox.
//!
//! Architecture Invariant: this program is the sandbox's user. It knows nothing of the control plane, other sandboxes or
//! host paths, and everything it can do, a command in the sandbox can do as well.

mod body;
mod boot;
mod children;
mod code_run;
mod direct;
mod entrypoint;
mod env;
mod error;
mod execute;
mod family;
mod files;
mod git;
mod info;
mod interpreter;
mod json_text;
mod launch;
mod lsp;
mod metrics;
mod output;
mod passwd;
mod port;
mod proxy;
mod proxy_target;
mod pty;
mod query;
mod query_pairs;
mod routes;
mod sdk;
mod serve;
mod session;
mod sftp;
mod shell;
mod small_file;
mod stat;
mod state;
mod stream;
mod telemetry;
mod timestamp;
mod unbuilt;
mod ws;

#[doc(hidden)]
pub mod testing;

pub use boot::{BootError, prepare};
pub use git::worker::{WORKER_ARGUMENT, run as run_git_worker};
pub use serve::Server;
pub use sftp::{SFTP_ARGUMENT, run as run_sftp_server};
pub use state::Agent;
