//! `/git/reset` in the five ways of `git reset`, with the tables of its manual page in mind: what of HEAD, index and working
//! tree moves to the target, and when that would lose something.

use super::failure::{GitFailure, Result};
use super::restore::is_unborn;
use super::stage::{self, Entries};
use super::status::open;
use git2::build::CheckoutBuilder;
use git2::{Commit, IndexEntry, ObjectType, Repository, ResetType, Status, StatusOptions};
use infield_api::toolbox::{DaemonErrorCode as Code, GitResetRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const DEFAULT_TARGET: &str = "HEAD";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Soft,
    Mixed,
    Hard,
    Merge,
    Keep,
}

impl Mode {
    fn parse(word: Option<&str>) -> Result<Self> {
        Ok(match word.filter(|w| !w.is_empty()).unwrap_or("mixed") {
            "soft" => Self::Soft,
            "mixed" => Self::Mixed,
            "hard" => Self::Hard,
            "merge" => Self::Merge,
            "keep" => Self::Keep,
            other => {
                let message = format!("unknown reset mode {other:?}: it is soft, mixed, hard, merge or keep");
                return Err(GitFailure::new(Code::BadRequest, message));
            }
        })
    }
}

pub fn reset(request: &GitResetRequest) -> Result<()> {
    let mode = Mode::parse(request.mode.as_deref())?;
    let repo = open(&request.path)?;
    let target = request.target.as_deref().filter(|t| !t.is_empty()).unwrap_or(DEFAULT_TARGET);
    let bare = repo.is_bare() && mode != Mode::Soft;
    if bare {
        return Err(GitFailure::new(Code::BadRequest, "a bare repository has neither index nor files to reset"));
    }
    if request.files.as_ref().is_some_and(|files| !files.is_empty()) {
        return reset_files(&repo, mode, target, request);
    }
    if target == DEFAULT_TARGET && is_unborn(&repo) {
        return reset_unborn(&repo, mode);
    }
    let commit = commit_of(&repo, target)?;
    match mode {
        Mode::Soft if repo.state() == git2::RepositoryState::Merge => {
            Err(GitFailure::new(Code::Conflict, "cannot do a soft reset in the middle of a merge"))
        }
        Mode::Soft => Ok(repo.reset(commit.as_object(), ResetType::Soft, None)?),
        Mode::Mixed => Ok(repo.reset(commit.as_object(), ResetType::Mixed, None)?),
        Mode::Hard => reset_hard(&repo, &commit),
        Mode::Merge | Mode::Keep => reset_carefully(&repo, mode, &commit),
    }
}

fn commit_of<'r>(repo: &'r Repository, revision: &str) -> Result<Commit<'r>> {
    let unknown = || GitFailure::new(Code::NotFound, format!("unknown revision: {revision}"));
    let object = repo.revparse_single(revision).map_err(|_| unknown())?;
    object.peel(ObjectType::Commit).ok().and_then(|o| o.into_commit().ok()).ok_or_else(unknown)
}

/// Everything tracked becomes the target's. libgit2's own also removes untracked files whose removal was staged.
fn reset_hard(repo: &Repository, commit: &Commit<'_>) -> Result<()> {
    let index = repo.index()?;
    let target = stage::of_tree(&commit.tree()?)?;
    let tracked = stage::of_index(&index).into_keys().chain(stage::unmerged(&index));
    let gone: Vec<PathBuf> = tracked.filter(|path| !target.contains_key(path)).collect();
    drop(index);
    repo.reset(commit.as_object(), ResetType::Mixed, None)?;
    if let Some(root) = repo.workdir() {
        gone.iter().for_each(|path| stage::remove_file(root, path));
    }
    Ok(repo.checkout_head(Some(CheckoutBuilder::new().force().recreate_missing(true)))?)
}

/// Only the index, and only there.
fn reset_files(repo: &Repository, mode: Mode, target: &str, request: &GitResetRequest) -> Result<()> {
    if mode != Mode::Mixed {
        return Err(GitFailure::new(Code::BadRequest, "only a mixed reset can be limited to files; use restore"));
    }
    let root = repo.workdir().unwrap_or_else(|| repo.path()).to_owned();
    let wanted = stage::wanted(&root, request.files.as_ref())?;
    let source = match stage::tree_of(repo, target) {
        Ok(tree) => stage::of_tree(&tree)?,
        Err(_) if target == DEFAULT_TARGET && is_unborn(repo) => Entries::new(),
        Err(e) => return Err(e),
    };
    let mut index = repo.index()?;
    stage::check_matched(&wanted, &[&source, &stage::of_index(&index)], &stage::unmerged(&index))?;
    stage::stage(&mut index, &source, &wanted)
}

