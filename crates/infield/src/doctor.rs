//! `infield doctor`: what the engine finds on this machine, as a table or JSON.

use crate::{
    cli::{DoctorArgs, HostArgs},
    wire,
};
use anyhow::Result;
use infield_engine::doctor::{Check, Status, check};
use std::{net::SocketAddr, process::ExitCode};

pub fn main(args: &DoctorArgs) -> Result<ExitCode> {
    let failed = print(&args.host, args.listen, args.json)?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints every finding; whether one of them stops sandboxes from running.
pub fn print(host: &HostArgs, listen: SocketAddr, json: bool) -> Result<bool> {
    let checks = check(&wire::doctor(host, listen)?);
    if json {
        println!("{}", serde_json::to_string(&checks)?);
    } else {
        print!("{}", table(&checks));
    }
    Ok(checks.iter().any(|c| c.status == Status::Fail))
}

/// One line for each finding; what to do about it on the next.
fn table(checks: &[Check]) -> String {
    let width = checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let word = match check.status {
            Status::Ok => "ok  ",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        text.push_str(&format!("{word}  {:width$}  {}\n", check.name, check.found));
        if let Some(remedy) = &check.remedy {
            text.push_str(&format!("      {:width$}  -> {remedy}\n", ""));
        }
    }
    text
}
