//! The official Python SDK, as PyPI gives it, against a real server: the newest release and 0.205.1.

use infield_tests::{
    GitServer, World,
    process::{repository, run, succeeded},
    sdk,
};
use std::{process::Command, time::Duration};

const SUITE_MAX: Duration = Duration::from_secs(600);

fn suite(version: &str) {
    let python = sdk::python(version);
    let git = GitServer::start();
    let world = World::new("py");
    let url = git.repository("project", &[("README.md", "# a project\n")]);
    let mut command = Command::new(python);
    command
        .arg(repository().join("tests/sdk/python_suite.py"))
        .current_dir(world.scratch("work"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("DAYTONA_API_URL", world.url())
        .env("DAYTONA_API_KEY", &world.key)
        .env("GIT_URL", url);
    println!("daytona {version}\n{}", succeeded(&run(&mut command, SUITE_MAX)));
    assert!(world.listed().is_empty(), "the suite deletes what it creates");
}

#[test]
fn newest() {
    suite("0.226.1");
}

#[test]
fn version_0_205_1() {
    suite("0.205.1");
}
