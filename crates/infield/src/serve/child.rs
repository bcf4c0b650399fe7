//! One child of the supervisor: started, restarted with growing pauses when it dies, stopped on request.

use super::key_file::{self, KeyFile};
use crate::paths::Owner;
use anyhow::{Context, Result, bail};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, kill_process},
};
use std::{
    ffi::OsString,
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::Stdio,
    time::Duration,
};
use tokio::time::Instant;

const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A child that lived this long starts over with the first pause.
const STEADY: Duration = Duration::from_secs(30);
/// How long a child may take to finish what it is doing.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Exit status of a child that cannot work on this host, or not with these settings.
pub const REFUSES: u8 = 78;

/// What a child gives up and gets instead.
pub struct Drop {
    pub owner: Owner,
    /// Becomes its standard input.
    pub stdin: OwnedFd,
    /// Stays open in it under its number, which its arguments name.
    pub ssh: Option<OwnedFd>,
    /// Takes the first key from its standard output.
    pub keys: KeyFile,
}

pub struct Child {
    name: &'static str,
    argv: Vec<OsString>,
    drop: Option<Drop>,
    running: Option<tokio::process::Child>,
    started: Instant,
    pause: Duration,
    /// How often it was started.
    starts: u32,
}

impl Child {
    pub fn new(name: &'static str, argv: Vec<OsString>, drop: Option<Drop>) -> Self {
        Self { name, argv, drop, running: None, started: Instant::now(), pause: PAUSE_FIRST, starts: 0 }
    }

    pub fn start(&mut self) -> Result<()> {
        // The running program itself, even when its file was replaced meanwhile.
        let mut command = std::process::Command::new("/proc/self/exe");
        command.arg0(format!("infield-{}", self.name)).args(&self.argv).stdin(Stdio::null()).current_dir("/");
        command.env(super::worker::PARENT_ENV, std::process::id().to_string());
        if let Some(drop) = &self.drop {
            let stdin = drop.stdin.try_clone().context("cannot hand over the listening socket")?;
            // With a user id given, std also empties the supplementary groups.
            command.stdin(Stdio::from(stdin)).stdout(Stdio::piped()).uid(drop.owner.uid).gid(drop.owner.gid);
            command.env(key_file::WANTED_ENV, if drop.keys.is_missing() { "1" } else { "0" });
        }
        if self.drop.is_none() {
            command.env_remove(crate::wire::DATABASE_URL_ENV);
        }
        // No other child begins meanwhile: the supervisor has one thread.
        let ssh = self.drop.as_ref().and_then(|drop| drop.ssh.as_ref());
        if let Some(ssh) = ssh {
            fcntl_setfd(ssh, FdFlags::empty()).context("cannot hand over the socket for SSH")?;
        }
        let child = tokio::process::Command::from(command).spawn();
        if let Some(ssh) = ssh {
            fcntl_setfd(ssh, FdFlags::CLOEXEC).context("cannot keep the socket for SSH")?;
        }
        let mut child = child.with_context(|| format!("cannot start the {} process", self.name))?;
        if let (Some(drop), Some(stdout)) = (&self.drop, child.stdout.take()) {
            tokio::spawn(drop.keys.clone().receive(stdout));
        }
        self.running = Some(child);
        self.starts = self.starts.saturating_add(1);
        self.started = Instant::now();
        Ok(())
    }

    /// Returns after the child died and was started again, with an error when its first start told that it never can work.
    /// (Once it has worked, something else is wrong, and sandboxes may be running: then it is started until it works again.)
    /// Cancelling it is harmless.
    pub async fn keep_alive(&mut self) -> Result<()> {
        if let Some(child) = &mut self.running {
            let ended = child.wait().await;
            let code = ended.as_ref().ok().and_then(std::process::ExitStatus::code);
            if self.starts == 1 && code == Some(REFUSES.into()) {
                self.running = None;
                bail!("the {} process cannot work here, see above; `infield doctor` says more", self.name);
            }
            let how = ended.map_or_else(|e| e.to_string(), |status| status.to_string());
            if self.started.elapsed() >= STEADY {
                self.pause = PAUSE_FIRST;
            }
            eprintln!("infield: the {} process ended ({how}); starting it again in {:?}", self.name, self.pause);
            self.running = None;
            self.started = Instant::now();
        }
        tokio::time::sleep_until(self.started + self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        if let Err(e) = self.start() {
            eprintln!("infield: {e:#}");
            self.started = Instant::now();
        }
        Ok(())
    }

    /// Asks it to end, then makes it end.
    pub async fn stop(&mut self) {
        let Some(mut child) = self.running.take() else { return };
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(STOP_MAX, child.wait()).await.is_err() {
            eprintln!("infield: the {} process did not end within {STOP_MAX:?}; killing it", self.name);
            let _ = child.kill().await;
        }
    }
}
