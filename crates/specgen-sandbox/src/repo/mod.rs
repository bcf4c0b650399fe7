//! What `--repo` can be: an address that the sandbox clones by itself, or a folder here whose content is carried over.

pub mod git;
pub mod mirror;

use crate::errors::Failure;
use clap::Args;
use infield_client::dto::GitCredentials;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repo {
    Remote(String),
    /// Absolute path of a folder on this machine.
    Local(PathBuf),
}

/// Credentials of a private repository. The secret comes from the environment: arguments can be seen by everybody.
#[derive(Args, Debug)]
pub struct Credentials {
    /// User name for a private repository; the secret comes from GIT_TOKEN or GIT_PASSWORD
    #[arg(long, env = "GIT_USERNAME", value_name = "USER")]
    pub git_username: Option<String>,
}

impl Credentials {
    pub fn read(&self) -> Option<GitCredentials> {
        let secret = ["GIT_TOKEN", "GIT_PASSWORD"].iter().find_map(|name| std::env::var(name).ok());
        let password = secret.filter(|secret| !secret.is_empty())?;
        // Forges take a token with any user name.
        let username = self.git_username.clone().unwrap_or_else(|| "git".into());
        Some(GitCredentials { username, password })
    }
}

impl Repo {
    pub fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(path) = text.strip_prefix("file://") {
            return local(path);
        }
        // `host:path` of ssh and addresses without scheme are the sandbox's matter.
        if text.starts_with(['/', '.', '~']) { local(text) } else { Ok(Self::Remote(text.to_owned())) }
    }

    /// The folder name for the clone.
    pub fn name(&self) -> String {
        let text = match self {
            Self::Remote(url) => url.split(['?', '#']).next().unwrap_or(url).to_owned(),
            Self::Local(path) => path.display().to_string(),
        };
        let last = text.trim_end_matches('/').rsplit(['/', ':', '\\']).next().unwrap_or_default();
        let name: String = last
            .strip_suffix(".git")
            .unwrap_or(last)
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
            .collect();
        if name.trim_matches('.').is_empty() { "project".into() } else { name }
    }

    /// For people and for the label: an address without its password.
    pub fn shown(&self) -> String {
        match self {
            Self::Local(path) => format!("file://{}", path.display()),
            Self::Remote(url) => match (url.find("://"), url.rfind('@')) {
                (Some(scheme), Some(at)) if at > scheme => format!("{}{}", &url[..scheme + 3], &url[at + 1..]),
                _ => url.clone(),
            },
        }
    }
}

fn local(path: &str) -> Result<Repo, Failure> {
    let home = std::env::var("HOME").unwrap_or_default();
    let path = match path.strip_prefix("~/") {
        Some(rest) => PathBuf::from(home).join(rest),
        None => PathBuf::from(path),
    };
    match path.canonicalize() {
        Ok(path) => Ok(Repo::Local(path)),
        Err(e) => Err(Failure::detailed(crate::errors::LOCAL_GIT, format!("{}: {e}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_is_shown() {
        for (url, name, shown) in [
            ("https://github.com/a/spec.git", "spec", "https://github.com/a/spec.git"),
            ("https://u:secret@host/x/y/", "y", "https://host/x/y/"),
            ("git@github.com:a/b.git", "b", "git@github.com:a/b.git"),
            ("https://host/..", "project", "https://host/.."),
            ("https://host/a b;c", "a-b-c", "https://host/a b;c"),
        ] {
            let repo = Repo::parse(url).expect("parse");
            assert_eq!((repo.name().as_str(), repo.shown().as_str()), (name, shown));
        }
    }

    #[test]
    fn folders_are_local() {
        let here = std::env::temp_dir().canonicalize().expect("temp dir");
        assert_eq!(Repo::parse(&here.display().to_string()), Ok(Repo::Local(here.clone())));
        assert_eq!(Repo::parse(&format!("file://{}", here.display())), Ok(Repo::Local(here)));
        assert!(Repo::parse("/no/such/folder").is_err());
    }
}
