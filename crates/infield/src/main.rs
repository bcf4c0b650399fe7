//! One program, many roles: which one is the first argument. Nothing is decided here.

mod bench;
mod cli;
mod doctor;
mod image;
mod key;
mod logging;
mod paths;
mod runner;
mod serve;
mod setup;
mod teardown;
mod wire;

use clap::{CommandFactory, Parser};
use cli::{BenchCommand, Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(args) => serve::main(args).map(|()| ExitCode::SUCCESS),
        Command::ApiWorker(args) => serve::worker::main(args).map(|()| ExitCode::SUCCESS),
        Command::Runner(args) => runner::main(args),
        Command::Zygote => return runner::zygote(),
        Command::Setup(args) => setup::main(&args),
        Command::Teardown(args) => teardown::main(&args).map(|()| ExitCode::SUCCESS),
        Command::Doctor(args) => doctor::main(&args),
        Command::Image(command) => image::main(command),
        Command::Key(command) => return key::main(command),
        Command::Bench(BenchCommand::Tti(args)) => return bench::main(&args),
        Command::Hands(command) => return specgen_sandbox::run(command),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "infield", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
