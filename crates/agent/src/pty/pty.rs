//! One terminal: its clients, what they type, what it prints, its end. One task carries the bytes; it owns no buffer while
//! nothing moves.
//!
//! A client that is behind: while it is the only one, the terminal waits for it, as a serial line would; where others watch
//! too, it is closed with 1008 and nobody waits.

use super::ending;
use super::terminal::{self, Size, Terminal};
use crate::children::Exit;
use crate::env::Vars;
use crate::family::Family;
use crate::state::Shared;
use crate::ws::{Outgoing, Refused, code};
use axum::extract::ws::Message;
use bytes::Bytes;
use infield_api::toolbox::PtySessionInfo;
use rustix::io::Errno;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

/// One message to a client.
const OUTPUT_BYTES_MAX: usize = 32 << 10;
/// Typed and not yet read by the shell's side.
const INPUT_BYTES_MAX: usize = 256 << 10;
/// A client that types waits this long for a terminal whose program does not read.
const INPUT_WAIT: Duration = Duration::from_secs(15);
const CLIENTS_MAX: usize = 64;
/// Between looks at a terminal that says it is ready and is not.
const PAUSE_FIRST: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// What is still delivered after the shell has ended; whoever it left behind may print forever.
const LAST_OUTPUT_BYTES_MAX: usize = 1 << 20;
/// For a client that is behind to take the rest.
const LAST_WAIT: Duration = Duration::from_secs(10);
/// For the bytes' task to notice that everything was killed.
const END_WAIT: Duration = Duration::from_secs(2);

pub struct Pty {
    pub id: String,
    pub born: u64,
    cwd: Option<PathBuf>,
    shown_cwd: String,
    envs: Vars,
    created_at: String,
    lazy: bool,
    command: Option<String>,
    state: Mutex<State>,
    /// Only one starts it.
    starting: tokio::sync::Mutex<()>,
    /// Wakes the bytes' task: something was typed, or a client came.
    wake: Notify,
    /// Wakes those who wait to type, and those who wait for the end.
    changed: Notify,
}

struct State {
    size: Size,
    phase: Phase,
    clients: Vec<Client>,
    clients_born: u64,
    typed: VecDeque<Bytes>,
    typed_bytes: usize,
}

enum Phase {
    Idle,
    Running(Arc<AsyncFd<OwnedFd>>, Family),
    Ended,
}

struct Client {
    born: u64,
    outgoing: Outgoing,
    exit_control: bool,
}

/// What one asks for who wants a terminal.
pub struct Wanted {
    pub id: String,
    pub cwd: Option<PathBuf>,
    pub envs: Vars,
    pub size: Size,
    pub lazy: bool,
    pub command: Option<String>,
}

/// Why typing had no effect.
#[derive(Debug, PartialEq, Eq)]
pub enum NotTyped {
    Ended,
    /// The program on the terminal does not read.
    Stuck,
}

impl Pty {
    pub fn new(agent: &Shared, wanted: Wanted, born: u64) -> Self {
        let Wanted { id, cwd, mut envs, size, lazy, command } = wanted;
        envs.entry("TERM".to_owned()).or_insert_with(|| "xterm-256color".to_owned());
        let shown_cwd = cwd.as_deref().unwrap_or(&agent.workdir).to_string_lossy().into_owned();
        let state = State {
            size,
            phase: Phase::Idle,
            clients: Vec::new(),
            clients_born: 0,
            typed: VecDeque::new(),
            typed_bytes: 0,
        };
        Self {
            id,
            born,
            cwd,
            shown_cwd,
            envs,
            created_at: crate::timestamp::now_millis(),
            lazy,
            command,
            state: Mutex::new(state),
            starting: tokio::sync::Mutex::default(),
            wake: Notify::new(),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn info(&self) -> PtySessionInfo {
        let state = self.state();
        PtySessionInfo {
            id: self.id.clone(),
            cwd: self.shown_cwd.clone(),
            envs: self.envs.clone(),
            cols: state.size.cols,
            rows: state.size.rows,
            created_at: self.created_at.clone(),
            active: matches!(state.phase, Phase::Running(..)),
            lazy_start: self.lazy,
        }
    }

    /// Starts the shell unless it runs, and attaches the client, which so sees everything. The number is for [`Self::detach`].
    pub async fn start(self: &Arc<Self>, agent: &Shared, client: Option<(&Outgoing, bool)>) -> Result<u64, String> {
        let _only = self.starting.lock().await;
        if matches!(self.state().phase, Phase::Idle) {
            let size = self.state().size;
            let terminal = terminal::open(agent, self.cwd.clone(), &self.envs, size, self.command.as_deref()).await?;
            let mut state = self.state();
            state.phase = Phase::Running(terminal.master.clone(), terminal.family.clone());
            let attached = attach(&mut state, client);
            drop(state);
            tokio::spawn(carry(self.clone(), agent.clone(), terminal));
            return attached;
        }
        let attached = attach(&mut self.state(), client);
        self.wake.notify_one();
        attached
    }

    pub fn detach(&self, born: u64) {
        self.state().clients.retain(|c| c.born != born);
    }

    /// Passes on what a client types, in order, waiting while the program does not read.
    pub async fn type_in(&self, bytes: Bytes) -> Result<(), NotTyped> {
        let deadline = Instant::now() + INPUT_WAIT;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if !matches!(state.phase, Phase::Running(..)) {
                    return Err(NotTyped::Ended);
                }
                if state.typed_bytes < INPUT_BYTES_MAX {
                    if !bytes.is_empty() {
                        state.typed_bytes += bytes.len();
                        state.typed.push_back(bytes);
                        self.wake.notify_one();
                    }
                    return Ok(());
                }
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Err(NotTyped::Stuck);
            }
        }
    }

