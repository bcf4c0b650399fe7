//! `/git/status`, and opening repositories for everybody else.

use super::failure::{GitFailure, Result};
use git2::{BranchType, ErrorCode, Repository, Status, StatusOptions};
use infield_api::toolbox::{DaemonErrorCode as Code, FileStatus, GitStatus};
use std::path::Path;

/// The repository at exactly this directory.
pub fn open(path: &str) -> Result<Repository> {
    Repository::open(path).map_err(|e| match e.code() {
        ErrorCode::NotFound => GitFailure::new(Code::GitRepoNotFound, format!("repository not found: {path}")),
        _ if !Path::new(path).exists() => {
            GitFailure::new(Code::GitRepoNotFound, format!("repository not found: {path}"))
        }
        _ => e.into(),
    })
}

/// Where HEAD points: a branch that may have no commit yet, or `None` when detached.
pub fn current_branch(repo: &Repository) -> Result<Option<String>> {
    let head = repo.find_reference("HEAD")?;
    let target = head.symbolic_target_bytes().map(|t| String::from_utf8_lossy(t).into_owned());
    Ok(target.map(|t| t.strip_prefix("refs/heads/").map_or(t.clone(), str::to_owned)))
}

pub fn status(path: &str) -> Result<GitStatus> {
    let repo = open(path)?;
    let branch = current_branch(&repo)?;
    let mut status = GitStatus {
        current_branch: branch.clone().unwrap_or_else(|| "HEAD".to_owned()),
        detached: branch.is_none().then_some(true),
        file_status: files(&repo)?,
        ..GitStatus::default()
    };
    if let Some(branch) = branch {
        compare_with_upstream(&repo, &branch, &mut status);
    }
    Ok(status)
}

/// Leaves the fields alone when there is no upstream, or none that has been fetched.
fn compare_with_upstream(repo: &Repository, branch: &str, status: &mut GitStatus) {
    let Ok(local) = repo.find_branch(branch, BranchType::Local) else { return };
    let Ok(upstream) = local.upstream() else { return };
    status.branch_published = true;
    status.upstream = upstream.name_bytes().ok().map(|n| String::from_utf8_lossy(n).into_owned());
    if let (Some(ours), Some(theirs)) = (local.get().target(), upstream.get().target())
        && let Ok((ahead, behind)) = repo.graph_ahead_behind(ours, theirs)
    {
        (status.ahead, status.behind) = (ahead as u64, behind as u64);
    }
}

fn files(repo: &Repository) -> Result<Vec<FileStatus>> {
    if repo.is_bare() {
        return Ok(Vec::new());
    }
    let mut options = StatusOptions::new();
    options.include_untracked(true).recurse_untracked_dirs(true).renames_head_to_index(true);
    let statuses = repo.statuses(Some(&mut options))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(statuses
        .iter()
        .map(|entry| {
            let (staging, worktree) = words(entry.status());
            let renamed = entry.head_to_index().filter(|_| entry.status().contains(Status::INDEX_RENAMED));
            let path_of = |file: git2::DiffFile<'_>| file.path_bytes().map(text).unwrap_or_default();
            let (name, extra) = match renamed {
                Some(delta) => (path_of(delta.new_file()), path_of(delta.old_file())),
                None => (text(entry.path_bytes()), String::new()),
            };
            FileStatus { name, extra, staging: staging.to_owned(), worktree: worktree.to_owned() }
        })
        .collect())
}

fn words(status: Status) -> (&'static str, &'static str) {
    if status.contains(Status::CONFLICTED) {
        return ("Updated but unmerged", "Updated but unmerged");
    }
    if status == Status::WT_NEW {
        return ("Untracked", "Untracked");
    }
    let first = |pairs: &[(Status, &'static str)]| {
        pairs.iter().find(|(bit, _)| status.intersects(*bit)).map_or("Unmodified", |(_, word)| word)
    };
    let staging = first(&[
        (Status::INDEX_NEW, "Added"),
        (Status::INDEX_RENAMED, "Renamed"),
        (Status::INDEX_DELETED, "Deleted"),
        (Status::INDEX_MODIFIED | Status::INDEX_TYPECHANGE, "Modified"),
    ]);
    let worktree = first(&[
        (Status::WT_NEW, "Untracked"),
        (Status::WT_RENAMED, "Renamed"),
        (Status::WT_DELETED, "Deleted"),
        (Status::WT_MODIFIED | Status::WT_TYPECHANGE, "Modified"),
    ]);
    (staging, worktree)
}
