//! Other limits for a sandbox that exists: at once for its processes when it runs, and for its disk in any case.

use crate::assemble::Shape;
use crate::cgroup::Limits;
use crate::disk::Disk;
use crate::engine::{Inner, not_found};
use crate::error::{chain, internal};
use crate::launch;
use crate::record::{Record, RecordError, Records, State};
use crate::slot::Parts;
use infield_api::SandboxId;
use infield_api::runner::*;
use std::sync::Arc;

const MIB: u64 = 1 << 20;

/// Gives the sandbox the processors, memory and disk of `spec`; nothing else of it counts.
pub(crate) fn resize(inner: &Arc<Inner>, spec: &SandboxSpec) -> Result<(), RunnerError> {
    launch::check(spec)?;
    let id = spec.id;
    let sandbox = inner.find(id).ok_or_else(|| not_found(id))?;
    let mut entry = sandbox.entry();
    let record = entry.record.as_mut().ok_or_else(|| not_found(id))?;
    if matches!(record.state, State::Destroying { .. }) {
        return Err(RunnerError::new(RunnerErrorKind::Conflict, format!("sandbox {id} is being deleted")));
    }
    let former = record.clone();
    let (cpu, memory_mib, disk_mib) = (spec.cpu, spec.memory_mib, spec.disk_mib);
    record.spec = SandboxSpec { cpu, memory_mib, disk_mib, ..former.spec.clone() };
    // Until the last step the record says that kernel and record may differ: whoever finds it so sets the limits again.
    record.resizing = true;
    let done = inner.records.save(record).map_err(|e| internal(&e)).and_then(|()| apply(inner, &former, record));
    match done {
        Ok(()) => {
            record.resizing = false;
            inner.records.save(record).map_err(|e| internal(&e))
        }
        Err(error) => {
            *record = former;
            if let Err(error) = inner.records.save(record) {
                tracing::error!(sandbox = %id, error = chain(&error), "record has limits that could not be set");
            }
            Err(error)
        }
    }
}

/// Disk first: it is what most likely cannot be.
fn apply(inner: &Inner, former: &Record, record: &Record) -> Result<(), RunnerError> {
    let (old, new) = (Shape::of(&former.spec), Shape::of(&record.spec));
    if let State::Running(process) = &record.state {
        check_memory(inner, process.slot, old.limits, new.limits)?;
    }
    let disk = resize_disk(inner, record.spec.id, old.disk_bytes, new.disk_bytes)?;
    let State::Running(process) = &record.state else { return Ok(()) };
    let cgroups = &inner.slots.parts.cgroups;
    cgroups.limit(process.slot, new.limits).map_err(|error| {
        if let Err(error) = cgroups.limit(process.slot, old.limits) {
            tracing::error!(sandbox = %record.spec.id, error = chain(&error), "limits of a sandbox are half changed");
        }
        if disk && let Err(error) = inner.disk.set_limit(&record.spec.id.to_string(), old.disk_bytes) {
            tracing::warn!(sandbox = %record.spec.id, error = chain(&error), "disk of a sandbox keeps its new size");
        }
        // Asked again because it may have grown meanwhile.
        match check_memory(inner, process.slot, old.limits, new.limits) {
            Err(refused) => refused,
            Ok(()) => internal(&error),
        }
    })
}

/// A kernel that has to keep a limit below what is in use kills somebody.
fn check_memory(inner: &Inner, slot: u32, old: Limits, new: Limits) -> Result<(), RunnerError> {
    let held = inner.slots.parts.cgroups.memory_held(slot);
    if new.memory_bytes >= old.memory_bytes || held < new.memory_bytes {
        return Ok(());
    }
    let message = format!(
        "the sandbox's processes use {} MiB of memory now, more than the {} MiB wanted; end some of them, or stop the sandbox \
         first",
        held.div_ceil(MIB),
        new.memory_bytes / MIB
    );
    Err(RunnerError::new(RunnerErrorKind::Conflict, message))
}

/// Whether something was changed. An archived sandbox gets a disk of the right size when it is brought back.
fn resize_disk(inner: &Inner, id: SandboxId, old: u64, new: u64) -> Result<bool, RunnerError> {
    let name = id.to_string();
    if new == old || !inner.disk.path(&name).exists() {
        return Ok(false);
    }
    if new < old && inner.disk.usage_now(&name)? > new {
        let used = inner.disk.usage(&name)?;
        let message = format!(
            "the sandbox's disk holds {} MiB, more than the {} MiB wanted; remove some files first",
            used.div_ceil(MIB),
            new / MIB
        );
        return Err(RunnerError::new(RunnerErrorKind::Conflict, message));
    }
    inner.disk.set_limit(&name, new)?;
    Ok(true)
}

/// After a start: finishes what a killed runner may have left half done.
pub(crate) fn settle(
    records: &Records,
    parts: &Parts,
    disk: &Disk,
    slot: u32,
    record: &mut Record,
) -> Result<(), RecordError> {
    if !std::mem::take(&mut record.resizing) {
        return Ok(());
    }
    let (id, shape) = (record.spec.id, Shape::of(&record.spec));
    if let Err(error) = parts.cgroups.limit(slot, shape.limits) {
        tracing::error!(sandbox = %id, error = chain(&error), "limits of an adopted sandbox are not as they should be");
    }
    if let Err(error) = disk.set_limit(&id.to_string(), shape.disk_bytes) {
        tracing::error!(sandbox = %id, error = chain(&error), "disk of an adopted sandbox is not as it should be");
    }
    records.save(record)
}
