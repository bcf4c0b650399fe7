//! What idle sandboxes cost this machine: their agents' share of memory, and what the kernel holds for them.
//!
//! Only meaningful when the server is on this machine and nothing else grows meanwhile.

use serde::Serialize;
use std::{
    fs,
    time::{Duration, Instant},
};

/// Memory is read when the server has made its sandboxes ready and the kernel has done what it deferred: when nothing has
/// changed for so long...
const CALM: Duration = Duration::from_secs(3);
/// ...or at the latest after this.
const SETTLE_MAX: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(500);
/// Smaller changes of free memory are the machine's own.
const CALM_KIB: i64 = 2048;
/// How an agent calls itself.
const AGENT_NAME: &[u8] = b"infield-agent";

/// Kibibytes of the whole machine and of all agents.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    available_kib: i64,
    slab_kib: i64,
    agents: i64,
    agents_pss_kib: i64,
}

/// Kibibytes for each idle sandbox.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Idle {
    pub sandboxes: usize,
    /// Agents seen; fewer than sandboxes when they cannot be read (run the bench as root).
    pub agents: i64,
    pub agent_pss_kib: f64,
    pub slab_kib: f64,
    /// All memory that became unavailable: agents, kernel, and whatever else grew.
    pub available_kib: f64,
}

impl Host {
    /// `tag` tells this server's agents from those of another one on the same machine.
    pub fn now(tag: Option<&str>) -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let (agents, agents_pss_kib) = agents(tag);
        Self {
            available_kib: field(&meminfo, "MemAvailable:"),
            slab_kib: field(&meminfo, "Slab:"),
            agents,
            agents_pss_kib,
        }
    }
}

/// What the machine holds once it has come to rest.
pub async fn settled(tag: Option<&str>) -> Host {
    let began = Instant::now();
    let (mut last, mut since) = (Host::now(tag), Instant::now());
    while since.elapsed() < CALM && began.elapsed() < SETTLE_MAX {
        tokio::time::sleep(LOOK).await;
        let now = Host::now(tag);
        if now.agents != last.agents || (now.available_kib - last.available_kib).abs() > CALM_KIB {
            (last, since) = (now, Instant::now());
        }
    }
    Host::now(tag)
}

pub async fn measure(before: &Host, sandboxes: usize, tag: Option<&str>) -> Idle {
    let now = settled(tag).await;
    let agents = now.agents - before.agents;
    let each = |kib: i64, count: i64| (kib as f64 / count.max(1) as f64 * 10.0).round() / 10.0;
    // Those kept ready are there before and after; agents that cannot be seen count as asked for.
    let count = if agents > 0 { agents } else { i64::try_from(sandboxes).unwrap_or(i64::MAX) };
    Idle {
        sandboxes,
        agents,
        agent_pss_kib: each(now.agents_pss_kib - before.agents_pss_kib, agents),
        slab_kib: each(now.slab_kib - before.slab_kib, count),
        available_kib: each(before.available_kib - now.available_kib, count),
    }
}

impl Idle {
    pub fn text(&self) -> String {
        format!(
            "idle, each of {}: {:.0} KiB in all (agent {:.0} KiB PSS, kernel slab {:.0} KiB)\n",
            self.sandboxes, self.available_kib, self.agent_pss_kib, self.slab_kib
        )
    }
}

/// How many agents run on this machine and their proportional memory.
fn agents(tag: Option<&str>) -> (i64, i64) {
    let Ok(processes) = fs::read_dir("/proc") else { return (0, 0) };
    let mut sum = (0, 0);
    for process in processes.flatten() {
        let is_agent = fs::read(process.path().join("cmdline")).is_ok_and(|line| line.starts_with(AGENT_NAME));
        let groups = || fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        if !is_agent || tag.is_some_and(|tag| !groups().contains(&format!("infield-{tag}/"))) {
            continue;
        }
        if let Ok(rollup) = fs::read_to_string(process.path().join("smaps_rollup")) {
            sum = (sum.0 + 1, sum.1 + field(&rollup, "Pss:"));
        }
    }
    sum
}

/// The number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> i64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_files() {
        assert_eq!(field("MemTotal: 5 kB\nMemAvailable:   123 kB\n", "MemAvailable:"), 123);
        assert_eq!(field("x", "Pss:"), 0);
        assert!(Host::now(None).available_kib > 0);
    }
}
