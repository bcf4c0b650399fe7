//! Control groups of sandboxes, on hosts with cgroup v1 controllers (also hybrid) and with v2. The only file that knows both.
//!
//! `<root>/infield-<tag>/s<slot>` bounds a whole sandbox. Commands live in `user` below it, with the memory and process limits
//! the sandbox was asked for; the agent lives beside them with a little room of its own and the first turn at the processor,
//! so that neither a fork bomb nor a memory hog locks it out. Processes join by writing "0" to an inherited file: a write by the parent takes a system-wide
//! lock that now and then costs 20 ms.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Processes and threads of commands in one sandbox.
pub const USER_PIDS_MAX: u64 = 2048;
/// Room for the agent's threads above that.
const AGENT_PIDS: u64 = 256;
/// Room for the agent's memory above the sandbox's limit.
const AGENT_MEMORY_BYTES: u64 = 64 << 20;
const CPU_PERIOD_US: u64 = 100_000;
/// Weight of all commands together when the agent wants to run, too: on v1 each of the agent's threads has 1024, on v2 the
/// agent's group has the most there is and the commands the default. Who is alone gets everything.
const USER_CPU_SHARES: &str = "64";
const AGENT_CPU_WEIGHT: &str = "10000";
/// v1 counts the buffers of TCP connections on top of other memory: this part of the sandbox's memory again.
const TCP_MEMORY_DIVISOR: u64 = 4;
/// A group stays busy for a moment after its last process has ended.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);
const REMOVE_RETRY: Duration = Duration::from_micros(300);
/// A process in the kernel stands still when it comes out; one that waits for a dead file system never does.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(5);
const FREEZE_POLL: Duration = Duration::from_micros(50);
const USER: &str = "user";
const AGENT: &str = "agent";

/// What a sandbox may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub cpu_cores: u32,
    pub memory_bytes: u64,
}

/// What a sandbox has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub cpu_us: u64,
    pub memory_bytes: u64,
    pub pids: u64,
    pub oom_kills: u64,
}

/// Where a process writes "0" to join, and what the sandbox's own agent may read.
#[derive(Debug)]
pub(crate) struct JoinFiles {
    pub agent: Vec<OwnedFd>,
    pub user: Vec<OwnedFd>,
    /// Processor time of the whole sandbox; memory in use, and in detail, of its commands, which have the limit.
    pub usage: [OwnedFd; 3],
}

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("{path}: cannot {what}")]
    File { path: PathBuf, what: &'static str, source: io::Error },
    #[error("{path}: some process of the sandbox does not stand still within {} s; it waits for a disk or a network file \
        system, try again later", FREEZE_TIMEOUT.as_secs())]
    Restless { path: PathBuf },
    #[error(
        "no cgroup controller for {0}; enable it (mount the cgroup v2 file system, or the v1 hierarchy of that name)"
    )]
    NoController(&'static str),
    #[error(
        "{path}: this host swaps, and its kernel does not count the swap of a control group, so that memory limits would \
         not hold; boot with swapaccount=1, or turn swap off (swapoff -a)"
    )]
    Swap { path: PathBuf },
}

type Result<T> = std::result::Result<T, CgroupError>;

fn failed<'a>(path: &'a Path, what: &'static str) -> impl FnOnce(io::Error) -> CgroupError + 'a {
    move |source| CgroupError::File { path: path.to_owned(), what, source }
}

/// Where the hierarchies of this host are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hierarchies {
    V1 { cpu: PathBuf, cpuacct: PathBuf, memory: PathBuf, pids: PathBuf, freezer: PathBuf },
    V2(PathBuf),
}

impl Hierarchies {
    /// v1 controllers win when they exist: a controller belongs to one version only.
    pub(crate) fn detect() -> Result<Self> {
        let path = Path::new("/proc/self/mountinfo");
        let mountinfo = fs::read_to_string(path).map_err(failed(path, "read"))?;
        let found = Self::parse(&mountinfo)?;
        if let Self::V2(root) = &found {
            let path = root.join("cgroup.controllers");
            let controllers = fs::read_to_string(&path).map_err(failed(&path, "read"))?;
            for needed in ["cpu", "memory", "pids"] {
                if !controllers.split_whitespace().any(|c| c == needed) {
                    return Err(CgroupError::NoController(needed));
                }
            }
        }
        Ok(found)
    }

