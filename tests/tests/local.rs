//! One machine, no network and no key: the server's first key, the server that a command starts, the repository in a folder.

use infield_tests::{
    World, eventually,
    process::{self, run, succeeded, text},
};
use rustix::process::Signal;
use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

const COMMAND_MAX: Duration = Duration::from_secs(90);

/// `infield` as somebody runs it who has set nothing but where the server lies.
fn local(world: &World, arguments: &[&str]) -> Output {
    let mut command = world.command("infield");
    command.env_remove("DAYTONA_API_URL").env_remove("DAYTONA_API_KEY").envs(world.serve_environment());
    run(command.env("TMPDIR", world.scratch("tmp")).args(arguments), COMMAND_MAX)
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(["-c", "user.name=T", "-c", "user.email=t@example.org"]).args(arguments);
    succeeded(&run(&mut command, COMMAND_MAX))
}

#[test]
fn the_first_key_is_shown_once_and_kept_for_root() {
    let mut world = World::new("firstkey");
    let file = world.data_dir.join("admin.key");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{mode:o}");
    let shown = |world: &World| std::fs::read_to_string(world.log()).unwrap().matches(&world.key).count();
    assert_eq!(shown(&world), 1);
    world.kill_server();
    world.restart();
    assert_eq!(shown(&world), 1, "a restart shows it again");
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), world.key);
}

#[test]
fn a_command_starts_the_server_that_does_not_run() {
    let mut world = World::new("autostart");
    let id = world.sandbox();
    world.kill_server();
    assert!(succeeded(&local(&world, &["list"])).contains(&id[..8]), "the sandbox from before is listed");
    // It goes on when the command has ended.
    assert_eq!(succeeded(&local(&world, &["exec", "--id", &id, "--cmd", "echo served"])), "served\n");
    let data_dir = world.data_dir.display().to_string();
    let serves = |seen: &process::Seen| {
        seen.arguments.get(1).is_some_and(|word| word == "serve") && seen.arguments.contains(&data_dir)
    };
    let servers: Vec<i32> = process::all().iter().filter(|seen| serves(seen)).map(|seen| seen.pid).collect();
    assert_eq!(servers.len(), 1, "the second command finds the server of the first: {servers:?}");
    process::signal(servers[0], Signal::TERM);
    eventually("it ends when it is asked to", Duration::from_secs(30), || process::ended(servers[0]).then_some(()));
    world.restart();
}

#[test]
fn a_repository_in_a_folder_goes_in_and_comes_back() {
    let world = World::new("folder");
    let folder = world.scratch("project");
    git(&folder, &["init", "--quiet", "--initial-branch", "main"]);
    std::fs::write(folder.join("main.txt"), "one\n").unwrap();
    git(&folder, &["add", "."]);
    git(&folder, &["commit", "--quiet", "-m", "first"]);

    let path = folder.to_str().unwrap();
    succeeded(&local(&world, &["spin", "--repo", path, "--branch", "main", "--name", "p"]));
    let test = "grep -q one main.txt && echo inside > inside.txt && echo tested";
    assert_eq!(succeeded(&local(&world, &["exec", "--id", "p", "--cmd", test])), "tested\n");
    succeeded(&local(&world, &["sync", "--id", "p", "--branch", "main"]));
    assert_eq!(std::fs::read_to_string(folder.join("inside.txt")).unwrap(), "inside\n");
    assert_eq!(git(&folder, &["status", "--porcelain"]), "");

    // Both sides go on: neither loses anything, and the remedy that is named works.
    std::fs::write(folder.join("here.txt"), "here\n").unwrap();
    git(&folder, &["add", "."]);
    git(&folder, &["commit", "--quiet", "-m", "here"]);
    succeeded(&local(&world, &["exec", "--id", "p", "--cmd", "echo there > there.txt"]));
    let conflict = local(&world, &["sync", "--id", "p", "--branch", "main"]);
    let said = text(&conflict.stderr);
    assert_eq!(conflict.status.code(), Some(6), "{said}");
    assert!(said.contains("sync conflict") && said.contains("git pull --rebase"), "{said}");
    let rebase = "git -c user.name=T -c user.email=t@example.org pull --quiet --rebase origin main";
    succeeded(&local(&world, &["exec", "--id", "p", "--cmd", rebase]));
    succeeded(&local(&world, &["sync", "--id", "p", "--branch", "main"]));
    let both = ["here.txt", "there.txt"].map(|name| std::fs::read_to_string(folder.join(name)).unwrap());
    assert_eq!(both, ["here\n", "there\n"]);
    succeeded(&local(&world, &["delete", "--id", "p"]));
}

#[test]
fn the_bench_measures_what_the_specification_names() {
    let world = World::new("bench");
    let arguments = ["bench", "tti", "--count", "3", "--burst", "3", "--in-flight", "2", "--idle", "0", "--json"];
    let report: serde_json::Value =
        serde_json::from_str(&succeeded(&local(&world, &arguments))).expect("one JSON document");
    for pointer in ["/ttiMs/p50", "/ttiMs/p99", "/execTrueMs/p50", "/burst/ttiMs/p95", "/throughput/perSecond"] {
        assert!(
            report.pointer(pointer).and_then(serde_json::Value::as_f64).is_some_and(|n| n > 0.0),
            "{pointer}: {report}"
        );
    }
}
