//! `/git/clone`: one branch into a new directory. What a failed clone made is removed again.

use super::branch::{find_commit, write_tree};
use super::failure::{GitFailure, Result};
use super::http::{self, Access};
use super::url::{self, Kind};
use super::{cli, transfer};
use git2::{AutotagOption, Direction, Oid, Remote, Repository};
use infield_api::toolbox::{DaemonErrorCode as Code, GitCloneRequest};
use std::fs;
use std::path::Path;

pub fn clone(request: GitCloneRequest) -> Result<()> {
    let (address, kind) = url::classify(&request.url)?;
    let path = Path::new(&request.path);
    let before = check_free(path)?;
    let outcome = match kind {
        Kind::Ssh => cli::clone(&request, &address),
        _ => clone_with_libgit2(&request, &address, kind),
    };
    if outcome.is_err() {
        remove_new(path, before);
    }
    outcome
}

/// What stood at the path before.
enum Place {
    Missing,
    Empty,
    /// Files, but no repository.
    Files,
}

/// A repository is never cloned over another.
fn check_free(path: &Path) -> Result<Place> {
    match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(Place::Empty),
        Ok(false) if Repository::open(path).is_ok() || path.join(".git").exists() => {
            Err(GitFailure::new(Code::Conflict, format!("repository already exists: {}", path.display())))
        }
        Ok(false) => Ok(Place::Files),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Place::Missing),
        Err(e) => Err(GitFailure::new(Code::Internal, format!("{}: {e}", path.display()))),
    }
}

/// Files that were there before stay: a clone that would overwrite one fails before it writes any.
fn remove_new(path: &Path, before: Place) {
    let made = match before {
        Place::Missing => vec![path.to_owned()],
        Place::Empty => fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect(),
        Place::Files => vec![path.join(".git")],
    };
    for made in made {
        let is_dir = made.symlink_metadata().is_ok_and(|m| m.is_dir());
        let _ = if is_dir { fs::remove_dir_all(&made) } else { fs::remove_file(&made) };
    }
}

fn clone_with_libgit2(request: &GitCloneRequest, address: &str, kind: Kind) -> Result<()> {
    transfer::check_place(address, kind)?;
    http::allow(Access::new(&request.username, &request.password, request.insecure_skip_tls == Some(true)));
    let repo = Repository::init(&request.path)?;
    let mut remote = repo.remote("origin", address)?;
    remote.connect(Direction::Fetch)?;
    let wanted = choose(&remote, request.branch.as_deref().filter(|b| !b.is_empty()))?;
    let refspec = wanted.refspec();
    if let Wanted::Branch(_) = wanted {
        // From now on `git fetch` brings this branch, as after `git clone --single-branch`.
        repo.config()?.set_str("remote.origin.fetch", &refspec)?;
    }
    let mut options = transfer::fetch_options();
    let depth = request.depth.unwrap_or(0);
    if depth > 0 && kind != Kind::Local {
        options.depth(i32::try_from(depth).unwrap_or(i32::MAX));
        options.download_tags(AutotagOption::None);
    }
    // The connection stays open, so the list of references is not asked for twice.
    remote.fetch(&[&refspec], Some(&mut options), Some("clone"))?;
    let tip = attach(&repo, &wanted)?;
    match request.commit_id.as_deref().filter(|c| !c.is_empty()) {
        Some(commit) => {
            let id = commit_of(&repo, &mut remote, commit)?;
            write_tree(&repo, id)?;
            Ok(repo.set_head_detached(id)?)
        }
        None => {
            write_tree(&repo, tip)?;
            match &wanted {
                Wanted::Branch(branch) => Ok(repo.set_head(&format!("refs/heads/{branch}"))?),
                Wanted::Tag(_) => Ok(repo.set_head_detached(tip)?),
            }
        }
    }
}

/// What the remote offers under the name.
enum Wanted {
    Branch(String),
    Tag(String),
}

impl Wanted {
    fn refspec(&self) -> String {
        match self {
            Self::Branch(b) => format!("+refs/heads/{b}:refs/remotes/origin/{b}"),
            Self::Tag(t) => format!("+refs/tags/{t}:refs/tags/{t}"),
        }
    }

    fn fetched(&self) -> String {
        match self {
            Self::Branch(b) => format!("refs/remotes/origin/{b}"),
            Self::Tag(t) => format!("refs/tags/{t}"),
        }
    }
}

fn choose(remote: &Remote<'_>, branch: Option<&str>) -> Result<Wanted> {
    let heads = remote.list()?;
    let has = |name: String| heads.iter().any(|h| h.name() == name);
    if let Some(branch) = branch {
        if has(format!("refs/heads/{branch}")) {
            return Ok(Wanted::Branch(branch.to_owned()));
        }
        if has(format!("refs/tags/{branch}")) {
            return Ok(Wanted::Tag(branch.to_owned()));
        }
        return Err(GitFailure::no_branch(branch));
    }
    if heads.is_empty() {
        return Err(GitFailure::new(Code::NotFound, "remote repository is empty"));
    }
    let head = remote.default_branch().ok();
    let named = head.as_ref().and_then(|h| h.as_str().ok()).and_then(|h| h.strip_prefix("refs/heads/"));
    let any = || heads.iter().find_map(|h| h.name().strip_prefix("refs/heads/"));
    let branch = named.or_else(any).ok_or_else(|| GitFailure::new(Code::NotFound, "the remote has no branch"))?;
    Ok(Wanted::Branch(branch.to_owned()))
}

/// Makes the local branch with its upstream; answers the commit.
fn attach(repo: &Repository, wanted: &Wanted) -> Result<Oid> {
    let commit = repo.find_reference(&wanted.fetched())?.peel_to_commit()?;
    if let Wanted::Branch(branch) = wanted {
        let mut local = repo.branch(branch, &commit, true)?;
        local.set_upstream(Some(&format!("origin/{branch}")))?;
        let target = format!("refs/remotes/origin/{branch}");
        repo.reference_symbolic("refs/remotes/origin/HEAD", &target, true, "clone")?;
    }
    Ok(commit.id())
}

/// A commit of the branch, or one that the remote gives by its full hash.
fn commit_of(repo: &Repository, remote: &mut Remote<'_>, hash: &str) -> Result<Oid> {
    if let Some(id) = find_commit(repo, hash) {
        return Ok(id);
    }
    if hash.len() == 40 && hash.bytes().all(|b| b.is_ascii_hexdigit()) {
        let mut options = transfer::fetch_options();
        options.download_tags(AutotagOption::None);
        let _ = remote.fetch(&[hash], Some(&mut options), Some("clone"));
    }
    find_commit(repo, hash).ok_or_else(|| GitFailure::new(Code::NotFound, format!("object not found: {hash}")))
}
