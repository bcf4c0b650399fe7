//! Where things lie in the data folder, and who may reach them.
//!
//! Root owns everything; the API's user gets one private folder for the database. `run/` is the runner's to prepare.

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, chmod, chown};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

#[derive(Clone, Debug)]
pub struct Paths {
    pub data: PathBuf,
}

/// The unprivileged side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// Used when the machine has no `infield` user: above the ranges that distributions hand out, below the sandboxes'.
pub const FALLBACK_ID: u32 = 61_184;
pub const USER_NAME: &str = "infield";

impl Paths {
    pub fn new(data: &Path) -> Self {
        Self { data: std::path::absolute(data).unwrap_or_else(|_| data.to_owned()) }
    }

    pub fn run(&self) -> PathBuf {
        self.data.join("run")
    }

    pub fn lock(&self) -> PathBuf {
        self.data.join("serve.lock")
    }

    pub fn admin_key(&self) -> PathBuf {
        self.data.join("admin.key")
    }

    pub fn api_url(&self) -> PathBuf {
        self.data.join("api-url")
    }

    /// Writable by the API's user only: SQLite keeps its journal beside the file.
    pub fn database_dir(&self) -> PathBuf {
        self.data.join("db")
    }

    pub fn database_url(&self) -> String {
        format!("sqlite:{}", self.database_dir().join("infield.db").display())
    }

    /// In the API's own folder: the process that speaks with clients signs with it.
    pub fn ssh_host_key(&self) -> PathBuf {
        self.database_dir().join("ssh_host_ed25519_key")
    }

    /// Makes the folders with their owners. Repeating it mends what drifted.
    pub fn prepare(&self, api: Owner) -> Result<()> {
        folder(&self.data, 0o755, Owner { uid: 0, gid: 0 })?;
        passable(&self.data, api)?;
        folder(&self.database_dir(), 0o700, api)
    }
}

/// The API has no privileges, so it must be able to walk down to its own folder.
fn passable(data: &Path, api: Owner) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let data = data.canonicalize().with_context(|| format!("cannot resolve {}", data.display()))?;
    for folder in data.ancestors() {
        let about = fs::metadata(folder).with_context(|| format!("cannot look at {}", folder.display()))?;
        let may_enter = match (about.uid() == api.uid, about.gid() == api.gid) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        if about.mode() & may_enter == 0 {
            let (folder, uid) = (folder.display(), api.uid);
            bail!(
                "the API runs as user {uid}, which cannot enter {folder}; choose another --data-dir, or allow it with: chmod o+x {folder}"
            );
        }
    }
    Ok(())
}

fn folder(path: &Path, mode: u32, owner: Owner) -> Result<()> {
    let what = || format!("cannot prepare the folder {}", path.display());
    fs::create_dir_all(path).with_context(what)?;
    let id = |n| (rustix::fs::Uid::from_raw(n), rustix::fs::Gid::from_raw(n));
    chown(path, Some(id(owner.uid).0), Some(id(owner.gid).1)).with_context(what)?;
    chmod(path, Mode::from_raw_mode(mode)).with_context(what)
}

/// Writes a whole file so that no reader sees half of it.
pub fn write_file(path: &Path, mode: u32, content: &str) -> io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut partial = path.as_os_str().to_owned();
    partial.push(".new");
    let partial = PathBuf::from(partial);
    let _ = fs::remove_file(&partial);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

/// The API's user: what was asked for, else `infield`, else the fallback number.
pub fn api_owner(asked: Option<&str>) -> Result<Owner> {
    let passwd = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let owner = match asked {
        None => lookup(&passwd, USER_NAME).unwrap_or(Owner { uid: FALLBACK_ID, gid: FALLBACK_ID }),
        Some(name) => match (lookup(&passwd, name), name.parse()) {
            (Some(owner), _) => owner,
            (None, Ok(id)) => Owner { uid: id, gid: id },
            (None, Err(_)) => {
                anyhow::bail!("--user {name}: no such user in /etc/passwd; `infield setup` creates {USER_NAME}")
            }
        },
    };
    anyhow::ensure!(owner.uid != 0 && owner.gid != 0, "--user: the API must not run as root; name another user");
    Ok(owner)
}

fn lookup(passwd: &str, name: &str) -> Option<Owner> {
    passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| match fields[..] {
        [user, _, uid, gid, ..] if user == name => Some(Owner { uid: uid.parse().ok()?, gid: gid.parse().ok()? }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\ninfield:x:990:991::/:/bin/false\n";
        assert_eq!(lookup(passwd, "infield"), Some(Owner { uid: 990, gid: 991 }));
        assert_eq!(lookup(passwd, "infiel"), None);
    }

    #[test]
    fn the_api_is_never_root() {
        assert!(api_owner(Some("root")).is_err());
        assert!(api_owner(Some("0")).is_err());
        assert!(api_owner(Some("no-such-user-here")).is_err());
        assert_eq!(api_owner(Some("61199")).expect("number"), Owner { uid: 61199, gid: 61199 });
    }
}