    /// `None`: it does not run. The kernel tells the programs on it.
    pub fn resize(&self, size: Size) -> Option<io::Result<()>> {
        let mut state = self.state();
        match &state.phase {
            Phase::Running(master, _) => {
                if let Err(e) = terminal::resize(master.get_ref(), size) {
                    return Some(Err(e));
                }
            }
            Phase::Idle => return None,
            Phase::Ended => return Some(Err(Errno::SRCH.into())),
        }
        state.size = size;
        Some(Ok(()))
    }

    /// Kills the shell and all that came of it. Nobody finds the terminal by its name any more.
    pub async fn end(&self, agent: &Shared) {
        let _no_start = self.starting.lock().await;
        let family = match &mut self.state().phase {
            Phase::Running(_, family) => Some(family.clone()),
            phase => {
                *phase = Phase::Ended;
                None
            }
        };
        let Some(family) = family else { return };
        family.kill(agent).await;
        let ended = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if matches!(self.state().phase, Phase::Ended) {
                    return;
                }
                changed.await;
            }
        };
        let _ = timeout(END_WAIT, ended).await;
    }

    /// Gives output to one client or to all. Answers who has to be waited for, which is only ever the only one.
    fn deliver(&self, bytes: &Bytes, only: Option<u64>) -> Option<(u64, Outgoing)> {
        let mut state = self.state();
        let alone = state.clients.len() == 1;
        let mut behind = None;
        state.clients.retain(|client| {
            if only.is_some_and(|born| born != client.born) {
                return true;
            }
            match client.outgoing.offer(Message::Binary(bytes.clone())) {
                Ok(()) => true,
                Err(Refused::Gone) => false,
                Err(Refused::Full) if alone => {
                    behind = Some((client.born, client.outgoing.clone()));
                    true
                }
                Err(Refused::Full) => {
                    client.outgoing.cut(code::POLICY, "slow consumer");
                    false
                }
            }
        });
        behind
    }

    fn typed_bytes(&self) -> usize {
        self.state().typed_bytes
    }

    /// Writes what the terminal takes; an error other than `WouldBlock` means that nobody is there to read it.
    fn write_typed(&self, master: &OwnedFd) -> io::Result<()> {
        let mut state = self.state();
        while let Some(mut bytes) = state.typed.pop_front() {
            match rustix::io::write(master, &bytes) {
                Ok(n) => {
                    state.typed_bytes -= n;
                    if n < bytes.len() {
                        let rest = bytes.split_off(n);
                        state.typed.push_front(rest);
                    }
                }
                Err(Errno::AGAIN) => {
                    state.typed.push_front(bytes);
                    drop(state);
                    self.changed.notify_waiters();
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Err(Errno::INTR) => state.typed.push_front(bytes),
                Err(_) => state.typed_bytes -= bytes.len(),
            }
        }
        state.typed = VecDeque::new();
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Tells everybody how it ended.
    fn say_goodbye(&self, exit: Exit) {
        let clients = {
            let mut state = self.state();
            state.phase = Phase::Ended;
            (state.typed, state.typed_bytes) = (VecDeque::new(), 0);
            std::mem::take(&mut state.clients)
        };
        let code = exit.code();
        for Client { outgoing, exit_control, .. } in clients {
            tokio::spawn(async move {
                if exit_control {
                    let said = outgoing.send(Message::Text(ending::exited_message(code).into()));
                    let _ = timeout(LAST_WAIT, said).await;
                }
                let (close, why) = ending::close_frame(code);
                outgoing.finish(close, &why);
            });
        }
        self.changed.notify_waiters();
    }
}

fn attach(state: &mut State, client: Option<(&Outgoing, bool)>) -> Result<u64, String> {
    if matches!(state.phase, Phase::Ended) {
        return Err("PTY session has terminated".to_owned());
    }
    state.clients_born += 1;
    let born = state.clients_born;
    if let Some((outgoing, exit_control)) = client {
        if state.clients.len() >= CLIENTS_MAX {
            return Err(format!("it has {CLIENTS_MAX} clients, which is the limit"));
        }
        let connected = r#"{"type":"control","status":"connected"}"#;
        let _ = outgoing.offer(Message::Text(connected.into()));
        state.clients.push(Client { born, outgoing: outgoing.clone(), exit_control });
    }
    Ok(born)
}

thread_local! {
    /// All terminals read into this one; the runtime has one thread.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Everything there is, up to one message; empty when nobody holds the other side open.
fn read_some(master: &OwnedFd) -> io::Result<Bytes> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(OUTPUT_BYTES_MAX, 0);
        let mut len = 0;
        while len < scratch.len() {
            match rustix::io::read(master, &mut scratch[len..]) {
                Ok(0) | Err(Errno::IO) => break,
                Ok(n) => len += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if len == 0 => return Err(io::ErrorKind::WouldBlock.into()),
                Err(Errno::AGAIN) => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(Bytes::copy_from_slice(&scratch[..len]))
    })
}

/// A direction that has to be left alone for a while. A terminal that was hung up once counts as ready for ever, and each
/// refused write makes it ready again: without a pause, its task would spin.
struct Pause {
    until: Instant,
    length: Duration,
}

impl Pause {
    fn new() -> Self {
        Self { until: Instant::now(), length: PAUSE_FIRST }
    }

    fn is_over(&self) -> bool {
        self.until <= Instant::now()
    }

    fn again(&mut self) {
        self.until = Instant::now() + self.length;
        self.length = (self.length * 2).min(PAUSE_MAX);
    }
}

/// Carries bytes until the shell has ended, then says goodbye.
async fn carry(pty: Arc<Pty>, agent: Shared, terminal: Terminal) {
    let Terminal { master, mut exit, family: _ } = terminal;
    let mut behind: Option<(u64, Outgoing, Bytes)> = None;
    let (mut reading, mut writing) = (Pause::new(), Pause::new());
    let exit = loop {
        let waiting = behind.as_ref().map(|(_, outgoing, _)| outgoing.clone());
        let room = async {
            match &waiting {
                Some(outgoing) => outgoing.room().await,
                None => std::future::pending().await,
            }
        };
        let (may_read, may_write) = (reading.is_over(), writing.is_over());
        let typed = pty.typed_bytes() > 0;
        tokio::select! {
            biased;
            ended = &mut exit => break ended.unwrap_or(Exit::Code(-1)),
            () = pty.wake.notified() => {}
            _ = room => {}
            () = sleep_until(writing.until), if typed && !may_write => {}
            () = sleep_until(reading.until), if behind.is_none() && !may_read => {}
            ready = master.writable(), if typed && may_write => if let Ok(mut ready) = ready {
                let before = pty.typed_bytes();
                let written = ready.try_io(|master| pty.write_typed(master.get_ref()));
                if pty.typed_bytes() < before {
                    writing = Pause::new();
                }
                if written.is_err() {
                    writing.again();
                }
            },
            ready = master.readable(), if behind.is_none() && may_read => if let Ok(mut ready) = ready {
                let hung_up = ready.ready().is_read_closed();
                match ready.try_io(|master| read_some(master.get_ref())) {
                    Ok(Ok(bytes)) if !bytes.is_empty() => {
                        reading = Pause::new();
                        behind = pty.deliver(&bytes, None).map(|(born, outgoing)| (born, outgoing, bytes));
                    }
                    Ok(_) => reading.again(),
                    Err(_would_block) if hung_up => reading.again(),
                    Err(_would_block) => {}
                }
            },
        }
        if let Some((born, _, bytes)) = behind.take() {
            behind = pty.deliver(&bytes, Some(born)).map(|(born, outgoing)| (born, outgoing, bytes));
        }
        // Readiness of a terminal costs no budget of the runtime; others shall have their turn.
        tokio::task::coop::consume_budget().await;
    };
    agent.ptys.forget(&pty);
    let _ = timeout(LAST_WAIT, last_output(&pty, &master, behind)).await;
    pty.say_goodbye(exit);
}

/// What was printed before the end, for clients that take it.
async fn last_output(pty: &Pty, master: &AsyncFd<OwnedFd>, mut behind: Option<(u64, Outgoing, Bytes)>) {
    let mut total = 0;
    loop {
        while let Some((born, outgoing, bytes)) = behind.take() {
            let _ = outgoing.room().await;
            behind = pty.deliver(&bytes, Some(born)).map(|(born, outgoing)| (born, outgoing, bytes));
        }
        match read_some(master.get_ref()) {
            Ok(bytes) if !bytes.is_empty() && total < LAST_OUTPUT_BYTES_MAX => {
                total += bytes.len();
                behind = pty.deliver(&bytes, None).map(|(born, outgoing)| (born, outgoing, bytes));
            }
            _ => return,
        }
    }
}
