//! Terminals: their requests, their sockets, their end.

#![allow(clippy::unwrap_used, reason = "a test that stops says where")]

mod common;

use common::ws::Socket;
use common::{AGENT, Agent, until};
use futures_util::SinkExt;
use serde_json::{Value, json};
use std::process::Command;
use tokio::task::block_in_place;
use tokio_tungstenite::tungstenite::Message;

const EXIT_CONTROL: &str = "X-Daytona-Pty-Exit-Control";

fn as_pid1() -> Agent {
    Agent::launch("{}", |socket, config| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child=KILL", AGENT]);
        command.args(["--listen", socket, "--config", config]);
        command
    })
}

async fn create(agent: &Agent, query: &str, protocols: &[&str]) -> Socket {
    let target = format!("/process/pty/create-connect?{query}");
    let mut socket = Socket::open(agent, &target, protocols).await.unwrap();
    assert_eq!(socket.json().await, json!({"type": "control", "status": "connected"}));
    socket
}

fn names(agent: &Agent) -> Vec<Value> {
    let sessions = agent.get("/process/pty").json()["sessions"].as_array().unwrap().clone();
    sessions.iter().map(|s| s["id"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_with_a_terminal() {
    let agent = Agent::start();
    let command = "command=tty%20%3E%2Fdev%2Fnull%20%26%26%20echo%20one%3B%20exit%207";
    let mut pty = create(&agent, &format!("id=c&{command}"), &[EXIT_CONTROL]).await;
    let rest = pty.rest().await;
    assert_eq!(rest.texts.last().unwrap()["exitCode"], 7);
    let refused = block_in_place(|| agent.post("/process/pty", json!({"id": "d", "command": "a\0b"})));
    assert_eq!(refused.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_with_its_terminal() {
    let agent = Agent::start();
    let mut pty = create(&agent, "id=a&cols=100&rows=30&cwd=/tmp", &[EXIT_CONTROL]).await;
    assert_eq!(pty.selected.as_deref(), Some(EXIT_CONTROL));
    pty.send("stty size; tty; pwd; echo T=$TERM; ps -o sid=,tpgid= -p $$ | xargs echo; echo en''d\n").await;
    let seen = pty.until("end\r\n").await;
    assert!(seen.contains("30 100\r\n") && seen.contains("/dev/pts/") && seen.contains("\r\n/tmp\r\n"), "{seen}");
    assert!(seen.contains("T=xterm-256color"), "{seen}");
    let info = block_in_place(|| agent.get("/process/pty/a").json());
    assert_eq!((&info["active"], &info["cols"], &info["cwd"]), (&json!(true), &json!(100), &json!("/tmp")));
    assert_eq!(info["envs"], json!({"TERM": "xterm-256color"}));
    let resized = block_in_place(|| agent.post("/process/pty/a/resize", json!({"cols": 120, "rows": 40})));
    assert_eq!((resized.status, &resized.json()["rows"]), (200, &json!(40)));
    pty.send("stty size; echo en''d2\n").await;
    assert!(pty.until("end2\r\n").await.contains("40 120\r\n"));
    // It says so when it has the terminal, and with it what ^C does.
    pty.send("sh -c 'echo rea''dy; exec sleep 1000'\n").await;
    pty.until("ready\r\n").await;
    pty.inner.send(Message::binary(&b"\x03"[..])).await.unwrap();
    pty.send("exit 7\n").await;
    let rest = pty.rest().await;
    assert_eq!(rest.texts.last().unwrap()["exitCode"], 7);
    assert_eq!(rest.texts.last().unwrap()["exitReason"], "(non-zero exit)");
    assert_eq!((rest.code, rest.reason.as_str()), (1011, r#"{"exitCode":7,"exitReason":"non-zero exit"}"#));
    assert_eq!(block_in_place(|| names(&agent)), Vec::<Value>::new(), "its name is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_share_one() {
    let agent = Agent::start();
    let envs = "X-Daytona-Pty-Envs~eyJXSE8iOiLDvCJ9";
    let mut one = create(&agent, "id=shared", &[envs, EXIT_CONTROL]).await;
    let mut two = Socket::open(&agent, "/process/pty/shared/connect", &[]).await.unwrap();
    assert_eq!(two.selected, None);
    assert_eq!(two.json().await["status"], "connected");
    two.send("echo from-$WHO\n").await;
    one.until("from-ü\r\n").await;
    two.until("from-ü\r\n").await;
    one.inner.close(None).await.unwrap();
    one.rest().await;
    assert_eq!(block_in_place(|| names(&agent)), [json!("shared")], "a client that leaves ends nothing");
    two.send("exit\n").await;
    let rest = two.rest().await;
    assert_eq!((rest.texts.len(), rest.code, rest.reason.as_str()), (0, 1000, r#"{"exitCode":0}"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    let agent = Agent::start();
    let create = |body: Value| block_in_place(|| agent.post("/process/pty", body));
    for (body, status) in [
        (json!({}), 400),
        (json!({"id": "x", "cols": 1001}), 400),
        (json!({"id": "x", "cols": "80"}), 400),
        (json!({"id": "x", "cwd": "/nope"}), 500),
        (json!({"id": "x"}), 201),
        (json!({"id": "x"}), 409),
    ] {
        assert_eq!(create(body.clone()).status, status, "{body}");
    }
    for (target, status) in [("id=x", 409), ("", 400), ("id=y&cols=2000", 400), ("id=y&cols=many", 101)] {
        let opened = Socket::open(&agent, &format!("/process/pty/create-connect?{target}"), &[]).await;
        assert_eq!(opened.err().map_or(101, |(status, _)| status), status, "{target}");
    }
    let broken = Socket::open(&agent, "/process/pty/create-connect?id=z", &["X-Daytona-Pty-Envs~%%%"]).await;
    assert_eq!(broken.err().unwrap().0, 400);
    block_in_place(|| {
        assert_eq!(agent.get("/process/pty/nope").code(), "PROCESS_NOT_FOUND");
        assert_eq!(agent.request("DELETE", "/process/pty/nope", &[], b"").code(), "PROCESS_NOT_FOUND");
        let resize = |id: &str, body: Value| agent.post(&format!("/process/pty/{id}/resize"), body);
        assert_eq!(resize("nope", json!({"cols": 1, "rows": 1})).code(), "SESSION_ENDED");
        assert_eq!(resize("x", json!({"cols": 0, "rows": 1})).status, 400);
        assert_eq!(resize("x", json!({"cols": 1, "rows": 1001})).status, 400);
        assert_eq!(agent.get("/process/pty/x/connect").status, 400, "not a handshake");
    });
    let mut unknown = Socket::open(&agent, "/process/pty/nope/connect", &[EXIT_CONTROL]).await.unwrap();
    let rest = unknown.rest().await;
    assert_eq!(rest.texts[0]["status"], "error");
    assert!(rest.texts[0]["error"].as_str().unwrap().starts_with("Failed to connect to PTY session: "));
    let bad = "/process/pty/create-connect?id=w&cwd=/nope";
    let rest = Socket::open(&agent, bad, &[]).await.unwrap().rest().await;
    assert!(rest.texts[0]["error"].as_str().unwrap().starts_with("Failed to start PTY session: chdir /nope"));
    assert_eq!(block_in_place(|| names(&agent)), [json!("x"), json!("y")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lazy_one_starts_with_its_first_client() {
    let agent = Agent::start();
    block_in_place(|| {
        assert_eq!(agent.post("/process/pty", json!({"id": "l", "lazyStart": true})).status, 201);
        let info = agent.get("/process/pty/l").json();
        assert_eq!((&info["active"], &info["lazyStart"]), (&json!(false), &json!(true)));
        assert_eq!(agent.post("/process/pty/l/resize", json!({"cols": 10, "rows": 10})).status, 500);
    });
    let mut pty = Socket::open(&agent, "/process/pty/l/connect", &[]).await.unwrap();
    assert_eq!(pty.json().await["status"], "connected");
    pty.send("echo a''wake\n").await;
    pty.until("awake\r\n").await;
    block_in_place(|| {
        assert_eq!(agent.post("/process/pty", json!({"id": "m", "lazyStart": true})).status, 201);
        assert_eq!(agent.request("DELETE", "/process/pty/m", &[], b"").status, 200);
    });
}

/// Whatever left the shell's job table, group or session dies with the terminal, and nobody stays behind as a zombie.
#[tokio::test(flavor = "multi_thread")]
async fn deleting_kills_everything_it_started() {
    let agent = as_pid1();
    let mut pty = create(&agent, "id=k", &[EXIT_CONTROL]).await;
    for line in [
        "sleep 7001 & disown -a",
        "nohup sleep 7002 >/dev/null 2>&1 &",
        "setsid sleep 7003 &",
        "(setsid sh -c 'sleep 7004 & sleep 7005 & wait' >/dev/null 2>&1 &)",
        "(trap '' HUP TERM INT; env -i sleep 7006) &",
    ] {
        pty.send(&format!("{line}\n")).await;
    }
    let alive = || agent.run("ps -eo stat=,args= | grep -v '^Z' | grep -o '[s]leep 700[0-9]' | sort -u | wc -l").1;
    block_in_place(|| until("all six run", || alive().trim() == "6"));
    let deleted = block_in_place(|| agent.request("DELETE", "/process/pty/k", &[], b""));
    assert_eq!(deleted.json()["message"], "PTY session deleted");
    assert_eq!(block_in_place(alive).trim(), "0");
    let rest = pty.rest().await;
    assert_eq!(rest.texts.last().unwrap()["exitCode"], 137);
    assert_eq!((rest.code, rest.reason.as_str()), (1011, r#"{"exitCode":137,"exitReason":"SIGKILL"}"#));
    let zombies = || agent.run("ps -eo stat= | grep -c '^Z'").1;
    block_in_place(|| until("there is no zombie", || zombies().trim() == "0"));
    assert_eq!(block_in_place(|| agent.get("/process/pty/k").status), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_complete_and_a_silent_client_is_left_behind() {
    let agent = Agent::start();
    let mut one = create(&agent, "id=f", &[]).await;
    one.send("PS1=; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo =$((40+2))=\n").await;
    let seen = one.until("=42=").await;
    assert!(seen.matches('x').count() >= 3_000_000, "one client gets all: {}", seen.matches('x').count());
    // One that reads nothing while another reads everything.
    let mut deaf = Socket::open(&agent, "/process/pty/f/connect", &[]).await.unwrap();
    assert_eq!(deaf.json().await["status"], "connected");
    // In portions that fit the queue, so that the one that reads is never behind, however busy the machine is.
    for n in 0..30 {
        one.send(&format!("head -c 200000 /dev/zero | tr '\\0' y; echo; echo =$((100+{n}))=\n")).await;
        assert!(one.until(&format!("={}=", 100 + n)).await.matches('y').count() >= 200_000);
    }
    let rest = deaf.rest().await;
    assert_eq!((rest.code, rest.reason.as_str()), (1008, "slow consumer"));
    one.send("exit\n").await;
    assert_eq!(one.rest().await.code, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_reads_nothing_does_not_wedge_it() {
    let agent = Agent::start();
    let mut pty = create(&agent, "id=s", &[]).await;
    pty.send("stty raw -echo; echo sl''eeping; exec sleep 1000\n").await;
    pty.until("sleeping").await;
    let block = vec![b'x'; 32 << 10];
    for _ in 0..12 {
        pty.inner.send(Message::binary(block.clone())).await.unwrap();
    }
    assert_eq!(block_in_place(|| agent.get("/process/pty/s").status), 200);
    assert_eq!(block_in_place(|| agent.request("DELETE", "/process/pty/s", &[], b"").status), 200);
    let mut long = create(&agent, "id=t", &[]).await;
    long.inner.send(Message::binary(vec![b'x'; 100 << 10])).await.unwrap();
    assert_eq!(long.rest().await.code, 1009);
}

fn resident_kib(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.process.id())).unwrap();
    let line = status.lines().find(|l| l.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_thousand_cost_little_and_one_more_is_refused() {
    let agent = Agent::start();
    let before = resident_kib(&agent);
    for n in 0..1000 {
        assert_eq!(agent.post("/process/pty", json!({"id": format!("p{n}"), "lazyStart": n >= 100})).status, 201);
    }
    let one_more = agent.post("/process/pty", json!({"id": "one more"}));
    assert_eq!(one_more.status, 503, "{}", one_more.text());
    let grown = resident_kib(&agent) - before;
    assert!(grown < 8 << 10, "{grown} KiB");
    let threads = std::fs::read_dir(format!("/proc/{}/task", agent.process.id())).unwrap().count();
    assert!(threads < 24, "{threads} threads");
    for n in 0..1000 {
        assert_eq!(agent.request("DELETE", &format!("/process/pty/p{n}"), &[], b"").status, 200);
    }
    assert_eq!(agent.get("/process/pty").json()["sessions"], json!([]));
}
