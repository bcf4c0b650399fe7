//! `sync`: everything in the sandbox's working tree becomes a commit on a branch of the origin.
//!
//! The order is such that nothing can be lost: commit first, then name the branch, then push. For a repository that was
//! spun from a folder on this machine the branch is then brought into that folder, fast-forward only.

use super::{REPO_LABEL, workdir};
use crate::{
    Target,
    commands::spin::usage,
    errors::{Failure, SYNC_CONFLICT},
    find,
    output::{Progress, Said},
    repo::{self, Credentials, Repo, mirror},
};
use clap::Args;
use infield_client::{
    ClientError, Toolbox,
    dto::{Execute, Sandbox},
    toolbox::Commit,
};
use serde_json::json;

const UNMERGED: &str = "Updated but unmerged";

#[derive(Args, Debug)]
pub struct Sync {
    /// Id or name of the sandbox
    #[arg(long, value_name = "ID")]
    pub id: String,
    /// Branch on the origin; made when it does not exist [default: the one checked out in the sandbox]
    #[arg(long)]
    pub branch: Option<String>,
    /// Message of the commit
    #[arg(long, short)]
    pub message: Option<String>,
    /// Author of the commit [default: GIT_AUTHOR_NAME, else this machine's git config]
    #[arg(long, value_name = "NAME")]
    pub author: Option<String>,
    /// E-mail address of the author [default: GIT_AUTHOR_EMAIL, else this machine's git config]
    #[arg(long, value_name = "ADDRESS")]
    pub email: Option<String>,
    /// Where the repository is in the sandbox [default: where spin cloned it]
    #[arg(long, value_name = "DIR")]
    pub path: Option<String>,
    #[command(flatten)]
    pub credentials: Credentials,
    #[command(flatten)]
    pub target: Target,
}

struct Synced {
    branch: String,
    commit: Option<String>,
    files: usize,
    /// What changed in the local repository, when there is one.
    home: Option<mirror::Brought>,
}

pub async fn run(args: &Sync) -> Result<Said, Failure> {
    let api = crate::connect(&args.target).await?;
    let sandbox = find(&api, &args.id).await?;
    let path = workdir(&sandbox, args.path.as_deref())
        .ok_or_else(|| usage("the sandbox has no repository from spin; name one with --path"))?
        .to_owned();
    let sandbox = crate::awake(&api, sandbox).await?;
    let toolbox = api.toolbox(&sandbox).await?;
    let progress = Progress::start(format!("syncing {}", sandbox.name));
    let synced = sync(args, &sandbox, &toolbox, &path).await?;
    drop(progress);
    Ok(said(&sandbox, &synced))
}

async fn sync(args: &Sync, sandbox: &Sandbox, toolbox: &Toolbox, path: &str) -> Result<Synced, Failure> {
    let status = toolbox.git_status(path).await?;
    if let Some(file) = status.file_status.iter().find(|f| f.staging == UNMERGED || f.worktree == UNMERGED) {
        return Err(usage(format!("{} has unresolved merge conflicts; resolve them in the sandbox first", file.name)));
    }
    let branch = target_branch(args, toolbox, path, &status.current_branch, status.detached).await?;
    let files = status.file_status.len();
    let commit = if files == 0 { None } else { Some(commit(args, sandbox, toolbox, path).await?) };
    if status.current_branch != branch {
        toolbox.git_create_branch(path, &branch).await?;
    }
    let local = local_repository(sandbox);
    let conflict = |detail: String| conflict(&sandbox.id, &branch, detail);
    let origin = match &local {
        Some(folder) => Some(mirror::Mirror::open(toolbox, folder, &sandbox.id).await?),
        None => None,
    };
    if let Some(origin) = &origin {
        origin.refresh(&branch).await?;
    }
    let pushed = toolbox.git_push(path, &branch, args.credentials.read().as_ref()).await;
    if let Err(failure) = pushed.map_err(|e| push_failed(e, &conflict)) {
        if failure.row == SYNC_CONFLICT {
            prepare_pull(args, toolbox, path, &branch).await;
        }
        return Err(failure);
    }
    let home = match &origin {
        Some(origin) => Some(origin.bring_home(&branch).await?.map_err(conflict)?),
        None => None,
    };
    Ok(Synced { branch, commit, files, home })
}

/// The branch to push, once it is sure that everything committed will be on it.
async fn target_branch(
    args: &Sync,
    toolbox: &Toolbox,
    path: &str,
    current: &str,
    detached: bool,
) -> Result<String, Failure> {
    let detached = detached || current == "HEAD";
    let Some(branch) = args.branch.clone() else {
        if detached {
            return Err(usage("no branch is checked out in the sandbox; name one with --branch"));
        }
        return Ok(current.to_owned());
    };
    if branch != current && toolbox.git_branches(path).await?.branches.contains(&branch) {
        let detail = format!("the sandbox has a branch {branch} already, and {current} is checked out");
        return Err(usage(detail).next(format!("exec --id {} --cmd \"git checkout {branch}\"", args.id)));
    }
    Ok(branch)
}

