//! `exec`: a command in a sandbox as if it ran here: its output as it comes, stdin and signals forwarded, its exit code.

use super::workdir;
use crate::{
    Target,
    commands::spin::{name_value, usage},
    errors::{EXEC_FAILED, EXEC_TOOL_FAILED, Failure},
    find, output,
};
use bytes::{Bytes, BytesMut};
use clap::Args;
use infield_client::{
    Toolbox,
    dto::Execute,
    exec::{ExecEvent, ExecInput, ExecOutput, ExecStream},
};
use serde_json::json;
use std::{io::IsTerminal, time::Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Largest piece of stdin sent at once.
const STDIN_CHUNK_BYTES: usize = 64 << 10;
/// Output that `--json` keeps of each stream; the rest is counted, not kept.
const JSON_STREAM_BYTES_MAX: usize = 64 << 20;
/// The Ctrl-C that stops waiting for the command.
const INTERRUPTS_MAX: usize = 3;
const INTERRUPTED: i32 = 130;

#[derive(Args, Debug)]
pub struct Exec {
    /// Id or name of the sandbox
    #[arg(long, value_name = "ID")]
    pub id: String,
    /// Shell command line
    #[arg(long, value_name = "COMMAND", required_unless_present = "argv", conflicts_with = "argv")]
    pub cmd: Option<String>,
    /// Directory to run in [default: where spin cloned the repository]
    #[arg(long, visible_alias = "cwd", value_name = "DIR")]
    pub path: Option<String>,
    /// Environment of the command
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = name_value)]
    pub env: Vec<(String, String)>,
    /// Forward standard input even when it is a terminal
    #[arg(long, short)]
    pub interactive: bool,
    /// Do not read standard input (for use inside `while read` loops)
    #[arg(long, short = 'n', conflicts_with = "interactive")]
    pub no_stdin: bool,
    /// Give the command a terminal (not yet)
    #[arg(long, short)]
    pub tty: bool,
    /// Do not explain a non-zero exit code
    #[arg(long, short)]
    pub quiet: bool,
    #[command(flatten)]
    pub target: Target,
    /// The command and its arguments, each passed as it is
    #[arg(last = true, value_name = "COMMAND")]
    pub argv: Vec<String>,
}

