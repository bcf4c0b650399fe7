//! Starting a child with its pipes, under the limits for commands. Knows neither shells nor HTTP.

use crate::children::Exit;
use crate::state::Shared;
use infield_sys::child::{Group, SpawnError, Spawned, Spec, Step, spawn};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::{CStr, CString};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

/// Commands die before the agent when memory runs out.
pub const OOM_SCORE_ADJ: i16 = 500;

/// What to run.
pub struct Launch {
    pub program: CString,
    pub argv: Vec<CString>,
    pub env: Vec<CString>,
    /// `None` = the agent's own, which is the sandbox's working directory.
    pub cwd: Option<CString>,
    pub input: Input,
    /// Two pipes for stdout and stderr, or one for both.
    pub split: bool,
}

/// The child's standard input.
pub enum Input {
    /// These bytes, then its end.
    Text(Vec<u8>),
    /// Whatever the caller writes.
    Open,
    /// This descriptor.
    Given(OwnedFd),
}

/// A running child. It is the leader of its own process group.
pub struct Child {
    pub pid: i32,
    pub input: Option<pipe::Sender>,
    pub out: pipe::Receiver,
    pub err: Option<pipe::Receiver>,
    pub exit: oneshot::Receiver<Exit>,
}

/// Why there is no child.
#[derive(Debug)]
pub enum LaunchError {
    Pipe(io::Error),
    Spawn(SpawnError),
}

impl LaunchError {
    /// The working directory cannot be entered.
    pub fn is_cwd(&self) -> bool {
        matches!(self, Self::Spawn(e) if e.step == Step::Cwd)
    }

    /// The program itself could not be executed.
    pub fn is_exec(&self) -> bool {
        matches!(self, Self::Spawn(e) if e.step == Step::Exec)
    }

    pub fn source(&self) -> &io::Error {
        match self {
            Self::Pipe(e) => e,
            Self::Spawn(e) => &e.source,
        }
    }
}

/// Ends of pipes that stay here, and those that go to the child.
struct Pipes {
    ours: (OwnedFd, OwnedFd, Option<OwnedFd>),
    theirs: [OwnedFd; 3],
}

/// Starts the child on the blocking pool: executing a file can take as long as the file system behind it.
pub async fn launch(agent: &Shared, what: Launch) -> Result<Child, LaunchError> {
    let Launch { program, argv, env, cwd, input, split } = what;
    let Pipes { ours: (input_end, out, err), mut theirs } = pipes(split).map_err(LaunchError::Pipe)?;
    let input = match input {
        Input::Given(fd) => {
            theirs[0] = fd;
            Input::Text(Vec::new())
        }
        other => other,
    };
    let (early, rest) = feed(input_end, input).map_err(LaunchError::Pipe)?;
    let shared = agent.clone();
    let started = tokio::task::spawn_blocking(move || {
        let stdio = [theirs[0].as_fd(), theirs[1].as_fd(), theirs[2].as_fd()];
        let program = std::slice::from_ref(&program);
        start(&shared, program, &argv, &env, cwd.as_deref(), stdio, Group::New)
    });
    let (pid, exit) = match started.await {
        Ok(done) => done.map_err(LaunchError::Spawn)?,
        Err(e) => return Err(LaunchError::Pipe(io::Error::other(e))),
    };
    let input = early.map(pipe::Sender::from_owned_fd).transpose().map_err(LaunchError::Pipe)?;
    let input = match (input, rest) {
        (Some(pipe), Some(rest)) => {
            tokio::spawn(write_all(pipe, rest));
            None
        }
        (input, _) => input,
    };
    let out = pipe::Receiver::from_owned_fd(out).map_err(LaunchError::Pipe)?;
    let err = err.map(pipe::Receiver::from_owned_fd).transpose().map_err(LaunchError::Pipe)?;
    Ok(Child { pid, input, out, err, exit })
}

/// Starts a child under the limits for commands and under the care of the one who waits. Blocks while a file is executed.
pub fn start(
    agent: &Shared,
    programs: &[CString],
    argv: &[CString],
    env: &[CString],
    cwd: Option<&CStr>,
    stdio: [BorrowedFd<'_>; 3],
    group: Group,
) -> Result<(i32, oneshot::Receiver<Exit>), SpawnError> {
    let starting = agent.children.starting();
    let cgroups: Vec<_> = agent.cgroups.iter().map(AsFd::as_fd).collect();
    let oom_score_adj = Some(OOM_SCORE_ADJ);
    let spec = Spec { programs, argv, env, cwd, stdio, cgroups: &cgroups, oom_score_adj, group };
    let Spawned { pid, pidfd: _ } = spawn(&spec)?;
    if agent.user.uid != 0 {
        raise_oom_score(pid);
    }
    Ok((pid, starting.started(pid)))
}

/// A child of a non-root agent cannot raise its score before it executes, because this process is not dumpable and its
/// /proc files belong to root. A program that already ended or changed its user needs it no more.
pub fn raise_oom_score(pid: i32) {
    let file = std::fs::File::options().write(true).open(format!("/proc/{pid}/oom_score_adj"));
    let _ = file.and_then(|mut f| f.write_all(OOM_SCORE_ADJ.to_string().as_bytes()));
}

fn pipes(split: bool) -> io::Result<Pipes> {
    let (in_read, in_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let (out_read, out_write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&in_write, true)?;
    rustix::io::ioctl_fionbio(&out_read, true)?;
    let (err_read, err_write) = if split {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        (Some(read), write)
    } else {
        (None, out_write.try_clone()?)
    };
    Ok(Pipes { ours: (in_write, out_read, err_read), theirs: [in_read, out_write, err_write] })
}

/// Puts as much of the text into the pipe as it takes; usually that is all, and the pipe is closed before the child exists.
fn feed(pipe: OwnedFd, input: Input) -> io::Result<(Option<OwnedFd>, Option<Vec<u8>>)> {
    let text = match input {
        Input::Open => return Ok((Some(pipe), None)),
        Input::Given(_) => return Ok((None, None)),
        Input::Text(text) => text,
    };
    let mut done = 0;
    while done < text.len() {
        match rustix::io::write(&pipe, &text[done..]) {
            Ok(n) => done += n,
            Err(rustix::io::Errno::AGAIN) => return Ok((Some(pipe), Some(text[done..].to_vec()))),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok((None, None))
}

/// A child that stops reading ends this quietly, as it ends any writer to a pipe.
async fn write_all(mut pipe: pipe::Sender, text: Vec<u8>) {
    let _ = tokio::io::AsyncWriteExt::write_all(&mut pipe, &text).await;
}

/// Signals the child's whole process group. Only for a child whose exit has not been received: until then its number
/// cannot belong to anybody else.
pub fn signal_group(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process_group(pid, signal);
    }
}
