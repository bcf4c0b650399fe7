//! The official Python SDK, as PyPI gives it, against a real server: the newest release and 0.205.1. The control plane once
//! for each release, everything that reaches a sandbox with the client that waits and with the one that does not.

use infield_tests::{
    GitServer, World,
    process::{repository, run, succeeded},
    sdk,
};
use std::{process::Command, time::Duration};

const SUITE_MAX: Duration = Duration::from_secs(600);
const NEWEST: &str = "0.226.1";
const OLDER: &str = "0.205.1";

fn suite(version: &str, file: &str, arguments: &[&str]) {
    let python = sdk::python(version);
    let git = GitServer::start_with(sdk::GIT_OPTIONS);
    let world = World::new("py");
    let mut command = Command::new(python);
    command
        .arg(repository().join("tests/sdk").join(file))
        .args(arguments)
        .current_dir(world.scratch("work"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(sdk::surroundings(&world, &git));
    println!("daytona {version} {file} {arguments:?}\n{}", succeeded(&run(&mut command, SUITE_MAX)));
    assert!(world.listed().is_empty(), "the suite deletes what it creates");
}

#[test]
fn newest() {
    suite(NEWEST, "python/control.py", &[]);
}

#[test]
fn version_0_205_1() {
    suite(OLDER, "python/control.py", &[]);
}

#[test]
fn toolbox_newest() {
    suite(NEWEST, "python/toolbox.py", &["sync"]);
}

#[test]
fn toolbox_newest_async() {
    suite(NEWEST, "python/toolbox.py", &["async"]);
}

#[test]
fn toolbox_0_205_1() {
    suite(OLDER, "python/toolbox.py", &["sync"]);
}

#[test]
fn toolbox_0_205_1_async() {
    suite(OLDER, "python/toolbox.py", &["async"]);
}
