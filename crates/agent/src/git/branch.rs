//! Branches and checkout.

use super::failure::{GitFailure, Result};
use super::status::{current_branch, open};
use git2::build::CheckoutBuilder;
use git2::{BranchType, ErrorCode, Oid, Reference, Repository};
use infield_api::toolbox::{DaemonErrorCode as Code, GitBranchRequest, GitCheckoutRequest, ListBranchResponse};

pub fn list(path: &str) -> Result<ListBranchResponse> {
    let repo = open(path)?;
    let mut branches = Vec::new();
    for branch in repo.branches(Some(BranchType::Local))? {
        branches.push(String::from_utf8_lossy(branch?.0.name_bytes()?).into_owned());
    }
    branches.sort_unstable();
    Ok(ListBranchResponse { branches, current: current_branch(&repo)? })
}

pub fn reference_name(branch: &str) -> Result<String> {
    let name = format!("refs/heads/{branch}");
    if branch.starts_with('-') || !Reference::is_valid_name(&name) {
        return Err(GitFailure::new(Code::BadRequest, format!("not a valid branch name: {branch:?}")));
    }
    Ok(name)
}

/// Like `git checkout -b`: from HEAD, and uncommitted changes stay.
pub fn create(request: &GitBranchRequest) -> Result<()> {
    let repo = open(&request.path)?;
    let name = reference_name(&request.name)?;
    if repo.find_reference(&name).is_ok() {
        let message = format!("branch already exists: {}", request.name);
        return Err(GitFailure::new(Code::GitBranchExists, message));
    }
    match repo.head().and_then(|h| h.peel_to_commit()) {
        Ok(commit) => drop(repo.reference(&name, commit.id(), false, "branch: Created from HEAD")?),
        Err(e) if e.code() == ErrorCode::UnbornBranch => {}
        Err(e) => return Err(e.into()),
    }
    Ok(repo.set_head(&name)?)
}

/// Unconditionally, also when unmerged or current.
pub fn delete(request: &GitBranchRequest) -> Result<()> {
    let repo = open(&request.path)?;
    let found = repo.find_reference(&reference_name(&request.name)?);
    let mut reference = found.map_err(|_| GitFailure::no_branch(&request.name))?;
    // With its configuration, so that a later branch of that name does not inherit an upstream; libgit2 keeps the
    // current one.
    let whole = repo.find_branch(&request.name, BranchType::Local).and_then(|mut branch| branch.delete());
    if whole.is_ok() { Ok(()) } else { Ok(reference.delete()?) }
}

/// A local branch, else a commit by its hash.
pub fn checkout(request: &GitCheckoutRequest) -> Result<()> {
    let repo = open(&request.path)?;
    let name = format!("refs/heads/{}", request.branch);
    if let Ok(reference) = repo.find_reference(&name) {
        let commit = reference.peel_to_commit()?.id();
        write_tree(&repo, commit)?;
        return Ok(repo.set_head(&name)?);
    }
    let commit = find_commit(&repo, &request.branch).ok_or_else(|| GitFailure::no_branch(&request.branch))?;
    write_tree(&repo, commit)?;
    Ok(repo.set_head_detached(commit)?)
}

/// A commit by 4 to 64 hex digits.
pub fn find_commit(repo: &Repository, hash: &str) -> Option<Oid> {
    let is_hash = (4..=64).contains(&hash.len()) && hash.bytes().all(|b| b.is_ascii_hexdigit());
    let found = is_hash.then(|| repo.revparse_single(hash).ok())??;
    found.peel_to_commit().ok().map(|c| c.id())
}

/// Makes the working tree that of the commit; refuses when that would lose changes.
pub fn write_tree(repo: &Repository, commit: Oid) -> Result<()> {
    let object = repo.find_object(commit, None)?;
    let mut options = CheckoutBuilder::new();
    options.safe().recreate_missing(true);
    repo.checkout_tree(&object, Some(&mut options)).map_err(|e| match e.code() {
        ErrorCode::Conflict => GitFailure::dirty(),
        _ => e.into(),
    })
}
