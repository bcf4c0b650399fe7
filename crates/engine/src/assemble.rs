//! Assembling a sandbox around a slot: root, limits, socket, agent. The same steps make one that was asked for by name and one
//! that is kept ready; this file does not know which of the two it makes.

use crate::cgroup::Limits;
use crate::disk::OwnUsage;
use crate::engine::{Inner, Live, share};
use crate::error::internal;
use crate::image::Image;
use crate::record::Process;
use crate::slot::{Slot, SlotError, first_id};
use crate::zygote::{Start, StartFds};
use crate::{rootfs, volume};
use infield_api::runner::*;
use infield_api::toolbox::{AGENT_GENERATION, AgentConfig, UsageConfig};
use infield_sys::pidfd;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Where the agent expects its parts: descriptors from 3 up in this order.
const INHERITED_AGENT: usize = 1;
const INHERITED_CGROUPS_FROM: i32 = 6;
const MIB: u64 = 1 << 20;
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the time went.
pub(crate) struct Phases {
    pub list: Vec<Phase>,
    last: Instant,
}

impl Phases {
    pub(crate) fn begin() -> Self {
        Self { list: Vec::new(), last: Instant::now() }
    }

    pub(crate) fn mark(&mut self, name: &str) {
        let now = Instant::now();
        self.add(name, (now - self.last).as_micros() as u64);
        self.last = now;
    }

    fn add(&mut self, name: &str, duration_us: u64) {
        self.list.push(Phase { name: name.to_owned(), duration_us });
    }
}

/// What a sandbox may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub limits: Limits,
    pub disk_bytes: u64,
}

impl Shape {
    pub(crate) fn of(spec: &SandboxSpec) -> Self {
        let limits = Limits { cpu_cores: spec.cpu, memory_bytes: spec.memory_mib * MIB };
        Self { limits, disk_bytes: spec.disk_mib * MIB }
    }
}

/// Under which names the parts are made.
pub(crate) struct Site<'a> {
    pub disk: &'a str,
    pub socket: &'a Path,
    pub hostname: String,
    pub shape: Shape,
    pub network_block_all: bool,
    pub volumes: &'a [VolumeMount],
    /// The disk is still to be made.
    pub fresh: bool,
}

/// Which descriptors an agent inherits after those every agent has.
#[derive(Debug)]
pub(crate) struct Inherited {
    cgroup_files: usize,
    disk_file: bool,
    disk_is_root: bool,
}

/// From a slot to a started agent, which reads its configuration from what `config` makes. From its return on the agent holds
/// the only listening end of the socket: when it dies, whoever waits for an answer hears of it at once.
pub(crate) fn assemble(
    inner: &Inner,
    image: &Image,
    mut slot: Slot,
    site: Site<'_>,
    config: impl FnOnce(&Inherited) -> Result<OwnedFd, RunnerError>,
    phases: &mut Phases,
) -> Result<(Live, Inherited), RunnerError> {
    let root = make_root(inner, image, &slot, &site, phases)?;
    if !site.volumes.is_empty() {
        volume::attach(&inner.disk, &root, site.volumes, slot.userns.as_fd(), first_id(slot.number))?;
        phases.mark("volumes");
    }
    let parts = &inner.slots.parts;
    parts.limit(&mut slot, site.shape.limits)?;
    if site.network_block_all {
        parts.net.set_blocked(slot.number, true).map_err(|e| internal(&e))?;
    }
    phases.mark("limits");
    let listener = listen(site.socket, inner.config.socket_group).map_err(|source| {
        let message = format!("{}: cannot listen for the agent: {source}", site.socket.display());
        RunnerError::new(RunnerErrorKind::Internal, message)
    })?;
    phases.mark("socket");
    let disk = inner.disk.own_usage(site.disk);
    let inherited = Inherited {
        cgroup_files: slot.join.user.len(),
        disk_file: matches!(disk, OwnUsage::File(_)),
        disk_is_root: matches!(disk, OwnUsage::Root),
    };
    let config = config(&inherited)?;
    let mut fds = vec![listener.as_fd(), inner.agent.as_fd(), config.as_fd()];
    fds.extend(slot.join.user.iter().chain(&slot.join.usage).map(AsFd::as_fd));
    if let OwnUsage::File(file) = &disk {
        fds.push(file.as_fd());
    }
    let (process, pidfd) = start(inner, &slot, &root, site.hostname, &fds, phases)?;
    Ok((Live { process, pidfd: Arc::new(pidfd), netns: Some(slot.netns) }, inherited))
}

