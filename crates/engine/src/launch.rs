//! Making a sandbox run: the steps of `create` and `start` in their order, measured, each undone when a later one fails.

use crate::cgroup::Limits;
use crate::disk::OwnUsage;
use crate::engine::{Entry, Inner, Live, Sandbox, not_found, share};
use crate::error::{chain, internal};
use crate::image::Image;
use crate::probe::NoAnswer;
use crate::proven::Kind;
use crate::record::{Process, RECORD_VERSION, Record, State};
use crate::slot::{Slot, first_id};
use crate::zygote::{Start, StartFds};
use crate::{probe, rootfs, stop};
use infield_api::SandboxId;
use infield_api::runner::*;
use infield_api::toolbox::{AGENT_GENERATION, AgentConfig, UsageConfig};
use infield_sys::{memfd, pidfd};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const CPU_CORES_MAX: u32 = 1024;
const MEMORY_MIB_MIN: u64 = 16;
const MEMORY_MIB_MAX: u64 = 16 << 20;
const DISK_MIB_MIN: u64 = crate::disk::LIMIT_BYTES_MIN / MIB;
const DISK_MIB_MAX: u64 = 1 << 30;
/// Environment of one sandbox, names and values together.
const ENV_BYTES_MAX: usize = 1 << 20;
const NAME_BYTES_MAX: usize = 1024;
/// Where the agent expects its parts: descriptors from 3 up in this order.
const INHERITED_AGENT: usize = 1;
const INHERITED_CGROUPS_FROM: i32 = 6;
const MIB: u64 = 1 << 20;
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the time went.
struct Phases {
    list: Vec<Phase>,
    last: Instant,
}

impl Phases {
    fn begin() -> Self {
        Self { list: Vec::new(), last: Instant::now() }
    }

    fn mark(&mut self, name: &str) {
        let now = Instant::now();
        self.add(name, (now - self.last).as_micros() as u64);
        self.last = now;
    }

    fn add(&mut self, name: &str, duration_us: u64) {
        self.list.push(Phase { name: name.to_owned(), duration_us });
    }
}

/// `create` (`must_exist` false) and `start`. One that runs already is only asked whether it answers.
pub(crate) fn launch(inner: &Arc<Inner>, spec: SandboxSpec, must_exist: bool) -> Result<Running, RunnerError> {
    let _creating = inner.slots.creating();
    check(&spec)?;
    let id = spec.id;
    let sandbox = match inner.find(id) {
        Some(sandbox) => sandbox,
        None if must_exist => return Err(not_found(id)),
        None => inner.find_or_insert(id),
    };
    let mut entry = sandbox.entry();
    let answer = match entry.record.take() {
        None if must_exist => Err(not_found(id)),
        None => create(inner, &mut entry, spec),
        Some(record) if matches!(record.state, State::Running(_)) => {
            let answer = already_running(inner, &record);
            entry.record = Some(record);
            answer
        }
        Some(record) => start(inner, &mut entry, record, spec),
    };
    finish(inner, &sandbox, &entry, id, &answer);
    answer
}

fn finish(
    inner: &Arc<Inner>,
    sandbox: &Arc<Sandbox>,
    entry: &Entry,
    id: SandboxId,
    answer: &Result<Running, RunnerError>,
) {
    inner.show(sandbox, entry);
    if answer.is_ok() {
        // The record reaches the disk a moment later; nobody has to wait for that.
        let inner = Arc::clone(inner);
        inner.runtime.clone().spawn_blocking(move || {
            if let Err(error) = inner.records.sync(id) {
                tracing::warn!(error = chain(&error), "a sandbox record may be lost if the host crashes");
            }
        });
    }
}

fn check(spec: &SandboxSpec) -> Result<(), RunnerError> {
    let env_bytes: usize = spec.env.iter().map(|(k, v)| k.len() + v.len() + 2).sum();
    let bad_env = spec.env.iter().any(|(k, v)| k.is_empty() || k.contains(['=', '\0']) || v.contains('\0'));
    let problem = if !(1..=CPU_CORES_MAX).contains(&spec.cpu) {
        format!("cpu {} is not between 1 and {CPU_CORES_MAX} cores", spec.cpu)
    } else if !(MEMORY_MIB_MIN..=MEMORY_MIB_MAX).contains(&spec.memory_mib) {
        format!("memory {} is not between {MEMORY_MIB_MIN} and {MEMORY_MIB_MAX} MiB", spec.memory_mib)
    } else if !(DISK_MIB_MIN..=DISK_MIB_MAX).contains(&spec.disk_mib) {
        format!("disk {} is not between {DISK_MIB_MIN} and {DISK_MIB_MAX} MiB", spec.disk_mib)
    } else if env_bytes > ENV_BYTES_MAX {
        format!("the environment is {env_bytes} bytes long, at most {ENV_BYTES_MAX} are possible")
    } else if bad_env {
        "an environment variable has an empty name, a name with '=', or a NUL byte".to_owned()
    } else if spec.name.len() > NAME_BYTES_MAX {
        format!("the name is longer than {NAME_BYTES_MAX} bytes")
    } else {
        return Ok(());
    };
    Err(RunnerError::new(RunnerErrorKind::Invalid, problem))
}

