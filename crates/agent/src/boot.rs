//! From root-in-the-sandbox to the sandbox's user, before any thread exists. Knows no HTTP.

use crate::env::{self, Env};
use crate::metrics::Usage;
use crate::passwd::{Accounts, User};
use crate::state::Agent;
use infield_api::toolbox::AgentConfig;
use rustix::fs::{Mode, chown};
use rustix::process::{DumpableBehavior, Gid, Uid, getuid, set_dumpable_behavior, umask};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why the sandbox cannot run anything.
#[derive(Debug)]
pub enum BootError {
    User(String),
    Become { user: String, source: io::Error },
    Cgroup { fd: i32, source: io::Error },
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(why) => f.write_str(why),
            Self::Become { user, source } => write!(f, "cannot become the sandbox's user {user}: {source}"),
            Self::Cgroup { fd, source } => {
                write!(f, "descriptor {fd} should be the control group for commands: {source}; recreate the sandbox")
            }
        }
    }
}
impl std::error::Error for BootError {}

/// Takes the inherited descriptors, becomes the user, enters the working directory. Call it first, from the only thread.
pub fn prepare(config: AgentConfig) -> Result<Agent, BootError> {
    infield_sys::process::forget_fault_handlers();
    let cgroups = config
        .user_cgroup_fds
        .iter()
        .map(|&fd| infield_sys::agent_fd::take_inherited(fd).map_err(|source| BootError::Cgroup { fd, source }))
        .collect::<Result<Vec<_>, _>>()?;
    let usage = Usage::take(config.usage);
    let user = Accounts::of_image().resolve(config.user.as_deref().unwrap_or("0")).map_err(BootError::User)?;
    let mut vars = config.env;
    let home = vars.get("HOME").filter(|h| h.starts_with('/')).cloned().unwrap_or_else(|| default_home(&user));
    env::add_login_defaults(&mut vars, &user, &home);
    let wanted = config.workdir.filter(|w| w.starts_with('/')).unwrap_or_else(|| home.clone());
    create_for(Path::new(&wanted), &user);
    become_user(&user).map_err(|e| BootError::Become { user: user.name.clone(), source: e.into() })?;
    umask(Mode::from_raw_mode(0o022));
    let workdir = enter_first(&[&wanted, &home, "/"]);
    Ok(Agent::new(user, home, workdir, Env::new(vars), config.entrypoint, cgroups, usage))
}

fn default_home(user: &User) -> String {
    match &user.home {
        Some(home) => home.clone(),
        None if user.uid == 0 && Path::new("/root").is_dir() => "/root".to_owned(),
        None => "/".to_owned(),
    }
}

/// A missing working directory appears, owned by the user, as `docker run -w` makes it. Failure shows when it is entered.
fn create_for(dir: &Path, user: &User) {
    if dir.exists() || std::fs::create_dir_all(dir).is_err() {
        return;
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let _ = chown(dir, Some(uid), Some(gid));
}

/// The agent's saved group, which no command has: the kernel lets processes change each other's limits (open files, say) only
/// where all their ids agree, so commands cannot starve the agent of descriptors. Children lose it when they execute.
const SAVED_GROUP: u32 = 65_533;

/// Groups, gid, uid, in the only order that works; then nobody may trace this process or read its memory.
fn become_user(user: &User) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<Gid> = user.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    let privileged = getuid().is_root();
    if privileged {
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, Gid::from_raw(SAVED_GROUP))?;
        set_thread_res_uid(uid, uid, uid)?;
    } else if getuid() != uid {
        return Err(rustix::io::Errno::PERM);
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

fn enter_first(candidates: &[&str]) -> PathBuf {
    for dir in candidates {
        if std::env::set_current_dir(dir).is_ok() {
            return PathBuf::from(dir);
        }
    }
    PathBuf::from("/")
}
