//! The official SDKs as their registries give them, installed once below `target/sdk/`.

use crate::{
    GitServer, World,
    process::{repository, run, succeeded},
};
use std::{fs::File, path::PathBuf, process::Command, time::Duration};

/// A registry may be slow.
const INSTALL_MAX: Duration = Duration::from_secs(600);

/// One repository of the git server wants credentials.
pub const GIT_OPTIONS: &[&str] = &["--user", "me", "--password", "pass word", "--private", "private"];

/// What a suite is told of its surroundings: the server, and repositories made for it on a git server that was started
/// with [`GIT_OPTIONS`].
pub fn surroundings(world: &World, git: &GitServer) -> Vec<(&'static str, String)> {
    let url = git.repository("project", &[("README.md", "# a project\n")]);
    git.branch("project", "test", "branch.txt");
    git.repository("declining", &[("README.md", "# says no\n")]);
    git.decline_pushes("declining");
    let private = git.repository("private", &[("README.md", "# not for all\n")]);
    vec![
        ("DAYTONA_API_URL", world.url()),
        ("DAYTONA_API_KEY", world.key.clone()),
        ("GIT_URL", url),
        ("GIT_PRIVATE_URL", private),
    ]
}

/// The folder for installed SDKs, and a lock on it: several test programs may want to install at once.
fn folder() -> (PathBuf, File) {
    let path = repository().join("target/sdk");
    std::fs::create_dir_all(&path).unwrap();
    let lock = File::create(path.join("lock")).unwrap();
    lock.lock().unwrap();
    (path, lock)
}

/// The interpreter of a virtual environment that holds PyPI's `daytona` of this version.
pub fn python(version: &str) -> PathBuf {
    let (folder, _lock) = folder();
    let home = folder.join(format!("py-{version}"));
    let done = home.join(".installed");
    if !done.exists() {
        let _ = std::fs::remove_dir_all(&home);
        succeeded(&run(Command::new("python3").args(["-m", "venv"]).arg(&home), INSTALL_MAX));
        let package = format!("daytona=={version}");
        let mut pip = Command::new(home.join("bin/python"));
        succeeded(&run(
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", &package]),
            INSTALL_MAX,
        ));
        std::fs::write(done, "").unwrap();
    }
    home.join("bin/python")
}

/// A folder whose `node_modules` holds npm's `@daytona/sdk` of this version.
pub fn typescript(version: &str) -> PathBuf {
    let (folder, _lock) = folder();
    let home = folder.join(format!("ts-{version}"));
    let done = home.join(".installed");
    if !done.exists() {
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(home.join("package.json"), "{\"private\":true}").unwrap();
        let package = format!("@daytona/sdk@{version}");
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error", &package]).current_dir(&home);
        succeeded(&run(&mut npm, INSTALL_MAX));
        std::fs::write(done, "").unwrap();
    }
    home
}
