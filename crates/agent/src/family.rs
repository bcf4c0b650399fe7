//! All processes that come from one command or shell, to end them together: its session and group, whatever descends from
//! them, and whoever carries the tag it was given in its environment, which finds daemons that have left all of these.
//!
//! What hides on purpose (a new session *and* an emptied environment, after its parents are gone) is not found; it stays
//! under the sandbox's limits and ends with the sandbox.

use crate::children::Children;
use crate::env::{self, Vars};
use crate::execute::c_string;
use crate::stat::{Stat, parse_stat};
use crate::state::Shared;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::time::Duration;
use uuid::Uuid;

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// Looking again begins quickly and slows down.
const LOOK_FIRST: Duration = Duration::from_millis(2);
const LOOK_MAX: Duration = Duration::from_millis(100);
/// SIGKILL is repeated while new ones appear; what is left then cannot be killed by this user.
const KILL_ROUNDS_MAX: usize = 100;
const STAT_BYTES_MAX: u64 = 4 << 10;
const ENVIRONMENT_BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, Debug)]
pub struct Family {
    leader: i32,
    /// When the leader began; the number may belong to somebody else later.
    began: Option<u64>,
    /// `VARIABLE=tag` as it stands in an environment.
    mark: Vec<u8>,
}

fn stat(pid: i32) -> Option<Stat> {
    let mut text = Vec::new();
    File::open(format!("/proc/{pid}/stat")).ok()?.take(STAT_BYTES_MAX).read_to_end(&mut text).ok()?;
    parse_stat(&text)
}

/// A new tag, and these variables with it, for a process whose family it will mark.
pub fn tagged(vars: &Vars) -> (String, Vec<CString>) {
    let tag = Uuid::new_v4().simple().to_string();
    // First, so that whoever looks for it need not read far.
    let mark = c_string(format!("{}={tag}", Family::VARIABLE).as_bytes());
    let mut vars = vars.clone();
    vars.remove(Family::VARIABLE);
    (tag, [mark].into_iter().chain(env::to_words(&vars)).collect())
}

impl Family {
    const VARIABLE: &str = "INFIELD_FAMILY";

    /// Of a process that was started with what [`tagged`] gave and leads its session.
    pub fn new(leader: i32, tag: String) -> Self {
        let began = stat(leader).map(|s| s.began);
        Self { leader, began, mark: format!("{}={tag}", Self::VARIABLE).into_bytes() }
    }

    /// Living members with the moment they began. Of the agent's own children only this leader is looked at: the others lead
    /// families of their own, and whoever is in one of their sessions descends from them. That leaves little to read even
    /// where a thousand shells idle.
    fn members(&self, children: &Children) -> Vec<(i32, u64)> {
        let Ok(dir) = std::fs::read_dir("/proc") else { return Vec::new() };
        let mut pids: Vec<i32> = dir.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        // In this order: a number seen before and known now was no member's, or the member is gone.
        let mut others = children.known();
        others.remove(&self.leader);
        pids.retain(|pid| !others.contains(pid));
        let all: HashMap<i32, Stat> = pids.into_iter().filter_map(|pid| Some((pid, stat(pid)?))).collect();
        let reused = all.get(&self.leader).is_some_and(|s| self.began.is_some_and(|b| b != s.began));
        let own = i32::try_from(std::process::id()).unwrap_or(1);
        let mut known = HashMap::new();
        for (&pid, stat) in &all {
            let near = !reused && (stat.session == self.leader || stat.group == self.leader || pid == self.leader);
            let member = || near || (!others.contains(&stat.session) && self.carries_mark(pid));
            known.insert(pid, pid != own && pid != 1 && member());
        }
        let mut found: Vec<i32> = known.iter().filter(|(_, member)| **member).map(|(pid, _)| *pid).collect();
        let mut at = 0;
        let mut offspring: HashMap<i32, Vec<i32>> = HashMap::new();
        for (&pid, stat) in &all {
            offspring.entry(stat.parent).or_default().push(pid);
        }
        while let Some(&parent) = found.get(at) {
            at += 1;
            for &child in offspring.get(&parent).into_iter().flatten() {
                if known.insert(child, true) == Some(false) {
                    found.push(child);
                }
            }
        }
        let living = |pid: &i32| all.get(pid).filter(|s| !matches!(s.state, b'Z' | b'X')).map(|s| (*pid, s.began));
        found.iter().filter_map(living).collect()
    }

    fn carries_mark(&self, pid: i32) -> bool {
        let mut text = Vec::new();
        let read = File::open(format!("/proc/{pid}/environ"))
            .and_then(|f| f.take(ENVIRONMENT_BYTES_MAX).read_to_end(&mut text));
        read.is_ok() && text.split(|b| *b == 0).any(|word| word == self.mark)
    }

    /// Signals every member; answers whether there was any.
    fn signal(&self, children: &Children, signals: &[Signal]) -> bool {
        let members = self.members(children);
        for &(pid, began) in &members {
            let Some(number) = Pid::from_raw(pid) else { continue };
            let Ok(process) = pidfd_open(number, PidfdFlags::empty()) else { continue };
            // The number could have changed hands since; through the descriptor it cannot any more.
            if stat(pid).is_some_and(|s| s.began == began) {
                for &signal in signals {
                    let _ = pidfd_send_signal(&process, signal);
                }
            }
        }
        !members.is_empty()
    }

    /// Ends them all: politely, then by force. Returns when none is left, or none that can be killed.
    pub async fn end(&self, agent: &Shared) {
        if !self.look(agent, &[Signal::TERM, Signal::CONT]).await {
            return;
        }
        let (mut waited, mut pause) = (Duration::ZERO, LOOK_FIRST);
        while waited < GRACE {
            tokio::time::sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(LOOK_MAX);
            if !self.look(agent, &[]).await {
                return;
            }
        }
        self.kill(agent).await;
    }

    /// Ends them all at once.
    pub async fn kill(&self, agent: &Shared) {
        for _ in 0..KILL_ROUNDS_MAX {
            if !self.look(agent, &[Signal::KILL]).await {
                return;
            }
            tokio::time::sleep(LOOK_FIRST).await;
        }
    }

    async fn look(&self, agent: &Shared, signals: &'static [Signal]) -> bool {
        let (family, agent) = (self.clone(), agent.clone());
        tokio::task::spawn_blocking(move || family.signal(&agent.children, signals)).await.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_beginning() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(stat(own).unwrap().began > 0);
    }
}