fn already_running(inner: &Inner, record: &Record) -> Result<Running, RunnerError> {
    let State::Running(process) = &record.state else { return Err(not_found(record.spec.id)) };
    let mut phases = Phases::begin();
    let question = probe::ask(&inner.socket_path(record.spec.id)).map_err(NoAnswer::from);
    let agent_version = question.and_then(probe::Question::answer).map_err(|e| no_answer(record.spec.id, e))?;
    phases.mark("agent");
    Ok(Running { ip: Some(inner.slots.parts.net.address(process.slot)), agent_version, phases: phases.list })
}

fn no_answer(id: SandboxId, why: NoAnswer) -> RunnerError {
    match why {
        NoAnswer::Silent(error) => {
            let message =
                format!("the agent of sandbox {id} does not answer ({error}); stop the sandbox and start it again");
            RunnerError::new(RunnerErrorKind::Unavailable, message)
        }
        // Waiting would not help: it is in the sandbox's own files or in what was asked for.
        NoAnswer::Refused(reason) => RunnerError::new(RunnerErrorKind::Invalid, reason),
    }
}

fn create(inner: &Arc<Inner>, entry: &mut Entry, spec: SandboxSpec) -> Result<Running, RunnerError> {
    let mut phases = Phases::begin();
    let image = inner.images.resolve(&spec.image)?;
    phases.mark("image");
    let slot = inner.slots.take()?;
    phases.mark("slot");
    let number = slot.number;
    let id = spec.id;
    let state = State::Creating { slot: number };
    let mut record = Record { version: RECORD_VERSION, spec, image_id: image.id.clone(), state };
    let mut work = Work { inner, image: &image, phases: &mut phases, fresh: true };
    let ran = inner.records.save(&record).map_err(|e| internal(&e)).and_then(|()| work.run(&mut record, slot));
    match ran {
        Ok((live, agent_version)) => {
            let ip = Some(inner.slots.parts.net.address(number));
            inner.watch(id, &live);
            *entry = Entry { record: Some(record), live: Some(live) };
            Ok(Running { ip, agent_version, phases: phases.list })
        }
        Err(error) => {
            undo(inner, number, id);
            let gone = inner.disk.destroy(&id.to_string());
            if let Err(error) = &gone {
                tracing::warn!(sandbox = %id, error = chain(error), "disk of a failed create stays until the next start");
            } else if let Err(error) = inner.records.remove(id) {
                tracing::warn!(sandbox = %id, error = chain(&error), "record of a failed create stays until the next start");
            }
            Err(error)
        }
    }
}

fn start(inner: &Arc<Inner>, entry: &mut Entry, former: Record, spec: SandboxSpec) -> Result<Running, RunnerError> {
    let id = spec.id;
    let outcome = try_start(inner, &former, spec);
    match outcome {
        Ok((record, live, running)) => {
            inner.watch(id, &live);
            *entry = Entry { record: Some(record), live: Some(live) };
            Ok(running)
        }
        Err(error) => {
            if let Err(error) = inner.records.save(&former) {
                tracing::warn!(sandbox = %id, error = chain(&error), "record still says that the sandbox is starting");
            }
            entry.record = Some(former);
            Err(error)
        }
    }
}

fn try_start(inner: &Arc<Inner>, former: &Record, spec: SandboxSpec) -> Result<(Record, Live, Running), RunnerError> {
    let mut phases = Phases::begin();
    let id = spec.id;
    if matches!(former.state, State::Destroying { .. }) {
        return Err(RunnerError::new(RunnerErrorKind::Conflict, format!("sandbox {id} is being deleted")));
    }
    // The image it was made from, whatever its reference means today: the writable layer fits no other.
    let image = inner.images.resolve(&former.image_id)?;
    phases.mark("image");
    inner.disk.set_limit(&id.to_string(), spec.disk_mib * MIB)?;
    let slot = inner.slots.take()?;
    phases.mark("slot");
    let number = slot.number;
    let state = State::Starting { slot: number };
    let mut record = Record { version: RECORD_VERSION, spec, image_id: former.image_id.clone(), state };
    let mut work = Work { inner, image: &image, phases: &mut phases, fresh: false };
    let ran = inner.records.save(&record).map_err(|e| internal(&e)).and_then(|()| work.run(&mut record, slot));
    let (live, agent_version) = ran.inspect_err(|_| undo(inner, number, id))?;
    let ip = Some(inner.slots.parts.net.address(number));
    Ok((record, live, Running { ip, agent_version, phases: phases.list }))
}

