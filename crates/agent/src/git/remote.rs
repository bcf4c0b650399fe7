//! Init and remotes.

use super::failure::{GitFailure, Result};
use super::status::open;
use super::{transfer, url};
use git2::{Remote, Repository, RepositoryInitOptions};
use infield_api::toolbox::{
    DaemonErrorCode as Code, GitAddRemoteRequest, GitInitRequest, GitRemote, ListRemotesResponse,
};

pub fn init(request: &GitInitRequest) -> Result<()> {
    if Repository::open(&request.path).is_ok() {
        return Err(GitFailure::new(Code::Conflict, format!("repository already exists: {}", request.path)));
    }
    let mut options = RepositoryInitOptions::new();
    options.bare(request.bare == Some(true)).mkpath(true).no_reinit(true);
    if let Some(branch) = request.initial_branch.as_deref().filter(|b| !b.is_empty()) {
        super::branch::reference_name(branch)?;
        options.initial_head(branch);
    }
    Repository::init_opts(&request.path, &options)?;
    Ok(())
}

pub fn list(path: &str) -> Result<ListRemotesResponse> {
    let repo = open(path)?;
    let mut remotes = Vec::new();
    for name in repo.remotes()?.iter_bytes() {
        let name = String::from_utf8_lossy(name).into_owned();
        let remote = repo.find_remote(&name)?;
        let url = url::without_password(&String::from_utf8_lossy(remote.url_bytes()));
        remotes.push(GitRemote { name, url });
    }
    Ok(ListRemotesResponse { remotes })
}

pub fn add(request: &GitAddRemoteRequest) -> Result<()> {
    let repo = open(&request.path)?;
    let name = request.name.as_str();
    if name.starts_with('-') || !Remote::is_valid_name(name) {
        return Err(GitFailure::new(Code::BadRequest, format!("not a valid remote name: {name:?}")));
    }
    let (address, _) = url::classify(&request.url)?;
    if repo.find_remote(name).is_err() {
        repo.remote(name, &address)?;
    } else if request.overwrite == Some(true) {
        repo.remote_set_url(name, &address)?;
    } else {
        return Err(GitFailure::new(Code::Conflict, format!("remote already exists: {name}")));
    }
    if request.fetch == Some(true) {
        transfer::fetch_all(&repo, name)?;
    }
    Ok(())
}
