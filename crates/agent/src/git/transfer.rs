//! Pull and push. A pull only ever moves forward; everything else is for the caller to decide.

use super::branch::{reference_name, write_tree};
use super::cli;
use super::failure::{GitFailure, Result};
use super::http::{self, Access};
use super::status::{current_branch, open};
use super::url::{self, Kind};
use git2::{Direction, ErrorCode, FetchOptions, Oid, PushOptions, Remote, RemoteCallbacks, Repository};
use infield_api::toolbox::{DaemonErrorCode as Code, GitTransferRequest};
use std::cell::RefCell;
use std::path::Path;

const DEFAULT_REMOTE: &str = "origin";
/// Kept of what the remote's hooks say.
const REMOTE_TEXT_BYTES_MAX: usize = 16 << 10;

pub fn fetch_options<'a>() -> FetchOptions<'a> {
    FetchOptions::new()
}

/// Everything a transfer needs to know, taken from the request and the repository.
struct Plan {
    repo: Repository,
    remote: String,
    kind: Kind,
    branch: String,
}

fn plan(request: &GitTransferRequest) -> Result<Plan> {
    let repo = open(&request.path)?;
    let name = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let remote = name(&request.remote).unwrap_or_else(|| DEFAULT_REMOTE.to_owned());
    let address = find_remote(&repo, &remote)?.url()?.to_owned();
    let (_, kind) = url::classify(&address)?;
    check_place(&address, kind)?;
    let branch = match name(&request.branch) {
        Some(branch) => branch,
        None => current_branch(&repo)?.ok_or_else(|| {
            GitFailure::new(
                Code::NotFound,
                "not currently on a branch: HEAD is detached; name a branch or check one out",
            )
        })?,
    };
    reference_name(&branch)?;
    http::allow(Access::new(&request.username, &request.password, false));
    Ok(Plan { repo, remote, kind, branch })
}

/// What libgit2 calls an unsupported protocol is usually a directory that is not there.
pub fn check_place(address: &str, kind: Kind) -> Result<()> {
    let place = address.strip_prefix("file://").unwrap_or(address);
    if kind == Kind::Local && !Path::new(place).exists() {
        return Err(GitFailure::new(Code::GitRepoNotFound, format!("repository not found: {address}")));
    }
    Ok(())
}

fn find_remote<'r>(repo: &'r Repository, name: &str) -> Result<Remote<'r>> {
    repo.find_remote(name).map_err(|_| GitFailure::new(Code::NotFound, format!("remote not found: {name}")))
}

/// All branches of a remote, as its configuration says.
pub fn fetch_all(repo: &Repository, name: &str) -> Result<()> {
    let mut remote = find_remote(repo, name)?;
    let (_, kind) = url::classify(remote.url()?)?;
    if kind == Kind::Ssh {
        return cli::fetch(repo.path(), name, None);
    }
    Ok(remote.fetch::<&str>(&[], Some(&mut fetch_options()), None)?)
}

/// What the current branch follows on this remote, when it is called something else there.
fn followed(plan: &Plan) -> Option<String> {
    let config = plan.repo.config().ok()?;
    let value = |key: &str| config.get_string(&format!("branch.{}.{key}", plan.branch)).ok();
    let merge = value("merge").filter(|_| value("remote").is_some_and(|remote| remote == plan.remote))?;
    merge.strip_prefix("refs/heads/").map(str::to_owned)
}

pub fn pull(request: GitTransferRequest) -> Result<()> {
    let mut plan = plan(&request)?;
    if request.branch.as_deref().is_none_or(str::is_empty) {
        plan.branch = followed(&plan).unwrap_or(plan.branch);
    }
    let tracking = format!("refs/remotes/{}/{}", plan.remote, plan.branch);
    let refspec = format!("+refs/heads/{}:{tracking}", plan.branch);
    let fetched = match plan.kind {
        Kind::Ssh => cli::fetch(plan.repo.path(), &plan.remote, Some(&refspec)),
        _ => fetch_one(&plan, &refspec),
    };
    fetched?;
    let fetched = plan.repo.find_reference(&tracking).map_err(|_| GitFailure::no_branch(&plan.branch))?;
    fast_forward(&plan.repo, fetched.peel_to_commit()?.id())
}

/// libgit2 passes silently over a branch that the remote does not have; so what there is, is asked for first.
fn fetch_one(plan: &Plan, refspec: &str) -> Result<()> {
    let mut remote = find_remote(&plan.repo, &plan.remote)?;
    remote.connect(Direction::Fetch)?;
    let there = remote.list()?;
    if there.is_empty() {
        return Err(GitFailure::new(Code::NotFound, "remote repository is empty"));
    }
    let wanted = format!("refs/heads/{}", plan.branch);
    if !there.iter().any(|head| head.name() == wanted) {
        return Err(GitFailure::no_branch(&plan.branch));
    }
    Ok(remote.fetch(&[refspec], Some(&mut fetch_options()), None)?)
}

