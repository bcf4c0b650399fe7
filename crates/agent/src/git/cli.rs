//! SSH remotes, which libgit2 cannot reach here: done by the image's own `git`, with the keys of the sandbox.

use super::failure::{GitFailure, Result};
use super::transfer::rejected;
use super::url;
use infield_api::toolbox::{DaemonErrorCode as Code, GitCloneRequest};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Kept of what `git` says.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

pub fn clone(request: &GitCloneRequest, address: &str) -> Result<()> {
    let mut args = vec!["clone", "--quiet", "--single-branch"];
    let depth = request.depth.filter(|d| *d > 0).map(|d| format!("--depth={d}"));
    args.extend(depth.as_deref());
    let branch = request.branch.as_deref().filter(|b| !b.is_empty()).map(|b| format!("--branch={b}"));
    args.extend(branch.as_deref());
    args.extend(["--", address, &request.path]);
    git(None, &args)?;
    match request.commit_id.as_deref().filter(|c| !c.is_empty()) {
        Some(commit) if !commit.starts_with('-') => {
            git(Some(Path::new(&request.path)), &["checkout", "--detach", commit])
        }
        Some(commit) => Err(GitFailure::new(Code::NotFound, format!("object not found: {commit}"))),
        None => Ok(()),
    }
}

pub fn fetch(git_dir: &Path, remote: &str, refspec: Option<&str>) -> Result<()> {
    let args: Vec<&str> = ["fetch", "--quiet", "--", remote].into_iter().chain(refspec).collect();
    git(Some(git_dir), &args)
}

pub fn push(git_dir: &Path, remote: &str, refspec: &str) -> Result<()> {
    git(Some(git_dir), &["push", "--quiet", "--", remote, refspec])
}

fn git(dir: Option<&Path>, args: &[&str]) -> Result<()> {
    let mut command = Command::new("git");
    command.args(["-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null"]);
    command.args(["-c", "core.sshCommand=ssh -oBatchMode=yes"]);
    if let Some(dir) = dir {
        command.arg("-C").arg(dir);
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
    command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C");
    let output = command.output().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            let message = "SSH remotes need git and ssh in the image, and this image has no git; use an https URL";
            GitFailure::new(Code::GitTransportFailed, message)
        }
        _ => GitFailure::new(Code::Internal, format!("cannot run git: {e}")),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().take(MESSAGE_BYTES_MAX).collect();
    Err(classify(&url::without_credentials(&said)))
}

/// What git's English messages mean.
fn classify(said: &str) -> GitFailure {
    let lower = said.to_ascii_lowercase();
    let any = |words: &[&str]| words.iter().any(|w| lower.contains(w));
    if any(&["hook declined", "protected branch", "declined", "currently checked out"]) {
        return rejected("hook declined", said);
    }
    if any(&["non-fast-forward", "fetch first", "updates were rejected", "stale info"]) {
        return rejected("non-fast-forward", "");
    }
    let code =
        if any(&["permission denied (", "authentication failed", "could not read username", "could not read password"])
        {
            Code::GitAuthFailed
        } else if any(&["returned error: 403", "permission to"]) {
            Code::Forbidden
        } else if any(&["remote branch", "couldn't find remote ref"]) {
            Code::GitBranchNotFound
        } else if any(&["repository not found", "does not appear to be a git repository", "not found"]) {
            Code::GitRepoNotFound
        } else if any(&["does not match any", "unknown revision", "not a commit"]) {
            Code::NotFound
        } else if any(&[
            "could not resolve",
            "connection",
            "timed out",
            "host key verification",
            "cannot run ssh",
            "could not read from remote",
        ]) {
            Code::GitTransportFailed
        } else {
            Code::Internal
        };
    GitFailure::new(code, said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        for (said, code) in [
            (
                "git@github.com: Permission denied (publickey).\nfatal: Could not read from remote repository.",
                Code::GitAuthFailed,
            ),
            ("ssh: Could not resolve hostname x: Name or service not known", Code::GitTransportFailed),
            ("fatal: Remote branch nope not found in upstream origin", Code::GitBranchNotFound),
            ("ERROR: Repository not found.", Code::GitRepoNotFound),
            ("! [rejected] main -> main (fetch first)\nerror: failed to push some refs", Code::GitPushRejected),
            ("! [remote rejected] main -> main (pre-receive hook declined)", Code::GitRemoteRejected),
        ] {
            assert_eq!(classify(said).code, code, "{said}");
        }
    }
}