#[derive(Default)]
struct Collected {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

pub async fn main(args: &Exec) -> u8 {
    let started = Instant::now();
    let mut collected = args.target.json.then(Collected::default);
    let code = match run(args, &mut collected).await {
        Ok(code) => code,
        Err(failure) => {
            output::report(args.target.json, &failure);
            return EXEC_TOOL_FAILED;
        }
    };
    let failure = Failure::detailed(EXEC_FAILED, format!("exit code {code}"));
    if let Some(collected) = collected {
        let mut json = json!({
            "exitCode": code,
            "stdout": String::from_utf8_lossy(&collected.stdout),
            "stderr": String::from_utf8_lossy(&collected.stderr),
            "durationMs": (started.elapsed().as_secs_f64() * 1e6).round() / 1e3,
        });
        if code != 0 {
            json["failure"] = failure.to_json();
        }
        output::print_line(&json.to_string());
    } else if code != 0 && !args.quiet {
        eprintln!("{failure}");
    }
    // Codes outside a byte come from servers that report a lost process as -1.
    u8::try_from(code).unwrap_or(EXEC_TOOL_FAILED)
}

async fn run(args: &Exec, collected: &mut Option<Collected>) -> Result<i32, Failure> {
    if args.tty {
        return Err(usage("-t: terminals are not there yet; run the command without -t"));
    }
    let api = crate::connect(&args.target).await?;
    let sandbox = crate::awake(&api, find(&api, &args.id).await?).await?;
    let toolbox = api.toolbox(&sandbox).await?;
    let command = Execute {
        command: args.cmd.clone().unwrap_or_else(|| shell_line(&args.argv)),
        cwd: workdir(&sandbox, args.path.as_deref()).map(str::to_owned),
        envs: args.env.iter().cloned().collect(),
        timeout: None,
    };
    let stdin = args.interactive || (!args.no_stdin && !std::io::stdin().is_terminal());
    match toolbox.execute_stream(&command, stdin).await? {
        Some(stream) => follow(stream, stdin, collected).await,
        None => at_once(&toolbox, &command, collected).await,
    }
}

/// Servers without streaming: everything comes at the end, in one stream.
async fn at_once(toolbox: &Toolbox, command: &Execute, collected: &mut Option<Collected>) -> Result<i32, Failure> {
    let done = toolbox.execute(command).await?;
    show(ExecEvent::Stdout(Bytes::from(done.result)), collected).await;
    Ok(done.exit_code)
}

async fn follow(stream: ExecStream, stdin: bool, collected: &mut Option<Collected>) -> Result<i32, Failure> {
    let ExecStream { input, output } = stream;
    // Input goes its own way: a command that does not read must not hold up its output.
    // Listened for before anything is shown: whoever sees output may already want it to end.
    let feeding = tokio::spawn(feed(input, stdin, Signals::new()));
    let code = tokio::select! {
        code = print_all(output, collected) => code,
        _ = feeding => Ok(INTERRUPTED),
    };
    code
}

async fn print_all(mut output: ExecOutput, collected: &mut Option<Collected>) -> Result<i32, Failure> {
    loop {
        match output.next().await? {
            Some(ExecEvent::Exit(code)) => return Ok(code),
            Some(event) => show(event, collected).await,
            None => {
                let detail = "the connection ended before the command did; it may have been stopped with its sandbox";
                return Err(Failure::detailed(crate::errors::SERVER_ERROR, detail));
            }
        }
    }
}

/// Forwards stdin and signals; ends only when the person insists on ending.
async fn feed(mut input: ExecInput, stdin: bool, mut signals: Signals) {
    let mut reading = stdin;
    let mut source = tokio::io::stdin();
    let mut interrupts = 0;
    loop {
        let mut chunk = BytesMut::with_capacity(STDIN_CHUNK_BYTES);
        tokio::select! {
            read = source.read_buf(&mut chunk), if reading => {
                reading = matches!(read, Ok(n) if n > 0);
                // A command that is gone cannot be fed; its exit code is on the way.
                let _ = if reading { input.stdin(chunk.freeze()).await } else { input.end_of_stdin().await };
            }
            name = signals.next() => {
                interrupts += usize::from(name == "INT");
                if interrupts >= INTERRUPTS_MAX {
                    return;
                }
                let _ = input.signal(name).await;
            }
        }
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: Option<tokio::signal::unix::Signal>,
    terminate: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self { interrupt: signal(SignalKind::interrupt()).ok(), terminate: signal(SignalKind::terminate()).ok() }
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            () = heard(&mut self.interrupt) => "INT",
            () = heard(&mut self.terminate) => "TERM",
        }
    }
}

#[cfg(unix)]
async fn heard(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Self {
        Self
    }

    async fn next(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "INT"
    }
}

async fn show(event: ExecEvent, collected: &mut Option<Collected>) {
    let keep = |kept: &mut Vec<u8>, bytes: &Bytes| {
        let room = JSON_STREAM_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    };
    // A reader that went away (`| head`) does not end the command.
    match (event, collected) {
        (ExecEvent::Stdout(bytes), Some(c)) => keep(&mut c.stdout, &bytes),
        (ExecEvent::Stderr(bytes), Some(c)) => keep(&mut c.stderr, &bytes),
        (ExecEvent::Stdout(bytes), None) => {
            let mut out = tokio::io::stdout();
            let _ = out.write_all(&bytes).await;
            let _ = out.flush().await;
        }
        (ExecEvent::Stderr(bytes), None) => {
            let mut out = tokio::io::stderr();
            let _ = out.write_all(&bytes).await;
            let _ = out.flush().await;
        }
        (ExecEvent::Exit(_), _) => {}
    }
}

/// Arguments as one shell line that means exactly them.
fn shell_line(argv: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    let quoted = argv.iter().map(|arg| match arg {
        arg if !arg.is_empty() && arg.chars().all(plain) => arg.clone(),
        arg => format!("'{}'", arg.replace('\'', r"'\''")),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_survive_the_shell() {
        let line = |argv: &[&str]| shell_line(&argv.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(line(&["make", "all"]), "make all");
        assert_eq!(line(&["echo", "a b", "it's", "", "$HOME"]), r"echo 'a b' 'it'\''s' '' '$HOME'");
    }
}
