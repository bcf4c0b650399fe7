//! The sessions there are. A session is a live shell with the commands it was given; one without a shell stands for the
//! sandbox's entry point. Knows no HTTP beyond its failures.

use super::command::{Command, Phase};
use super::driver;
use super::shell::{self, SessionShell};
use super::store::Spill;
use super::{ENTRYPOINT_COMMAND, ENTRYPOINT_ID};
use crate::error::Failure;
use crate::family::Family;
use crate::state::Shared;
use infield_api::toolbox::{self, DaemonErrorCode as Code};
use rustix::io::Errno;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use uuid::Uuid;

/// Each has a process and seven descriptors.
pub const SESSIONS_MAX: usize = 2000;
/// Commands a session remembers; the oldest finished ones are forgotten first.
const COMMANDS_KEPT_MAX: usize = 1000;
/// The same over all sessions.
const ALL_COMMANDS_KEPT_MAX: usize = 20_000;
/// How long input waits for a command that does not read.
const INPUT_WAIT: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct Sessions {
    table: Mutex<Table>,
    entrypoint: OnceLock<Option<Arc<Session>>>,
}

#[derive(Default)]
struct Table {
    /// `None` while its shell is being started.
    sessions: HashMap<String, Option<Arc<Session>>>,
    born: u64,
}

static ALL_COMMANDS: AtomicU64 = AtomicU64::new(0);

pub struct Session {
    pub id: String,
    born: u64,
    spill: Arc<Spill>,
    commands: Mutex<Vec<Arc<Command>>>,
    live: Option<Live>,
}

/// What only a session with a shell has.
struct Live {
    family: Family,
    jobs: mpsc::UnboundedSender<Arc<Command>>,
    ended: OnceLock<i32>,
    input: AsyncMutex<Input>,
}

struct Input {
    pipe: pipe::Sender,
    /// Whose input it is at present.
    running: Option<Arc<Command>>,
}

impl Sessions {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A failure when there is none of that name, or none yet.
    pub fn find(&self, agent: &Shared, id: &str) -> Result<Arc<Session>, Failure> {
        let found = match id {
            ENTRYPOINT_ID => self.entrypoint(agent),
            _ => self.table().sessions.get(id).cloned().flatten(),
        };
        found.ok_or_else(|| unknown(id))
    }

    /// Oldest first, without the entry point.
    pub fn list(&self) -> Vec<Arc<Session>> {
        let mut all: Vec<_> = self.table().sessions.values().flatten().cloned().collect();
        all.sort_unstable_by_key(|s| s.born);
        all
    }

    pub async fn create(&self, agent: &Shared, id: String, cwd: Option<PathBuf>) -> Result<(), Failure> {
        let born = {
            let mut table = self.table();
            if table.sessions.contains_key(&id) {
                return Err(Failure::new(Code::Conflict, format!("conflict: session already exists: {id}")));
            }
            if table.sessions.len() >= SESSIONS_MAX {
                let why = format!("this sandbox has {SESSIONS_MAX} sessions, which is the limit; delete some");
                return Err(Failure::plain(503, why));
            }
            table.sessions.insert(id.clone(), None);
            table.born += 1;
            table.born
        };
        match shell::start(agent, cwd).await {
            Ok(shell) => {
                let session = Session::begin(agent, id.clone(), born, shell);
                self.table().sessions.insert(id, Some(session));
                Ok(())
            }
            Err(failure) => {
                self.table().sessions.remove(&id);
                Err(failure)
            }
        }
    }

    /// Nobody finds it from now on; its processes are to be ended by the caller.
    pub fn remove(&self, id: &str) -> Result<Arc<Session>, Failure> {
        let mut table = self.table();
        match table.sessions.get(id) {
            Some(Some(session)) => {
                let session = session.clone();
                table.sessions.remove(id);
                Ok(session)
            }
            _ => Err(unknown(id)),
        }
    }

    /// The entry point as a session with one command, if the sandbox has one.
    pub fn entrypoint(&self, agent: &Shared) -> Option<Arc<Session>> {
        let make = || {
            let text = super::quoted(&agent.entrypoint);
            let spill = Arc::new(Spill::new(&agent.home));
            let command = Command::new(ENTRYPOINT_COMMAND.to_owned(), text, false, false, &spill)?;
            ALL_COMMANDS.fetch_add(1, Ordering::Relaxed);
            let commands = Mutex::new(vec![Arc::new(command)]);
            Some(Arc::new(Session { id: ENTRYPOINT_ID.to_owned(), born: 0, spill, commands, live: None }))
        };
        if agent.entrypoint.is_empty() {
            return None;
        }
        self.entrypoint.get_or_init(make).clone()
    }
}

fn unknown(id: &str) -> Failure {
    Failure::new(Code::ProcessNotFound, format!("session not found: {id}"))
}

impl Session {
    fn begin(agent: &Shared, id: String, born: u64, shell: SessionShell) -> Arc<Self> {
        let (jobs, queue) = mpsc::unbounded_channel();
        let SessionShell { family, channels, input, exit } = shell;
        let input = AsyncMutex::new(Input { pipe: input, running: None });
        let live = Some(Live { family, jobs, ended: OnceLock::new(), input });
        let spill = Arc::new(Spill::new(&agent.home));
        let session = Arc::new(Self { id, born, spill, commands: Mutex::default(), live });
        tokio::spawn(driver::drive(session.clone(), channels, exit, queue));
        session
    }

