//! `infield runner`: the engine of this host behind its socket. Root, no network listener, no database.

use crate::{
    cli::RunnerArgs,
    logging, paths,
    serve::{child, worker},
    wire,
};
use anyhow::{Context, Result, bail};
use infield_engine::Recovery;
use std::process::ExitCode;

pub fn main(args: RunnerArgs) -> Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        bail!("infield runner needs root to make sandboxes; run it with sudo");
    }
    worker::follow_parent()?;
    logging::init();
    let config = match wire::engine(&args.host, args.socket_gid) {
        Ok(config) => config,
        Err(error) => return Ok(refuse(&error)),
    };
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("cannot create {}", config.data_dir.display()))?;
    let tag = infield_engine::tag_of(&config.data_dir).context("cannot open the data directory")?;
    // Shows which kernel objects are this server's.
    paths::write_file(&config.data_dir.join("instance"), 0o644, &format!("{tag}\n")).context("cannot write the tag")?;
    match infield_engine::server::run_runner(config, report) {
        Err(error) if error.refuses_host() => Ok(refuse(&error.into())),
        other => Ok(other.map(|()| ExitCode::SUCCESS)?),
    }
}

/// Says why, and tells the supervisor that starting again is no use.
fn refuse(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(child::REFUSES)
}

fn report(found: &Recovery) {
    let Recovery { adopted, stopped, failed, cleaned, orphans, unreadable } = found;
    tracing::info!(adopted, stopped, failed, cleaned, orphans, "the runner is ready");
    for what in unreadable {
        tracing::warn!("a record cannot be read; its files are kept: {what}");
    }
}

/// The tiny process that starts sandboxes; made by the runner, never by hand.
pub fn zygote() -> ExitCode {
    infield_engine::zygote::main()
}
