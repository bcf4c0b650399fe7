//! A pseudo-terminal and the shell on it. The shell leads a session of its own with the terminal as its controlling one, and
//! carries a tag by which everything it starts is found again. Knows no clients.

use crate::children::Exit;
use crate::env::Vars;
use crate::error::reason;
use crate::execute::c_string;
use crate::family::{self, Family};
use crate::launch;
use crate::shell;
use crate::state::Shared;
use infield_sys::child::{Group, SpawnError};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

pub struct Terminal {
    pub master: Arc<AsyncFd<OwnedFd>>,
    pub family: Family,
    pub exit: oneshot::Receiver<Exit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub cols: u16,
    pub rows: u16,
}

/// Opens a terminal and starts the shell, for a command or for somebody who types. The error is for the caller to read.
pub async fn open(
    agent: &Shared,
    cwd: Option<PathBuf>,
    envs: &Vars,
    size: Size,
    command: Option<&str>,
) -> Result<Terminal, String> {
    let vars = agent.env.with(Some(envs));
    let shell = shell::find(&vars).ok_or("this image has no shell (/bin/sh); use an image with one")?;
    let program = shell.program().unwrap_or_default();
    let name = c_string(shell.name.as_bytes());
    let argv = match command {
        Some(command) => [name, c"-c".to_owned(), c_string(command.as_bytes())],
        None => [name, c"-i".to_owned(), c"-l".to_owned()],
    };
    let (tag, words) = family::tagged(&vars);
    let c_cwd = cwd.as_ref().map(|c| c_string(c.as_os_str().as_bytes()));
    let shared = agent.clone();
    let started = tokio::task::spawn_blocking(move || {
        let (master, slave) = pair(size).map_err(Start::Pair)?;
        let stdio = [slave.as_fd(); 3];
        let program = std::slice::from_ref(&program);
        let (pid, exit) = launch::start(&shared, program, &argv, &words, c_cwd.as_deref(), stdio, Group::Terminal)
            .map_err(Start::Spawn)?;
        Ok((master, Family::new(pid, tag), exit))
    });
    let (master, family, exit) = match started.await {
        Ok(Ok(started)) => started,
        Ok(Err(Start::Pair(e))) => return Err(format!("no pseudo-terminal can be had: {}", reason(&e))),
        Ok(Err(Start::Spawn(e))) => return Err(explained(&e, cwd, &shell.name)),
        Err(e) => return Err(e.to_string()),
    };
    #[allow(deprecated, reason = "sound for an OwnedFd, which keeps its number; `register` is unsafe")]
    let master = AsyncFd::new(master);
    match master {
        Ok(master) => Ok(Terminal { master: Arc::new(master), family, exit }),
        Err(e) => {
            family.kill(agent).await;
            Err(e.to_string())
        }
    }
}

enum Start {
    Pair(io::Error),
    Spawn(SpawnError),
}

fn explained(e: &SpawnError, cwd: Option<PathBuf>, shell: &str) -> String {
    let why = reason(&e.source);
    match (e.step, cwd) {
        (infield_sys::child::Step::Cwd, Some(cwd)) => format!("chdir {}: {why}", cwd.display()),
        (infield_sys::child::Step::Exec, _) => format!("{shell}: {why}"),
        _ => format!("{e}: {why}"),
    }
}

/// Our side, which never blocks, and the shell's.
fn pair(size: Size) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    resize(&master, size)?;
    let now = fcntl_getfl(&master)?;
    fcntl_setfl(&master, now | OFlags::NONBLOCK)?;
    Ok((master, slave))
}

pub fn resize(master: impl AsFd, size: Size) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(master, size)?)
}