    fn parse(mountinfo: &str) -> Result<Self> {
        let mut v1: Vec<(String, PathBuf)> = Vec::new();
        let mut v2 = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let (Some(at), Some(kind)) = (left.split(' ').nth(4), right.split(' ').next()) else { continue };
            match kind {
                "cgroup" => {
                    let options = right.split(' ').nth(2).unwrap_or_default();
                    v1.extend(options.split(',').map(|o| (o.to_owned(), PathBuf::from(at))));
                }
                "cgroup2" => v2 = v2.or_else(|| Some(PathBuf::from(at))),
                _ => {}
            }
        }
        let find = |name: &'static str| {
            let found = v1.iter().find(|(option, _)| option == name);
            found.map(|(_, at)| at.clone()).ok_or(CgroupError::NoController(name))
        };
        match (find("memory"), v2) {
            (Err(_), Some(root)) => Ok(Self::V2(root)),
            (memory, _) => Ok(Self::V1 {
                memory: memory?,
                cpu: find("cpu")?,
                cpuacct: find("cpuacct")?,
                pids: find("pids")?,
                freezer: find("freezer")?,
            }),
        }
    }
}

/// The control groups of one server.
#[derive(Debug)]
pub(crate) struct Cgroups {
    base: Hierarchies,
}

impl Cgroups {
    /// Makes the server's own group `infield-<tag>` in every hierarchy.
    pub(crate) fn open(tag: &str) -> Result<Self> {
        let name = format!("infield-{tag}");
        let base = match Hierarchies::detect()? {
            Hierarchies::V1 { cpu, cpuacct, memory, pids, freezer } => Hierarchies::V1 {
                cpu: cpu.join(&name),
                cpuacct: cpuacct.join(&name),
                memory: memory.join(&name),
                pids: pids.join(&name),
                freezer: freezer.join(&name),
            },
            Hierarchies::V2(root) => {
                delegate(&root)?;
                Hierarchies::V2(root.join(&name))
            }
        };
        let cgroups = Self { base };
        for dir in cgroups.roots() {
            make(dir)?;
        }
        if let Hierarchies::V2(root) = &cgroups.base {
            delegate(root)?;
        }
        Ok(cgroups)
    }

    /// The distinct directories `infield-<tag>`; v1 controllers may be mounted together.
    fn roots(&self) -> BTreeSet<&Path> {
        match &self.base {
            Hierarchies::V1 { cpu, cpuacct, memory, pids, freezer } => {
                [cpu, cpuacct, memory, pids, freezer].into_iter().map(PathBuf::as_path).collect()
            }
            Hierarchies::V2(root) => BTreeSet::from([root.as_path()]),
        }
    }

    /// Roots below which commands have a group of their own.
    fn user_roots(&self) -> BTreeSet<&Path> {
        match &self.base {
            Hierarchies::V1 { cpu, memory, pids, .. } => {
                [cpu, memory, pids].into_iter().map(PathBuf::as_path).collect()
            }
            Hierarchies::V2(root) => BTreeSet::from([root.as_path()]),
        }
    }

    /// Makes the groups of a slot and opens the files to join them.
    pub(crate) fn create(&self, slot: u32) -> Result<JoinFiles> {
        let name = slot_name(slot);
        let (mut agent, mut user) = (Vec::new(), Vec::new());
        let join = self.join_file();
        for root in self.roots() {
            let dir = root.join(&name);
            make(&dir)?;
            if matches!(self.base, Hierarchies::V2(_)) {
                delegate(&dir)?;
                make(&dir.join(AGENT))?;
                agent.push(open_join(&dir.join(AGENT).join(join))?);
            } else {
                agent.push(open_join(&dir.join(join))?);
            }
        }
        for root in self.user_roots() {
            let dir = root.join(&name).join(USER);
            make(&dir)?;
            user.push(open_join(&dir.join(join))?);
        }
        Ok(JoinFiles { agent, user, usage: self.usage_files(&name)? })
    }

    fn usage_files(&self, name: &str) -> Result<[OwnedFd; 3]> {
        let (cpu, memory, in_use) = match &self.base {
            Hierarchies::V1 { cpuacct, memory, .. } => {
                (cpuacct.join(name).join("cpuacct.usage"), memory, "memory.usage_in_bytes")
            }
            Hierarchies::V2(root) => (root.join(name).join("cpu.stat"), root, "memory.current"),
        };
        let memory = memory.join(name).join(USER);
        let open = |path: &Path| File::open(path).map(OwnedFd::from).map_err(failed(path, "open"));
        Ok([open(&cpu)?, open(&memory.join(in_use))?, open(&memory.join("memory.stat"))?])
    }

