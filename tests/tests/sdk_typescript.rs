//! The official TypeScript SDK, as npm gives it, against a real server: the newest release and the one before.

use infield_tests::{
    GitServer, World,
    process::{repository, run, succeeded},
    sdk,
};
use std::{process::Command, time::Duration};

const SUITE_MAX: Duration = Duration::from_secs(600);

fn suite(version: &str) {
    let home = sdk::typescript(version);
    let git = GitServer::start();
    let world = World::new("ts");
    let url = git.repository("project", &[("README.md", "# a project\n")]);
    let mut command = Command::new("node");
    command
        .arg(repository().join("tests/sdk/typescript_suite.mjs"))
        .current_dir(world.scratch("work"))
        .env("SDK_HOME", home)
        .env("DAYTONA_API_URL", world.url())
        .env("DAYTONA_API_KEY", &world.key)
        .env("GIT_URL", url);
    println!("@daytona/sdk {version}\n{}", succeeded(&run(&mut command, SUITE_MAX)));
    assert!(world.listed().is_empty(), "the suite deletes what it creates");
}

#[test]
fn newest() {
    suite("0.216.0");
}

#[test]
fn the_one_before() {
    suite("0.205.1");
}
