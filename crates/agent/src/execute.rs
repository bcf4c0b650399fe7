//! `POST /process/execute`: one command line, its merged output, its exit code.

use crate::body;
use crate::children::Exit;
use crate::direct::{self, Direct};
use crate::env::{self, Vars};
use crate::error::{Answer, Failure, reason};
use crate::launch::{Child, Input, Launch, LaunchError, launch, signal_group};
use crate::output::Output;
use crate::shell::{self, Family, Shell};
use crate::state::Shared;
use axum::extract::State;
use axum::response::Response;
use infield_api::toolbox::{DaemonErrorCode, ExecuteRequest};
use rustix::process::Signal;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// How long output of children that outlive the command is waited for.
const DRAIN_SECONDS_MAX: u64 = 30;
/// A killed command that does not end (a process stuck in the kernel) is left behind after this.
const KILL_WAIT_SECONDS_MAX: u64 = 5;
/// Longer timeouts count as none: no clock reaches them.
const TIMEOUT_SECONDS_MAX: u64 = 10 * 365 * 24 * 3600;
/// What a shell answers when it finds no program.
pub const EXIT_NOT_FOUND: i32 = 127;

pub async fn execute(State(agent): State<Shared>, request: axum::extract::Request) -> Answer {
    let request: ExecuteRequest = body::json(request).await?;
    let line = Line::new(&agent, request.command, request.cwd, request.envs.as_ref())?;
    let limit = time_limit(request.timeout);
    // A task of its own: the command goes on when the client goes away.
    detached(async move { line.run(&agent, limit).await }).await
}

/// Waits for work that continues even when nobody waits any more.
pub async fn detached<F>(work: F) -> Answer
where
    F: Future<Output = Answer> + Send + 'static,
{
    tokio::spawn(work).await.unwrap_or_else(|e| Err(Failure::internal(e)))
}

pub fn time_limit(seconds: Option<u64>) -> Option<Duration> {
    seconds.filter(|s| (1..TIMEOUT_SECONDS_MAX).contains(s)).map(Duration::from_secs)
}

/// A checked command line in its surroundings.
pub struct Line {
    pub command: String,
    pub cwd: Option<PathBuf>,
    pub vars: Arc<Vars>,
}

/// Where the command's standard input comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stdin {
    /// The shell reads its script there; nothing else follows.
    Script,
    /// The caller writes it, so the shell takes the script as an argument.
    Caller,
}

impl Line {
    pub fn new(agent: &Shared, command: String, cwd: Option<String>, envs: Option<&Vars>) -> Result<Self, Failure> {
        if command.trim().is_empty() {
            return Err(Failure::bad_request("command is required"));
        }
        env::check(envs).map_err(Failure::bad_request)?;
        let cwd = cwd.filter(|c| !c.is_empty()).map(PathBuf::from);
        if cwd.as_ref().is_some_and(|c| c.as_os_str().as_bytes().contains(&0)) {
            return Err(Failure::bad_request("cwd contains a NUL byte"));
        }
        Ok(Self { command, cwd, vars: agent.env.with(envs) })
    }

    pub async fn run(self, agent: &Shared, limit: Option<Duration>) -> Answer {
        let deadline = limit.map(|l| Instant::now() + l);
        match self.start(agent, Stdin::Script, false).await {
            Ok((child, notice)) => collect(child, notice, deadline).await,
            Err(outcome) => Ok(outcome.answer()),
        }
    }

    /// Starts the command: directly where a shell would add nothing, else through the shell.
    pub async fn start(&self, agent: &Shared, stdin: Stdin, split: bool) -> Result<(Child, Notice), NoStart> {
        let shell = shell::find(&self.vars);
        let family = shell.as_ref().map_or(Family::Other, Shell::family);
        let cwd = agent.workdir.join(self.cwd.as_deref().unwrap_or("".as_ref()));
        if let Some(direct) = self.direct(family, shell.is_none(), &cwd) {
            let launch_direct = self.launch_direct(direct, stdin, split);
            match launch(agent, launch_direct).await {
                Ok(child) => {
                    let notice = Notice { shell: shell.map(|s| s.name), family, command: self.command.clone() };
                    return Ok((child, notice));
                }
                Err(e) if e.is_exec() && shell.is_some() => {}
                Err(e) => return Err(self.no_start(e)),
            }
        }
        let Some(shell) = shell else { return Err(NoStart::no_shell()) };
        let child = launch(agent, self.launch_shell(&shell, stdin, split)).await.map_err(|e| self.no_start(e))?;
        Ok((child, Notice { shell: None, family, command: String::new() }))
    }

    fn direct(&self, family: Family, no_shell: bool, cwd: &std::path::Path) -> Option<Direct> {
        if !no_shell {
            return direct::plan(&self.command, family, cwd, &self.vars);
        }
        // Without a shell the plain words are all there is; the environment is passed on as it is.
        let words = direct::simple_words(&self.command)?;
        let program =
            if words[0].contains('/') { Some(PathBuf::from(words[0])) } else { direct::search(words[0], &self.vars) };
        let words = words.iter().map(|w| (*w).to_owned()).collect();
        Some(Direct { program: program?, words, vars: (*self.vars).clone() })
    }

