//! Where Git keeps what belongs to the user: configuration files and stored credentials. Taken from the variables that the
//! sandbox's commands have, as `git` would.

use super::failure::{GitFailure, Result};
use super::status::open;
use crate::env::Vars;
use infield_api::toolbox::DaemonErrorCode as Code;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The variables that decide it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Places {
    home: Option<PathBuf>,
    xdg: Option<PathBuf>,
    global: Option<PathBuf>,
    system: Option<PathBuf>,
}

impl Places {
    pub fn of(vars: &Vars) -> Self {
        let path = |name: &str| vars.get(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let (home, xdg) = (path("HOME"), path("XDG_CONFIG_HOME"));
        Self { home, xdg, global: path("GIT_CONFIG_GLOBAL"), system: path("GIT_CONFIG_SYSTEM") }
    }

    fn home(&self) -> Result<&PathBuf> {
        self.home.as_ref().ok_or_else(|| {
            GitFailure::new(Code::BadRequest, "HOME is not set in this sandbox, so there is no place for this")
        })
    }

    fn xdg(&self, name: &str) -> Option<PathBuf> {
        let base = self.xdg.clone().or_else(|| Some(self.home.as_ref()?.join(".config")))?;
        Some(base.join("git").join(name))
    }

    /// `$GIT_CONFIG_GLOBAL`, else `~/.gitconfig`, unless only the other usual file exists.
    pub fn global_config(&self) -> Result<PathBuf> {
        if let Some(named) = &self.global {
            return Ok(named.clone());
        }
        let usual = self.home()?.join(".gitconfig");
        let other = self.xdg("config").filter(|other| !usual.exists() && other.exists());
        Ok(other.unwrap_or(usual))
    }

    /// The file of a scope: `global`, `local` (with the repository's path) or `system`.
    pub fn config(&self, scope: Option<&str>, path: Option<&str>) -> Result<PathBuf> {
        match scope.filter(|s| !s.is_empty()).unwrap_or("global") {
            "global" => self.global_config(),
            "system" => Ok(self.system.clone().unwrap_or_else(|| PathBuf::from("/etc/gitconfig"))),
            "local" => match path.filter(|p| !p.is_empty()) {
                Some(path) => Ok(open(path)?.commondir().join("config")),
                None => Err(GitFailure::new(Code::BadRequest, "path is required for the scope \"local\"")),
            },
            other => {
                let message = format!("unknown scope {other:?}: it is \"global\", \"local\" or \"system\"");
                Err(GitFailure::new(Code::BadRequest, message))
            }
        }
    }

    /// Where `git credential-store` reads, and where it writes: the first that exists, else the first.
    pub fn credential_files(&self) -> Result<Vec<PathBuf>> {
        let usual = self.home()?.join(".git-credentials");
        Ok([Some(usual), self.xdg("credentials")].into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_decide() {
        let vars = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect::<Vars>();
        let places = Places::of(&vars(&[("HOME", "/nope/h"), ("GIT_CONFIG_SYSTEM", "/s")]));
        assert_eq!(places.config(None, None).unwrap(), PathBuf::from("/nope/h/.gitconfig"));
        assert_eq!(places.config(Some("system"), None).unwrap(), PathBuf::from("/s"));
        assert_eq!(places.credential_files().unwrap()[1], PathBuf::from("/nope/h/.config/git/credentials"));
        let places = Places::of(&vars(&[("GIT_CONFIG_GLOBAL", "/g")]));
        assert_eq!(places.config(Some("global"), None).unwrap(), PathBuf::from("/g"));
        assert_eq!(places.config(Some("system"), None).unwrap(), PathBuf::from("/etc/gitconfig"));
        assert_eq!(places.credential_files().unwrap_err().code, Code::BadRequest);
        assert_eq!(places.config(Some("local"), None).unwrap_err().code, Code::BadRequest);
        assert_eq!(places.config(Some("worktree"), None).unwrap_err().code, Code::BadRequest);
    }
}
