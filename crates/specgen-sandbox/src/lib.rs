//! The human's hands: `spin`, `exec`, `sync`, `delete`, `list`, `info` for sandboxes on any server of the published
//! contract, hosted or local.
//!
//! One file per command in `commands/`, one per provider in `providers/`. Knows nothing of how a server makes sandboxes.

mod commands;
pub mod errors;
mod output;
mod providers;
mod repo;

use clap::{Args, Subcommand};
use infield_client::Api;
use std::{path::PathBuf, process::ExitCode};

pub use errors::Failure;
pub use output::{Progress, Said, table};
pub use providers::{Provider, connect};

/// What every command accepts.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Where sandboxes run [default: daytona if DAYTONA_API_KEY is set, else local]
    #[arg(long, value_enum, env = "SPECGEN_PROVIDER")]
    pub provider: Option<Provider>,
    /// Folder of the local server's data (provider local)
    #[arg(long, env = "INFIELD_DATA_DIR", default_value = "/var/lib/infield", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Print one JSON document on standard output, for errors too
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum Command {
    /// Create a sandbox, clone a repository into it and have it ready
    Spin(commands::spin::Spin),
    /// Run a command in a sandbox and exit with its code
    Exec(commands::exec::Exec),
    /// Commit everything in the sandbox's working tree and push it to a branch
    Sync(commands::sync::Sync),
    /// Delete a sandbox and everything in it
    Delete(commands::delete::Delete),
    /// List sandboxes
    List(commands::list::List),
    /// Show one sandbox
    Info(commands::info::Info),
}

/// Runs one command to its exit code, having said on the terminal whatever there is to say.
pub fn run(command: Command) -> ExitCode {
    block_on(dispatch(command))
}

/// Runs a command of another program with the same manners: text or JSON, the same failures and exit codes.
pub fn run_as_command(json: bool, command: impl Future<Output = Result<Said, Failure>>) -> ExitCode {
    block_on(async { output::finish(json, command.await) })
}

fn block_on(command: impl Future<Output = u8>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(command);
    // A read of the terminal may still be blocked in the background; nobody waits for it.
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn dispatch(command: Command) -> u8 {
    match command {
        Command::Spin(args) => output::finish(args.target.json, commands::spin::run(&args).await),
        Command::Exec(args) => commands::exec::main(&args).await,
        Command::Sync(args) => output::finish(args.target.json, commands::sync::run(&args).await),
        Command::Delete(args) => output::finish(args.target.json, commands::delete::run(&args).await),
        Command::List(args) => output::finish(args.target.json, commands::list::run(&args).await),
        Command::Info(args) => output::finish(args.target.json, commands::info::run(&args).await),
    }
}

/// The sandbox by id or name, or the failure that says it is not there.
async fn find(api: &Api, id: &str) -> Result<infield_client::dto::Sandbox, Failure> {
    api.get(id).await.map_err(|e| if e.is_not_found() { Failure::no_such_sandbox(id) } else { Failure::from(e) })
}

/// The sandbox running: one that stopped by itself is started, because its files are what is asked for.
async fn awake(api: &Api, sandbox: infield_client::dto::Sandbox) -> Result<infield_client::dto::Sandbox, Failure> {
    if sandbox.state == "started" {
        return Ok(sandbox);
    }
    let _progress = Progress::start(format!("starting {}, which was {}", sandbox.name, sandbox.state));
    let sandbox = match sandbox.state.as_str() {
        "stopped" | "archived" | "paused" => api.start(&sandbox.id).await?,
        _ => sandbox,
    };
    Ok(api.wait_started(sandbox, START_MAX).await?)
}

/// How long a sandbox may take until it runs (a hosted server may have to fetch its image).
const START_MAX: std::time::Duration = std::time::Duration::from_secs(600);
