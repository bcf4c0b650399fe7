//! What many open things at once may cost the agent: every one answers, and its own memory stays within a bound. Shells are
//! real and belong to the sandbox's limit, so they are not counted. Times are printed, never asserted.

#![allow(clippy::unwrap_used, reason = "a test that stops says where")]

mod common;

use common::{Agent, Answer, until};
use serde_json::json;
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::Instant;

const EXECS: usize = 200;
const OPEN: usize = 1000;
/// Private memory of the agent over what it had before.
const EXECS_KIB_MAX: u64 = 16 << 10;
const SESSIONS_KIB_MAX: u64 = 24 << 10;
const PTYS_KIB_MAX: u64 = 16 << 10;
const THREADS_MAX: usize = 24;
/// Requests at a time while many are opened and closed.
const AT_ONCE: usize = 8;

fn memory_kib(agent: &Agent, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn children(agent: &Agent) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", agent.process.id())).unwrap();
    let lists = tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists.map(|list| list.split_whitespace().count()).sum()
}

/// Asks the same of each number, several at a time, and expects one status.
fn each(what: &str, status: u16, ask: impl Fn(usize) -> Answer + Sync) {
    let began = Instant::now();
    thread::scope(|scope| {
        for lane in 0..AT_ONCE {
            let ask = &ask;
            scope.spawn(move || {
                for n in (lane..OPEN).step_by(AT_ONCE) {
                    let answer = ask(n);
                    assert_eq!(answer.status, status, "{n}: {}", answer.text());
                }
            });
        }
    });
    println!("{OPEN} times {what}: {:?}", began.elapsed());
}

fn one_by_one(what: &str, times: usize, open_and_end: impl Fn(usize) -> bool) {
    let began = Instant::now();
    assert!((0..times).all(open_and_end));
    println!("{what} is opened and ended in {:?}", began.elapsed() / u32::try_from(times).unwrap());
}

fn bounded(agent: &Agent, what: &str, before: u64, most: u64) {
    let grown = memory_kib(agent, "RssAnon:").saturating_sub(before);
    let threads = std::fs::read_dir(format!("/proc/{}/task", agent.process.id())).unwrap().count();
    println!("{what}: the agent grew by {grown} KiB, {threads} threads, {} children", children(agent));
    assert!(grown <= most, "{what}: {grown} KiB");
    assert!(threads <= THREADS_MAX, "{threads} threads");
}

#[test]
fn two_hundred_execs_at_once() {
    let agent = Agent::start();
    agent.run("true");
    let (before, peak_before) = (memory_kib(&agent, "RssAnon:"), memory_kib(&agent, "VmHWM:"));
    // All of them run before the first one may end.
    std::process::Command::new("mkfifo").arg(agent.work("gate")).status().unwrap();
    let began = Instant::now();
    thread::scope(|scope| {
        let callers: Vec<_> = (0..EXECS)
            .map(|n| {
                let agent = &agent;
                scope.spawn(move || agent.run(&format!("echo r >> running; cat gate; echo {n}")))
            })
            .collect();
        let running = || std::fs::read_to_string(agent.work("running")).map_or(0, |text| text.lines().count());
        until("all run at once", || running() == EXECS);
        bounded(&agent, "200 execs", before, EXECS_KIB_MAX);
        // Whoever waits for a writer goes on when one has come, and reads nothing when it has gone.
        until("all have answered", || {
            let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
            drop(std::fs::OpenOptions::new().write(true).custom_flags(flags).open(agent.work("gate")));
            callers.iter().all(|caller| caller.is_finished())
        });
        for (n, caller) in callers.into_iter().enumerate() {
            assert_eq!(caller.join().unwrap(), (0, format!("{n}\n")));
        }
    });
    let peak = memory_kib(&agent, "VmHWM:") - peak_before;
    println!("{EXECS} execs at once: {:?}, at most {peak} KiB more", began.elapsed());
    assert!(peak <= EXECS_KIB_MAX, "{peak} KiB");
    until("nobody is left", || children(&agent) == 0);
}

#[test]
fn a_thousand_sessions() {
    let agent = Agent::start();
    agent.run("true");
    let before = memory_kib(&agent, "RssAnon:");
    each("a session is created", 201, |n| agent.post("/process/session", json!({"sessionId": format!("s{n}")})));
    bounded(&agent, "1000 sessions", before, SESSIONS_KIB_MAX);
    each("its shell answers", 200, |n| {
        let body = json!({"command": format!("V=${{V:-{n}}}; echo $V")});
        let version = ("X-Daytona-SDK-Version", "0.226.1");
        let target = format!("/process/session/s{n}/exec");
        let answer = agent.request("POST", &target, &[version], body.to_string().as_bytes());
        assert_eq!(answer.json()["stdout"], format!("{n}\n"));
        answer
    });
    bounded(&agent, "1000 sessions that have run a command", before, SESSIONS_KIB_MAX);
    one_by_one("with 1000 sessions open, one", 10, |n| {
        assert_eq!(agent.post("/process/session", json!({"sessionId": format!("x{n}")})).status, 201);
        agent.request("DELETE", &format!("/process/session/x{n}"), &[], b"").status == 204
    });
    each("a session is deleted", 204, |n| agent.request("DELETE", &format!("/process/session/s{n}"), &[], b""));
    assert_eq!(agent.get("/process/session").json(), json!([]));
    until("nobody is left", || children(&agent) == 0);
}

#[test]
fn a_thousand_terminals() {
    let agent = Agent::start();
    agent.run("true");
    let before = memory_kib(&agent, "RssAnon:");
    each("a terminal is opened", 201, |n| agent.post("/process/pty", json!({"id": format!("p{n}")})));
    bounded(&agent, "1000 terminals", before, PTYS_KIB_MAX);
    let open = agent.get("/process/pty").json();
    let active = open["sessions"].as_array().unwrap().iter().filter(|pty| pty["active"] == true).count();
    assert_eq!(active, OPEN);
    each("a terminal answers", 200, |n| {
        agent.post(&format!("/process/pty/p{n}/resize"), json!({"cols": 100, "rows": 30}))
    });
    assert_eq!(agent.request("DELETE", "/process/pty/p0", &[], b"").status, 200);
    one_by_one("with 1000 terminals open, one", 10, |n| {
        assert_eq!(agent.post("/process/pty", json!({"id": format!("x{n}")})).status, 201);
        agent.request("DELETE", &format!("/process/pty/x{n}"), &[], b"").status == 200
    });
    assert_eq!(agent.post("/process/pty", json!({"id": "p0"})).status, 201);
    each("a terminal is closed", 200, |n| agent.request("DELETE", &format!("/process/pty/p{n}"), &[], b""));
    bounded(&agent, "after 1000 terminals", before, PTYS_KIB_MAX);
    until("nobody is left", || children(&agent) == 0);
}
