//! Starts the agent as an ordinary process on a unix socket and speaks plain HTTP with it.
#![allow(dead_code, clippy::unwrap_used, reason = "helpers of tests; each test uses some of them")]

pub mod git_server;
pub mod language_servers;
pub mod ws;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const AGENT: &str = env!("CARGO_BIN_EXE_infield-agent");
/// Generous: the machine may be busy with other builds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory that goes away with its owner.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ifa-{}-{count}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.join(name)).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub struct Agent {
    pub process: Child,
    pub socket: PathBuf,
    pub scratch: Scratch,
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// The body ended as its framing promised.
    pub whole: bool,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| {
            let (n, v) = l.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| v.trim())
        })
    }

    /// `code` of the error envelope, which must be complete.
    pub fn code(&self) -> String {
        let json = self.json();
        assert_eq!(json["statusCode"], self.status, "{json}");
        assert_eq!(json["source"], "DAYTONA_DAEMON");
        assert!(json["timestamp"].is_string() && json["path"].is_string() && json["message"].is_string());
        json["code"].as_str().unwrap_or("").to_owned()
    }
}

impl Agent {
    pub fn start() -> Self {
        Self::with("{}")
    }

    /// `config` is laid over the defaults: PATH, and the scratch directory as home and working directory.
    pub fn with(config: &str) -> Self {
        Self::launch(config, |socket, config| {
            let mut command = Command::new(AGENT);
            command.args(["--listen", socket, "--config", config]);
            command
        })
    }

    pub fn launch(config: &str, command: impl FnOnce(&str, &str) -> Command) -> Self {
        let scratch = Scratch::new("agent");
        let work = scratch.path("work");
        std::fs::create_dir(&work).unwrap();
        let mut json = serde_json::json!({
            "env": {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": &work},
            "workdir": &work,
        });
        let over: serde_json::Value = serde_json::from_str(config).unwrap();
        for (key, value) in over.as_object().unwrap() {
            json[key] = value.clone();
        }
        let config = scratch.write("config.json", json.to_string());
        let socket = scratch.0.join("s");
        let mut command = command(socket.to_str().unwrap(), &config);
        let process = command.stdin(Stdio::null()).spawn().unwrap();
        let agent = Self { process, socket, scratch };
        until("the agent listens", || UnixStream::connect(&agent.socket).is_ok());
        agent
    }

    pub fn work(&self, name: &str) -> PathBuf {
        self.scratch.0.join("work").join(name)
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn request(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.connect();
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        read_answer(stream)
    }

    pub fn get(&self, target: &str) -> Answer {
        self.request("GET", target, &[], b"")
    }

    pub fn post(&self, target: &str, json: serde_json::Value) -> Answer {
        self.request("POST", target, &[("Content-Type", "application/json")], json.to_string().as_bytes())
    }

    /// Exit code and output of a command.
    pub fn run(&self, command: &str) -> (i64, String) {
        let answer = self.post("/process/execute", serde_json::json!({"command": command}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let json = answer.json();
        (json["exitCode"].as_i64().unwrap(), json["result"].as_str().unwrap().to_owned())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Below `unshare` the agent is a child of its own; what it became when it changed its user outlives its parent.
        let pid = self.process.id();
        let below = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for child in below.split_whitespace().filter_map(|c| c.parse().ok()).filter_map(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn read_answer(mut stream: impl Read) -> Answer {
    let mut all = Vec::new();
    let clean = stream.read_to_end(&mut all).is_ok();
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").expect("an HTTP head");
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let rest = &all[end + 4..];
    let mut answer = Answer { status, head, body: Vec::new(), whole: clean };
    if answer.header("transfer-encoding") == Some("chunked") {
        (answer.body, answer.whole) = unchunk(rest);
    } else {
        answer.body = rest.to_vec();
        let promised = answer.header("content-length").and_then(|l| l.parse::<usize>().ok());
        answer.whole &= promised.is_none_or(|n| n == rest.len());
    }
    answer
}

pub fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(at) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..at]).unwrap().trim(), 16).unwrap();
        rest = &rest[at + 2..];
        if size == 0 {
            return (body, true);
        }
        if rest.len() < size + 2 {
            break;
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
    (body, false)
}

/// Waits for a condition.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Percent-encodes everything that could mean something in a query.
pub fn encoded(bytes: &[u8]) -> String {
    percent_encoding::percent_encode(bytes, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Runs a program of the host and answers its output; it must succeed.
pub fn host(dir: &Path, program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_NAME", "A")
        .env("GIT_AUTHOR_EMAIL", "a@x")
        .env("GIT_COMMITTER_NAME", "A")
        .env("GIT_COMMITTER_EMAIL", "a@x")
        .output()
        .unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
