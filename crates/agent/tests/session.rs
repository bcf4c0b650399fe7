//! Sessions: live shells, their commands, logs and end; and the entry point as a session.

#![allow(clippy::unwrap_used, reason = "a test that stops says where")]

mod common;

use common::{Agent, Answer, until};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::io::{Read, Write};
use tokio::net::UnixStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

const NEW: (&str, &str) = ("X-Daytona-SDK-Version", "0.226.1");

fn session(agent: &Agent, id: &str) {
    let answer = agent.post("/process/session", json!({"sessionId": id}));
    assert_eq!((answer.status, answer.body.len()), (201, 0), "{}", answer.text());
}

fn send(agent: &Agent, id: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
    agent.request("POST", &format!("/process/session/{id}/exec"), headers, body.to_string().as_bytes())
}

/// Exit code, stdout, stderr.
fn exec(agent: &Agent, id: &str, command: &str) -> (i64, String, String) {
    let answer = send(agent, id, &json!({"command": command}), &[NEW]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    let text = |field: &str| json[field].as_str().unwrap().to_owned();
    (json["exitCode"].as_i64().unwrap(), text("stdout"), text("stderr"))
}

fn start(agent: &Agent, id: &str, command: &str) -> String {
    let answer = send(agent, id, &json!({"command": command, "runAsync": true}), &[NEW]);
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()["cmdId"].as_str().unwrap().to_owned()
}

fn exit_code(agent: &Agent, id: &str, command: &str) -> Option<i64> {
    let answer = agent.get(&format!("/process/session/{id}/command/{command}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["exitCode"].as_i64()
}

fn logs(agent: &Agent, id: &str, command: &str) -> Value {
    let answer = agent.request("GET", &format!("/process/session/{id}/command/{command}/logs"), &[NEW], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn input(agent: &Agent, id: &str, command: &str, data: &str) -> Answer {
    agent.post(&format!("/process/session/{id}/command/{command}/input"), json!({"data": data}))
}

fn delete(agent: &Agent, id: &str) {
    let answer = agent.request("DELETE", &format!("/process/session/{id}"), &[], b"");
    assert_eq!((answer.status, answer.body.len()), (204, 0), "{}", answer.text());
}

/// Whether any process has this in its command line.
fn found(word: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&cmdline).contains(word)
    })
}

fn has_children(agent: &Agent) -> bool {
    let parent = format!("PPid:\t{}\n", agent.process.id());
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|entry| std::fs::read_to_string(entry.path().join("status")).unwrap_or_default().contains(&parent))
}

#[test]
fn one_live_shell() {
    let agent = Agent::start();
    session(&agent, "s 1");
    let run = |command: &str| exec(&agent, "s%201", command);
    assert_eq!(run("cd /usr; export A=b; C=d; f() { echo \"f $C\"; }"), (0, String::new(), String::new()));
    assert_eq!(run("pwd; echo $A; f; echo e >&2").1, "/usr\nb\nf d\n");
    assert_eq!(run("echo out; echo err >&2; false"), (1, "out\n".into(), "err\n".into()));
    assert_eq!(run("printf 'no end'").1, "no end\n");
    assert_eq!(run("cat; cat /dev/stdin").0, 0, "nothing to read, at once");
    assert_eq!(run("return 7").0, 7);
    assert_eq!(run("(exit 9)").0, 9);
    assert_eq!(run("cat <<'E'\n$x\nE\n").1, "$x\n");
    let (code, _, err) = run("if");
    assert!(code != 0 && err.contains("syntax error"), "{err}");
    assert_eq!(run("ls /proc/self/fd").1, "0\n1\n2\n3\n", "no descriptor of ours is left to commands");
    assert_eq!(run("trap 'echo bye' EXIT; alias x=y; set -o pipefail; echo on").1, "on\n");
    let listed = agent.get("/process/session").json();
    assert_eq!(listed[0]["sessionId"], "s 1");
    let one = agent.get("/process/session/s%201").json();
    assert_eq!(one, listed[0]);
    assert_eq!(one["commands"][2]["command"], "echo out; echo err >&2; false");
    assert_eq!(one["commands"][2]["exitCode"], 1);
    delete(&agent, "s%201");
    assert_eq!(agent.get("/process/session").json(), json!([]));
}

#[test]
fn refusals() {
    let agent = Agent::start();
    let create = |body| agent.post("/process/session", body);
    assert_eq!(create(json!({})).code(), "BAD_REQUEST");
    assert_eq!(create(json!({"sessionId": 5})).code(), "INVALID_REQUEST_BODY");
    assert_eq!(create(json!({"sessionId": "entrypoint"})).status, 400);
    session(&agent, "a");
    assert_eq!(create(json!({"sessionId": "a"})).code(), "CONFLICT");
    assert_eq!(send(&agent, "a", &json!({"command": " \n"}), &[]).status, 400);
    assert_eq!(send(&agent, "b", &json!({"command": "true"}), &[]).code(), "PROCESS_NOT_FOUND");
    assert_eq!(send(&agent, "entrypoint", &json!({"command": "true"}), &[]).status, 400);
    assert_eq!(agent.request("DELETE", "/process/session/entrypoint", &[], b"").status, 400);
    assert_eq!(agent.request("DELETE", "/process/session/b", &[], b"").code(), "PROCESS_NOT_FOUND");
    for path in ["b", "entrypoint", "entrypoint/logs", "a/command/x", "a/command/x/logs", "b/command/x"] {
        assert_eq!(agent.get(&format!("/process/session/{path}")).code(), "PROCESS_NOT_FOUND", "{path}");
    }
    assert_eq!(input(&agent, "a", "x", "y").code(), "PROCESS_NOT_FOUND");
    assert_eq!(input(&agent, "a", "x", "").code(), "BAD_REQUEST");
    let done = send(&agent, "a", &json!({"command": "true"}), &[]).json()["cmdId"].as_str().unwrap().to_owned();
    let late = input(&agent, "a", &done, "y");
    assert_eq!((late.status, late.code().as_str()), (410, "COMMAND_ALREADY_COMPLETED"));
    assert!(late.json()["message"].as_str().unwrap().contains("exit code 0"));
}

#[test]
fn both_spellings_of_async_and_strict_order() {
    let agent = Agent::start();
    session(&agent, "a");
    std::process::Command::new("mkfifo").arg(agent.work("gate")).status().unwrap();
    let first = start(&agent, "a", "cat gate; echo first >> order");
    let legacy = send(&agent, "a", &json!({"command": "echo second >> order", "async": true}), &[]);
    assert_eq!(legacy.status, 202);
    let json = legacy.json();
    for field in ["output", "stdout", "stderr", "exitCode"] {
        assert!(json.as_object().unwrap().contains_key(field) && json[field].is_null(), "{json}");
    }
    assert_eq!(exit_code(&agent, "a", &first), None);
    std::fs::write(agent.work("gate"), "go").unwrap();
    assert_eq!(exec(&agent, "a", "cat order").1, "first\nsecond\n");
    assert_eq!(exit_code(&agent, "a", &first), Some(0));
    assert_eq!(logs(&agent, "a", &first), json!({"output": "\u{1}\u{1}\u{1}go\n", "stdout": "go\n", "stderr": ""}));
}

#[test]
fn input_reaches_a_running_command_and_its_log() {
    let agent = Agent::start();
    session(&agent, "a");
    let command = start(&agent, "a", "read x; read y; echo \"$x+$y\" >&2; until [ \"$z\" = stop ]; do read z; done");
    assert_eq!(input(&agent, "a", &command, "one").status, 204);
    assert_eq!(input(&agent, "a", &command, "two\n").status, 204);
    until("it has read", || logs(&agent, "a", &command)["stderr"] == "one+two\n");
    assert_eq!(logs(&agent, "a", &command)["stdout"], "one\ntwo\n");
    assert_eq!(exit_code(&agent, "a", &command), None);
    assert_eq!(input(&agent, "a", &command, "stop").status, 204);
    until("it has ended", || exit_code(&agent, "a", &command).is_some());
    let quiet =
        send(&agent, "a", &json!({"command": "read x", "runAsync": true, "suppressInputEcho": true}), &[]).json();
    let quiet = quiet["cmdId"].as_str().unwrap();
    assert_eq!(input(&agent, "a", quiet, "secret").status, 204);
    until("it has ended", || exit_code(&agent, "a", quiet) == Some(0));
    assert_eq!(logs(&agent, "a", quiet)["output"], "");
    // What the first did not read is not there for the next.
    input(&agent, "a", &start(&agent, "a", "sleep 0.2"), "left over");
    let next = start(&agent, "a", "read -t 0.3 x; echo \"[$x]\"");
    until("it has ended", || exit_code(&agent, "a", &next).is_some());
    assert_eq!(logs(&agent, "a", &next)["stdout"], "[]\n");
}

#[test]
fn a_shell_that_exits_ends_the_session() {
    let agent = Agent::start();
    session(&agent, "a");
    let running = start(&agent, "a", "echo before; sleep 0.2; exit 5");
    let never = start(&agent, "a", "echo never");
    let answer = send(&agent, "a", &json!({"command": "echo never"}), &[]);
    assert_eq!((answer.status, answer.code().as_str()), (410, "SESSION_ENDED"));
    assert_eq!(exit_code(&agent, "a", &running), Some(5));
    assert_eq!(logs(&agent, "a", &running)["stdout"], "before\n");
    assert!(logs(&agent, "a", &never)["stderr"].as_str().unwrap().contains("session ended"));
    assert_eq!(input(&agent, "a", &running, "x").code(), "SESSION_ENDED");
    assert_eq!(send(&agent, "a", &json!({"command": "true"}), &[]).code(), "SESSION_ENDED");
    delete(&agent, "a");
    session(&agent, "a");
    let answer = send(&agent, "a", &json!({"command": "exit 6"}), &[NEW]);
    assert_eq!((answer.status, answer.json()["exitCode"].as_i64()), (200, Some(6)));
    session(&agent, "b");
    assert_eq!(exec(&agent, "b", "kill -9 $$").0, 137);
    session(&agent, "c");
    assert_eq!(exec(&agent, "c", "exec sh -c 'echo other; exit 3'"), (3, "other\n".into(), String::new()));
}

#[test]
fn nothing_a_command_prints_or_writes_ends_it_or_the_next() {
    let agent = Agent::start();
    session(&agent, "a");
    // Whatever descriptor a command can reach, an answer on it is none without the number, and numbers are used once.
    let spray = "for n in $(seq 3 80); do for c in 0 42; do { echo \"$(cat /proc/$$/cmdline | tr -d '\\0') $c\" >&$n; \
                 echo \"00000000000000000000000000000000 $c\" >&$n; } 2>/dev/null; done; done; sleep 0.1; (exit 3)";
    assert_eq!(exec(&agent, "a", spray).0, 3);
    let (code, out, _) = exec(&agent, "a", "printf '\\001\\001\\001x\\n\\002\\002\\002y\\n'; (exit 4)");
    assert_eq!(
        (code, out.as_str()),
        (4, "\u{1}\u{1}\u{1}x\n\u{2}\u{2}\u{2}y\n"),
        "prefixes in output change no stream"
    );
    // A process of an earlier command that goes on writing wherever it can.
    exec(
        &agent,
        "a",
        "( while sleep 0.01; do for n in 10 11 12 13; do echo 'x 42' >&$n; done; done ) >/dev/null 2>&1 &",
    );
    for n in 0..20 {
        assert_eq!(exec(&agent, "a", &format!("(exit {n})")).0, n);
    }
    delete(&agent, "a");
}

#[test]
fn output_of_background_jobs_belongs_to_their_command() {
    let agent = Agent::start();
    session(&agent, "a");
    let (code, out, _) = exec(&agent, "a", "(sleep 0.3; echo late) & echo early");
    assert_eq!((code, out.as_str()), (0, "early\nlate\n"));
    assert_eq!(exec(&agent, "a", "nohup sleep 55.5 >/dev/null 2>&1 & echo on").1, "on\n");
    delete(&agent, "a");
    assert!(!found("sleep\u{0}55.5"));
}

#[test]
fn shapes_by_version() {
    let agent = Agent::start();
    session(&agent, "a");
    let run = |headers: &[(&str, &str)]| {
        let answer = send(&agent, "a", &json!({"command": "echo o; sleep 0.05; echo e >&2"}), headers).json();
        let path = format!("/process/session/a/command/{}/logs", answer["cmdId"].as_str().unwrap());
        let log = agent.request("GET", &path, headers, b"");
        let kind = log.header("content-type").unwrap().to_owned();
        (answer["output"].as_str().unwrap().to_owned(), answer["stdout"].clone(), kind, log.text())
    };
    let raw = "\u{1}\u{1}\u{1}o\n\u{2}\u{2}\u{2}e\n".to_owned();
    let (output, stdout, kind, log) = run(&[("X-Daytona-SDK-Version", "0.167.0-rc1")]);
    assert_eq!((output, stdout, kind.as_str()), (raw.clone(), json!("o\n"), "application/json; charset=utf-8"));
    assert_eq!(serde_json::from_str::<Value>(&log).unwrap(), json!({"output": raw, "stdout": "o\n", "stderr": "e\n"}));
    for headers in [("X-Daytona-SDK-Version", "0.166.0"), ("X-Daytona-Split-Output", "true")] {
        let (output, stdout, kind, log) = run(&[headers]);
        assert_eq!((output, stdout, kind.as_str()), (raw.clone(), Value::Null, "text/plain; charset=utf-8"));
        assert_eq!(log, raw);
    }
    for headers in [&[("X-Daytona-SDK-Version", "0.26.0")][..], &[]] {
        let (output, stdout, _, log) = run(headers);
        assert_eq!((output.as_str(), stdout, log.as_str()), ("o\ne\n", Value::Null, "o\ne\n"));
    }
    agent.request("POST", "/process/session", &[("X-Daytona-SDK-Version", "0.102.0")], br#"{"sessionId": "home"}"#);
    let home = agent.get("/user-home-dir").json()["dir"].as_str().unwrap().to_owned();
    assert_eq!(exec(&agent, "home", "pwd").1.trim(), home);
}

async fn socket(agent: &Agent, path: &str, headers: &[(&'static str, &str)]) -> WebSocketStream<UnixStream> {
    let stream = UnixStream::connect(&agent.socket).await.unwrap();
    let mut request = format!("ws://agent{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    client_async(request, stream).await.unwrap().0
}

/// The messages and the close code.
async fn messages(mut socket: WebSocketStream<UnixStream>) -> (Vec<Vec<u8>>, u16) {
    let (mut all, mut code) = (Vec::new(), 0);
    while let Some(message) = socket.next().await {
        match message.unwrap() {
            Message::Binary(bytes) => all.push(bytes.to_vec()),
            Message::Close(frame) => code = frame.unwrap().code.into(),
            other => panic!("{other:?}"),
        }
    }
    (all, code)
}

#[tokio::test]
async fn logs_are_followed_over_a_socket() {
    let agent = Agent::start();
    session(&agent, "a");
    let command = start(&agent, "a", "echo one; echo two >&2; read x; printf \"got $x\"");
    let path = format!("/process/session/a/command/{command}/logs");
    let mut follower = socket(&agent, &format!("{path}?follow=true"), &[]).await;
    let mut seen = Vec::new();
    while !(seen.ends_with(b"two\n") || seen.ends_with(b"one\n") && seen.len() > 10) {
        seen.extend_from_slice(&follower.next().await.unwrap().unwrap().into_data());
    }
    follower.send(Message::Ping("p".into())).await.unwrap();
    assert_eq!(follower.next().await.unwrap().unwrap(), Message::Pong("p".into()));
    let (so_far, code) = messages(socket(&agent, &path, &[]).await).await;
    assert_eq!((so_far.concat(), code), (seen, 1000), "without follow it ends at once");
    assert_eq!(input(&agent, "a", &command, "it").status, 204);
    let (rest, code) = messages(follower).await;
    let rest = String::from_utf8(rest.concat()).unwrap();
    assert_eq!((rest.replace("\u{1}\u{1}\u{1}", "").as_str(), code), ("it\ngot it\n", 1000));
    let (stripped, _) = messages(socket(&agent, &path, &[("X-Daytona-SDK-Version", "0.26.0")]).await).await;
    assert!(!stripped.concat().contains(&1));
}

#[tokio::test]
async fn a_socket_of_a_deleted_session_is_closed() {
    let agent = Agent::start();
    session(&agent, "a");
    let command = start(&agent, "a", "echo up; sleep 100");
    let path = format!("/process/session/a/command/{command}/logs?follow=true");
    let mut follower = socket(&agent, &path, &[("Sec-WebSocket-Protocol", "X-Daytona-SDK-Version~0.226.1")]).await;
    assert_eq!(&follower.next().await.unwrap().unwrap().into_data()[..], b"\x01\x01\x01up\n");
    delete(&agent, "a");
    assert_eq!(messages(follower).await, (vec![], 1000));
}

#[test]
fn logs_are_followed_over_plain_http() {
    let agent = Agent::start();
    session(&agent, "a");
    let command = start(&agent, "a", "echo one; read x; echo $x >&2");
    let mut stream = agent.connect();
    let head = format!(
        "GET /process/session/a/command/{command}/logs?follow=true HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut seen = Vec::new();
    while !seen.windows(4).any(|w| w == b"one\n") {
        let mut bytes = [0; 4096];
        let n = stream.read(&mut bytes).unwrap();
        assert!(n > 0);
        seen.extend_from_slice(&bytes[..n]);
    }
    assert_eq!(input(&agent, "a", &command, "two").status, 204);
    stream.read_to_end(&mut seen).unwrap();
    let answer = common::read_answer(&seen[..]);
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert!(answer.whole);
    let text = answer.text();
    assert!(text.starts_with("\u{1}\u{1}\u{1}one\n") && text.contains("\u{2}\u{2}\u{2}two\n"), "{text:?}");
}

#[tokio::test]
async fn large_logs_are_whole_in_every_way() {
    let agent = Agent::start();
    session(&agent, "a");
    let command = start(&agent, "a", "seq 1 1000000; echo end >&2");
    let path = format!("/process/session/a/command/{command}/logs");
    let (all, code) = messages(socket(&agent, &format!("{path}?follow=true"), &[]).await).await;
    assert_eq!(code, 1000);
    let mut out = String::new();
    for message in &all {
        let text = std::str::from_utf8(message).unwrap();
        assert!(text.starts_with("\u{1}\u{1}\u{1}") || text.starts_with("\u{2}\u{2}\u{2}"));
        out.extend(text.split("\u{1}\u{1}\u{1}").map(|p| p.split("\u{2}\u{2}\u{2}").next().unwrap()));
    }
    let expected: String = (1..=1_000_000).map(|n| format!("{n}\n")).collect();
    assert!(out == expected);
    let json = logs(&agent, "a", &command);
    assert!(json["stdout"] == expected && json["stderr"] == "end\n");
    let prefixes = json["output"].as_str().unwrap().len() - expected.len() - "end\n".len();
    assert!((3_000_003..3_010_000).contains(&prefixes), "a prefix for each line, and few lines in two");
    assert_eq!(agent.request("GET", &path, &[("X-Daytona-SDK-Version", "0.100.0")], b"").body, all.concat());
    let (code, out, _) = exec(&agent, "a", "head -c 3000000 /dev/zero | tr '\\0' x");
    assert_eq!((code, out.len()), (0, 3_000_001));
}

#[test]
fn a_disk_that_is_full_or_hostile_does_not_stop_sessions() {
    let agent = Agent::with(r#"{"env": {"PATH": "/usr/bin:/bin", "HOME": "/proc/nowhere"}}"#);
    session(&agent, "a");
    assert_eq!(exec(&agent, "a", "ulimit -f").0, 0);
    let (code, out, _) = exec(&agent, "a", "seq 1 20000; (exit 2)");
    assert_eq!((code, out.lines().count()), (2, 20_000), "another directory serves");
}

/// Everything a session has started goes with it, whatever it did to get away.
#[test]
fn deletion_leaves_no_process() {
    let agent = Agent::start();
    session(&agent, "a");
    let stubborn = "trap '' TERM HUP INT; (trap '' TERM; sleep 7777.1) & setsid sleep 7777.2 & \
                    setsid sh -c 'sleep 7777.3 & sleep 7777.4' & disown -a; \
                    nohup sh -c '(setsid sleep 7777.5 </dev/null >/dev/null 2>&1 &)' >/dev/null 2>&1; \
                    (env -i sleep 7777.6 &) ; echo ready; sleep 7777.7";
    let command = start(&agent, "a", stubborn);
    until("all are there", || {
        logs(&agent, "a", &command)["stdout"] == "ready\n" && (1..=7).all(|n| found(&format!("sleep\u{0}7777.{n}")))
    });
    delete(&agent, "a");
    assert!(!found("sleep\u{0}7777."), "the answer comes when they are gone");
    session(&agent, "a");
    assert_eq!(exec(&agent, "a", "echo again").1, "again\n");
}

#[test]
fn many_sessions_at_once() {
    let agent = Agent::start();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let agent = &agent;
            scope.spawn(move || {
                for m in 0..5 {
                    let id = format!("s{n}-{m}");
                    session(agent, &id);
                    assert_eq!(
                        exec(agent, &id, &format!("echo {n}; (exit {m})")),
                        (m, format!("{n}\n"), String::new())
                    );
                }
            });
        }
    });
    assert_eq!(agent.get("/process/session").json().as_array().unwrap().len(), 40);
    for n in 0..8 {
        for m in 0..5 {
            delete(&agent, &format!("s{n}-{m}"));
        }
    }
    until("no child and no zombie is left", || !has_children(&agent));
}

#[test]
fn other_shells() {
    let agent = Agent::with(r#"{"env": {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "SHELL": "/bin/sh"}}"#);
    session(&agent, "a");
    // The sandbox's shell is chosen by /etc/shells; a POSIX shell behaves the same, where it can be asked for.
    assert_eq!(exec(&agent, "a", "x=1; y() { echo $x; }").0, 0);
    assert_eq!(exec(&agent, "a", "y; ls /proc/self/fd").1, "1\n0\n1\n2\n3\n");
    let env = exec(&agent, "a", "env").1;
    assert!(env.contains("SHELL=/bin/sh") && env.contains("INFIELD_FAMILY="), "{env}");
}

#[tokio::test]
async fn the_entry_point_is_a_session() {
    let agent = Agent::with(
        r#"{"entrypoint": ["sh", "-c", "echo first; echo err >&2; cat; until test -e go; do sleep 0.02; done; echo \"it's over\"; exit 4"]}"#,
    );
    let one = agent.get("/process/session/entrypoint").json();
    assert_eq!(one["sessionId"], "entrypoint");
    assert_eq!(one["commands"][0]["id"], "entrypoint_command");
    assert!(one["commands"][0]["command"].as_str().unwrap().starts_with("'sh' '-c' 'echo first;"));
    assert_eq!(agent.get("/process/session").json(), json!([]), "it is not listed");
    let follower = socket(&agent, "/process/session/entrypoint/logs?follow=true", &[]).await;
    std::fs::write(agent.work("go"), "").unwrap();
    let (all, code) = messages(follower).await;
    let all = String::from_utf8(all.concat()).unwrap();
    assert!(all.contains("\u{1}\u{1}\u{1}first\n") && all.contains("\u{2}\u{2}\u{2}err\n"), "from its start: {all:?}");
    assert!(all.ends_with("\u{1}\u{1}\u{1}it's over\n"));
    assert_eq!(code, 1000);
    let log = agent.request("GET", "/process/session/entrypoint/logs", &[NEW], b"").json();
    assert_eq!((log["stdout"].as_str(), log["stderr"].as_str()), (Some("first\nit's over\n"), Some("err\n")));
    assert_eq!(agent.get("/process/session/entrypoint/logs").text(), all, "never stripped");
    let command = agent.get("/process/session/entrypoint/command/entrypoint_command").json();
    assert_eq!(command["exitCode"], 4);
    assert_eq!(agent.run("echo on").1, "on\n");
}

#[test]
fn an_entry_point_that_is_missing_says_so() {
    let agent = Agent::with(r#"{"entrypoint": ["no-such-program", "x"]}"#);
    until("it has failed", || agent.get("/process/session/entrypoint").json()["commands"][0]["exitCode"] == 127);
    let log = agent.request("GET", "/process/session/entrypoint/logs", &[NEW], b"").json();
    assert_eq!(log["stderr"], "no-such-program: not found in PATH\n");
}