fn make_root(
    inner: &Inner,
    image: &Image,
    slot: &Slot,
    site: &Site<'_>,
    phases: &mut Phases,
) -> Result<OwnedFd, RunnerError> {
    let disk = match site.fresh {
        true => inner.disk.create(site.disk, site.shape.disk_bytes)?,
        false => inner.disk.path(site.disk),
    };
    let net = &inner.slots.parts.net;
    let (address, resolv_conf) = (net.address(slot.number), net.resolv_conf());
    let identity = rootfs::Identity { hostname: &site.hostname, address, resolv_conf: &resolv_conf };
    rootfs::prepare_disk(&disk, &image.layers, &identity, site.fresh).map_err(|e| internal(&e))?;
    phases.mark("disk");
    let root = rootfs::mount(&image.layers, &disk, slot.userns.as_fd(), first_id(slot.number));
    phases.mark("overlay");
    root.map_err(|e| internal(&e))
}

fn start(
    inner: &Inner,
    slot: &Slot,
    root: &OwnedFd,
    hostname: String,
    inherited: &[BorrowedFd<'_>],
    phases: &mut Phases,
) -> Result<(Process, OwnedFd), RunnerError> {
    let cgroups: Vec<_> = slot.join.agent.iter().map(AsFd::as_fd).collect();
    let fds = StartFds {
        netns: slot.netns.as_fd(),
        userns: slot.userns.as_fd(),
        root: root.as_fd(),
        cgroups: &cgroups,
        inherited,
    };
    let start = Start { hostname, program: INHERITED_AGENT };
    let started = inner.slots.parts.zygotes.start(&start, &fds);
    let (started, pidfd) = started.map_err(|e| RunnerError::from(SlotError::from(e)))?;
    phases.mark("zygote");
    for (name, us) in started.phases {
        phases.add(&format!("zygote.{name}"), us.into());
    }
    let start_time = pidfd::start_time(started.pid).map_err(|e| internal(&e))?;
    let process = Process { slot: slot.number, pid: started.pid, start_time, boot_id: inner.boot_id.clone() };
    Ok((process, pidfd))
}

/// What the agent of this sandbox reads.
pub(crate) fn agent_config(spec: &SandboxSpec, image: &Image, inherited: &Inherited) -> Result<Vec<u8>, RunnerError> {
    let mut env = std::collections::BTreeMap::from([("PATH".to_owned(), PATH_DEFAULT.to_owned())]);
    let from_image = image.config.env.iter().filter_map(|pair| pair.split_once('='));
    env.extend(from_image.map(|(name, value)| (name.to_owned(), value.to_owned())));
    env.extend(spec.env.clone());
    let entrypoint = match spec.entrypoint.is_empty() {
        true => image.config.entrypoint.iter().chain(&image.config.cmd).cloned().collect(),
        false => spec.entrypoint.clone(),
    };
    let config = AgentConfig {
        generation: AGENT_GENERATION,
        sandbox_id: spec.id.to_string(),
        user: spec.user.clone().or_else(|| image.config.user.clone()),
        env,
        workdir: image.config.workdir.clone(),
        entrypoint,
        user_cgroup_fds: (0..inherited.cgroup_files as i32).map(|i| INHERITED_CGROUPS_FROM + i).collect(),
        usage: usage_config(spec, inherited),
    };
    serde_json::to_vec(&config).map_err(|e| internal(&e))
}

/// The descriptors of `JoinFiles::usage` and of the disk's accounting follow those of the groups.
fn usage_config(spec: &SandboxSpec, inherited: &Inherited) -> UsageConfig {
    let first = INHERITED_CGROUPS_FROM + inherited.cgroup_files as i32;
    UsageConfig {
        cpu_cores: spec.cpu,
        memory_bytes: spec.memory_mib * MIB,
        disk_bytes: spec.disk_mib * MIB,
        cpu_fd: Some(first),
        memory_fd: Some(first + 1),
        memory_stat_fd: Some(first + 2),
        disk_fd: inherited.disk_file.then_some(first + 3),
        disk_is_root: inherited.disk_is_root,
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
