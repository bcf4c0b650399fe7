//! Ending sandboxes: `stop`, `destroy`, and agents that die by themselves.

use crate::archive;
use crate::cgroup::Cgroups;
use crate::engine::{EngineConfig, Inner, Live, not_found, socket_path};
use crate::error::{chain, internal};
use crate::pause;
use crate::record::{Process, State};
use infield_api::SandboxId;
use infield_api::runner::*;
use infield_sys::pidfd;
use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Commands have this long to end after SIGTERM.
const STOP_GRACE: Duration = Duration::from_secs(3);
const STOP_POLL: Duration = Duration::from_millis(10);
/// The kernel takes down a whole pid namespace in this time, or something is badly wrong.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// Ends every process, keeps the files.
pub(crate) fn stop(inner: &Arc<Inner>, id: SandboxId, force: bool) -> Result<(), RunnerError> {
    let sandbox = inner.find(id).ok_or_else(|| not_found(id))?;
    let mut entry = sandbox.entry();
    let mut record = entry.record.clone().ok_or_else(|| not_found(id))?;
    if matches!(record.state, State::Archived { .. }) {
        return Ok(());
    }
    let was_running = entry.live.is_some();
    if let Some(live) = entry.live.take() {
        if !force {
            ask_to_end(&inner.slots.parts.cgroups, live.process.slot);
        }
        if let Err(error) = end(inner, &live) {
            entry.live = Some(live);
            return Err(error);
        }
        free(inner, id, live);
    }
    record.state = State::Stopped;
    record.paused = false;
    inner.records.save(&record).map_err(|e| internal(&e))?;
    entry.record = Some(record);
    inner.show(&sandbox, &entry);
    if was_running && let Err(error) = inner.records.sync(id) {
        tracing::warn!(error = chain(&error), "a sandbox record may be lost if the host crashes");
    }
    Ok(())
}

/// Removes every trace.
pub(crate) fn destroy(inner: &Arc<Inner>, id: SandboxId) -> Result<(), RunnerError> {
    let Some(sandbox) = inner.find(id) else { return Ok(()) };
    let mut entry = sandbox.entry();
    let Some(mut record) = entry.record.clone() else {
        inner.show(&sandbox, &entry);
        return Ok(());
    };
    record.state = State::Destroying { slot: entry.live.as_ref().map(|live| live.process.slot) };
    inner.records.save(&record).map_err(|e| internal(&e))?;
    if let Some(live) = entry.live.take() {
        if let Err(error) = end(inner, &live) {
            entry.live = Some(live);
            return Err(error);
        }
        free(inner, id, live);
    }
    entry.record = Some(record);
    inner.disk.destroy(&id.to_string())?;
    archive::remove(&inner.config, id)?;
    remove_sockets(&inner.config, id);
    inner.records.remove(id).map_err(|e| internal(&e))?;
    entry.record = None;
    inner.show(&sandbox, &entry);
    Ok(())
}

/// The agent ended although nobody stopped the sandbox. `process` says which agent, so that news about a former one
/// cannot hurt its successor.
pub(crate) fn agent_died(inner: &Arc<Inner>, id: SandboxId, process: &Process) {
    let Some(sandbox) = inner.find(id) else { return };
    let mut entry = sandbox.entry();
    if entry.live.as_ref().is_none_or(|live| live.process != *process) {
        return;
    }
    let (Some(live), Some(mut record)) = (entry.live.take(), entry.record.take()) else { return };
    let reason = death_reason(&inner.slots.parts.cgroups, process);
    tracing::warn!(sandbox = %id, reason, "sandbox failed");
    kill_all(&inner.slots.parts.cgroups, process.slot);
    free(inner, id, live);
    record.state = State::Failed { reason };
    record.paused = false;
    if let Err(error) = inner.records.save(&record) {
        tracing::error!(sandbox = %id, error = chain(&error), "cannot record that a sandbox failed");
    }
    entry.record = Some(record);
    inner.show(&sandbox, &entry);
}

fn death_reason(cgroups: &Cgroups, process: &Process) -> String {
    let kills = cgroups.usage(process.slot).oom_kills;
    let pid = process.pid;
    if kills > 0 {
        format!(
            "the sandbox's agent (pid {pid}) ended; the kernel killed {kills} processes of the sandbox for lack of memory"
        )
    } else {
        format!("the sandbox's agent (pid {pid}) ended unexpectedly; recover the sandbox, its files are kept")
    }
}

