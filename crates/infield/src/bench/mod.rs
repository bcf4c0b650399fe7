//! `infield bench tti`: what a client of the HTTP API sees, measured against a running server.
//!
//! Time to interactive runs from sending `POST /sandbox` to the first byte of the first command's output, through the API
//! and the relay on loopback. Every sandbox made here is deleted here.

mod memory;
mod numbers;
mod run;

use crate::cli::TtiArgs;
use numbers::Spread;
use serde::Serialize;
use specgen_sandbox::{Failure, Progress, Said};
use std::process::ExitCode;

/// Requests before the first one that counts: connections, caches and pools fill.
const WARM_UPS: usize = 10;

/// Everything measured; times in milliseconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    count: usize,
    tti_ms: Spread,
    create_ms: Spread,
    first_byte_ms: Spread,
    exec_true_ms: Spread,
    delete_ms: Spread,
    /// What the server says of `create`, medians by phase.
    server_phases_ms: Vec<(String, f64)>,
    burst: Option<Burst>,
    throughput: Option<Throughput>,
    idle: Option<memory::Idle>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Burst {
    sandboxes: usize,
    tti_ms: Spread,
    all_ms: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Throughput {
    in_flight: usize,
    cycles: usize,
    per_second: f64,
}

pub fn main(args: &TtiArgs) -> ExitCode {
    specgen_sandbox::run_as_command(args.target.json, measure(args))
}

async fn measure(args: &TtiArgs) -> Result<Said, Failure> {
    let api = specgen_sandbox::connect(&args.target).await?;
    let bench = run::Bench::new(api, args.snapshot.clone());
    let progress = Progress::start("warming up");
    for _ in 0..WARM_UPS.min(args.count) {
        bench.cycle().await?;
    }
    progress.say(format!("{} sandboxes, one after the other", args.count));
    let cycles = bench.sequence(args.count).await?;
    progress.say(format!("{} sandboxes at once", args.burst));
    let burst = if args.burst == 0 { None } else { Some(bench.burst(args.burst).await?) };
    progress.say(format!("create, exec, delete with {} in flight", args.in_flight));
    let throughput = if args.in_flight == 0 { None } else { Some(bench.throughput(args.in_flight, args.count).await?) };
    progress.say(format!("memory of {} idle sandboxes", args.idle));
    let tag = std::fs::read_to_string(args.target.data_dir.join("instance")).ok();
    let idle = match args.idle {
        0 => None,
        sandboxes => Some(bench.idle(sandboxes, tag.as_deref().map(str::trim)).await?),
    };
    drop(progress);
    let report = report(&cycles, burst, throughput, idle);
    Ok(Said { text: text(&report), json: serde_json::to_value(&report).unwrap_or_default() })
}

fn report(
    cycles: &[run::Cycle],
    burst: Option<Burst>,
    throughput: Option<Throughput>,
    idle: Option<memory::Idle>,
) -> Report {
    let spread = |of: fn(&run::Cycle) -> f64| Spread::of(cycles.iter().map(of).collect());
    Report {
        count: cycles.len(),
        tti_ms: spread(|c| c.tti_ms),
        create_ms: spread(|c| c.create_ms),
        first_byte_ms: spread(|c| c.tti_ms - c.create_ms),
        exec_true_ms: Spread::of(cycles.iter().flat_map(|c| c.exec_true_ms.iter().copied()).collect()),
        delete_ms: spread(|c| c.delete_ms),
        server_phases_ms: numbers::medians_by_name(cycles.iter().flat_map(|c| &c.phases)),
        burst,
        throughput,
        idle,
    }
}

fn text(report: &Report) -> String {
    let mut rows = vec![["", "P50", "P95", "P99", "MIN", "MAX"].map(String::from).to_vec()];
    let mut row = |name: &str, spread: &Spread| rows.push(spread.row(name));
    row("time to interactive", &report.tti_ms);
    row("  create", &report.create_ms);
    row("  first command, first byte", &report.first_byte_ms);
    row("exec of `true`", &report.exec_true_ms);
    row("delete", &report.delete_ms);
    if let Some(burst) = &report.burst {
        row(&format!("burst of {}", burst.sandboxes), &burst.tti_ms);
    }
    let mut text = format!("{} sandboxes, times in ms\n{}", report.count, specgen_sandbox::table(&rows));
    let phases: Vec<String> = report.server_phases_ms.iter().map(|(name, ms)| format!("{name} {ms:.2}")).collect();
    text.push_str(&format!("inside create (server, medians): {}\n", phases.join(", ")));
    if let Some(t) = &report.throughput {
        text.push_str(&format!("{:.0} create+exec+delete per second with {} in flight\n", t.per_second, t.in_flight));
    }
    if let Some(idle) = &report.idle {
        text.push_str(&idle.text());
    }
    text
}
