//! Sandboxes that stand still: paused by their owner, or held for the moment that something is copied. Memory stays, the
//! processor is free, and the agent's socket has another name meanwhile, so that nobody waits for an answer that cannot come.

use crate::cgroup::Cgroups;
use crate::engine::{EngineConfig, Inner, not_found, socket_path};
use crate::error::{chain, internal};
use crate::record::{Record, RecordError, Records, State};
use infield_api::SandboxId;
use infield_api::runner::*;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Freezes every process.
pub(crate) fn pause(inner: &Arc<Inner>, id: SandboxId) -> Result<(), RunnerError> {
    let sandbox = inner.find(id).ok_or_else(|| not_found(id))?;
    let mut entry = sandbox.entry();
    let record = entry.record.as_mut().ok_or_else(|| not_found(id))?;
    let slot = running_slot(record)?;
    // The record first: what stands still without one is taken for a copy's and let go.
    set_paused(inner, record, true)?;
    let frozen = hide_socket(&inner.config, id).map_err(|e| internal(&e));
    let frozen = frozen.and_then(|()| inner.slots.parts.cgroups.freeze(slot).map_err(|e| unavailable(&e)));
    if frozen.is_err() {
        // The first failure is the one to report.
        let _ = wake(inner, record).inspect_err(|e| tracing::error!(sandbox = %id, %e, "a pause could not be undone"));
    }
    inner.show(&sandbox, &entry);
    frozen
}

/// Thaws a paused sandbox.
pub(crate) fn resume(inner: &Arc<Inner>, id: SandboxId) -> Result<(), RunnerError> {
    let sandbox = inner.find(id).ok_or_else(|| not_found(id))?;
    let mut entry = sandbox.entry();
    let record = entry.record.as_mut().ok_or_else(|| not_found(id))?;
    running_slot(record)?;
    let woken = wake(inner, record);
    inner.show(&sandbox, &entry);
    woken
}

/// Lets a paused sandbox go on; nothing happens to one that is not paused.
pub(crate) fn wake(inner: &Inner, record: &mut Record) -> Result<(), RunnerError> {
    if !record.paused {
        return Ok(());
    }
    let slot = running_slot(record)?;
    inner.slots.parts.cgroups.thaw(slot).map_err(|e| internal(&e))?;
    show_socket(&inner.config, record.spec.id).map_err(|e| internal(&e))?;
    set_paused(inner, record, false)
}

fn set_paused(inner: &Inner, record: &mut Record, paused: bool) -> Result<(), RunnerError> {
    if record.paused != paused {
        let former = std::mem::replace(&mut record.paused, paused);
        inner.records.save(record).inspect_err(|_| record.paused = former).map_err(|e| internal(&e))?;
    }
    Ok(())
}

fn running_slot(record: &Record) -> Result<u32, RunnerError> {
    match &record.state {
        State::Running(process) => Ok(process.slot),
        _ => {
            let message = format!("sandbox {} is not running; start it first", record.spec.id);
            Err(RunnerError::new(RunnerErrorKind::Conflict, message))
        }
    }
}

fn unavailable(error: &dyn std::error::Error) -> RunnerError {
    RunnerError::new(RunnerErrorKind::Unavailable, chain(error))
}

/// Where the agent's socket is while its sandbox is paused.
pub(crate) fn hidden_socket(config: &EngineConfig, id: SandboxId) -> PathBuf {
    socket_path(config, id).with_extension(PAUSED_SOCKET_EXTENSION)
}

fn hide_socket(config: &EngineConfig, id: SandboxId) -> io::Result<()> {
    move_socket(fs::rename(socket_path(config, id), hidden_socket(config, id)))
}

fn show_socket(config: &EngineConfig, id: SandboxId) -> io::Result<()> {
    move_socket(fs::rename(hidden_socket(config, id), socket_path(config, id)))
}

/// A repeated verb finds it moved already.
fn move_socket(moved: io::Result<()>) -> io::Result<()> {
    match moved {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The processes of a sandbox, held still until this is dropped. A runner that is killed meanwhile leaves that to the next.
pub(crate) struct Still<'a> {
    cgroups: &'a Cgroups,
    slot: u32,
}

impl<'a> Still<'a> {
    /// `None` when nothing of the sandbox moves anyway.
    pub(crate) fn hold(inner: &'a Inner, record: &Record) -> Result<Option<Self>, RunnerError> {
        let State::Running(process) = &record.state else { return Ok(None) };
        if record.paused {
            return Ok(None);
        }
        let still = Self { cgroups: &inner.slots.parts.cgroups, slot: process.slot };
        still.cgroups.freeze(still.slot).map_err(|e| unavailable(&e))?;
        Ok(Some(still))
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.cgroups.thaw(self.slot) {
            tracing::error!(slot = self.slot, error = chain(&error), "processes that were held still do not go on");
        }
    }
}

/// After a start: makes the kernel's word and the record's agree for a living sandbox. Paused is only what is both meant to
/// be and does stand still; a runner that died between the two never said that it was.
pub(crate) fn settle(
    config: &EngineConfig,
    records: &Records,
    cgroups: &Cgroups,
    slot: u32,
    record: &mut Record,
) -> Result<(), RecordError> {
    let id = record.spec.id;
    if record.paused && cgroups.is_frozen(slot).unwrap_or(false) {
        return Ok(());
    }
    if let Err(error) = cgroups.thaw(slot) {
        tracing::error!(sandbox = %id, error = chain(&error), "an adopted sandbox may stand still");
    }
    if let Err(error) = show_socket(config, id) {
        tracing::error!(sandbox = %id, %error, "the socket of an adopted sandbox stays hidden");
    }
    if std::mem::take(&mut record.paused) {
        records.save(record)?;
    }
    Ok(())
}
