//! The user's own four commands as the mission document writes them, through `specgen-sandbox` and `infield`.

use infield_tests::{
    GitServer, World, eventually,
    process::{self, run, run_with_input, succeeded, text},
};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

const COMMAND_MAX: Duration = Duration::from_secs(90);
const BUILD: &str = "all:\n\t@echo building\n\t@echo done > built.txt\n\ntest:\n\t@echo '3 passed'\n";

fn specgen(world: &World, arguments: &[&str]) -> Output {
    run(world.command("specgen-sandbox").args(arguments), COMMAND_MAX)
}

/// Title, cause and fix of a failure, and the exit code.
#[track_caller]
fn fails(output: &Output, code: i32, title: &str, cause: &str, fix: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}{}", text(&output.stdout));
    for words in [title, cause, fix] {
        assert!(said.contains(words), "`{words}` is missing in: {said}");
    }
}

#[test]
fn the_mission_lines() {
    let git = GitServer::start();
    let world = World::new("mission");
    let url = git.repository("project", &[("Makefile", BUILD), ("main.txt", "one\n")]);

    let spin =
        specgen(&world, &["spin", "--provider", "daytona", "--repo", &url, "--branch", "main", "--name", "my-sandbox"]);
    let said = succeeded(&spin);
    let id = world.api().get("/sandbox/my-sandbox").expect(200).json()["id"].as_str().unwrap().to_owned();
    assert!(said.contains(&id) && said.contains("started"), "id and state: {said}");
    assert!(said.contains("exec"), "what to type next: {said}");

    let made = specgen(&world, &["exec", "--id", &id, "--cmd", "make all"]);
    assert!(succeeded(&made).contains("building"));
    assert!(succeeded(&specgen(&world, &["exec", "--id", "my-sandbox", "--cmd", "make test"])).contains("3 passed"));

    let sync = specgen(&world, &["sync", "--id", &id, "--branch", "cleanup/reorg"]);
    succeeded(&sync);
    assert_eq!(git.content("project", "cleanup/reorg", "built.txt"), "done\n");
    succeeded(&specgen(&world, &["sync", "--id", &id, "--branch", "cleanup/reorg"]));

    assert!(succeeded(&specgen(&world, &["list"])).contains("my-sandbox"));
    assert!(succeeded(&specgen(&world, &["info", "--id", "my-sandbox"])).contains(&id));
    succeeded(&specgen(&world, &["delete", "--id", &id]));
    eventually("it is gone", Duration::from_secs(10), || {
        (world.api().get(&format!("/sandbox/{id}")).status == 404).then_some(())
    });
}