    /// Whether the groups of a slot are still there: host tools that tidy up empty groups exist.
    pub(crate) fn intact(&self, slot: u32) -> bool {
        let name = slot_name(slot);
        self.user_roots().iter().all(|root| root.join(&name).join(USER).exists())
            && self.roots().iter().all(|root| root.join(&name).exists())
    }

    fn join_file(&self) -> &'static str {
        match self.base {
            // `tasks` moves only the writing thread, which is what a single-threaded child wants, and is much cheaper.
            Hierarchies::V1 { .. } => "tasks",
            Hierarchies::V2(_) => "cgroup.procs",
        }
    }

    /// Sets the limits of a slot; also used to change them while it runs.
    pub(crate) fn limit(&self, slot: u32, limits: Limits) -> Result<()> {
        let name = slot_name(slot);
        let whole_memory = limits.memory_bytes.saturating_add(AGENT_MEMORY_BYTES);
        let whole_pids = (USER_PIDS_MAX + AGENT_PIDS).to_string();
        let quota = u64::from(limits.cpu_cores) * CPU_PERIOD_US;
        match &self.base {
            Hierarchies::V1 { cpu, memory, pids, .. } => {
                let cpu = cpu.join(&name);
                write(&cpu.join("cpu.cfs_quota_us"), &quota.to_string())?;
                write(&cpu.join("cpu.shares"), &(1024 * u64::from(limits.cpu_cores)).to_string())?;
                write(&cpu.join(USER).join("cpu.shares"), USER_CPU_SHARES)?;
                limit_memory_v1(&memory.join(&name), whole_memory)?;
                limit_memory_v1(&memory.join(&name).join(USER), limits.memory_bytes)?;
                write(&pids.join(&name).join("pids.max"), &whole_pids)?;
                write(&pids.join(&name).join(USER).join("pids.max"), &USER_PIDS_MAX.to_string())
            }
            Hierarchies::V2(root) => {
                let dir = root.join(&name);
                write(&dir.join("cpu.max"), &format!("{quota} {CPU_PERIOD_US}"))?;
                write(&dir.join(AGENT).join("cpu.weight"), AGENT_CPU_WEIGHT)?;
                limit_memory_v2(&dir, whole_memory)?;
                limit_memory_v2(&dir.join(USER), limits.memory_bytes)?;
                write(&dir.join("pids.max"), &whole_pids)?;
                write(&dir.join(USER).join("pids.max"), &USER_PIDS_MAX.to_string())
            }
        }
    }

    /// Stops every process of a slot where it is, and returns when all of them have stopped. Those that do not in time go on,
    /// and with them all.
    pub(crate) fn freeze(&self, slot: u32) -> Result<()> {
        let path = self.freezer_file(slot);
        write(&path, self.frozen_words().0)?;
        let deadline = Instant::now() + FREEZE_TIMEOUT;
        while !self.is_frozen(slot)? {
            if Instant::now() >= deadline {
                self.thaw(slot)?;
                return Err(CgroupError::Restless { path });
            }
            std::thread::sleep(FREEZE_POLL);
        }
        Ok(())
    }

    /// Lets the processes of a slot go on. `Ok` when they do already, and when there are none.
    pub(crate) fn thaw(&self, slot: u32) -> Result<()> {
        write_if_there(&self.freezer_file(slot), self.frozen_words().1)
    }

    /// Whether every process of the slot stands still, by the kernel's word.
    pub(crate) fn is_frozen(&self, slot: u32) -> Result<bool> {
        let path = match &self.base {
            Hierarchies::V1 { .. } => self.freezer_file(slot),
            Hierarchies::V2(root) => root.join(slot_name(slot)).join("cgroup.events"),
        };
        let text = fs::read_to_string(&path).map_err(failed(&path, "read"))?;
        Ok(text.lines().any(|line| matches!(line, "FROZEN" | "frozen 1")))
    }

    fn freezer_file(&self, slot: u32) -> PathBuf {
        match &self.base {
            Hierarchies::V1 { freezer, .. } => freezer.join(slot_name(slot)).join("freezer.state"),
            Hierarchies::V2(root) => root.join(slot_name(slot)).join("cgroup.freeze"),
        }
    }

    fn frozen_words(&self) -> (&'static str, &'static str) {
        match self.base {
            Hierarchies::V1 { .. } => ("FROZEN", "THAWED"),
            Hierarchies::V2(_) => ("1", "0"),
        }
    }

    /// Memory of the slot's commands that the kernel could not take back: not the cache of files.
    pub(crate) fn memory_held(&self, slot: u32) -> u64 {
        let (memory, in_use, cached) = match &self.base {
            Hierarchies::V1 { memory, .. } => {
                (memory, "memory.usage_in_bytes", ["total_inactive_file", "total_active_file"])
            }
            Hierarchies::V2(root) => (root, "memory.current", ["inactive_file", "active_file"]),
        };
        let dir = memory.join(slot_name(slot)).join(USER);
        let cached: u64 = cached.iter().map(|key| keyed(&dir.join("memory.stat"), key)).sum();
        number(&dir.join(in_use)).saturating_sub(cached)
    }

    /// What the sandbox uses now. Numbers that cannot be read count as zero: a sandbox may end at any moment.
    pub(crate) fn usage(&self, slot: u32) -> Usage {
        let name = slot_name(slot);
        match &self.base {
            Hierarchies::V1 { cpuacct, memory, pids, .. } => Usage {
                cpu_us: number(&cpuacct.join(&name).join("cpuacct.usage")) / 1000,
                memory_bytes: number(&memory.join(&name).join("memory.usage_in_bytes")),
                pids: number(&pids.join(&name).join("pids.current")),
                oom_kills: keyed(&memory.join(&name).join(USER).join("memory.oom_control"), "oom_kill")
                    + keyed(&memory.join(&name).join("memory.oom_control"), "oom_kill"),
            },
            Hierarchies::V2(root) => {
                let dir = root.join(&name);
                Usage {
                    cpu_us: keyed(&dir.join("cpu.stat"), "usage_usec"),
                    memory_bytes: number(&dir.join("memory.current")),
                    pids: number(&dir.join("pids.current")),
                    oom_kills: keyed(&dir.join("memory.events"), "oom_kill"),
                }
            }
        }
    }

    /// Host pids of the commands of a sandbox, or of everything in it.
    pub(crate) fn processes(&self, slot: u32, agent_too: bool) -> Vec<i32> {
        let root = match &self.base {
            Hierarchies::V1 { pids, .. } => pids,
            Hierarchies::V2(root) => root,
        };
        let dir = root.join(slot_name(slot));
        let mut dirs = vec![dir.join(USER)];
        if agent_too {
            dirs.push(if matches!(self.base, Hierarchies::V2(_)) { dir.join(AGENT) } else { dir });
        }
        let read = dirs.iter().filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
        read.flat_map(|text| text.lines().filter_map(|l| l.parse().ok()).collect::<Vec<i32>>()).collect()
    }

    /// Removes the groups of a slot whose processes have ended. `Ok` when there are none.
    pub(crate) fn remove(&self, slot: u32) -> Result<()> {
        let name = slot_name(slot);
        for root in self.roots() {
            let dir = root.join(&name);
            if self.user_roots().contains(root) {
                remove(&dir.join(USER))?;
            }
            if matches!(self.base, Hierarchies::V2(_)) {
                remove(&dir.join(AGENT))?;
            }
            remove(&dir)?;
        }
        Ok(())
    }

    /// Slots that have a group, for the sweep after a crash.
    pub(crate) fn slots(&self) -> BTreeSet<u32> {
        let entries = self.roots().into_iter().filter_map(|root| fs::read_dir(root).ok()).flatten();
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix('s')?.parse().ok()).collect()
    }

    /// Removes the server's own groups; only when no sandbox is left.
    pub(crate) fn close(&self) -> Result<()> {
        self.roots().into_iter().try_for_each(remove)
    }
}

