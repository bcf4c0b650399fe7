//! The API process: everything that reads what strangers send, with nothing to lose but its own database.

use super::{key_file, ssh};
use crate::{cli::ApiArgs, logging, paths::Paths, wire};
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::{net::TcpListener, os::fd::AsFd};
use tokio::signal::unix::{SignalKind, signal};

/// Tells a child who its parent is, so that it notices when that one died before the death signal was armed.
pub const PARENT_ENV: &str = "INFIELD_PARENT_PID";

pub fn main(args: ApiArgs) -> Result<()> {
    follow_parent()?;
    lose_privileges()?;
    logging::init();
    let ssh = args.ssh_fd.map(ssh::inherit).transpose()?;
    let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    listener.local_addr().context("`infield api-worker` is started by `infield serve`, not by hand")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(args, listener, ssh))
}

async fn run(args: ApiArgs, listener: TcpListener, ssh: Option<TcpListener>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let paths = Paths::new(&args.data.data_dir);
    let ssh_port = ssh.as_ref().map(TcpListener::local_addr).transpose()?.map(|address| address.port());
    let api = wire::api(&paths, args.public_url, args.preview_domain, ssh_port).await?;
    if let Some(key) = wire::first_key(&api, key_file::wanted()).await? {
        println!("{}", key_file::line(&key));
    }
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let ssh = ssh.map(tokio::net::TcpListener::from_std).transpose()?;
    let ssh = ssh.zip(api.ssh()).map(|(listener, gateway)| tokio::spawn(gateway.serve(listener)));
    let stop = async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
    };
    // The janitor goes on until the last request is answered, then writes down what it holds.
    let (drained, answered) = tokio::sync::oneshot::channel::<()>();
    let background = api.control.clone();
    let background = tokio::spawn(async move {
        background.run_background(async { drop(answered.await) }).await;
    });
    super::http::serve(listener, api.http(), stop).await;
    if let Some(ssh) = ssh {
        ssh.abort();
    }
    drop(drained);
    background.await.context("the background work broke off")?;
    api.store.close().await;
    Ok(())
}

/// Ends this process when its supervisor ends, even by SIGKILL.
pub fn follow_parent() -> Result<()> {
    let Ok(parent) = std::env::var(PARENT_ENV) else { return Ok(()) };
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).context("cannot follow the supervisor")?;
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().to_string());
    ensure!(now.as_deref() == Some(parent.as_str()), "the supervisor ended while this process started");
    Ok(())
}

/// The supervisor already changed the user; here is checked that nothing is left and that nothing can come back.
fn lose_privileges() -> Result<()> {
    ensure!(
        !rustix::process::geteuid().is_root(),
        "the API process must not run as root; start it with `infield serve`"
    );
    rustix::thread::set_no_new_privs(true).context("cannot set no_new_privs")?;
    let held = rustix::thread::capabilities(None).context("cannot read the capabilities")?;
    let left = held.effective | held.permitted | held.inheritable;
    ensure!(left.is_empty(), "the API process still holds capabilities ({left:?}); refusing to serve");
    Ok(())
}