    fn commands(&self) -> MutexGuard<'_, Vec<Arc<Command>>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn command(&self, id: &str) -> Result<Arc<Command>, Failure> {
        let found = self.commands().iter().find(|c| c.id == id).cloned();
        found.ok_or_else(|| Failure::new(Code::ProcessNotFound, format!("command not found: {id}")))
    }

    pub fn describe(&self) -> toolbox::Session {
        let commands = self.commands().iter().map(|c| c.describe()).collect();
        toolbox::Session { session_id: self.id.clone(), commands }
    }

    /// Gives the shell one more command, to be run after those it has.
    pub fn enqueue(&self, text: String, is_async: bool, echo: bool) -> Result<Arc<Command>, Failure> {
        let Some(live) = &self.live else { return Err(reserved()) };
        if live.ended.get().is_some() {
            return Err(session_ended());
        }
        let mut commands = self.commands();
        make_room(&mut commands)?;
        let id = Uuid::new_v4().to_string();
        let command = match Command::new(id, text, is_async, echo, &self.spill) {
            Some(command) => Arc::new(command),
            None => return Err(too_much()),
        };
        live.jobs.send(command.clone()).map_err(|_| session_ended())?;
        ALL_COMMANDS.fetch_add(1, Ordering::Relaxed);
        commands.push(command.clone());
        Ok(command)
    }

    /// Writes to the command's standard input, waiting for its turn if need be.
    pub async fn send_input(&self, command: &Arc<Command>, data: &[u8]) -> Result<(), Failure> {
        let Some(live) = &self.live else { return Err(reserved()) };
        let stuck = || Failure::internal(format!("command {} does not read its input", command.id));
        let writing = async {
            command.at_least(Phase::Running).await;
            // Before the lock as well: whoever waits there for a full pipe gives up when its command ends.
            self.check_input(live, command)?;
            let input = live.input.lock().await;
            self.check_input(live, command)?;
            if !input.running.as_ref().is_some_and(|r| Arc::ptr_eq(r, command)) {
                return Err(completed(command));
            }
            self.write(live, &input.pipe, command, data).await
        };
        tokio::time::timeout(INPUT_WAIT, writing).await.unwrap_or_else(|_| Err(stuck()))
    }

    fn check_input(&self, live: &Live, command: &Command) -> Result<(), Failure> {
        match command.phase() {
            Phase::Waiting | Phase::Running if !command.open_input => {
                Err(Failure::internal(format!("command {} was started without an input", command.id)))
            }
            Phase::Waiting | Phase::Running => Ok(()),
            Phase::Draining | Phase::Done if live.ended.get().is_some() => {
                Err(Failure::new(Code::SessionEnded, "session process has exited"))
            }
            Phase::Draining | Phase::Done => Err(completed(command)),
        }
    }

    async fn write(&self, live: &Live, pipe: &pipe::Sender, command: &Command, data: &[u8]) -> Result<(), Failure> {
        let mut rest = data;
        let mut progress = command.watch();
        while !rest.is_empty() {
            tokio::select! {
                ready = pipe.writable() => ready.map_err(Failure::internal)?,
                _ = progress.wait_for(|p| p.phase > Phase::Running) => return self.check_input(live, command),
            }
            match pipe.try_write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) if e.raw_os_error() == Some(Errno::PIPE.raw_os_error()) => return Err(session_ended()),
                Err(e) => return Err(Failure::internal(e)),
            }
        }
        Ok(())
    }

    /// To be called by the driver, which has moved the command's phase on before it takes the input away.
    pub async fn now_running(&self, command: Option<&Arc<Command>>) {
        if let Some(live) = &self.live {
            live.input.lock().await.running = command.cloned();
        }
    }

    pub fn shell_ended(&self, code: i32) {
        if let Some(live) = &self.live {
            let _ = live.ended.set(code);
        }
    }

    /// Ends the shell and everything it has started.
    pub async fn end(&self, agent: &Shared) {
        if let Some(live) = &self.live {
            live.family.end(agent).await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let count = self.commands().len() as u64;
        ALL_COMMANDS.fetch_sub(count, Ordering::Relaxed);
    }
}

/// Forgets the oldest finished commands.
fn make_room(commands: &mut Vec<Arc<Command>>) -> Result<(), Failure> {
    while commands.len() >= COMMANDS_KEPT_MAX || ALL_COMMANDS.load(Ordering::Relaxed) >= ALL_COMMANDS_KEPT_MAX as u64 {
        let Some(oldest) = commands.iter().position(|c| c.phase() == Phase::Done) else { return Err(too_much()) };
        commands.remove(oldest);
        ALL_COMMANDS.fetch_sub(1, Ordering::Relaxed);
    }
    Ok(())
}

fn too_much() -> Failure {
    Failure::plain(503, "the sessions of this sandbox hold as many commands as they can; delete sessions that are done")
}

pub fn reserved() -> Failure {
    Failure::bad_request("the session `entrypoint` is the sandbox's own and can only be read")
}

pub fn session_ended() -> Failure {
    Failure::new(Code::SessionEnded, "session process has exited")
}

fn completed(command: &Command) -> Failure {
    let code = command.early_exit_code().unwrap_or_default();
    Failure::new(Code::CommandAlreadyCompleted, format!("command has already completed with exit code {code}"))
}