#[test]
fn the_five_errors() {
    let git = GitServer::start();
    let world = World::new("errors");
    let url = git.repository("project", &[("Makefile", BUILD)]);

    let mut command = world.command("specgen-sandbox");
    command.env_remove("DAYTONA_API_KEY").args(["spin", "--provider", "daytona", "--repo", &url]);
    let output = run(&mut command, COMMAND_MAX);
    fails(&output, 3, "DAYTONA_API_KEY not set", "No API key in env", "https://app.daytona.io/dashboard/keys");

    succeeded(&specgen(
        &world,
        &["spin", "--provider", "daytona", "--repo", &url, "--branch", "main", "--name", "one"],
    ));
    let taken =
        specgen(&world, &["spin", "--provider", "daytona", "--repo", &url, "--branch", "main", "--name", "one"]);
    fails(&taken, 5, "sandbox creation failed", "Network/quota issue", "Wait 30s, retry; check quota on dashboard");

    let failed = specgen(&world, &["exec", "--id", "one", "--cmd", "exit 42"]);
    fails(&failed, 42, "exec exit code != 0", "Command failed in sandbox", "Read output, fix command, retry");

    git.commit("project", "main", "theirs.txt", "theirs\n");
    succeeded(&specgen(&world, &["exec", "--id", "one", "--cmd", "echo mine > mine.txt"]));
    let conflict = specgen(&world, &["sync", "--id", "one", "--branch", "main"]);
    fails(&conflict, 6, "sync conflict", "Branch diverged from remote", "git pull --rebase");
    let kept = succeeded(&specgen(&world, &["exec", "--id", "one", "--cmd", "cat mine.txt"]));
    assert_eq!(kept, "mine\n", "nothing is lost");
    let rebase = "git -c user.name=T -c user.email=t@example.org pull --quiet --rebase origin main";
    succeeded(&specgen(&world, &["exec", "--id", "one", "--cmd", rebase]));
    succeeded(&specgen(&world, &["sync", "--id", "one", "--branch", "main"]));
    assert_eq!(git.content("project", "main", "mine.txt"), "mine\n");
    assert_eq!(git.content("project", "main", "theirs.txt"), "theirs\n");

    let mut command = world.command("specgen-sandbox");
    command.env("DAYTONA_API_URL", "http://127.0.0.1:1/api").args(["list"]);
    let refused = run(&mut command, COMMAND_MAX);
    fails(&refused, 4, "connection refused", "API endpoint wrong", "Verify DAYTONA_API_URL");

    let mut command = world.command("specgen-sandbox");
    command.env("DAYTONA_API_KEY", format!("dtn_{}", "0".repeat(64))).args(["list"]);
    assert_eq!(run(&mut command, COMMAND_MAX).status.code(), Some(3), "a wrong key");
    assert_eq!(specgen(&world, &["exec", "--id", "nobody", "--cmd", "true"]).status.code(), Some(125));
    assert_eq!(specgen(&world, &["delete", "--id", "nobody"]).status.code(), Some(7));
}

#[test]
fn exec_streams_both_outputs_and_the_exit_code() {
    let world = World::new("stream");
    let id = world.sandbox();
    let output = specgen(&world, &["exec", "--id", &id, "--cmd", "echo out; echo err >&2; exit 7"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("out\n", Some(7)));
    assert!(text(&output.stderr).starts_with("err\n"), "{}", text(&output.stderr));

    // Bytes come as they are, and much of them.
    let many = specgen(&world, &["exec", "--id", &id, "--cmd", "head -c 20000000 /dev/zero; printf '\\377\\0'"]);
    assert_eq!(many.stdout.len(), 20_000_002);
    assert!(many.stdout.ends_with(&[0xff, 0]));

    let mut child = stream(&world, &id, "echo first; sleep 600");
    let mut line = String::new();
    let start = Instant::now();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "first\n", "it arrives while the command runs");
    assert!(start.elapsed() < Duration::from_secs(30));
    process::signal(child.id() as i32, Signal::INT);
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130), "Ctrl-C reaches the command: {status}");
    eventually("nothing is left of it", Duration::from_secs(10), || {
        (world.exec(&id, "pgrep -f '[s]leep 60[01]'").0 == 1).then_some(())
    });
}

fn stream(world: &World, id: &str, command: &str) -> process_child::Running {
    let mut program = world.command("specgen-sandbox");
    program.args(["exec", "--id", id, "--cmd", command]);
    process_child::start(program)
}

mod process_child {
    //! A child that does not outlive a failed test.
    use super::*;
    use std::ops::{Deref, DerefMut};

    pub struct Running(std::process::Child);

