//! git on this machine, for repositories that live here.

use crate::errors::{Failure, LOCAL_GIT};
use std::{
    ffi::OsStr,
    path::Path,
    process::{Output, Stdio},
};
use tokio::{io::AsyncWriteExt, process::Command};

/// Runs git in a folder; its standard output on success.
pub async fn git(folder: &Path, args: &[impl AsRef<OsStr>]) -> Result<String, Failure> {
    git_with(folder, args, None).await
}

/// The same with bytes for its standard input.
pub async fn git_with(folder: &Path, args: &[impl AsRef<OsStr>], stdin: Option<&[u8]>) -> Result<String, Failure> {
    let output = output(folder, args, stdin).await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let verb = args.iter().map(AsRef::as_ref).find(|a| !a.to_string_lossy().starts_with('-')).unwrap_or_default();
    let said = String::from_utf8_lossy(&output.stderr);
    let detail = format!("git {} in {}: {}", verb.display(), folder.display(), said.trim().replace('\n', "; "));
    Err(Failure::detailed(LOCAL_GIT, detail))
}

/// Whether git says yes (exit code 0).
pub async fn holds(folder: &Path, args: &[impl AsRef<OsStr>]) -> Result<bool, Failure> {
    Ok(output(folder, args, None).await?.status.success())
}

async fn output(folder: &Path, args: &[impl AsRef<OsStr>], stdin: Option<&[u8]>) -> Result<Output, Failure> {
    let failed = |e: std::io::Error| Failure::detailed(LOCAL_GIT, format!("cannot run git: {e}; is it installed?"));
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(args).env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C");
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    if let (Some(bytes), Some(mut pipe)) = (stdin, child.stdin.take()) {
        pipe.write_all(bytes).await.map_err(failed)?;
    }
    child.wait_with_output().await.map_err(failed)
}

pub async fn current_branch(folder: &Path) -> Result<String, Failure> {
    git(folder, &["symbolic-ref", "--short", "HEAD"])
        .await
        .map_err(|failure| failure.next("name a branch with --branch"))
}

/// The commit of a local branch; `None` when there is no such branch.
pub async fn branch_tip(folder: &Path, branch: &str) -> Result<Option<String>, Failure> {
    let name = format!("refs/heads/{branch}");
    if !holds(folder, &["show-ref", "--verify", "--quiet", &name]).await? {
        return Ok(None);
    }
    git(folder, &["rev-parse", "--verify", &format!("{name}^{{commit}}")]).await.map(Some)
}

/// Who commits: what was typed, else the environment, else this machine's git config, else a default.
pub async fn identity(typed: Option<&str>, variable: &str, config: &str, default: &str) -> String {
    if let Some(typed) = typed {
        return typed.to_owned();
    }
    if let Ok(value) = std::env::var(variable)
        && !value.is_empty()
    {
        return value;
    }
    match git(Path::new("."), &["config", "--get", config]).await {
        Ok(value) if !value.is_empty() => value,
        _ => default.to_owned(),
    }
}

/// Whether a text is a full object name.
pub fn is_object_name(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