async fn commit(args: &Sync, sandbox: &Sandbox, toolbox: &Toolbox, path: &str) -> Result<String, Failure> {
    toolbox.git_add_all(path).await?;
    let message = args.message.clone().unwrap_or_else(|| format!("Sync from sandbox {}", sandbox.name));
    let (author, email) = identity(args).await;
    Ok(toolbox.git_commit(path, &Commit { message: &message, author: &author, email: &email }).await?)
}

/// Lets a plain `git pull --rebase` work in the sandbox: it needs to know who commits and which branch to follow.
async fn prepare_pull(args: &Sync, toolbox: &Toolbox, path: &str, branch: &str) {
    let (name, email) = identity(args).await;
    let command = r#"
        git config user.name >/dev/null || git config user.name "$SYNC_NAME"
        git config user.email >/dev/null || git config user.email "$SYNC_EMAIL"
        git config "branch.$SYNC_BRANCH.remote" origin
        git config "branch.$SYNC_BRANCH.merge" "refs/heads/$SYNC_BRANCH"
    "#;
    let envs = [("SYNC_NAME", name), ("SYNC_EMAIL", email), ("SYNC_BRANCH", branch.to_owned())];
    let command = Execute {
        command: command.to_owned(),
        cwd: Some(path.to_owned()),
        envs: envs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        timeout: Some(30),
    };
    // An image without git cannot pull either; what failed was the push.
    let _ = toolbox.execute(&command).await;
}

async fn identity(args: &Sync) -> (String, String) {
    let name = repo::git::identity(args.author.as_deref(), "GIT_AUTHOR_NAME", "user.name", "specgen-sandbox").await;
    let email = args.email.as_deref();
    (name, repo::git::identity(email, "GIT_AUTHOR_EMAIL", "user.email", "specgen-sandbox@localhost").await)
}

fn push_failed(error: ClientError, conflict: &impl Fn(String) -> Failure) -> Failure {
    let ClientError::Http { status, code, message } = &error else { return error.into() };
    let text = message.to_lowercase();
    let diverged = ["non-fast-forward", "non fast forward", "fetch first", "updates were rejected", "fastforward"];
    match code.as_deref() {
        Some("GIT_PUSH_REJECTED") => conflict(message.clone()),
        None if status.as_u16() == 409 || diverged.iter().any(|words| text.contains(words)) => {
            conflict(message.clone())
        }
        // 401 and 403 come from the remote here, so they say nothing about the API key.
        Some("GIT_AUTH_FAILED" | "FORBIDDEN") => usage(format!("the remote refused the push: {message}"))
            .next("set GIT_USERNAME and GIT_TOKEN and sync again"),
        _ => Failure::detailed(crate::errors::SERVER_ERROR, message.clone()),
    }
}

fn conflict(id: &str, branch: &str, detail: String) -> Failure {
    Failure::detailed(SYNC_CONFLICT, format!("{detail}; the commit is kept in the sandbox"))
        .next(format!("exec --id {id} --cmd \"git pull --rebase origin {branch}\", then the same sync again"))
}

/// The folder on this machine that the sandbox was spun from.
fn local_repository(sandbox: &Sandbox) -> Option<std::path::PathBuf> {
    match Repo::parse(sandbox.labels.get(REPO_LABEL)?) {
        Ok(Repo::Local(folder)) => Some(folder),
        _ => None,
    }
}

fn said(sandbox: &Sandbox, synced: &Synced) -> Said {
    let what = match &synced.commit {
        Some(hash) => format!("committed {} changed files as {}", synced.files, &hash[..hash.len().min(10)]),
        None => "nothing new to commit".to_owned(),
    };
    let home = match &synced.home {
        None => String::new(),
        Some(mirror::Brought::Nothing) => "; the local branch has everything".into(),
        Some(mirror::Brought::Moved { folder, to }) => {
            format!("; {} is at {} in {folder}", synced.branch, &to[..to.len().min(10)])
        }
    };
    Said {
        text: format!("{what}, pushed {} to origin{home}", synced.branch),
        json: json!({
            "id": sandbox.id, "branch": synced.branch, "commit": synced.commit, "files": synced.files, "pushed": true,
            "localRepository": match &synced.home {
                Some(mirror::Brought::Moved { folder, to }) => json!({"folder": folder, "head": to}),
                _ => json!(null),
            },
        }),
    }
}
