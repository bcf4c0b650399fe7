//! `/process/execute`, `/process/code-run` and the small routes.

#![allow(clippy::unwrap_used, reason = "a test that stops says where")]

mod common;

use common::{Agent, until};
use serde_json::json;
use std::io::Write;

#[test]
fn versions_directories_and_unknown_paths() {
    let agent = Agent::start();
    assert!(agent.get("/version").json()["version"].is_string());
    let work = agent.work("").to_str().unwrap().trim_end_matches('/').to_owned();
    assert_eq!(agent.get("/work-dir").json()["dir"], work.as_str());
    assert_eq!(agent.get("/project-dir").json(), agent.get("/user-home-dir").json());
    assert_eq!(agent.post("/init", json!({"token": "x"})).status, 200);
    let unknown = agent.get("/nope");
    assert_eq!((unknown.status, unknown.header("content-type")), (404, Some("text/plain; charset=utf-8")));
    assert_eq!(agent.get("/process/execute").status, 404, "a wrong method is an unknown path");
    let unbuilt = agent.get("/computeruse/status");
    assert_eq!(unbuilt.status, 501);
    assert!(unbuilt.json()["message"].as_str().unwrap().contains("/computeruse/status"));
    assert_eq!(unbuilt.code(), "");
}

#[test]
fn ports() {
    let agent = Agent::start();
    let listener = (3000..9999).find_map(|p| std::net::TcpListener::bind(("127.0.0.1", p)).ok()).unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(agent.get("/port").json()["ports"].as_array().unwrap().contains(&json!(port)));
    assert_eq!(agent.get(&format!("/port/{port}/in-use")).json()["isInUse"], true);
    assert_eq!(agent.get("/port/80/in-use").code(), "BAD_REQUEST");
}

#[test]
fn exit_codes_and_merged_output() {
    let agent = Agent::start();
    assert_eq!(agent.run("exit 42"), (42, String::new()));
    assert_eq!(agent.run("echo a; echo b >&2; echo c"), (0, "a\nb\nc\n".into()));
    assert_eq!(agent.run("cat <<'E'\n$x\nE\n"), (0, "$x\n".into()));
    assert_eq!(agent.run("cat\necho swallowed"), (0, "echo swallowed".into()), "the script is standard input");
    assert_eq!(agent.run("kill -9 $$").0, 137);
    assert_eq!(agent.run("printf '\\377a'").1, "\u{fffd}a");
    let (code, said) = agent.run("no-such-command-here");
    assert_eq!(code, 127);
    assert!(said.contains("command not found"), "{said}");
}

#[test]
fn refusals() {
    let agent = Agent::start();
    let execute = |body| agent.post("/process/execute", body);
    assert_eq!(execute(json!({"command": " \n"})).code(), "BAD_REQUEST");
    assert_eq!(execute(json!({"command": 5})).code(), "INVALID_REQUEST_BODY");
    assert_eq!(execute(json!({"command": "true", "timeout": "5"})).code(), "INVALID_REQUEST_BODY");
    let answer = execute(json!({"command": "true", "envs": {"a-b": "c"}}));
    assert!(answer.json()["message"].as_str().unwrap().contains("a-b"));
    assert_eq!(answer.code(), "BAD_REQUEST");
    let answer = execute(json!({"command": "pwd", "cwd": "/no/such/dir"})).json();
    assert_eq!(answer["exitCode"], -1);
    assert!(answer["result"].as_str().unwrap().contains("no such file or directory"));
    let answer = execute(json!({"command": "ls", "cwd": "/no/such/dir"})).json();
    assert_eq!(answer["exitCode"], -1, "also for a command that needs no shell");
}

