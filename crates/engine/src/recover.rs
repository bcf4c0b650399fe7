//! After a start: what the records say, what the kernel has, and making the two agree.

use crate::disk::Disk;
use crate::engine::{EngineConfig, EngineError, Entry, Live, Recovery};
use crate::error::chain;
use crate::record::{Process, Record, RecordError, Records, State};
use crate::slot::Parts;
use crate::{archive, pause, resize, stop, volume};
use infield_api::runner::AGENT_SOCKET_DIR;
use infield_sys::pidfd;
use std::collections::HashSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

/// What [`recover`] found.
pub(crate) struct Found {
    pub entries: Vec<Entry>,
    /// Slots whose former processes do not end: not to be given out again.
    pub stuck: Vec<u32>,
    pub report: Recovery,
}

/// Adopts living sandboxes, finishes what was half done, and removes what has no record.
pub(crate) fn recover(
    config: &EngineConfig,
    records: &Records,
    parts: &Parts,
    disk: &Disk,
    boot_id: &str,
) -> Result<Found, EngineError> {
    let (good, bad) = records.load()?;
    let mut found = Found { entries: Vec::new(), stuck: Vec::new(), report: Recovery::default() };
    // Files of sandboxes whose record cannot be read are kept: somebody may mend it.
    let mut keep: HashSet<String> = HashSet::new();
    for error in bad {
        keep.extend(unreadable_id(&error));
        tracing::error!(error = chain(&error), "a sandbox record cannot be read");
        found.report.unreadable.push(chain(&error));
    }
    let mut archives = keep.clone();
    for record in good {
        let id = record.spec.id;
        match settle(config, records, parts, disk, record, boot_id, &mut found.report)? {
            Some(entry) => {
                keep.insert(id.to_string());
                if entry.record.as_ref().is_some_and(|r| matches!(r.state, State::Archived { .. })) {
                    archives.insert(id.to_string());
                }
                found.entries.push(entry);
            }
            None => found.report.cleaned += 1,
        }
    }
    let live: HashSet<u32> = found.entries.iter().filter_map(|e| Some(e.live.as_ref()?.process.slot)).collect();
    sweep(config, parts, disk, (&live, &keep), &mut found);
    found.report.orphans += archive::sweep(config, &archives);
    Ok(found)
}

fn unreadable_id(error: &RecordError) -> Option<String> {
    let (RecordError::File { path, .. } | RecordError::Damaged { path, .. }) = error;
    Some(path.file_stem()?.to_str()?.to_owned())
}

/// Decides about one record; `None` = nothing of it is left.
fn settle(
    config: &EngineConfig,
    records: &Records,
    parts: &Parts,
    disk: &Disk,
    mut record: Record,
    boot_id: &str,
    report: &mut Recovery,
) -> Result<Option<Entry>, EngineError> {
    let id = record.spec.id;
    let next = match &record.state {
        State::Running(process) => match adopt(process, boot_id) {
            Some(live) => {
                report.adopted += 1;
                let slot = process.slot;
                if let Err(error) = parts.net.set_blocked(slot, record.spec.network_block_all) {
                    tracing::error!(sandbox = %id, error = chain(&error), "network of an adopted sandbox is not as it should be");
                }
                pause::settle(config, records, &parts.cgroups, slot, &mut record)?;
                resize::settle(records, parts, disk, slot, &mut record)?;
                return Ok(Some(Entry { record: Some(record), live: Some(live) }));
            }
            None if process.boot_id == boot_id => {
                report.failed += 1;
                let reason = "the sandbox's agent ended while no runner watched; start it again, its files are kept";
                State::Failed { reason: reason.to_owned() }
            }
            None => State::Stopped,
        },
        State::Starting { .. } | State::Stopped => State::Stopped,
        State::Creating { .. } | State::Destroying { .. } => State::Destroying { slot: None },
        State::Failed { reason } => State::Failed { reason: reason.clone() },
        State::Archived { .. } => archive::settle(config, disk, &record),
    };
    // No adopted agent, so nothing of it may go on; and its disk cannot go before its processes have.
    if let Some(slot) = slot_of(&record.state) {
        stop::kill_all(&parts.cgroups, slot);
    }
    if matches!(next, State::Destroying { .. }) {
        if let Err(error) = disk.destroy(&id.to_string()) {
            // Whoever asks for its removal again tries again; one stubborn disk must not keep the others from starting.
            tracing::error!(sandbox = %id, error = chain(&error), "disk of a half-made or half-removed sandbox stays");
            record.state = next;
            return Ok(Some(Entry { record: Some(record), live: None }));
        }
        stop::remove_sockets(config, id);
        records.remove(id)?;
        return Ok(None);
    }
    if next == State::Stopped {
        report.stopped += 1;
    }
    if next != record.state {
        record.state = next;
        record.paused = false;
        records.save(&record)?;
    }
    Ok(Some(Entry { record: Some(record), live: None }))
}

fn slot_of(state: &State) -> Option<u32> {
    match state {
        State::Creating { slot } | State::Starting { slot } | State::Running(Process { slot, .. }) => Some(*slot),
        State::Destroying { slot } => *slot,
        State::Stopped | State::Failed { .. } | State::Archived { .. } => None,
    }
}

/// Takes hold of a living agent. Pid and start time are compared again after the descriptor is open: then it is that one.
fn adopt(process: &Process, boot_id: &str) -> Option<Live> {
    if process.boot_id != boot_id || pidfd::start_time(process.pid).ok()? != process.start_time {
        return None;
    }
    let pidfd = pidfd::open(process.pid).ok()?;
    if pidfd::start_time(process.pid).ok()? != process.start_time {
        return None;
    }
    // A zombie has a start time too, but no namespace any more.
    let netns = OwnedFd::from(File::open(format!("/proc/{}/ns/net", process.pid)).ok()?);
    Some(Live { process: process.clone(), pidfd: Arc::new(pidfd), netns: Some(netns) })
}

/// Removes groups, links, rules, disks and sockets that belong to no record. What cannot be removed is logged and stays: the
/// living are not to wait for it.
fn sweep(
    config: &EngineConfig,
    parts: &Parts,
    disk: &Disk,
    (live, keep): (&HashSet<u32>, &HashSet<String>),
    found: &mut Found,
) {
    for slot in parts.cgroups.slots().into_iter().filter(|slot| !live.contains(slot)) {
        stop::kill_all(&parts.cgroups, slot);
        match parts.cgroups.remove(slot) {
            Ok(()) => found.report.orphans += 1,
            Err(error) => {
                tracing::error!(slot, error = chain(&error), "control groups without a sandbox stay");
                found.stuck.push(slot);
            }
        }
    }
    match parts.net.sweep(live) {
        Ok(swept) => found.report.orphans += swept,
        Err(error) => tracing::error!(error = chain(&error), "network links without a sandbox stay"),
    }
    let volumes = volume::disks(disk).map(|volumes| keep.iter().cloned().chain(volumes).collect());
    match volumes.and_then(|keep| disk.sweep(&keep)) {
        Ok(swept) => found.report.orphans += swept,
        Err(error) => tracing::error!(error = chain(&error), "disks without a sandbox stay"),
    }
    found.report.orphans += sweep_sockets(&config.run_dir().join(AGENT_SOCKET_DIR), keep);
}

fn sweep_sockets(dir: &Path, keep: &HashSet<String>) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let dead = entries.map(|entry| entry.path()).filter(|path| {
        let id = path.file_stem().and_then(|s| s.to_str());
        id.is_none_or(|id| !keep.contains(id))
    });
    dead.map(|path| stop::remove_socket(&path)).count()
}
