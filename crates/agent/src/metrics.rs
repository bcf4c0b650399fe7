//! `GET /system/metrics`: what the sandbox itself uses, never its host. The numbers come from inherited descriptors of single
//! files, which are read when somebody asks; what was not handed over or cannot be read is left out of the answer.

use crate::body;
use crate::state::Shared;
use crate::timestamp;
use axum::extract::State;
use axum::response::Response;
use infield_api::toolbox::{SystemMetrics, UsageConfig};
use rustix::fs::statvfs;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// `memory.stat` has some 60 short lines.
const FILE_BYTES_MAX: usize = 16 << 10;
/// Processor use is told of the last such interval.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// Sampling ends so long after the last question.
const SAMPLE_IDLE: Duration = Duration::from_secs(60);

/// Where the numbers come from.
#[derive(Default)]
pub struct Usage {
    limits: UsageConfig,
    cpu: Option<OwnedFd>,
    memory: Option<OwnedFd>,
    memory_stat: Option<OwnedFd>,
    disk: Option<OwnedFd>,
    sampler: Mutex<Sampler>,
}

#[derive(Default)]
struct Sampler {
    /// Moment and processor time of the last sample.
    last: Option<(Instant, Duration)>,
    percent: f64,
    asked: Option<Instant>,
}

impl Usage {
    /// Takes the inherited descriptors. Call it while the process has one thread.
    pub fn take(limits: UsageConfig) -> Self {
        let take = |fd: Option<i32>| infield_sys::agent_fd::take_inherited(fd?).ok();
        Self {
            cpu: take(limits.cpu_fd),
            memory: take(limits.memory_fd),
            memory_stat: take(limits.memory_stat_fd),
            disk: take(limits.disk_fd),
            limits,
            sampler: Mutex::default(),
        }
    }

    fn sampler(&self) -> MutexGuard<'_, Sampler> {
        self.sampler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Processor time of the sandbox since it began.
    fn cpu_time(&self) -> Option<Duration> {
        cpu_time(&text(self.cpu.as_ref())?)
    }

    fn sample(&self) {
        let Some(used) = self.cpu_time() else { return };
        let mut sampler = self.sampler();
        let now = Instant::now();
        sampler.percent = match sampler.last {
            Some((at, before)) => percent(before, used, now - at, self.limits.cpu_cores),
            None => 0.0,
        };
        sampler.last = Some((now, used));
    }

    /// Notes that somebody is interested. `true`: nobody samples yet.
    fn asked(&self) -> bool {
        let mut sampler = self.sampler();
        sampler.asked = Some(Instant::now());
        sampler.last.is_none()
    }

    /// Forgets the samples when nobody has asked for long.
    fn rest(&self) -> bool {
        let mut sampler = self.sampler();
        let idle = sampler.asked.is_none_or(|at| at.elapsed() > SAMPLE_IDLE);
        if idle {
            *sampler = Sampler::default();
        }
        idle
    }

    /// What can be told now.
    pub fn read(&self) -> SystemMetrics {
        let now = timestamp::now_seconds();
        let given = |n: u64| (n > 0).then_some(n);
        let detail = text(self.memory_stat.as_ref()).unwrap_or_default();
        let cache = keyed(&detail, &["total_cache", "file"]);
        let inactive = keyed(&detail, &["total_inactive_file", "inactive_file"]);
        let in_use: Option<u64> = text(self.memory.as_ref()).and_then(|t| t.trim().parse().ok());
        let disk = self.disk();
        SystemMetrics {
            timestamp: timestamp::rfc3339(now, 0),
            timestamp_unix: now,
            cpu_count: given(self.limits.cpu_cores.into()),
            cpu_used_pct: self.cpu.as_ref().map(|_| self.sampler().percent),
            // What is only cache comes back by itself, so it is not counted as used.
            mem_used: in_use.map(|bytes| bytes.saturating_sub(inactive.unwrap_or(0))),
            mem_total: given(self.limits.memory_bytes),
            mem_cache: cache,
            disk_used: disk.map(|(used, _)| used),
            disk_total: disk.map(|(_, total)| total),
            disk_free: disk.map(|(used, total)| total.saturating_sub(used)),
        }
    }

    /// Used and total bytes of the sandbox's own disk.
    fn disk(&self) -> Option<(u64, u64)> {
        if self.limits.disk_is_root {
            let root = statvfs("/").ok()?;
            return Some(((root.f_blocks - root.f_bfree) * root.f_frsize, root.f_blocks * root.f_frsize));
        }
        let used = text(self.disk.as_ref())?.trim().parse().ok()?;
        (self.limits.disk_bytes > 0).then_some((used, self.limits.disk_bytes))
    }
}

