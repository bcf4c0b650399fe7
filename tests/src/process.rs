//! Programs under test: run with a time limit, found in `/proc`, ended by their ids.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Folder of the binaries built beside this test.
pub fn target_dir() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path
}

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A binary of this workspace: `<NAME>_BIN` from the environment, else beside the test.
pub fn binary(name: &str) -> PathBuf {
    let variable = format!("{}_BIN", name.replace('-', "_").to_uppercase());
    let path = std::env::var_os(variable).map_or_else(|| target_dir().join(name), PathBuf::from);
    assert!(path.is_file(), "{} is not built; run `make build` first", path.display());
    path
}

/// Runs to the end, or kills the program after `limit` and panics with what it said.
pub fn run(command: &mut Command, limit: Duration) -> Output {
    run_with_input(command, Vec::new(), limit)
}

/// As [`run`], with something to read on standard input.
pub fn run_with_input(command: &mut Command, input: Vec<u8>, limit: Duration) -> Output {
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    let writer = child.stdin.take().map(|mut pipe| {
        thread::spawn(move || {
            let _ = std::io::Write::write_all(&mut pipe, &input);
        })
    });
    let out = drain(child.stdout.take().unwrap());
    let err = drain(child.stderr.take().unwrap());
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            let (out, err) = (out.join().unwrap(), err.join().unwrap());
            panic!("{command:?}: not done in {limit:?}\n{}\n{}", text(&out), text(&err));
        }
        thread::sleep(Duration::from_millis(5));
    };
    if let Some(writer) = writer {
        writer.join().unwrap();
    }
    Output { status, stdout: out.join().unwrap(), stderr: err.join().unwrap() }
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// Bytes as text for people.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Panics with everything the program said unless it succeeded.
pub fn succeeded(output: &Output) -> String {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\nstdout: {out}\nstderr: {err}", output.status);
    out
}

/// What `/proc` tells of one process.
#[derive(Debug, Clone)]
pub struct Seen {
    pub pid: i32,
    pub parent: i32,
    pub arguments: Vec<String>,
    pub cgroups: String,
}

/// Every process that can be read now; zombies have no arguments.
pub fn all() -> Vec<Seen> {
    let entries = std::fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| see(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// One process, when it exists.
pub fn see(pid: i32) -> Option<Seen> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let parent = status.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let arguments = arguments.split(|b| *b == 0).filter(|a| !a.is_empty()).map(text).collect();
    Some(Seen { pid, parent, arguments, cgroups })
}

/// Sends a signal; a process that is gone is no error.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// The process is gone or only waits to be reaped.
pub fn ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next().map(str::to_owned)).is_none_or(|s| s == "Z")
}