    pub fn start(mut command: Command) -> Running {
        Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    impl Deref for Running {
        type Target = std::process::Child;
        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }
    impl DerefMut for Running {
        fn deref_mut(&mut self) -> &mut Self::Target {
            &mut self.0
        }
    }
    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

#[test]
fn exec_forwards_standard_input() {
    let world = World::new("stdin");
    let id = world.sandbox();
    let mut command = world.command("specgen-sandbox");
    command.args(["exec", "--id", &id, "--cmd", "wc -c; echo end"]);
    let output = run_with_input(&mut command, vec![b'x'; 3_000_000], COMMAND_MAX);
    assert_eq!(succeeded(&output), "3000000\nend\n");

    let mut child = stream(&world, &id, "while read line; do echo got $line; done; echo bye");
    let mut answers = BufReader::new(child.stdout.take().unwrap());
    let mut input = child.stdin.take().unwrap();
    for word in ["one", "two"] {
        writeln!(input, "{word}").unwrap();
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        assert_eq!(line, format!("got {word}\n"), "a conversation, not a batch");
    }
    drop(input);
    let mut rest = String::new();
    answers.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("bye\n", Some(0)));
}

#[test]
fn a_client_that_goes_away_takes_its_command_with_it() {
    let world = World::new("away");
    let id = world.sandbox();
    let mut child = stream(&world, &id, "echo up; exec sleep 601");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(world.exec(&id, "pgrep -f '[s]leep 60[01]'").0, 0);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the command ends", Duration::from_secs(15), || {
        (world.exec(&id, "pgrep -f '[s]leep 60[01]'").0 == 1).then_some(())
    });
}

#[test]
fn json_everywhere() {
    let git = GitServer::start();
    let world = World::new("json");
    let url = git.repository("project", &[("a", "b\n")]);
    let parse = |output: &Output| -> Value {
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stdout)))
    };
    let spun = parse(&specgen(&world, &["spin", "--repo", &url, "--branch", "main", "--name", "j", "--json"]));
    let id = spun["id"].as_str().unwrap_or_else(|| panic!("an id: {spun}"));
    assert_eq!(parse(&specgen(&world, &["info", "--id", "j", "--json"]))["id"], id);
    assert!(parse(&specgen(&world, &["list", "--json"])).to_string().contains(id));
    let failed = specgen(&world, &["info", "--id", "nobody", "--json"]);
    assert_eq!(failed.status.code(), Some(7));
    assert!(parse(&failed)["fix"].is_string());
    parse(&specgen(&world, &["delete", "--id", "j", "--json"]));
}

#[test]
fn the_local_provider_needs_no_key() {
    let world = World::new("local");
    let mut command = world.command("infield");
    for name in ["DAYTONA_API_URL", "DAYTONA_API_KEY"] {
        command.env_remove(name);
    }
    let id = world.sandbox();
    let listed = succeeded(&run(command.arg("list").arg("--data-dir").arg(&world.data_dir), COMMAND_MAX));
    assert!(listed.contains(&id[..8]), "{listed}");
}

#[test]
fn keys_and_doctor_and_completions() {
    let world = World::new("keys");
    let infield = |arguments: &[&str]| {
        let mut command = world.command("infield");
        succeeded(&run(command.args(arguments), COMMAND_MAX))
    };
    let data = world.data_dir.to_str().unwrap();
    let made = infield(&["key", "create", "ci", "--data-dir", data]);
    let key = made.split_whitespace().find(|word| word.starts_with("dtn_")).expect("the key is printed once");
    world.api().with_key(Some(key)).get("/sandbox").expect(200);
    assert!(!infield(&["key", "list", "--data-dir", data]).contains(key));
    infield(&["key", "delete", "ci", "--data-dir", data]);
    world.api().with_key(Some(key)).get("/sandbox").expect_error(401);
    let doctor = run(world.command("infield").args(["doctor", "--json", "--data-dir", data]), COMMAND_MAX);
    let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert!(report.to_string().contains("cgroup"), "{report}");
    assert!(infield(&["completions", "bash"]).contains("infield"));
}

#[test]
fn serve_ends_where_no_sandbox_can_run() {
    let (first, mut second) = (World::new("first"), World::new("second"));
    second.kill_server();
    for (subnet, reason) in [(first.cidr(), "overlaps the route"), ("10.0.0.0/99".to_owned(), "10.0.0.0/99")] {
        let mut command = second.command("infield");
        command.args(["serve", "--listen", "127.0.0.1:0", "--subnet", &subnet, "--data-dir"]).arg(&second.data_dir);
        let output = run(&mut command, COMMAND_MAX);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(reason) && said.contains("`infield doctor`"), "{said}");
    }
    second.restart();
    second.sandbox();
}