/// No commit yet: the index becomes empty, as HEAD is.
fn reset_unborn(repo: &Repository, mode: Mode) -> Result<()> {
    match mode {
        Mode::Soft => Ok(()),
        Mode::Mixed => {
            let mut index = repo.index()?;
            index.clear()?;
            Ok(index.write()?)
        }
        _ => Err(GitFailure::new(Code::NotFound, "reference not found: the repository has no commits yet")),
    }
}

/// What matters of an entry: the object and what kind of file it is.
fn content(entry: Option<&IndexEntry>) -> Option<(git2::Oid, u32)> {
    entry.map(|e| (e.id, e.mode))
}

/// `merge` keeps what is not staged, `keep` keeps what is not committed; both refuse rather than lose something.
fn reset_carefully(repo: &Repository, mode: Mode, commit: &Commit<'_>) -> Result<()> {
    let Some(root) = repo.workdir().map(Path::to_owned) else {
        return Err(GitFailure::new(Code::BadRequest, "a bare repository has no files to reset"));
    };
    let index = repo.index()?;
    let unmerged: BTreeSet<PathBuf> = stage::unmerged(&index).into_iter().collect();
    let known = stage::of_index(&index);
    let target = stage::of_tree(&commit.tree()?)?;
    let head = stage::of_tree(&stage::tree_of(repo, DEFAULT_TARGET)?)?;
    let local = local_changes(repo)?;
    if mode == Mode::Keep && !unmerged.is_empty() {
        return Err(GitFailure::new(Code::GitDirtyWorktree, "cannot do a keep reset in the middle of a merge"));
    }
    let paths: BTreeSet<&PathBuf> = known.keys().chain(target.keys()).chain(head.keys()).chain(&unmerged).collect();
    let mut touched = Vec::new();
    for path in paths {
        let wanted = content(target.get(path));
        let staged = content(known.get(path));
        let state = local.get(path).copied().unwrap_or(Status::CURRENT);
        let committed = content(head.get(path));
        // A file whose removal is staged, and which is there again.
        let untracked = mode == Mode::Keep && wanted != committed && state.contains(Status::WT_NEW);
        let moves = match mode {
            Mode::Keep => wanted != committed && wanted != staged,
            _ => wanted != staged || unmerged.contains(path),
        };
        if !moves && !untracked {
            continue;
        }
        let unsaved = state.intersects(Status::WT_MODIFIED | Status::WT_TYPECHANGE | Status::WT_NEW);
        let uncommitted = mode == Mode::Keep && staged != committed;
        if (unsaved || uncommitted) && !unmerged.contains(path) {
            let message = format!("entry {:?} is not up to date: {}", path.display(), GitFailure::dirty().message);
            return Err(GitFailure::new(Code::GitDirtyWorktree, message));
        }
        touched.push(path.clone());
    }
    write(repo, &root, commit, &target, &touched)
}

/// The working tree against the index, with untracked files that might be in the way.
fn local_changes(repo: &Repository) -> Result<BTreeMap<PathBuf, Status>> {
    let mut options = StatusOptions::new();
    options.include_untracked(true).recurse_untracked_dirs(true);
    let statuses = repo.statuses(Some(&mut options))?;
    let path = |entry: &git2::StatusEntry<'_>| PathBuf::from(OsStr::from_bytes(entry.path_bytes()));
    Ok(statuses.iter().map(|entry| (path(&entry), entry.status())).collect())
}

fn write(repo: &Repository, root: &Path, commit: &Commit<'_>, target: &Entries, touched: &[PathBuf]) -> Result<()> {
    let (present, gone): (Vec<_>, Vec<_>) = touched.iter().partition(|path| target.contains_key(*path));
    for path in gone {
        stage::remove_file(root, path);
    }
    if !present.is_empty() {
        let mut options = CheckoutBuilder::new();
        options.force().recreate_missing(true).disable_pathspec_match(true).update_index(false);
        for path in present {
            options.path(path);
        }
        repo.checkout_tree(commit.as_object(), Some(&mut options))?;
    }
    Ok(repo.reset(commit.as_object(), ResetType::Mixed, None)?)
}