/// Lets the commands end by themselves for a while.
fn ask_to_end(cgroups: &Cgroups, slot: u32) {
    let deadline = Instant::now() + STOP_GRACE;
    signal_all(cgroups, slot, false, SIGTERM);
    thaw(cgroups, slot);
    while Instant::now() < deadline && !cgroups.processes(slot, false).is_empty() {
        std::thread::sleep(STOP_POLL);
    }
}

/// Kills PID 1 and with it the pid namespace; returns when every process has ended.
fn end(inner: &Inner, live: &Live) -> Result<(), RunnerError> {
    match pidfd::signal(live.pidfd.as_fd(), SIGKILL) {
        Err(e) if e.raw_os_error() != Some(ESRCH) => return Err(internal(&e)),
        _ => {}
    }
    // One that stands still does not even die.
    thaw(&inner.slots.parts.cgroups, live.process.slot);
    let deadline = Instant::now() + KILL_TIMEOUT;
    while !pidfd::wait(live.pidfd.as_fd(), deadline.saturating_duration_since(Instant::now()))
        .map_err(|e| internal(&e))?
    {
        if Instant::now() >= deadline {
            let message =
                format!("the processes of the sandbox (agent pid {}) do not end; try again", live.process.pid);
            return Err(RunnerError::new(RunnerErrorKind::Unavailable, message));
        }
    }
    // Whatever joined the group from elsewhere (an operator's shell, say) goes too, or the group could not be removed.
    kill_all(&inner.slots.parts.cgroups, live.process.slot);
    Ok(())
}

const ESRCH: i32 = 3;

/// Signals the processes of a slot; answers which there were. A pid read from a list may have ended and become somebody else
/// on the host: so each is held by descriptor first, and signalled only if the list still names it then.
fn signal_all(cgroups: &Cgroups, slot: u32, agent_too: bool, signal: i32) -> Vec<i32> {
    let listed = cgroups.processes(slot, agent_too);
    let held: Vec<_> = listed.iter().filter_map(|pid| Some((*pid, pidfd::open(*pid).ok()?))).collect();
    let still: HashSet<i32> = cgroups.processes(slot, agent_too).into_iter().collect();
    for (_, process) in held.iter().filter(|(pid, _)| still.contains(pid)) {
        // Ended meanwhile is fine.
        let _ = pidfd::signal(process.as_fd(), signal);
    }
    listed
}

/// Kills everything in a slot's groups and waits until they are empty; for processes nobody has a descriptor of.
pub(crate) fn kill_all(cgroups: &Cgroups, slot: u32) {
    let deadline = Instant::now() + KILL_TIMEOUT;
    loop {
        let left = signal_all(cgroups, slot, true, SIGKILL);
        if left.is_empty() {
            return;
        }
        thaw(cgroups, slot);
        if Instant::now() >= deadline {
            tracing::error!(slot, ?left, "processes of a sandbox do not end");
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn thaw(cgroups: &Cgroups, slot: u32) {
    if let Err(error) = cgroups.thaw(slot) {
        tracing::error!(slot, error = chain(&error), "processes of a sandbox stand still and may not end");
    }
}

fn free(inner: &Inner, id: SandboxId, live: Live) {
    inner.slots.release(live.process.slot, live.netns);
    remove_sockets(&inner.config, id);
}

/// Under both names it can have.
pub(crate) fn remove_sockets(config: &EngineConfig, id: SandboxId) {
    remove_socket(&socket_path(config, id));
    remove_socket(&pause::hidden_socket(config, id));
}

pub(crate) fn remove_socket(path: &Path) {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), error = %e, "a socket could not be removed");
        }
        _ => {}
    }
}

/// Resource use; of a sandbox that does not run only the disk.
pub(crate) fn stats(inner: &Inner, observed: &Observed) -> Result<Stats, RunnerError> {
    let disk_bytes = match observed.state {
        ObservedState::Archived => 0,
        _ => inner.disk.usage(&observed.id.to_string())?,
    };
    let slot = inner.find(observed.id).and_then(|s| match &s.entry().record.as_ref()?.state {
        State::Running(process) => Some(process.slot),
        _ => None,
    });
    let usage = slot.map(|slot| inner.slots.parts.cgroups.usage(slot)).unwrap_or_default();
    Ok(Stats {
        cpu_usage_us: usage.cpu_us,
        memory_bytes: usage.memory_bytes,
        pids: usage.pids,
        disk_bytes,
        oom_kills: usage.oom_kills,
    })
}
