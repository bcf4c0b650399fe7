//! `infield serve`: a small root supervisor that binds the addresses and keeps two children alive: the runner (root, no
//! network) and the API (network, no privileges). It parses no request and opens no database.

pub mod child;
pub mod http;
mod key_file;
mod ssh;
pub mod worker;

use crate::{
    cli::{HostArgs, ServeArgs},
    paths::{self, Owner, Paths},
};
use anyhow::{Context, Result, bail};
use child::Child;
use key_file::KeyFile;
use std::{
    ffi::OsString,
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
};
use tokio::signal::unix::{SignalKind, signal};

pub fn main(mut args: ServeArgs) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "infield serve needs root to make sandboxes; run it with sudo (the API itself drops to an ordinary user)"
        );
    }
    // The children work in `/`, so they are told absolute paths.
    let paths = Paths::new(&args.host.data.data_dir);
    args.host.data.data_dir = paths.data.clone();
    args.host.image_dir = args.host.image_dir.map(|folder| Paths::new(&folder).data);
    let owner = paths::api_owner(args.user.as_deref())?;
    std::fs::create_dir_all(&paths.data).with_context(|| format!("cannot create {}", paths.data.display()))?;
    let _lock = lock(&paths)?;
    paths.prepare(owner)?;
    let listener = bind(args.listen)?;
    let address = listener.local_addr().context("cannot read back the address")?;
    let ssh = ssh::bind(args.ssh_listen);
    raise_open_files();
    announce(&paths, address)?;
    // One thread: a child's parent-death signal is tied to the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(supervise(&args, &paths, owner, listener, ssh))
}

async fn supervise(
    args: &ServeArgs,
    paths: &Paths,
    owner: Owner,
    listener: TcpListener,
    ssh: Option<OwnedFd>,
) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut runner = Child::new("runner", runner_argv(&args.host, owner), None);
    let argv = api_argv(args, paths, ssh.as_ref());
    let drop = child::Drop { owner, stdin: OwnedFd::from(listener), ssh, keys: KeyFile::new(paths.clone()) };
    let mut api = Child::new("api", argv, Some(drop));
    runner.start()?;
    api.start()?;
    let outcome = loop {
        let going_on = tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            going_on = runner.keep_alive() => going_on,
            going_on = api.keep_alive() => going_on,
        };
        if going_on.is_err() {
            break going_on;
        }
    };
    // The API first: it finishes what it is answering, for which it needs the runner. Sandboxes go on.
    api.stop().await;
    runner.stop().await;
    outcome
}

/// The arguments of a runner with the same settings.
fn runner_argv(host: &HostArgs, owner: Owner) -> Vec<OsString> {
    let mut argv: Vec<OsString> = vec!["runner".into(), "--data-dir".into(), host.data.data_dir.clone().into()];
    let mut flag = |name: &str, value: Option<OsString>| {
        if let Some(value) = value {
            argv.extend([OsString::from(name), value]);
        }
    };
    flag("--subnet", host.subnet.as_ref().map(Into::into));
    flag("--image-dir", host.image_dir.as_ref().map(Into::into));
    flag("--pool-size", host.pool_size.map(|n| n.to_string().into()));
    flag("--socket-gid", Some(owner.gid.to_string().into()));
    argv
}

fn api_argv(args: &ServeArgs, paths: &Paths, ssh: Option<&OwnedFd>) -> Vec<OsString> {
    let mut argv: Vec<OsString> = vec!["api-worker".into(), "--data-dir".into(), paths.data.clone().into()];
    for (name, value) in [("--public-url", &args.public_url), ("--preview-domain", &args.preview_domain)] {
        argv.extend(value.iter().flat_map(|value| [name.into(), value.into()]));
    }
    argv.extend(ssh.iter().flat_map(|ssh| ["--ssh-fd".into(), ssh.as_raw_fd().to_string().into()]));
    argv
}

/// Held as long as the process lives; the kernel releases it whatever happens.
pub fn lock(paths: &Paths) -> Result<File> {
    let path = paths.lock();
    let file = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    // Whoever can open it can lock it, and keep the server from starting.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot make {} private", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => bail!(
            "another infield serve already runs on {}; use that one, stop it, or give this one its own --data-dir",
            paths.data.display()
        ),
        Err(std::fs::TryLockError::Error(e)) => Err(e).with_context(|| format!("cannot lock {}", path.display())),
    }
}

fn bind(listen: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(listen).with_context(|| {
        format!("cannot listen on {listen}; stop what uses that port or choose another with --listen")
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Writes down and says where the API is, as seen from this machine.
fn announce(paths: &Paths, address: SocketAddr) -> Result<()> {
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let url = format!("http://{}/api", SocketAddr::new(host, address.port()));
    let path = paths.api_url();
    paths::write_file(&path, 0o644, &format!("{url}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    println!("infield serves {url}");
    Ok(())
}

/// Every sandbox and every client costs descriptors.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    // Not fatal: a small limit shows itself as refused connections, with a log line.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
}