#[test]
fn directory_and_environment() {
    let agent = Agent::start();
    std::fs::create_dir(agent.work("sub")).unwrap();
    let answer = agent.post("/process/execute", json!({"command": "pwd; echo $A", "cwd": "sub", "envs": {"A": "1"}}));
    let want = format!("{}\n1\n", agent.work("sub").display());
    assert_eq!(answer.json()["result"], want.as_str());
    agent.post("/env", json!({"set": {"B": "2", "C": "s-3"}}));
    assert_eq!(agent.run("echo $B$C").1, "2s-3\n");
    agent.post("/env", json!({"unset": ["B"], "unsetValuePrefix": "s-"}));
    assert_eq!(agent.run("echo $B$C").1, "\n");
    assert_eq!(agent.post("/env", json!({"set": {"1x": "2"}})).code(), "BAD_REQUEST");
}

#[test]
fn a_timeout_kills_the_whole_group() {
    let agent = Agent::start();
    let mark = agent.work("pid");
    let command = format!("sleep 1000 & echo $! > {}; wait", mark.display());
    let answer = agent.post("/process/execute", json!({"command": command, "timeout": 1}));
    assert_eq!(answer.code(), "PROCESS_EXECUTION_TIMEOUT");
    assert_eq!((answer.status, answer.json()["message"].as_str()), (408, Some("command execution timeout")));
    let pid = std::fs::read_to_string(&mark).unwrap();
    until("the sleeper is gone", || !is_running(pid.trim()));
    assert_eq!(agent.post("/process/execute", json!({"command": "sleep 1000", "timeout": 1})).status, 408);
    // Also when only a child is left, with the output still in its hands.
    let command = format!("sleep 1000 & echo $! > {}", mark.display());
    let answer = agent.post("/process/execute", json!({"command": command, "timeout": 1}));
    assert_eq!((answer.status, answer.code()), (408, "PROCESS_EXECUTION_TIMEOUT".into()));
    let pid = std::fs::read_to_string(agent.work("pid")).unwrap();
    until("the child is gone", || !is_running(pid.trim()));
}

/// Present and not a zombie waiting for whoever adopted it.
fn is_running(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
}

#[test]
fn background_work_survives() {
    let agent = Agent::start();
    let mark = agent.work("mark");
    std::process::Command::new("mkfifo").arg(agent.work("gate")).status().unwrap();
    let (gate, shown) = (agent.work("gate"), mark.display().to_string());
    let command = format!("nohup sh -c 'cat {}; echo done > {shown}' >/dev/null 2>&1 &", gate.display());
    assert_eq!(agent.run(&command).0, 0);
    std::fs::write(gate, "go").unwrap();
    until("the background command is done", || mark.exists());
}

