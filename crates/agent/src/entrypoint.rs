//! The image's own command, run beside the agent. Its end means nothing; its output is read so that it never blocks.

use crate::direct;
use crate::env;
use crate::execute::c_string;
use crate::launch::{Input, Launch, launch};
use crate::state::Shared;
use crate::telemetry;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::AsyncReadExt;

const DRAIN_BUFFER_BYTES: usize = 4 << 10;
/// Whoever made the sandbox is waiting for its first answer; the entry point, which runs for long or idles, comes right after.
const START_DELAY: Duration = Duration::from_millis(25);

pub fn start(agent: &Shared) {
    let Some(first) = agent.entrypoint.first() else { return };
    let vars = agent.env.snapshot();
    let found = if first.contains('/') { Some(PathBuf::from(first)) } else { direct::search(first, &vars) };
    let Some(program) = found else { return };
    let what = Launch {
        program: c_string(program.as_os_str().as_bytes()),
        argv: agent.entrypoint.iter().map(|w| c_string(w.as_bytes())).collect(),
        env: env::to_words(&vars),
        cwd: None,
        input: Input::Text(Vec::new()),
        split: false,
    };
    let agent = agent.clone();
    tokio::spawn(async move {
        tokio::time::sleep(START_DELAY).await;
        let Ok(mut child) = launch(&agent, what).await else { return };
        let mut ignored = vec![0; DRAIN_BUFFER_BYTES];
        while let Ok(n @ 1..) = child.out.read(&mut ignored).await {
            agent.telemetry.entry_point(telemetry::Stream::Out, &ignored[..n]);
        }
    });
}
