//! Starts a session's shell with its channels: where it reads what to do, where it answers, and one end of each pipe that its
//! commands will use. Knows no HTTP and runs no command.

use super::control::Dialect;
use crate::children::Exit;
use crate::env::Vars;
use crate::error::{Failure, reason};
use crate::execute::c_string;
use crate::family::{self, Family};
use crate::launch::{OOM_SCORE_ADJ, raise_oom_score};
use crate::shell::{self, Shell};
use crate::state::Shared;
use infield_api::toolbox::DaemonErrorCode;
use infield_sys::child::{Extra, Group, Spawned, Spec, spawn_with};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

/// For what only carries lines: a thousand sessions should not use up a user's share of pipes.
const SMALL_PIPE_BYTES: usize = 4 << 10;

/// A running shell.
pub struct SessionShell {
    pub family: Family,
    pub channels: Channels,
    pub input: pipe::Sender,
    pub exit: oneshot::Receiver<Exit>,
}

/// The agent's side of what the shell and its commands use.
pub struct Channels {
    pub dialect: Dialect,
    pub script: pipe::Sender,
    pub control: UnixStream,
    out: OwnedFd,
    err: OwnedFd,
    input: OwnedFd,
    text: File,
}

/// The writing ends that keep the outputs open until the command has opened its own.
pub struct Guards(#[allow(dead_code, reason = "it is there to be dropped")] [OwnedFd; 2]);

impl Channels {
    /// Lays the text ready and opens the outputs for one command.
    pub fn prepare(&self, text: &str) -> io::Result<(pipe::Receiver, pipe::Receiver, Guards)> {
        let preamble = self.dialect.preamble();
        self.text.set_len(0)?;
        std::os::unix::fs::FileExt::write_all_at(&self.text, preamble.as_bytes(), 0)?;
        std::os::unix::fs::FileExt::write_all_at(&self.text, text.as_bytes(), preamble.len() as u64)?;
        let guards = Guards([writing_end(&self.out)?, writing_end(&self.err)?]);
        // A registration of its own for each command, because one that has seen the end stays at the end.
        let out = pipe::Receiver::from_owned_fd(self.out.try_clone()?)?;
        let err = pipe::Receiver::from_owned_fd(self.err.try_clone()?)?;
        Ok((out, err, guards))
    }

    /// Throws away the text and the input that the command has not read.
    pub fn tidy(&self) {
        let _ = self.text.set_len(0);
        let mut bytes = [0; SMALL_PIPE_BYTES];
        while rustix::io::read(&self.input, &mut bytes).is_ok_and(|n| n > 0) {}
    }
}

/// A pipe's other end, by its name in `/proc`: a process may always open its own descriptors.
fn writing_end(pipe: &OwnedFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    Ok(open(path, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?)
}

/// Starts the shell in the given directory. A directory that cannot be entered is an error.
pub async fn start(agent: &Shared, cwd: Option<PathBuf>) -> Result<SessionShell, Failure> {
    let vars = agent.env.snapshot();
    let (shell, dialect) = choose(&vars)?;
    let (tag, words) = family::tagged(&vars);
    let cwd = cwd.map(|c| c_string(c.as_os_str().as_bytes()));
    let parts = Parts::new().map_err(|e| failed(&e))?;
    let Parts { ours, theirs } = parts;
    let shared = agent.clone();
    let started = tokio::task::spawn_blocking(move || {
        let starting = shared.children.starting();
        let pid = spawn(&shared, &shell, &words, cwd, &theirs, dialect.first)?;
        if shared.user.uid != 0 {
            raise_oom_score(pid);
        }
        let family = Family::new(pid, tag);
        Ok((family, starting.started(pid)))
    });
    let (family, exit) = started.await.map_err(Failure::internal)?.map_err(|e: io::Error| failed(&e))?;
    let finish = || -> io::Result<(Channels, pipe::Sender)> {
        let Ours { script, control, out, err, input_read, input_write, text } = ours;
        control.set_nonblocking(true)?;
        let script = pipe::Sender::from_owned_fd(script)?;
        let control = UnixStream::from_std(control)?;
        rustix::io::ioctl_fionbio(&input_read, true)?;
        let channels = Channels { dialect, script, control, out, err, input: input_read, text };
        Ok((channels, pipe::Sender::from_owned_fd(input_write)?))
    };
    // On failure the script ends with `ours`, and with it the shell.
    let (channels, input) = finish().map_err(|e| failed(&e))?;
    Ok(SessionShell { family, channels, input, exit })
}

fn failed(e: &io::Error) -> Failure {
    Failure::new(DaemonErrorCode::Internal, format!("cannot start the session's shell: {}", reason(e)))
}

/// The sandbox's shell, or `sh` where that one speaks another language.
fn choose(vars: &Vars) -> Result<(Shell, Dialect), Failure> {
    let speaks = |shell: Shell| Dialect::of(&shell).map(|d| (shell, d));
    let plain = || {
        let path = crate::direct::search("sh", vars)?;
        speaks(Shell { path, name: "sh".to_owned() })
    };
    shell::find(vars).and_then(speaks).or_else(plain).ok_or_else(|| {
        let why = "cannot start the session's shell: this image has no shell (/bin/sh); use an image with one";
        Failure::new(DaemonErrorCode::Internal, why)
    })
}

struct Ours {
    script: OwnedFd,
    control: StdStream,
    out: OwnedFd,
    err: OwnedFd,
    input_read: OwnedFd,
    input_write: OwnedFd,
    text: File,
}

struct Theirs {
    stdio: [OwnedFd; 3],
    extra: [OwnedFd; 4],
}

struct Parts {
    ours: Ours,
    theirs: Theirs,
}

impl Parts {
    fn new() -> io::Result<Self> {
        let small = || -> io::Result<(OwnedFd, OwnedFd)> {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            // A smaller pipe than asked for does as well.
            let _ = fcntl_setpipe_size(&write, SMALL_PIPE_BYTES);
            Ok((read, write))
        };
        let (script_read, script) = small()?;
        let (input_read, input_write) = small()?;
        let (out, _) = pipe_with(PipeFlags::CLOEXEC)?;
        let (err, _) = pipe_with(PipeFlags::CLOEXEC)?;
        let (control, answers) = StdStream::pair()?;
        let text = memfd_create("command", MemfdFlags::CLOEXEC)?;
        let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let extra = [input_read.try_clone()?, out.try_clone()?, err.try_clone()?, text.try_clone()?];
        let theirs = Theirs { stdio: [script_read, answers.into(), null], extra };
        let ours = Ours { script, control, out, err, input_read, input_write, text: text.into() };
        Ok(Self { ours, theirs })
    }
}

fn spawn(
    agent: &Shared,
    shell: &Shell,
    env: &[CString],
    cwd: Option<CString>,
    theirs: &Theirs,
    first: i32,
) -> io::Result<i32> {
    let cgroups: Vec<_> = agent.cgroups.iter().map(AsFd::as_fd).collect();
    let programs = [shell.program().unwrap_or_default()];
    let argv = [c_string(shell.name.as_bytes())];
    let [a, b, c] = &theirs.stdio;
    let extra = theirs.extra.each_ref().map(AsFd::as_fd);
    let spec = Spec {
        programs: &programs,
        argv: &argv,
        env,
        cwd: cwd.as_deref(),
        stdio: [a.as_fd(), b.as_fd(), c.as_fd()],
        cgroups: &cgroups,
        oom_score_adj: Some(OOM_SCORE_ADJ),
        group: Group::Session,
    };
    let spawned = spawn_with(&spec, Extra { first, fds: &extra });
    let Spawned { pid, pidfd: _ } =
        spawned.map_err(|e| io::Error::new(e.source.kind(), format!("{e}: {}", e.source)))?;
    Ok(pid)
}
