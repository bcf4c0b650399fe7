//! A new sandbox that begins with the files of another one. Where disks can share blocks nothing is copied; the source stands
//! still for as long as the copy takes, and is otherwise left alone.

use crate::assemble::Phases;
use crate::engine::{Entry, Inner, Live, Sandbox, not_found};
use crate::launch;
use crate::pause::Still;
use crate::record::{Record, State};
use crate::slot::Slot;
use infield_api::SandboxId;
use infield_api::runner::*;
use std::sync::{Arc, MutexGuard};

const MIB: u64 = 1 << 20;

/// Copies the files of `source` into a new sandbox and starts it. One that exists already is started, like `create` does.
pub(crate) fn fork(inner: &Arc<Inner>, source: SandboxId, spec: SandboxSpec) -> Result<Running, RunnerError> {
    launch::check(&spec)?;
    let id = spec.id;
    if id == source {
        let message = format!("sandbox {id} cannot become a copy of itself; give the copy an id of its own");
        return Err(RunnerError::new(RunnerErrorKind::Invalid, message));
    }
    let from = inner.find(source).ok_or_else(|| not_found(source))?;
    let target = inner.find_or_insert(id);
    let (parent, mut entry) = lock_both(source, &from, id, &target);
    if entry.record.is_some() {
        drop((parent, entry));
        return launch::launch(inner, spec, true);
    }
    let answer = match copyable(&parent) {
        Ok(record) => {
            let record = record.clone();
            make(inner, parent, &record, &mut entry, spec)
        }
        Err(error) => Err(error),
    };
    launch::finish(inner, &target, &entry, id, &answer);
    answer
}

/// Always in the same order, so that two forks into each other do not wait for ever.
fn lock_both<'a>(
    source: SandboxId,
    from: &'a Sandbox,
    id: SandboxId,
    target: &'a Sandbox,
) -> (MutexGuard<'a, Entry>, MutexGuard<'a, Entry>) {
    if source < id {
        let from = from.entry();
        (from, target.entry())
    } else {
        let target = target.entry();
        (from.entry(), target)
    }
}

/// The record of a sandbox whose files are all there.
pub(crate) fn copyable(entry: &Entry) -> Result<&Record, RunnerError> {
    let Some(record) = &entry.record else {
        return Err(RunnerError::new(RunnerErrorKind::NotFound, "the sandbox does not exist on this host"));
    };
    let id = record.spec.id;
    let why = match &record.state {
        State::Running(_) | State::Stopped | State::Failed { .. } => return Ok(record),
        State::Creating { .. } | State::Starting { .. } => format!("sandbox {id} is not ready yet; try again"),
        State::Archived { .. } => format!("sandbox {id} is archived; start it first"),
        State::Destroying { .. } => format!("sandbox {id} is being deleted"),
    };
    Err(RunnerError::new(RunnerErrorKind::Conflict, why))
}

/// `parent` is let go as soon as its files are copied.
fn make(
    inner: &Arc<Inner>,
    parent: MutexGuard<'_, Entry>,
    source: &Record,
    entry: &mut Entry,
    spec: SandboxSpec,
) -> Result<Running, RunnerError> {
    let mut phases = Phases::begin();
    let _creating = inner.slots.creating();
    let id = spec.id;
    let slot = inner.slots.take()?;
    let number = slot.number;
    phases.mark("slot");
    let mut record = Record::new(spec, source.image_id.clone(), State::Creating { slot: number });
    match copy_and_run(inner, parent, source, &mut record, slot, &mut phases) {
        Ok((live, agent_version)) => {
            let ip = Some(inner.slots.parts.net.address(number));
            inner.watch(id, &live);
            *entry = Entry { record: Some(record), live: Some(live) };
            Ok(Running { ip, agent_version, phases: phases.list })
        }
        Err(error) => {
            launch::unmake(inner, number, id);
            Err(error)
        }
    }
}

fn copy_and_run(
    inner: &Inner,
    parent: MutexGuard<'_, Entry>,
    source: &Record,
    record: &mut Record,
    slot: Slot,
    phases: &mut Phases,
) -> Result<(Live, String), RunnerError> {
    let image = inner.images.resolve(&source.image_id)?;
    phases.mark("image");
    // Before anything of it is made: after a crash everything of it goes.
    inner.records.save(record).map_err(|e| crate::error::internal(&e))?;
    let (from, to) = (source.spec.id.to_string(), record.spec.id.to_string());
    let still = Still::hold(inner, source)?;
    phases.mark("freeze");
    inner.disk.fork(&from, &to, record.spec.disk_mib * MIB)?;
    drop(still);
    drop(parent);
    phases.mark("copy");
    launch::run(inner, &image, record, slot, false, phases)
}