/// Takes away everything of a failed launch but the files.
fn undo(inner: &Inner, slot: u32, id: SandboxId) {
    stop::kill_all(&inner.slots.parts.cgroups, slot);
    inner.slots.release(slot, None);
    stop::remove_socket(&inner.socket_path(id));
}

struct Work<'a> {
    inner: &'a Inner,
    image: &'a Image,
    phases: &'a mut Phases,
    /// The disk is still to be made.
    fresh: bool,
}

impl Work<'_> {
    /// From a slot and a saved record to an answering agent.
    fn run(&mut self, record: &mut Record, mut slot: Slot) -> Result<(Live, String), RunnerError> {
        let spec = &record.spec;
        let id = spec.id;
        self.phases.mark("record");
        let hostname = rootfs::hostname(&spec.name);
        let root = self.make_root(spec, &slot, &hostname)?;
        let limits = Limits { cpu_cores: spec.cpu, memory_bytes: spec.memory_mib * MIB };
        let parts = &self.inner.slots.parts;
        parts.limit(&mut slot, limits)?;
        if spec.network_block_all {
            parts.net.set_blocked(slot.number, true).map_err(|e| internal(&e))?;
        }
        self.phases.mark("limits");
        let socket = self.inner.socket_path(id);
        let listener = listen(&socket, self.inner.config.socket_group).map_err(|source| {
            RunnerError::new(
                RunnerErrorKind::Internal,
                format!("{}: cannot listen for the agent: {source}", socket.display()),
            )
        })?;
        let kind = Kind { image_id: self.image.id.clone(), user: spec.user.clone() };
        // What a sandbox's owner did to its files can keep an agent from beginning, so only fresh ones are trusted.
        let proven = if self.fresh { self.inner.proven.version(&kind) } else { None };
        // The question waits in the socket's queue until the agent accepts: nothing polls for readiness.
        let question = match proven {
            Some(_) => None,
            None => Some(probe::ask(&socket).map_err(|e| no_answer(id, e.into()))?),
        };
        self.phases.mark("socket");
        let (mut live, netns) = self.start(spec, slot, &root, &listener, hostname)?;
        // From here on the agent holds the only listening end: when it dies, the question fails at once.
        drop(listener);
        drop(root);
        live.netns = Some(netns);
        record.state = State::Running(live.process.clone());
        self.inner.records.save(record).map_err(|e| internal(&e))?;
        self.phases.mark("record2");
        let agent_version = match question {
            None => proven.unwrap_or_default(),
            Some(question) => {
                let version = question.answer().map_err(|e| no_answer(id, e))?;
                self.inner.proven.note(kind, &version);
                version
            }
        };
        self.phases.mark("agent");
        Ok((live, agent_version))
    }

    fn make_root(&mut self, spec: &SandboxSpec, slot: &Slot, hostname: &str) -> Result<OwnedFd, RunnerError> {
        let (inner, id) = (self.inner, spec.id.to_string());
        let disk = match self.fresh {
            true => inner.disk.create(&id, spec.disk_mib * MIB)?,
            false => inner.disk.path(&id),
        };
        let net = &inner.slots.parts.net;
        let (address, resolv_conf) = (net.address(slot.number), net.resolv_conf());
        let identity = rootfs::Identity { hostname, address, resolv_conf: &resolv_conf };
        rootfs::prepare_disk(&disk, &self.image.layers, &identity, self.fresh).map_err(|e| internal(&e))?;
        self.phases.mark("disk");
        let root = rootfs::mount(&self.image.layers, &disk, slot.userns.as_fd(), first_id(slot.number));
        self.phases.mark("overlay");
        root.map_err(|e| internal(&e))
    }

    fn start(
        &mut self,
        spec: &SandboxSpec,
        slot: Slot,
        root: &OwnedFd,
        listener: &UnixListener,
        hostname: String,
    ) -> Result<(Live, OwnedFd), RunnerError> {
        let inner = self.inner;
        let disk = inner.disk.own_usage(&spec.id.to_string());
        let config = agent_config(spec, self.image, slot.join.user.len(), &disk);
        let text = serde_json::to_vec(&config).map_err(|e| internal(&e))?;
        let config = memfd::sealed_message(c"infield-config", &text).map_err(|e| internal(&e))?;
        let mut inherited = vec![listener.as_fd(), inner.agent.as_fd(), config.as_fd()];
        inherited.extend(slot.join.user.iter().chain(&slot.join.usage).map(AsFd::as_fd));
        if let OwnUsage::File(file) = &disk {
            inherited.push(file.as_fd());
        }
        let cgroups: Vec<_> = slot.join.agent.iter().map(AsFd::as_fd).collect();
        let fds = StartFds {
            netns: slot.netns.as_fd(),
            userns: slot.userns.as_fd(),
            root: root.as_fd(),
            cgroups: &cgroups,
            inherited: &inherited,
        };
        self.phases.mark("prepare");
        let start = Start { hostname, program: INHERITED_AGENT };
        let (started, pidfd) = inner
            .slots
            .parts
            .zygotes
            .start(&start, &fds)
            .map_err(|e| RunnerError::from(crate::slot::SlotError::from(e)))?;
        self.phases.mark("zygote");
        for (name, us) in started.phases {
            self.phases.add(&format!("zygote.{name}"), us.into());
        }
        let start_time = pidfd::start_time(started.pid).map_err(|e| internal(&e))?;
        let process = Process { slot: slot.number, pid: started.pid, start_time, boot_id: inner.boot_id.clone() };
        Ok((Live { process, pidfd: Arc::new(pidfd), netns: None }, slot.netns))
    }
}

