//! The client-only binary: the same commands as `infield`, without the server. Builds wherever Rust builds.

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// Spin, exec, sync and delete sandboxes from a terminal.
#[derive(Parser)]
#[command(name = "specgen-sandbox", version, after_help = specgen_sandbox::errors::EXIT_CODES, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Hands(Box<specgen_sandbox::Command>),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Hands(command) => specgen_sandbox::run(*command),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "specgen-sandbox", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}
