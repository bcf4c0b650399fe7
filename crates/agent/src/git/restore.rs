//! `/git/restore`: files of the working tree, entries of the index, or both, as they are somewhere else.

use super::failure::{GitFailure, Result};
use super::stage::{self, Entries};
use super::status::open;
use git2::build::CheckoutBuilder;
use git2::{ErrorCode, Repository};
use infield_api::toolbox::{DaemonErrorCode as Code, GitRestoreRequest};
use std::path::{Path, PathBuf};

pub fn restore(request: &GitRestoreRequest) -> Result<()> {
    let repo = open(&request.path)?;
    let Some(root) = repo.workdir().map(Path::to_owned) else {
        return Err(GitFailure::new(Code::BadRequest, "a bare repository has no files to restore"));
    };
    let staged = request.staged == Some(true);
    let worktree = request.worktree.unwrap_or(!staged);
    if !staged && !worktree {
        return Err(GitFailure::new(Code::BadRequest, "nothing to restore: neither staged nor worktree is true"));
    }
    let wanted = stage::wanted(&root, request.files.as_ref())?;
    let named = request.source.as_deref().filter(|s| !s.is_empty());
    let mut index = repo.index()?;
    let known = stage::of_index(&index);
    let unmerged = stage::unmerged(&index);
    if !staged && named.is_none() {
        stage::check_matched(&wanted, &[&known], &[])?;
        return Ok(write_from_index(&repo, &wanted)?);
    }
    let revision = named.unwrap_or("HEAD");
    let source = match stage::tree_of(&repo, revision) {
        Ok(tree) => stage::of_tree(&tree)?,
        // Before the first commit HEAD has nothing, so everything staged gets unstaged.
        Err(_) if named.is_none() && is_unborn(&repo) => Entries::new(),
        Err(e) => return Err(e),
    };
    stage::check_matched(&wanted, &[&source, &known], &unmerged)?;
    if worktree {
        write_from_source(&repo, &root, revision, &source, &known, &wanted)?;
    }
    if staged { stage::stage(&mut index, &source, &wanted) } else { Ok(()) }
}

pub fn is_unborn(repo: &Repository) -> bool {
    repo.head().is_err_and(|e| e.code() == ErrorCode::UnbornBranch)
}

fn options<'a>(wanted: &[PathBuf]) -> CheckoutBuilder<'a> {
    let mut options = CheckoutBuilder::new();
    options.force().recreate_missing(true).disable_pathspec_match(true);
    // No path at all means everything, as does the repository itself.
    for path in wanted.iter().filter(|_| !wanted.iter().any(|w| w.as_os_str().is_empty())) {
        options.path(path);
    }
    options
}

fn write_from_index(repo: &Repository, wanted: &[PathBuf]) -> std::result::Result<(), git2::Error> {
    repo.checkout_index(None, Some(&mut options(wanted)))
}

/// The index stays; tracked files that the source does not have go away.
fn write_from_source(
    repo: &Repository,
    root: &Path,
    revision: &str,
    source: &Entries,
    known: &Entries,
    wanted: &[PathBuf],
) -> Result<()> {
    for path in known.keys().filter(|p| stage::is_wanted(wanted, p) && !source.contains_key(*p)) {
        stage::remove_file(root, path);
    }
    let files: Vec<PathBuf> = source.keys().filter(|p| stage::is_wanted(wanted, p)).cloned().collect();
    if files.is_empty() {
        return Ok(());
    }
    let tree = stage::tree_of(repo, revision)?;
    Ok(repo.checkout_tree(tree.as_object(), Some(options(&files).update_index(false)))?)
}
