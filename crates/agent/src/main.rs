//! Start of the agent: as PID 1 with inherited descriptors, as an ordinary process for tests (`--listen SOCKET --config
//! FILE`), or as its own short-lived Git worker or SFTP server. Knows no more than where the socket and the configuration come from.

use infield_agent::{SFTP_ARGUMENT, Server, WORKER_ARGUMENT, prepare, run_git_worker, run_sftp_server};
use infield_api::toolbox::{AGENT_CONFIG_FD, AGENT_LISTEN_FD, AgentConfig};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => inherited(),
        ["--listen", socket, "--config", file] => named(socket, file),
        [word] if *word == WORKER_ARGUMENT => run_git_worker(std::env::var_os("SSL_CERT_FILE").map(Into::into)),
        [word] if *word == SFTP_ARGUMENT => run_sftp_server(),
        _ => Err("usage: infield-agent [--listen SOCKET --config FILE]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("infield-agent: {e}");
            ExitCode::FAILURE
        }
    }
}

/// The configuration is a file, or it comes over a socket when somebody wants this sandbox: then there is time before.
fn inherited() -> Result<(), Failure> {
    let listener = infield_sys::agent_fd::take_inherited(AGENT_LISTEN_FD)
        .map_err(|e| format!("descriptor {AGENT_LISTEN_FD} should be the listening socket: {e}"))?;
    let config = infield_sys::agent_fd::take_inherited(AGENT_CONFIG_FD)
        .map_err(|e| format!("descriptor {AGENT_CONFIG_FD} should be the configuration: {e}"))?;
    let mut config = File::from(config);
    let server = Server::new()?;
    if config.metadata()?.file_type().is_socket() {
        server.rehearse()?;
    }
    let mut text = String::new();
    config.read_to_string(&mut text)?;
    if text.is_empty() {
        return Err("nobody wants this sandbox any more".into());
    }
    run(server, UnixListener::from(listener), parse(&text)?)
}

fn named(socket: &str, file: &str) -> Result<(), Failure> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
    let listener = UnixListener::bind(socket).map_err(|e| format!("{socket}: {e}"))?;
    run(Server::new()?, listener, parse(&text)?)
}

fn parse(text: &str) -> Result<AgentConfig, Failure> {
    Ok(serde_json::from_str(text).map_err(|e| format!("the configuration is not valid: {e}"))?)
}

/// A sandbox whose user cannot be found still answers: with the reason, so that somebody reads it.
fn run(server: Server, listener: UnixListener, config: AgentConfig) -> Result<(), Failure> {
    match prepare(config) {
        Ok(agent) => Ok(server.serve(listener, agent)?),
        Err(e) => Ok(server.serve_boot_error(listener, &e.to_string())?),
    }
}
