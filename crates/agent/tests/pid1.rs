//! The agent as a real PID 1, in namespaces of its own, also in an image that has next to nothing.

#![allow(clippy::unwrap_used, reason = "a test that stops says where")]

mod common;

use common::{AGENT, Agent, until};
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// `unshare` kills the agent when it dies itself.
fn as_pid1(config: &str) -> Agent {
    Agent::launch(config, |socket, config| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child=KILL", AGENT]);
        command.args(["--listen", socket, "--config", config]);
        command
    })
}

#[test]
fn orphans_are_collected_and_exit_codes_kept() {
    let agent = as_pid1("{}");
    assert_eq!(agent.run("cat /proc/1/comm").1, "infield-agent\n");
    // A thousand orphans end while other commands run.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(agent.run("for i in 1 2 3 4 5 6 7 8 9 10; do ( (true) & ) ; done; exit 9").0, 9);
                }
            });
        }
    });
    until("there is no zombie", || !agent.run("cat /proc/[0-9]*/stat 2>/dev/null; true").1.contains(") Z "));
    assert_eq!(agent.run("kill -TERM 1; kill -INT 1; kill -KILL 1; echo alive").1, "alive\n");
}

#[test]
fn the_user_is_the_images_own_and_cannot_look_into_the_agent() {
    let agent =
        as_pid1(r#"{"user": "nobody:nogroup", "workdir": "/usr", "env": {"PATH": "/usr/bin:/bin", "SECRET": "x"}}"#);
    assert_eq!(
        agent.run("id -un; id -gn; id -G; pwd; echo $USER; umask").1,
        "nobody\nnogroup\n65534\n/usr\nnobody\n0022\n"
    );
    assert_ne!(agent.run("cat /proc/1/environ").0, 0);
    assert_ne!(agent.run("ls /proc/1/fd").0, 0);
    assert_eq!(agent.run("grep Cap /proc/self/status | sort -u -k2 | grep -v CapBnd").1.lines().count(), 1);
    // The agent raises it just after the shell has begun, so the shell waits to see it in its own children.
    assert_eq!(agent.run("until grep -qx 500 /proc/self/oom_score_adj; do :; done").0, 0);
    let denied = agent.post("/files/folder?path=/etc/nope", json!({}));
    assert_eq!(denied.status, 400);
    assert_eq!(agent.get("/files/download?path=/etc/shadow").code(), "FILE_ACCESS_DENIED");
}

#[test]
fn an_unknown_user_is_told_to_everybody() {
    let agent = as_pid1(r#"{"user": "no-such-user"}"#);
    let answer = agent.get("/version");
    assert_eq!(answer.status, 503);
    assert!(answer.json()["message"].as_str().unwrap().contains("no user \"no-such-user\""));
    assert_eq!(answer.code(), "");
}

#[test]
fn the_entry_point_runs_beside() {
    let agent = as_pid1(r#"{"entrypoint": ["sh", "-c", "yes | head -c 1000000; echo $PPID > ran"]}"#);
    until("the entry point has run", || agent.work("ran").metadata().is_ok_and(|m| m.len() > 0));
    assert_eq!(std::fs::read_to_string(agent.work("ran")).unwrap(), "1\n");
    assert_eq!(agent.run("echo on").1, "on\n");
}

/// Copies a program with the libraries it needs.
fn install(root: &Path, program: &str, to: &str) {
    let copy = |from: &str, to: &Path| {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    };
    copy(program, &root.join(to));
    let listed = Command::new("ldd").arg(program).output().unwrap();
    for word in String::from_utf8_lossy(&listed.stdout).split_whitespace().filter(|w| w.starts_with('/')) {
        copy(word, &root.join(word.trim_start_matches('/')));
    }
}

#[test]
fn an_image_with_nothing_but_one_program() {
    let agent = Agent::launch(r#"{"env": {}, "workdir": null}"#, |socket, config| {
        let root = Path::new(socket).with_file_name("root");
        std::fs::create_dir_all(root.join("proc")).unwrap();
        install(&root, AGENT, "agent");
        install(&root, "/usr/bin/printenv", "hello");
        std::fs::copy(config, root.join("c")).unwrap();
        // The socket lies outside of the image, where the test finds it.
        std::os::unix::fs::symlink("root/s", socket).unwrap();
        let mut command = Command::new("unshare");
        let proc = format!("--mount-proc={}", root.join("proc").display());
        command.args(["--pid", "--fork", "--kill-child=KILL", &proc]);
        command.args(["chroot", root.to_str().unwrap(), "/agent", "--listen", "/s", "--config", "/c"]);
        command
    });
    assert_eq!(agent.run("/hello HOME PATH").1.lines().next(), Some("/"));
    assert_eq!(agent.get("/work-dir").json()["dir"], "/");
    for shell_line in ["/hello; true", "hello $X"] {
        let (code, said) = agent.run(shell_line);
        assert_eq!(code, 127);
        assert!(said.contains("this image has no shell"), "{said}");
    }
    let answer = agent.post("/process/code-run", json!({"code": "1", "language": "python"}));
    assert_eq!(answer.json()["exitCode"], 127);
    assert_eq!(agent.get("/files?path=/").status, 200);
    assert_eq!(agent.post("/git/init", json!({"path": "/repo"})).status, 201);
    assert_eq!(agent.get("/git/status?path=/repo").status, 200);
}
