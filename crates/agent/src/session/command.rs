//! One command of a session: its text, its log, how far it is. The task that runs it writes; everybody may read and wait.

use super::frames::{self, Cutter, Stream};
use super::store::{Log, Spill};
use infield_api::toolbox::SessionCommand;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until};

/// Texts of all commands that are kept, waiting ones included.
pub const ALL_TEXTS_BYTES_MAX: usize = 16 << 20;
/// How long the beginning of a line waits for its end: a log looks better with whole lines, a prompt must be seen.
const LINE_WAIT: Duration = Duration::from_millis(30);
/// One read of a command's output.
const READ_BYTES_MAX: usize = 32 << 10;

static ALL_TEXTS_BYTES: AtomicUsize = AtomicUsize::new(0);

/// How far a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Waiting,
    Running,
    /// It has ended; its output may still come.
    Draining,
    Done,
}

/// What a reader of the log waits for.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub phase: Phase,
    pub log_bytes: u64,
    /// As soon as it is known; to be told to nobody before the command is done.
    code: Option<i32>,
    /// The session ended before this command's turn.
    pub skipped: bool,
}

pub struct Command {
    pub id: String,
    pub text: String,
    pub log: Log,
    /// Whether clients may send input; otherwise it reads nothing.
    pub open_input: bool,
    pub echo_input: bool,
    progress: watch::Sender<Progress>,
    /// Input that is echoed and output that is read do not mix within a frame.
    appending: Mutex<()>,
}

impl Command {
    /// `None` when all commands together hold too much text.
    pub fn new(id: String, text: String, open_input: bool, echo_input: bool, spill: &Arc<Spill>) -> Option<Self> {
        let before = ALL_TEXTS_BYTES.fetch_add(text.len(), Ordering::Relaxed);
        if before + text.len() > ALL_TEXTS_BYTES_MAX {
            ALL_TEXTS_BYTES.fetch_sub(text.len(), Ordering::Relaxed);
            return None;
        }
        let progress = Progress { phase: Phase::Waiting, log_bytes: 0, code: None, skipped: false };
        let progress = watch::Sender::new(progress);
        let log = Log::new(spill.clone());
        Some(Self { id, text, log, open_input, echo_input, progress, appending: Mutex::default() })
    }

    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    pub fn phase(&self) -> Phase {
        self.progress.borrow().phase
    }

    /// Known once the whole output is in the log.
    pub fn exit_code(&self) -> Option<i32> {
        let progress = self.progress.borrow();
        progress.code.filter(|_| progress.phase == Phase::Done)
    }

    /// As soon as the command itself has ended.
    pub fn early_exit_code(&self) -> Option<i32> {
        self.progress.borrow().code
    }

    pub fn describe(&self) -> SessionCommand {
        SessionCommand { id: self.id.clone(), command: self.text.clone(), exit_code: self.exit_code() }
    }

    pub fn begins(&self) {
        self.progress.send_modify(|p| p.phase = p.phase.max(Phase::Running));
    }

    /// Takes no more input; the code is told when the output is complete. The first code counts.
    pub fn ended(&self, code: i32) {
        self.progress.send_modify(|p| {
            p.phase = p.phase.max(Phase::Draining);
            p.code.get_or_insert(code);
        });
    }

    pub fn done(&self) {
        self.progress.send_modify(|p| p.phase = Phase::Done);
    }

    /// The session ended first.
    pub async fn skip(&self, code: i32) {
        let mut frames = Vec::new();
        frames::write(Stream::Err, b"[the session ended before this command began]\n", &mut frames);
        self.append(frames).await;
        self.progress.send_modify(|p| p.skipped = true);
        self.ended(code);
        self.done();
    }

    pub async fn append(&self, frames: Vec<u8>) {
        if frames.is_empty() {
            return;
        }
        let _one = self.appending.lock().await;
        self.log.append(frames).await;
        let log_bytes = self.log.bytes();
        self.progress.send_modify(|p| p.log_bytes = log_bytes);
    }

    /// Waits until it has begun, or has been done without.
    pub async fn at_least(&self, phase: Phase) -> Progress {
        let mut watch = self.watch();
        // The sender lives in `self`, so this cannot fail.
        if let Ok(progress) = watch.wait_for(|p| p.phase >= phase).await {
            return *progress;
        }
        *self.progress.borrow()
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        ALL_TEXTS_BYTES.fetch_sub(self.text.len(), Ordering::Relaxed);
    }
}

/// Brings both outputs of a command into its log.
pub struct Pump {
    pipes: [Option<pipe::Receiver>; 2],
    cutters: [Cutter; 2],
    /// When an unfinished line is let go.
    flush_at: Instant,
}

/// What a pump can go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    Output(usize),
    Line,
}

impl Pump {
    pub fn new(out: pipe::Receiver, err: pipe::Receiver) -> Self {
        let cutters = [Cutter::new(Stream::Out), Cutter::new(Stream::Err)];
        Self { pipes: [Some(out), Some(err)], cutters, flush_at: Instant::now() }
    }

    pub fn is_open(&self) -> bool {
        self.pipes.iter().any(Option::is_some)
    }

    fn is_holding(&self) -> bool {
        self.cutters.iter().any(Cutter::is_holding)
    }

    /// Which output has something, or that a line should wait no longer; for ever when all has ended. Cancel safe.
    pub async fn ready(&self) -> Ready {
        let one = async |at: usize| match &self.pipes[at] {
            Some(pipe) => drop(pipe.readable().await),
            None => std::future::pending().await,
        };
        let output = async {
            tokio::select! {
                () = one(0) => 0,
                () = one(1) => 1,
            }
        };
        tokio::select! {
            biased;
            at = output => Ready::Output(at),
            () = sleep_until(self.flush_at), if self.is_holding() => Ready::Line,
        }
    }

    /// Brings home what there is. To be run to its end.
    pub async fn take(&mut self, ready: Ready, command: &Command) {
        let frames = self.cut(ready);
        command.append(frames).await;
    }

    /// What there is, as frames that are still to be appended.
    pub fn cut(&mut self, ready: Ready) -> Vec<u8> {
        let mut frames = Vec::new();
        match ready {
            Ready::Output(at) => self.read(at, &mut frames),
            Ready::Line => self.cutters.iter_mut().for_each(|c| c.flush(&mut frames)),
        }
        frames
    }

    fn read(&mut self, at: usize, frames: &mut Vec<u8>) {
        let held = self.is_holding();
        let ended = match &self.pipes[at] {
            Some(pipe) => read_into(pipe, &mut self.cutters[at], frames),
            None => true,
        };
        if ended {
            self.pipes[at] = None;
            self.cutters[at].finish(frames);
        }
        if self.is_holding() && !held {
            self.flush_at = Instant::now() + LINE_WAIT;
        }
    }
}

/// On the stack, because an idle command should hold no buffer. `true` at the end.
fn read_into(pipe: &pipe::Receiver, cutter: &mut Cutter, frames: &mut Vec<u8>) -> bool {
    let mut bytes = [0; READ_BYTES_MAX];
    match pipe.try_read(&mut bytes) {
        Ok(0) => true,
        Ok(n) => {
            cutter.push(&bytes[..n], frames);
            false
        }
        Err(e) => !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
    }
}