/// Moves the current branch to `target`, which must contain it.
fn fast_forward(repo: &Repository, target: Oid) -> Result<()> {
    let head = match repo.head().and_then(|h| h.peel_to_commit()) {
        Ok(commit) => Some(commit.id()),
        Err(e) if e.code() == ErrorCode::UnbornBranch => None,
        Err(e) => return Err(e.into()),
    };
    if let Some(head) = head {
        if head == target || repo.graph_descendant_of(head, target)? {
            return Ok(());
        }
        if !repo.graph_descendant_of(target, head)? {
            let message =
                "cannot fast-forward: the local and the remote branch have diverged; rebase or merge with git";
            return Err(GitFailure::new(Code::GitMergeConflict, message));
        }
    }
    write_tree(repo, target)?;
    match current_branch(repo)? {
        Some(branch) => drop(repo.reference(&reference_name(&branch)?, target, true, "pull: Fast-forward")?),
        None => repo.set_head_detached(target)?,
    }
    Ok(())
}

pub fn push(request: GitTransferRequest) -> Result<()> {
    let plan = plan(&request)?;
    let name = reference_name(&plan.branch)?;
    if plan.repo.find_reference(&name).is_err() {
        return Err(GitFailure::no_branch(&plan.branch));
    }
    let refspec = format!("{name}:{name}");
    if plan.kind == Kind::Ssh {
        cli::push(plan.repo.path(), &plan.remote, &refspec)?;
    } else {
        push_with_libgit2(&plan, &refspec)?;
    }
    if request.set_upstream == Some(true) { track(&plan, &name) } else { Ok(()) }
}

/// The branch follows the one just pushed. A clone of a single branch does not fetch this one yet, so it is added.
fn track(plan: &Plan, name: &str) -> Result<()> {
    let Plan { repo, remote, branch, .. } = plan;
    let mut config = repo.config()?;
    config.set_str(&format!("branch.{branch}.remote"), remote)?;
    config.set_str(&format!("branch.{branch}.merge"), name)?;
    let is_fetched = find_remote(repo, remote)?.refspecs().any(|spec| spec.src_matches(name));
    if !is_fetched {
        let tracking = format!("refs/remotes/{remote}/{branch}");
        repo.remote_add_fetch(remote, &format!("+{name}:{tracking}"))?;
        let pushed = repo.find_reference(name)?.peel_to_commit()?.id();
        repo.reference(&tracking, pushed, true, "push")?;
    }
    Ok(())
}

fn push_with_libgit2(plan: &Plan, refspec: &str) -> Result<()> {
    let refusal = RefCell::new(None);
    let said = RefCell::new(Vec::new());
    let mut callbacks = RemoteCallbacks::new();
    callbacks.push_update_reference(|_, status| {
        *refusal.borrow_mut() = status.map(str::to_owned);
        Ok(())
    });
    callbacks.sideband_progress(|text| {
        let mut said = said.borrow_mut();
        let room = REMOTE_TEXT_BYTES_MAX - said.len();
        said.extend_from_slice(&text[..text.len().min(room)]);
        true
    });
    let mut options = PushOptions::new();
    options.remote_callbacks(callbacks);
    let mut remote = find_remote(&plan.repo, &plan.remote)?;
    let outcome = remote.push(&[refspec], Some(&mut options));
    drop(options);
    if let Some(reason) = refusal.into_inner() {
        return Err(rejected(&reason, &String::from_utf8_lossy(&said.into_inner())));
    }
    outcome.map_err(|e| match e.code() {
        ErrorCode::NotFastForward => non_fast_forward(),
        _ => e.into(),
    })
}

fn non_fast_forward() -> GitFailure {
    let message =
        "push rejected: the remote branch has commits that are not here (non-fast-forward); pull or rebase first";
    GitFailure::new(Code::GitPushRejected, message)
}

/// The remote's words about a reference that it did not update.
pub fn rejected(reason: &str, said: &str) -> GitFailure {
    let behind = [
        "non-fast-forward",
        "fetch first",
        "stale info",
        "failed to update ref",
        "incorrect old value",
        "already exists",
    ];
    let lower = reason.to_ascii_lowercase();
    if behind.iter().any(|word| lower.contains(word)) {
        return non_fast_forward();
    }
    let said = said.trim();
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    GitFailure::new(Code::GitRemoteRejected, format!("the remote declined the push ({reason}){said}"))
}