#[test]
fn a_command_outlives_its_client() {
    let agent = Agent::start();
    std::process::Command::new("mkfifo").arg(agent.work("gate")).status().unwrap();
    let body = json!({"command": "echo started > mark1; cat gate; echo done > mark2"}).to_string();
    let mut stream = agent.connect();
    let head = format!("POST /process/execute HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    until("the command has started", || agent.work("mark1").exists());
    drop(stream);
    std::fs::write(agent.work("gate"), "go").unwrap();
    until("the command has ended", || agent.work("mark2").exists());
}

#[test]
fn endless_output_is_cut() {
    let agent = Agent::start();
    let answer = agent.post("/process/execute", json!({"command": "head -c 70000000 /dev/zero | tr '\\0' x"}));
    assert!(answer.whole);
    let json = answer.json();
    let result = json["result"].as_str().unwrap();
    assert!(result.ends_with("]\n") && result.contains("[output truncated"), "{}", &result[result.len() - 90..]);
    assert!(result.len() < 68_000_000 && result.len() > 67_000_000);
    assert_eq!(json["exitCode"], 0);
}

/// What goes around the shell must be what goes through it.
#[test]
fn the_direct_way_is_indistinguishable() {
    let agent = Agent::with(r#"{"env": {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "SHLVL": "4"}}"#);
    let killer = "#!/usr/bin/python3\nimport os,sys\nos.kill(os.getpid(), int(sys.argv[1]))\n";
    std::fs::write(agent.work("killer"), killer).unwrap();
    std::fs::write(agent.work("script"), "#!/bin/sh\necho $0 $*\n").unwrap();
    std::fs::write(agent.work("bare"), "echo no interpreter line\n").unwrap();
    std::fs::write(agent.work("plain"), "data").unwrap();
    for name in ["killer", "script", "bare"] {
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(agent.work(name), executable).unwrap();
    }
    let commands = [
        "true",
        "false",
        "echo a  b",
        "ls /",
        "ls /nonexistent",
        "env",
        "cat",
        "./script a b=c",
        "./bare",
        "./plain",
        "./nonexistent",
        "/tmp",
        "./killer 9",
        "./killer 11",
        "./killer 15",
        "./killer 2",
        "./killer 13",
        "id",
        "nosuch",
        "readlink /proc/self/fd/0",
        "uname -a",
        "printenv PWD SHLVL _",
        "stat -L -c %F /proc/self/fd/0",
    ];
    for command in commands {
        // An empty statement makes the line more than words, so the shell runs it.
        let direct = normal(agent.run(command));
        let shell = normal(agent.run(&format!("{command};")));
        assert_eq!(direct, shell, "{command}");
    }
}

/// Sorted, because the order of an environment means nothing, and without process and pipe numbers.
fn normal((code, text): (i64, String)) -> (i64, Vec<String>) {
    let number = |word: &str| {
        let digits = word.trim_matches(|c: char| !c.is_ascii_digit());
        if digits.len() > 2 { word.replace(digits, "N") } else { word.to_owned() }
    };
    let mut lines: Vec<String> =
        text.lines().map(|l| l.split_whitespace().map(number).collect::<Vec<_>>().join(" ")).collect();
    lines.sort_unstable();
    (code, lines)
}

#[test]
fn code_in_three_languages() {
    let agent = Agent::start();
    let run = |body| agent.post("/process/code-run", body);
    let answer = run(json!({"code": "import sys\nprint(sys.argv)", "language": "python", "argv": ["a b", "$X'"]}));
    assert_eq!(answer.json()["result"], "['-', 'a b', \"$X'\"]\n");
    assert_eq!(answer.json()["exitCode"], 0);
    let answer = run(json!({"code": "def", "language": "python"}));
    assert!(answer.json()["result"].as_str().unwrap().contains("SyntaxError"));
    assert_eq!(answer.json()["exitCode"], 1);
    let answer = run(json!({"code": "print(input())", "language": "python"}));
    assert!(answer.json()["result"].as_str().unwrap().contains("EOFError"));
    let answer = run(json!({"code": "console.log(process.argv.slice(1))", "language": "javascript", "argv": ["x y"]}));
    assert_eq!(answer.json()["result"], "[ 'x y' ]\n");
    assert_eq!(
        run(json!({"code": "x", "language": "cobol"})).json()["message"],
        "bad request: unsupported language: cobol"
    );
    assert_eq!(run(json!({"language": "python"})).status, 400);
    let answer = run(json!({"code": "while True: pass", "language": "python", "timeout": 1}));
    assert_eq!(answer.code(), "PROCESS_EXECUTION_TIMEOUT");
    // Through the shell, because this variable makes the direct way step back.
    let answer =
        run(json!({"code": "import os\nprint('via shell')\nos._exit(3)", "language": "python", "envs": {"ENV": "x"}}));
    assert_eq!((answer.json()["exitCode"].as_i64(), answer.json()["result"].as_str()), (Some(3), Some("via shell\n")));
}

#[test]
fn many_at_once_leave_no_zombie() {
    let agent = Agent::start();
    std::thread::scope(|scope| {
        for n in 0..24 {
            let agent = &agent;
            scope.spawn(move || assert_eq!(agent.run(&format!("(exit {n})")).0, n));
        }
    });
    let parent = format!("PPid:\t{}\n", agent.process.id());
    until("every child is collected", || {
        std::fs::read_dir("/proc").unwrap().flatten().all(|entry| {
            let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            !(status.contains(&parent) && status.contains("State:\tZ"))
        })
    });
}
