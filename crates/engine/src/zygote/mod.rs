//! The zygote: a tiny single-threaded process that clones sandboxes on behalf of the runner.
//!
//! Starting a process from the runner itself would copy its page tables (35-90 ms) and its mount table. A zygote has next to
//! nothing to copy, lives in a mount namespace of three empty mounts, and gets everything by descriptor. It keeps no state: when
//! it dies nothing is lost, sandboxes go on, and the runner starts another. It ends when the runner's end of its socket
//! closes, so it never outlives the runner; a parent-death signal is not used because it follows threads, not processes.

mod main;
mod message;

pub use main::main;
pub(crate) use message::{Start, Started};

use infield_sys::{ns, socket};
use message::{MESSAGE_BYTES_MAX, Reply, Request};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Hidden subcommand of the program that calls [`main`].
pub const SUBCOMMAND: &str = "zygote";
/// A zygote that has not answered after this long is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum ZygoteError {
    #[error("cannot start the helper process {program}")]
    Spawn { program: String, source: io::Error },
    #[error("the helper process that starts sandboxes does not answer; it is replaced, try again")]
    Gone(#[source] io::Error),
    #[error("cannot {step}")]
    Step { step: String, source: io::Error },
}

/// The zygotes of one runner. Calls block; there are as many at a time as there are zygotes.
#[derive(Debug)]
pub struct Zygotes {
    program: PathBuf,
    idle: Mutex<Vec<Option<OwnedFd>>>,
    returned: Condvar,
}

/// Starts `count` zygotes from this program. Call it early: from a small process it costs least.
pub fn spawn(count: usize) -> Result<Zygotes, ZygoteError> {
    let program = std::env::current_exe()
        .map_err(|source| ZygoteError::Spawn { program: "/proc/self/exe".to_owned(), source })?;
    spawn_program(program, count)
}

/// The same from another program that answers to [`SUBCOMMAND`].
pub fn spawn_program(program: PathBuf, count: usize) -> Result<Zygotes, ZygoteError> {
    let idle = (0..count.max(1)).map(|_| start_one(&program).map(Some)).collect::<Result<_, _>>()?;
    Ok(Zygotes { program, idle: Mutex::new(idle), returned: Condvar::new() })
}

fn start_one(program: &PathBuf) -> Result<OwnedFd, ZygoteError> {
    let failed = |source| ZygoteError::Spawn { program: program.display().to_string(), source };
    let (ours, theirs) = socket::seqpacket_pair().map_err(failed)?;
    socket::set_timeout(ours.as_fd(), ANSWER_TIMEOUT).map_err(failed)?;
    let child = Command::new(program)
        .arg(SUBCOMMAND)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .map_err(failed)?;
    // It ends by itself when `ours` closes; a thread collects it so that it does not stay a zombie.
    collect_in_background(child);
    Ok(ours)
}

fn collect_in_background(mut child: std::process::Child) {
    let collector = std::thread::Builder::new().name("zygote-wait".to_owned()).stack_size(64 << 10);
    // Without the thread the worst is one zombie entry until the runner ends.
    let _ = collector.spawn(move || child.wait());
}

impl Zygotes {
    /// A user namespace over `count` host ids from `first`, and a network namespace that belongs to it.
    pub fn make_pair(&self, first: u32, count: u32) -> Result<ns::Pair, ZygoteError> {
        match self.call(&Request::Pair { first, count }, &[])? {
            (Reply::Pair, fds) => {
                let mut fds = fds.into_iter();
                match (fds.next(), fds.next()) {
                    (Some(user), Some(net)) => Ok(ns::Pair { user, net }),
                    _ => Err(unexpected()),
                }
            }
            (reply, _) => Err(refusal(reply)),
        }
    }

    /// Starts PID 1 of a sandbox; returns when it runs the agent.
    pub(crate) fn start(&self, start: &Start, fds: &StartFds<'_>) -> Result<(Started, OwnedFd), ZygoteError> {
        let all: Vec<BorrowedFd<'_>> = [fds.netns, fds.userns, fds.root]
            .into_iter()
            .chain(fds.cgroups.iter().copied())
            .chain(fds.inherited.iter().copied())
            .collect();
        let request = Request::Start { start: start.clone(), cgroups: fds.cgroups.len() };
        match self.call(&request, &all)? {
            (Reply::Started(started), fds) => match fds.into_iter().next() {
                Some(pidfd) => Ok((started, pidfd)),
                None => Err(unexpected()),
            },
            (reply, _) => Err(refusal(reply)),
        }
    }

    fn call(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>), ZygoteError> {
        let idle = self.borrow();
        let text = serde_json::to_vec(request).map_err(|e| ZygoteError::Gone(e.into()));
        let sent = text.and_then(|text| self.send(idle, &text, fds));
        let socket = match sent {
            Ok(socket) => socket,
            Err(error) => {
                self.give_back(None);
                return Err(error);
            }
        };
        let answer = receive(&socket);
        // After a failed exchange the two ends may disagree about what comes next: drop it, the next caller starts anew.
        self.give_back(answer.is_ok().then_some(socket));
        answer.map_err(ZygoteError::Gone)
    }

    /// Sends to an idle zygote, or to a new one when there is none or it has died: it has seen nothing of the request then.
    fn send(&self, idle: Option<OwnedFd>, text: &[u8], fds: &[BorrowedFd<'_>]) -> Result<OwnedFd, ZygoteError> {
        if let Some(socket) = idle
            && socket::send(socket.as_fd(), text, fds).is_ok()
        {
            return Ok(socket);
        }
        let socket = start_one(&self.program)?;
        socket::send(socket.as_fd(), text, fds).map_err(ZygoteError::Gone)?;
        Ok(socket)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<OwnedFd>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle zygote, or the right to start one.
    fn borrow(&self) -> Option<OwnedFd> {
        let mut idle = self.lock();
        loop {
            if let Some(slot) = idle.pop() {
                return slot;
            }
            idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, slot: Option<OwnedFd>) {
        self.lock().push(slot);
        self.returned.notify_one();
    }
}

/// Descriptors that travel with a [`Start`].
pub(crate) struct StartFds<'a> {
    pub netns: BorrowedFd<'a>,
    pub userns: BorrowedFd<'a>,
    pub root: BorrowedFd<'a>,
    pub cgroups: &'a [BorrowedFd<'a>],
    pub inherited: &'a [BorrowedFd<'a>],
}

fn receive(socket: &OwnedFd) -> io::Result<(Reply, Vec<OwnedFd>)> {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    let (got, fds) = socket::receive(socket.as_fd(), &mut buffer)?;
    if got == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((serde_json::from_slice(&buffer[..got])?, fds))
}

fn refusal(reply: Reply) -> ZygoteError {
    match reply {
        Reply::Failed { step, errno, .. } if errno != 0 => {
            ZygoteError::Step { step, source: io::Error::from_raw_os_error(errno) }
        }
        Reply::Failed { step, message, .. } => ZygoteError::Step { step, source: io::Error::other(message) },
        _ => unexpected(),
    }
}

fn unexpected() -> ZygoteError {
    ZygoteError::Gone(io::Error::new(io::ErrorKind::InvalidData, "answer does not fit the request"))
}