fn slot_name(slot: u32) -> String {
    format!("s{slot}")
}

fn make(dir: &Path) -> Result<()> {
    let made = match fs::create_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // The server's own group was empty for a moment and somebody tidied it away.
        Err(e) if e.kind() == io::ErrorKind::NotFound => fs::create_dir_all(dir),
        other => other,
    };
    made.map_err(failed(dir, "make the control group"))
}

fn remove(dir: &Path) -> Result<()> {
    let deadline = Instant::now() + REMOVE_TIMEOUT;
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(REMOVE_RETRY);
            }
            Err(e) => return Err(failed(dir, "remove the control group")(e)),
        }
    }
}

fn open_join(path: &Path) -> Result<OwnedFd> {
    OpenOptions::new().write(true).open(path).map(File::into).map_err(failed(path, "open"))
}

fn write(path: &Path, value: &str) -> Result<()> {
    let opened = OpenOptions::new().write(true).open(path);
    let written = opened.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    written.map_err(failed(path, "write"))
}

/// Writes a value to a file that only some kernels have.
fn write_if_there(path: &Path, value: &str) -> Result<()> {
    match write(path, value) {
        Err(CgroupError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Memory and memory+swap get the same limit, so there is no swap. The kernel wants memory <= memory+swap at every moment:
/// the order depends on whether the limit grows or shrinks, so whichever order works is taken.
fn limit_memory_v1(dir: &Path, bytes: u64) -> Result<()> {
    write_if_there(&dir.join("memory.kmem.tcp.limit_in_bytes"), &(bytes / TCP_MEMORY_DIVISOR).to_string())?;
    let (memory, both) = (dir.join("memory.limit_in_bytes"), dir.join("memory.memsw.limit_in_bytes"));
    let value = bytes.to_string();
    if write(&memory, &value).is_ok() {
        return bound_swap(&both, &value);
    }
    bound_swap(&both, &value)?;
    write(&memory, &value)
}

fn limit_memory_v2(dir: &Path, bytes: u64) -> Result<()> {
    write(&dir.join("memory.max"), &bytes.to_string())?;
    bound_swap(&dir.join("memory.swap.max"), "0")
}

/// Without the file the kernel does not count swap: fine only as long as the host has none.
fn bound_swap(path: &Path, value: &str) -> Result<()> {
    match write(path, value) {
        Err(CgroupError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => match swap_in_use() {
            false => Ok(()),
            true => Err(CgroupError::Swap { path: path.to_owned() }),
        },
        other => other,
    }
}

/// Whether this host swaps; if that cannot be told, it is taken to.
pub(crate) fn swap_in_use() -> bool {
    match fs::read_to_string("/proc/swaps") {
        Ok(table) => has_swap(&table),
        // A kernel without swap has no such file.
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The first line is a heading.
fn has_swap(table: &str) -> bool {
    table.lines().nth(1).is_some()
}

/// Whether the kernel can keep a group from swapping, as far as that can be told without making one.
pub(crate) fn counts_swap(hierarchies: &Hierarchies) -> bool {
    match hierarchies {
        Hierarchies::V1 { memory, .. } => memory.join("memory.memsw.limit_in_bytes").exists(),
        // The root group has no limits; those below it have both files, or only the first.
        Hierarchies::V2(root) => {
            let groups = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
            let limited = groups.filter(|dir| dir.join("memory.max").exists());
            limited.take(1).all(|dir| dir.join("memory.swap.max").exists())
        }
    }
}

/// Lets the children of a v2 group have the controllers.
fn delegate(dir: &Path) -> Result<()> {
    write(&dir.join("cgroup.subtree_control"), "+cpu +memory +pids")
}

fn number(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
}

/// The number after a word in a file of `word number` lines.
fn keyed(path: &Path, key: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let found = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok());
    found.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn hybrid_hosts_use_their_v1_controllers() {
        let text = "\
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
34 30 0:30 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
35 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        let Hierarchies::V1 { cpu, cpuacct, .. } = Hierarchies::parse(text).unwrap() else { panic!("v1 expected") };
        assert_eq!((cpu.as_path(), &cpu), (Path::new("/sys/fs/cgroup/cpu,cpuacct"), &cpuacct));
    }

    #[test]
    fn swap_that_is_not_counted_is_told_from_none() {
        let heading = "Filename\tType\tSize\tUsed\tPriority\n";
        assert!(!has_swap(heading) && !has_swap(""));
        assert!(has_swap(&format!("{heading}/dev/vda2 partition 1048572 0 -2\n")));
    }

    #[test]
    fn unified_hosts_use_v2_and_missing_controllers_are_named() {
        let unified = "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(Hierarchies::parse(unified).unwrap(), Hierarchies::V2("/sys/fs/cgroup".into()));
        let half = "32 30 0:28 / /c/memory rw - cgroup cgroup rw,memory";
        assert!(matches!(Hierarchies::parse(half), Err(CgroupError::NoController("cpu"))));
        assert!(matches!(Hierarchies::parse(""), Err(CgroupError::NoController("memory"))));
    }

    /// The v2 tree in a plain directory: names and values, without a kernel behind them.
    #[test]
    fn v2_layout() {
        let root = std::env::temp_dir().join(format!("infield-cgroup-v2-{}", std::process::id()));
        let dir = root.join("s7");
        for group in [&root, &dir, &dir.join(AGENT), &dir.join(USER)] {
            fs::create_dir_all(group).unwrap();
            let files = [
                "cgroup.subtree_control",
                "cgroup.procs",
                "cpu.max",
                "cpu.stat",
                "cpu.weight",
                "memory.current",
                "memory.max",
                "memory.stat",
                "memory.swap.max",
                "pids.max",
            ];
            files.iter().for_each(|f| fs::write(group.join(f), "").unwrap());
        }
        let cgroups = Cgroups { base: Hierarchies::V2(root.clone()) };
        let files = cgroups.create(7).unwrap();
        assert_eq!((files.agent.len(), files.user.len()), (1, 1));
        let opened = files.usage.iter().map(|fd| fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap());
        let opened: Vec<PathBuf> = opened.map(|path| path.strip_prefix(&dir).unwrap().to_owned()).collect();
        assert_eq!(opened, ["cpu.stat", "user/memory.current", "user/memory.stat"].map(PathBuf::from));
        cgroups.limit(7, Limits { cpu_cores: 2, memory_bytes: 1 << 30 }).unwrap();
        let read = |path: &str| fs::read_to_string(dir.join(path)).unwrap();
        assert_eq!(read("cpu.max"), "200000 100000");
        assert_eq!(read("user/memory.max"), (1u64 << 30).to_string());
        assert_eq!(read("memory.max"), ((1u64 << 30) + AGENT_MEMORY_BYTES).to_string());
        assert_eq!((read("user/memory.swap.max"), read("memory.swap.max")), ("0".into(), "0".into()));
        assert_eq!(read("user/pids.max"), USER_PIDS_MAX.to_string());
        fs::write(dir.join("user/cgroup.procs"), "12\n13\n").unwrap();
        fs::write(dir.join("agent/cgroup.procs"), "11\n").unwrap();
        assert_eq!(cgroups.processes(7, false), [12, 13]);
        assert_eq!(cgroups.processes(7, true), [12, 13, 11]);
        for (event, file) in [("populated 1\nfrozen 1\n", "1"), ("populated 1\nfrozen 0\n", "0")] {
            fs::write(dir.join("cgroup.events"), event).unwrap();
            assert_eq!(cgroups.is_frozen(7).unwrap(), file == "1");
        }
        fs::write(dir.join("cgroup.freeze"), "1").unwrap();
        cgroups.thaw(7).unwrap();
        assert_eq!(read("cgroup.freeze"), "0");
        cgroups.thaw(8).unwrap();
        fs::write(dir.join("user/memory.current"), "5000\n").unwrap();
        fs::write(dir.join("user/memory.stat"), "anon 1000\ninactive_file 3000\nactive_file 500\n").unwrap();
        assert_eq!(cgroups.memory_held(7), 1500);
        fs::write(dir.join("memory.events"), "low 0\noom 3\noom_kill 2\noom_group_kill 0\n").unwrap();
        assert_eq!(cgroups.usage(7).oom_kills, 2);
        assert_eq!(cgroups.slots(), BTreeSet::from([7]));
        fs::remove_dir_all(root).unwrap();
    }

    /// The real thing on this host: limits arrive, `remove` leaves nothing.
    #[test]
    fn real_groups_come_and_go() {
        let cgroups = Cgroups::open(&format!("t{}", std::process::id())).unwrap();
        let files = cgroups.create(3).unwrap();
        assert!(!files.agent.is_empty() && !files.user.is_empty());
        cgroups.limit(3, Limits { cpu_cores: 1, memory_bytes: 128 << 20 }).unwrap();
        cgroups.limit(3, Limits { cpu_cores: 2, memory_bytes: 512 << 20 }).unwrap();
        cgroups.limit(3, Limits { cpu_cores: 1, memory_bytes: 64 << 20 }).unwrap();
        assert!(cgroups.processes(3, true).is_empty());
        assert!(cgroups.intact(3));
        cgroups.freeze(3).unwrap();
        assert!(cgroups.is_frozen(3).unwrap());
        cgroups.thaw(3).unwrap();
        assert!(!cgroups.is_frozen(3).unwrap());
        drop(files);
        cgroups.remove(3).unwrap();
        cgroups.remove(3).unwrap();
        assert!(!cgroups.intact(3));
        assert!(cgroups.slots().is_empty());
        cgroups.close().unwrap();
    }
}
