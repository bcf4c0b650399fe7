//! The official TypeScript SDK, as npm gives it, against a real server: the newest release and 0.205.1. One run for the
//! control plane, one for everything that reaches a sandbox.

use infield_tests::{
    GitServer, World, eventually,
    process::{repository, run, succeeded},
    sdk,
};
use std::{process::Command, time::Duration};

const SUITE_MAX: Duration = Duration::from_secs(600);
const NEWEST: &str = "0.216.0";
const OLDER: &str = "0.205.1";

const DELETED_MAX: Duration = Duration::from_secs(20);

fn suite(version: &str, file: &str) {
    let home = sdk::typescript(version);
    let git = GitServer::start_with(sdk::GIT_OPTIONS);
    let world = World::new("ts");
    let mut command = Command::new("node");
    command
        .arg(repository().join("tests/sdk").join(file))
        .current_dir(world.scratch("work"))
        .env("SDK_HOME", home)
        .envs(sdk::surroundings(&world, &git));
    println!("@daytona/sdk {version} {file}\n{}", succeeded(&run(&mut command, SUITE_MAX)));
    // The client does not wait for a deletion's end.
    eventually("the suite deletes what it creates", DELETED_MAX, || world.listed().is_empty().then_some(()));
}

#[test]
fn newest() {
    suite(NEWEST, "typescript/control.mjs");
}

#[test]
fn the_one_before() {
    suite(OLDER, "typescript/control.mjs");
}

#[test]
fn toolbox_newest() {
    suite(NEWEST, "typescript/toolbox.mjs");
}

#[test]
fn toolbox_0_205_1() {
    suite(OLDER, "typescript/toolbox.mjs");
}