fn agent_config(spec: &SandboxSpec, image: &Image, cgroup_files: usize, disk: &OwnUsage) -> AgentConfig {
    let mut env = std::collections::BTreeMap::from([("PATH".to_owned(), PATH_DEFAULT.to_owned())]);
    let from_image = image.config.env.iter().filter_map(|pair| pair.split_once('='));
    env.extend(from_image.map(|(name, value)| (name.to_owned(), value.to_owned())));
    env.extend(spec.env.clone());
    let entrypoint = match spec.entrypoint.is_empty() {
        true => image.config.entrypoint.iter().chain(&image.config.cmd).cloned().collect(),
        false => spec.entrypoint.clone(),
    };
    AgentConfig {
        generation: AGENT_GENERATION,
        sandbox_id: spec.id.to_string(),
        user: spec.user.clone().or_else(|| image.config.user.clone()),
        env,
        workdir: image.config.workdir.clone(),
        entrypoint,
        user_cgroup_fds: (0..cgroup_files as i32).map(|i| INHERITED_CGROUPS_FROM + i).collect(),
        usage: usage_config(spec, INHERITED_CGROUPS_FROM + cgroup_files as i32, disk),
    }
}

/// The descriptors of `JoinFiles::usage` and of the disk's accounting follow each other from `first`.
fn usage_config(spec: &SandboxSpec, first: i32, disk: &OwnUsage) -> UsageConfig {
    UsageConfig {
        cpu_cores: spec.cpu,
        memory_bytes: spec.memory_mib * MIB,
        disk_bytes: spec.disk_mib * MIB,
        cpu_fd: Some(first),
        memory_fd: Some(first + 1),
        memory_stat_fd: Some(first + 2),
        disk_fd: matches!(disk, OwnUsage::File(_)).then_some(first + 3),
        disk_is_root: matches!(disk, OwnUsage::Root),
    }
}

fn listen(path: &Path, group: Option<u32>) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    share(path, 0o660, group)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> SandboxSpec {
        SandboxSpec {
            id: SandboxId::random(),
            name: "n".into(),
            image: "i".into(),
            user: None,
            env: Default::default(),
            labels: Default::default(),
            cpu: 1,
            memory_mib: 256,
            disk_mib: 1024,
            network_block_all: false,
            entrypoint: vec![],
        }
    }

    #[test]
    fn absurd_specs_are_refused() {
        assert!(check(&spec()).is_ok());
        let mut bad = vec![
            SandboxSpec { cpu: 0, ..spec() },
            SandboxSpec { cpu: u32::MAX, ..spec() },
            SandboxSpec { memory_mib: 0, ..spec() },
            SandboxSpec { memory_mib: u64::MAX, ..spec() },
            SandboxSpec { disk_mib: 1, ..spec() },
            SandboxSpec { name: "n".repeat(2000), ..spec() },
        ];
        for (name, value) in [("", "x"), ("a=b", "x"), ("a", "x\0")] {
            bad.push(SandboxSpec { env: [(name.to_owned(), value.to_owned())].into(), ..spec() });
        }
        for spec in bad {
            assert_eq!(check(&spec).unwrap_err().kind, RunnerErrorKind::Invalid, "{spec:?}");
        }
        assert!(check(&SandboxSpec { disk_mib: u64::MAX, ..spec() }).is_err());
    }
}
