//! The image's own command, run beside the agent. Its end means nothing; its output is the log of the session `entrypoint`.

use crate::direct;
use crate::env;
use crate::error::reason;
use crate::execute::{EXIT_NOT_FOUND, c_string};
use crate::launch::{Child, Input, Launch, launch};
use crate::session::ENTRYPOINT_COMMAND;
use crate::session::command::{Command, Pump};
use crate::session::frames::{self, Stream};
use crate::state::Shared;
use crate::telemetry;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Whoever made the sandbox is waiting for its first answer; the entry point, which runs for long or idles, comes right after.
const START_DELAY: Duration = Duration::from_millis(25);

pub fn start(agent: &Shared) {
    if agent.entrypoint.is_empty() {
        return;
    }
    let agent = agent.clone();
    tokio::spawn(async move {
        tokio::time::sleep(START_DELAY).await;
        let Some(session) = agent.sessions.entrypoint(&agent) else { return };
        let Ok(command) = session.command(ENTRYPOINT_COMMAND) else { return };
        command.begins();
        match begin(&agent).await {
            Ok(child) => follow(&agent, child, &command).await,
            Err((code, why)) => {
                let mut frames = Vec::new();
                frames::write(Stream::Err, why.as_bytes(), &mut frames);
                command.append(frames).await;
                command.ended(code);
            }
        }
        command.done();
    });
}

/// An error is what a shell would have answered and said.
async fn begin(agent: &Shared) -> Result<Child, (i32, String)> {
    let vars = agent.env.snapshot();
    let first = agent.entrypoint.first().cloned().unwrap_or_default();
    let found = if first.contains('/') { Some(PathBuf::from(&first)) } else { direct::search(&first, &vars) };
    let Some(program) = found else {
        return Err((EXIT_NOT_FOUND, format!("{first}: not found in PATH\n")));
    };
    let what = Launch {
        program: c_string(program.as_os_str().as_bytes()),
        argv: agent.entrypoint.iter().map(|w| c_string(w.as_bytes())).collect(),
        env: env::to_words(&vars),
        cwd: None,
        input: Input::Text(Vec::new()),
        split: true,
    };
    launch(agent, what).await.map_err(|e| {
        let code = if e.is_exec() { EXIT_NOT_FOUND } else { -1 };
        (code, format!("{first}: {}\n", reason(e.source())))
    })
}

async fn follow(agent: &Shared, child: Child, command: &Arc<Command>) {
    let Child { out, err: Some(err), exit, .. } = child else { return };
    let mut pump = Pump::new(out, err);
    let mut exit = Some(exit);
    while pump.is_open() || exit.is_some() {
        let ended = async {
            match &mut exit {
                Some(exit) => exit.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            at = pump.ready() => {
                let frames = pump.cut(at);
                report(agent, &frames);
                command.append(frames).await;
            }
            code = ended => {
                command.ended(code.map_or(-1, |c| c.code()));
                exit = None;
            }
        }
    }
}

/// Whoever collects telemetry gets the lines as well.
fn report(agent: &Shared, frames: &[u8]) {
    let mut rest = frames;
    while let Some((stream, payload, taken)) = frames::first(rest) {
        let stream = if stream == Stream::Err { telemetry::Stream::Err } else { telemetry::Stream::Out };
        agent.telemetry.entry_point(stream, payload);
        rest = &rest[taken..];
    }
}
