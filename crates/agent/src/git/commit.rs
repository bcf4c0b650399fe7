//! Add, commit, history.

use super::failure::{GitFailure, Result};
use super::stage::inside_of;
use super::status::open;
use crate::timestamp;
use git2::{Commit, ErrorCode, IndexAddOption, Repository, Signature, Sort};
use infield_api::toolbox::{
    DaemonErrorCode as Code, GitAddRequest, GitCommitInfo, GitCommitRequest, GitCommitResponse,
};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The newest; a client that needs more asks `git` itself.
const HISTORY_COMMITS_MAX: usize = 100_000;

/// Stages files and directories with what was deleted in them; `.` is everything.
pub fn add(request: &GitAddRequest) -> Result<()> {
    let repo = open(&request.path)?;
    let Some(root) = repo.workdir().map(Path::to_owned) else {
        return Err(GitFailure::new(Code::BadRequest, "a bare repository has no files to add"));
    };
    let mut index = repo.index()?;
    for file in request.files.iter().flatten() {
        let inside = inside_of(&root, file)?;
        let everything = inside.as_os_str().is_empty();
        let full = root.join(&inside);
        let is_link = full.symlink_metadata().is_ok_and(|m| m.is_symlink());
        let removed = remove_missing(&mut index, &root, &inside)?;
        if everything {
            index.add_all(["*"], IndexAddOption::DEFAULT, None)?;
        } else if full.is_dir() && !is_link {
            index.add_all([&inside], IndexAddOption::DISABLE_PATHSPEC_MATCH, None)?;
        } else if full.symlink_metadata().is_ok() {
            index.add_path(&inside)?;
        } else if removed == 0 {
            return Err(GitFailure::new(Code::BadRequest, format!("pathspec {file:?} did not match any files")));
        }
    }
    Ok(index.write()?)
}

/// Takes entries at or below `inside` out of the index whose files are gone.
fn remove_missing(index: &mut git2::Index, root: &Path, inside: &Path) -> Result<usize> {
    let gone: Vec<PathBuf> = index
        .iter()
        .map(|entry| PathBuf::from(std::ffi::OsStr::from_bytes(&entry.path)))
        .filter(|path| path.starts_with(inside) && root.join(path).symlink_metadata().is_err())
        .collect();
    for path in &gone {
        index.remove_path(path)?;
    }
    Ok(gone.len())
}

pub fn commit(request: &GitCommitRequest) -> Result<GitCommitResponse> {
    let repo = open(&request.path)?;
    let signature = Signature::now(&request.author, &request.email).map_err(|_| {
        GitFailure::new(Code::BadRequest, "author and email must be non-empty and free of < > and line breaks")
    })?;
    let mut index = repo.index()?;
    if index.has_conflicts() {
        return Err(GitFailure::new(
            Code::GitMergeConflict,
            "the index has unresolved conflicts; add the resolved files",
        ));
    }
    let tree = repo.find_tree(index.write_tree()?)?;
    let head = head_commit(&repo)?;
    let unchanged = match &head {
        Some(head) => head.tree_id() == tree.id(),
        None => tree.is_empty(),
    };
    let merged = merge_heads(&repo);
    if unchanged && merged.is_empty() && request.allow_empty != Some(true) {
        let message = "cannot create empty commit: nothing is staged; add files first, or set allow_empty";
        return Err(GitFailure::new(Code::Conflict, message));
    }
    let merged: Vec<Commit<'_>> = merged.into_iter().filter_map(|id| repo.find_commit(id).ok()).collect();
    let parents: Vec<&Commit<'_>> = head.iter().chain(&merged).collect();
    let id = repo.commit(Some("HEAD"), &signature, &signature, &request.message, &tree, &parents)?;
    repo.cleanup_state()?;
    Ok(GitCommitResponse { hash: id.to_string() })
}

/// The other parents of a merge that waits for its commit.
fn merge_heads(repo: &Repository) -> Vec<git2::Oid> {
    let text = std::fs::read_to_string(repo.path().join("MERGE_HEAD")).unwrap_or_default();
    text.lines().filter_map(|line| git2::Oid::from_str(line.trim()).ok()).collect()
}

fn head_commit(repo: &Repository) -> Result<Option<Commit<'_>>> {
    match repo.head().and_then(|h| h.peel_to_commit()) {
        Ok(commit) => Ok(Some(commit)),
        Err(e) if e.code() == ErrorCode::UnbornBranch => Ok(None),
        Err(e) => Err(e.into()),
    }
}

pub fn history(path: &str) -> Result<Vec<GitCommitInfo>> {
    let repo = open(path)?;
    let Some(head) = head_commit(&repo)? else {
        return Err(GitFailure::new(Code::NotFound, "reference not found: the repository has no commits yet"));
    };
    let mut walk = repo.revwalk()?;
    walk.set_sorting(Sort::TIME)?;
    walk.push(head.id())?;
    let mut commits = Vec::new();
    for id in walk.take(HISTORY_COMMITS_MAX) {
        let commit = repo.find_commit(id?)?;
        let author = commit.author();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        commits.push(GitCommitInfo {
            hash: commit.id().to_string(),
            author: text(author.name_bytes()),
            email: text(author.email_bytes()),
            message: text(commit.message_raw_bytes()),
            timestamp: timestamp::rfc3339_at_offset(author.when().seconds(), author.when().offset_minutes()),
        });
    }
    Ok(commits)
}