    fn launch_direct(&self, direct: Direct, stdin: Stdin, split: bool) -> Launch {
        Launch {
            program: c_string(direct.program.as_os_str().as_bytes()),
            argv: direct.words.iter().map(|w| c_string(w.as_bytes())).collect(),
            env: env::to_words(&direct.vars),
            cwd: self.c_cwd(),
            input: if stdin == Stdin::Caller { Input::Open } else { Input::Text(Vec::new()) },
            split,
        }
    }

    fn launch_shell(&self, shell: &Shell, stdin: Stdin, split: bool) -> Launch {
        let mut argv = vec![c_string(shell.name.as_bytes())];
        let input = match stdin {
            Stdin::Caller => {
                argv.extend([c"-c".to_owned(), c_string(self.command.as_bytes())]);
                Input::Open
            }
            Stdin::Script => Input::Text(self.command.clone().into_bytes()),
        };
        let program = shell.program().unwrap_or_default();
        Launch { program, argv, env: env::to_words(&self.vars), cwd: self.c_cwd(), input, split }
    }

    fn c_cwd(&self) -> Option<CString> {
        self.cwd.as_ref().map(|c| c_string(c.as_os_str().as_bytes()))
    }

    fn no_start(&self, e: LaunchError) -> NoStart {
        let why = reason(e.source());
        let (code, text) = match &self.cwd {
            Some(cwd) if e.is_cwd() => (-1, format!("chdir {}: {why}", cwd.display())),
            _ if e.is_exec() => (EXIT_NOT_FOUND, format!("{}: {why}", self.command.trim())),
            _ => (-1, format!("cannot start the command: {why}")),
        };
        NoStart { code, text }
    }
}

pub fn c_string(bytes: &[u8]) -> CString {
    // Cut at a NUL byte, which neither a file name nor an argument can have.
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    CString::new(&bytes[..end]).unwrap_or_default()
}

/// A command that never ran is no HTTP error: the caller reads why in the result.
pub struct NoStart {
    pub code: i32,
    pub text: String,
}

impl NoStart {
    fn no_shell() -> Self {
        let text =
            "this image has no shell (/bin/sh): only a program by its name or path, with plain arguments, can be \
                    run; use an image with a shell for anything else"
                .to_owned();
        Self { code: EXIT_NOT_FOUND, text }
    }

    pub fn answer(&self) -> Response {
        let mut output = Output::default();
        output.append(self.text.as_bytes());
        output.into_answer(self.code)
    }
}

/// What the left-out shell would have said about the end of its command.
pub struct Notice {
    shell: Option<String>,
    family: Family,
    command: String,
}

impl Notice {
    pub fn silent() -> Self {
        Self { shell: None, family: Family::Other, command: String::new() }
    }

    pub fn text(&self, pid: i32, exit: Exit) -> Vec<u8> {
        match (&self.shell, exit) {
            (Some(shell), Exit::Signal { number, core }) => {
                direct::signal_notice(self.family, shell, pid, number, core, &self.command)
            }
            _ => Vec::new(),
        }
    }
}

/// Waits for the end of the command and of its output, within the deadline.
pub async fn collect(child: Child, notice: Notice, deadline: Option<Instant>) -> Answer {
    let (output, code) = collect_output(child, notice, deadline).await?;
    Ok(output.into_answer(code))
}

/// The same, for a caller that makes an answer of its own.
pub async fn collect_output(
    mut child: Child,
    notice: Notice,
    deadline: Option<Instant>,
) -> Result<(Output, i32), Failure> {
    let mut output = Output::default();
    let far = Instant::now() + Duration::from_secs(TIMEOUT_SECONDS_MAX);
    let expiry = sleep_until(deadline.unwrap_or(far));
    tokio::pin!(expiry);
    let mut ended = None;
    let mut open = true;
    while ended.is_none() {
        tokio::select! {
            read = output.read_from(&mut child.out), if open => open = read.is_ok_and(|n| n > 0),
            exit = &mut child.exit => ended = Some(exit.unwrap_or(Exit::Code(-1))),
            () = &mut expiry => return Err(timed_out(child).await),
        }
    }
    let drain_until = Instant::now() + Duration::from_secs(DRAIN_SECONDS_MAX);
    let drain_until = deadline.map_or(drain_until, |d| d.min(drain_until));
    while open {
        match tokio::time::timeout_at(drain_until, output.read_from(&mut child.out)).await {
            Ok(read) => open = read.is_ok_and(|n| n > 0),
            Err(_) if deadline.is_some_and(|d| d == drain_until) => {
                signal_left(child.pid);
                return Err(expired());
            }
            Err(_) => open = false,
        }
    }
    let exit = ended.unwrap_or(Exit::Code(-1));
    output.append(&notice.text(child.pid, exit));
    Ok((output, exit.code()))
}

/// Kills what an ended command left in its group. Its number is kept by the group as long as somebody is in it; a process
/// of that number now is a stranger, and nobody of ours is left.
fn signal_left(group: i32) {
    if !Path::new(&format!("/proc/{group}")).exists() {
        signal_group(group, Signal::KILL);
    }
}

/// The whole group is killed; the answer does not wait for processes that cannot die.
async fn timed_out(mut child: Child) -> Failure {
    if child.exit.try_recv().is_err() {
        signal_group(child.pid, Signal::KILL);
        let _ = timeout(Duration::from_secs(KILL_WAIT_SECONDS_MAX), &mut child.exit).await;
    }
    expired()
}

fn expired() -> Failure {
    Failure::new(DaemonErrorCode::ProcessExecutionTimeout, "command execution timeout")
}
