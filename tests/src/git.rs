//! Bare repositories on a git server that sandboxes can reach (`tests/support/git_server.py`).

use crate::process::{self, repository, succeeded};
use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// A git server in a network namespace of its own, with the repositories below one folder.
///
/// Start it before the [`crate::World`] that is to reach it: a server looks at the host's ways out when it starts.
pub struct GitServer {
    child: Child,
    pub url: String,
    root: PathBuf,
}

impl GitServer {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further options of the script, `--user` for instance.
    pub fn start_with(options: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("ift-git-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let mut child = Command::new("python3")
            .arg(repository().join("tests/support/git_server.py"))
            .arg(&root)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.strip_prefix("URL ").expect("the git server says where it listens").trim().to_owned();
        Self { child, url, root }
    }

    /// A bare repository with one commit on `main` holding the given files; returns its address.
    pub fn repository(&self, name: &str, files: &[(&str, &str)]) -> String {
        let work = self.root.join(format!("{name}.work"));
        std::fs::create_dir_all(&work).unwrap();
        for (path, content) in files {
            std::fs::write(work.join(path), content).unwrap();
        }
        let bare = self.root.join(format!("{name}.git"));
        git(&self.root, &["init", "--quiet", "--bare", "--initial-branch=main", bare.to_str().unwrap()]);
        git(&work, &["init", "--quiet", "--initial-branch=main"]);
        git(&work, &["add", "--all"]);
        git(&work, &["commit", "--quiet", "--message", "first"]);
        git(&work, &["push", "--quiet", bare.to_str().unwrap(), "HEAD:main"]);
        format!("{}/{name}.git", self.url)
    }

    /// Adds a commit on the server's side, as a colleague would.
    pub fn commit(&self, name: &str, branch: &str, file: &str, content: &str) {
        let work = self.root.join(format!("{name}.work"));
        let bare = self.root.join(format!("{name}.git"));
        let bare = bare.to_str().unwrap();
        git(&work, &["fetch", "--quiet", bare, branch]);
        git(&work, &["checkout", "--quiet", "--detach", "FETCH_HEAD"]);
        std::fs::write(work.join(file), content).unwrap();
        git(&work, &["add", "--all"]);
        git(&work, &["commit", "--quiet", "--message", "a colleague's"]);
        git(&work, &["push", "--quiet", bare, &format!("HEAD:{branch}")]);
    }

    /// Adds a branch with a commit of its own to a repository.
    pub fn branch(&self, name: &str, branch: &str, file: &str) {
        let bare = self.root.join(format!("{name}.git"));
        git(&bare, &["branch", "--quiet", branch, "main"]);
        self.commit(name, branch, file, "on a branch\n");
    }

    /// Lets a repository decline whatever is pushed to it.
    pub fn decline_pushes(&self, name: &str) {
        let hook = self.root.join(format!("{name}.git/hooks/pre-receive"));
        std::fs::write(&hook, "#!/bin/sh\necho not today >&2\nexit 1\n").unwrap();
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What the server holds for `branch:file`.
    pub fn content(&self, name: &str, branch: &str, file: &str) -> String {
        git(&self.root.join(format!("{name}.git")), &["show", &format!("{branch}:{file}")])
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-c", "safe.directory=*"]);
    succeeded(&process::run(command.args(arguments).current_dir(folder), Duration::from_secs(60)))
}
