//! The process behind a context: how it is started and what it is reached by. It gets its program through its channel, not from
//! a file that somebody could change.

use super::wire::{Answer, Answers, Garbled, Kind};
use crate::children::Exit;
use crate::direct;
use crate::error::reason;
use crate::execute::c_string;
use crate::family::{self, Family};
use crate::launch::{Child, Input, Launch, launch, signal_group};
use crate::state::Shared;
use rustix::io::ioctl_fionread;
use rustix::process::Signal;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::timeout;

const PROGRAM: &str = include_str!("worker.py");
/// Python with a slow start-up file on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
const CHANNEL_READ_BYTES: usize = 16 << 10;

pub struct Worker {
    pub pid: i32,
    pub family: Family,
    pub exit: oneshot::Receiver<Exit>,
    pub channel: UnixStream,
    pub answers: Answers,
    pub out: pipe::Receiver,
    pub err: pipe::Receiver,
}

/// The channel is of no use any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

impl From<Garbled> for Broken {
    fn from(_: Garbled) -> Self {
        Self
    }
}

/// Starts a worker and waits until it is ready. The error is for the caller to read.
pub async fn start(agent: &Shared, cwd: Option<PathBuf>) -> Result<Worker, String> {
    let vars = agent.env.snapshot();
    let python = direct::search("python3", &vars).or_else(|| direct::search("python", &vars));
    let python = python.ok_or("this image has no python3 in its PATH; use an image with Python 3.8 or newer")?;
    let (tag, words) = family::tagged(&vars);
    let (ours, theirs) = channel().map_err(|e| format!("no channel to the interpreter: {e}"))?;
    let loader = format!(
        "import os\ns=b''\nwhile len(s)<{len}:s+=os.read(0,{len}-len(s))\nexec(compile(s,'<worker>','exec'))",
        len = PROGRAM.len()
    );
    let what = Launch {
        program: c_string(python.as_os_str().as_bytes()),
        argv: vec![c"python3".to_owned(), c"-c".to_owned(), c_string(loader.as_bytes())],
        env: words,
        cwd: cwd.as_ref().map(|c| c_string(c.as_os_str().as_bytes())),
        input: Input::Given(theirs),
        split: true,
    };
    let child = launch(agent, what).await.map_err(|e| match (e.is_cwd(), &cwd) {
        (true, Some(cwd)) => format!("chdir {}: {}", cwd.display(), reason(e.source())),
        _ => format!("{}: {}", python.display(), reason(e.source())),
    })?;
    let Child { pid, input: _, out, err: Some(err), exit } = child else {
        return Err("the interpreter has no standard error".to_owned());
    };
    let family = Family::new(pid, tag);
    let mut worker = Worker { pid, family, exit, channel: ours, answers: Answers::default(), out, err };
    match timeout(START_LIMIT, worker.hello()).await {
        Ok(Ok(())) => Ok(worker),
        Ok(Err(why)) => {
            worker.family.kill(agent).await;
            Err(why)
        }
        Err(_) => {
            worker.family.kill(agent).await;
            Err(format!("{} did not start within {} s", python.display(), START_LIMIT.as_secs()))
        }
    }
}

fn channel() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = StdStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}

impl Worker {
    async fn hello(&mut self) -> Result<(), String> {
        self.channel.write_all(PROGRAM.as_bytes()).await.map_err(|e| e.to_string())?;
        tokio::select! {
            biased;
            answer = next_answer(&mut self.channel, &mut self.answers) => match answer {
                Ok(Answer { kind: Kind::Ready, .. }) => Ok(()),
                _ => Err(self.last_words().await),
            },
            ended = &mut self.exit => {
                let code = ended.unwrap_or(Exit::Code(-1)).code();
                Err(format!("python3 ended with exit code {code}: {}", self.last_words().await))
            }
        }
    }

    /// What it said about not starting.
    async fn last_words(&mut self) -> String {
        let waiting = waiting(&self.err);
        let text = read_waiting(&mut self.err, waiting).await;
        let text = String::from_utf8_lossy(&text);
        text.lines().last().unwrap_or("the interpreter did not start").to_owned()
    }

    pub fn signal(&self, signal: Signal) {
        // Until its end has been told, the number cannot belong to anybody else.
        if !self.exit.is_terminated() && self.exit.is_empty() {
            signal_group(self.pid, signal);
        }
    }
}

/// Cancel safe.
pub async fn next_answer(channel: &mut UnixStream, answers: &mut Answers) -> Result<Answer, Broken> {
    loop {
        if let Some(answer) = answers.next()? {
            return Ok(answer);
        }
        let mut bytes = [0; CHANNEL_READ_BYTES];
        channel.readable().await.map_err(|_| Broken)?;
        match channel.try_read(&mut bytes) {
            Ok(0) => return Err(Broken),
            Ok(n) => answers.push(&bytes[..n]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Broken),
        }
    }
}

/// How much can be read at once.
pub fn waiting(pipe: impl AsFd) -> usize {
    ioctl_fionread(pipe).map_or(0, |n| usize::try_from(n).unwrap_or(0))
}

/// So many bytes, which are there already.
pub async fn read_waiting(pipe: &mut pipe::Receiver, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    let mut len = 0;
    while len < bytes {
        match pipe.read(&mut read[len..]).await {
            Ok(n) if n > 0 => len += n,
            _ => break,
        }
    }
    read.truncate(len);
    read
}