pub async fn metrics(State(agent): State<Shared>) -> Response {
    watch(&agent);
    body::ok(&agent.usage.read())
}

/// Samples the processor while somebody asks.
pub fn watch(agent: &Shared) {
    if !agent.usage.asked() {
        return;
    }
    agent.usage.sample();
    let agent = agent.clone();
    tokio::spawn(async move {
        loop {
            sleep(SAMPLE_EVERY).await;
            if agent.usage.rest() {
                return;
            }
            agent.usage.sample();
        }
    });
}

/// The file's whole text, read from its beginning.
fn text(file: Option<&OwnedFd>) -> Option<String> {
    let mut buffer = vec![0; FILE_BYTES_MAX];
    let mut length = 0;
    while length < buffer.len() {
        match rustix::io::pread(file?, &mut buffer[length..], length as u64) {
            Ok(0) => break,
            Ok(n) => length += n,
            Err(e) if io::Error::from(e).kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    buffer.truncate(length);
    String::from_utf8(buffer).ok()
}

/// Nanoseconds alone (`cpuacct.usage`), or a line with microseconds (`cpu.stat`).
fn cpu_time(text: &str) -> Option<Duration> {
    match text.trim().parse() {
        Ok(nanoseconds) => Some(Duration::from_nanos(nanoseconds)),
        Err(_) => keyed(text, &["usage_usec"]).map(Duration::from_micros),
    }
}

/// The number after the first of these words that begins a line.
fn keyed(text: &str, keys: &[&str]) -> Option<u64> {
    let find = |key: &&str| text.lines().find_map(|l| l.strip_prefix(*key)?.strip_prefix(' ')?.trim().parse().ok());
    keys.iter().find_map(find)
}

/// Of the limit; a counter that went back counts as nothing.
fn percent(before: Duration, now: Duration, elapsed: Duration, cores: u32) -> f64 {
    let possible = elapsed.as_secs_f64() * f64::from(cores);
    if possible <= 0.0 {
        return 0.0;
    }
    (now.saturating_sub(before).as_secs_f64() / possible * 100.0).clamp(0.0, 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_control_groups_are_understood() {
        assert_eq!(cpu_time("1500000\n"), Some(Duration::from_micros(1500)));
        let v2 = "usage_usec 2500\nuser_usec 1\nsystem_usec 2\n";
        assert_eq!(cpu_time(v2), Some(Duration::from_micros(2500)));
        assert_eq!(cpu_time("nonsense"), None);
        let v1 = "cache 1\ninactive_file 2\ntotal_cache 30\ntotal_inactive_file 40\n";
        assert_eq!(keyed(v1, &["total_inactive_file", "inactive_file"]), Some(40));
        assert_eq!(keyed("anon 5\nfile 6\nfile_mapped 7\ninactive_file 8\n", &["total_cache", "file"]), Some(6));
        assert_eq!(keyed("filex 6\n", &["file"]), None);
    }

    #[test]
    fn percent_of_the_limit() {
        let (second, four) = (Duration::from_secs(1), Duration::from_secs(4));
        assert_eq!(percent(second, four, Duration::from_secs(5), 1), 60.0);
        assert_eq!(percent(second, four, Duration::from_secs(5), 2), 30.0);
        assert_eq!(percent(four, second, Duration::from_secs(5), 1), 0.0);
        assert_eq!(percent(second, four, second, 1), 100.0);
        assert_eq!(percent(second, four, second, 0), 0.0);
    }

    #[test]
    fn what_was_not_handed_over_is_not_told() {
        let nothing = serde_json::to_value(Usage::default().read()).unwrap();
        let fields: Vec<&String> = nothing.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["timestamp", "timestampUnix"]);
    }

    #[test]
    fn files_are_read_anew_each_time() {
        let path = std::env::temp_dir().join(format!("infield-metrics-{}", std::process::id()));
        std::fs::write(&path, "100").unwrap();
        let open = || Some(OwnedFd::from(std::fs::File::open(&path).unwrap()));
        let limits = UsageConfig { memory_bytes: 1000, disk_bytes: 500, ..UsageConfig::default() };
        let usage = Usage { limits, memory: open(), disk: open(), ..Usage::default() };
        assert_eq!((usage.read().mem_used, usage.read().disk_free), (Some(100), Some(400)));
        std::fs::write(&path, "200").unwrap();
        let after = usage.read();
        assert_eq!((after.mem_used, after.disk_used, after.mem_total), (Some(200), Some(200), Some(1000)));
        std::fs::remove_file(path).unwrap();
    }
}
