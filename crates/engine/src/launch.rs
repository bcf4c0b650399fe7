//! Making a sandbox run: the steps of `create` and `start` in their order, measured, each undone when a later one fails.

use crate::assemble::{Phases, Shape, Site, agent_config, assemble};
use crate::engine::{Entry, Inner, Live, Sandbox, not_found};
use crate::error::{chain, internal};
use crate::image::Image;
use crate::probe::NoAnswer;
use crate::proven::Kind;
use crate::record::{Record, State};
use crate::slot::Slot;
use crate::{archive, pause, probe, rootfs, stop, warm};
use infield_api::SandboxId;
use infield_api::runner::*;
use infield_sys::memfd;
use std::sync::Arc;

const CPU_CORES_MAX: u32 = 1024;
const MEMORY_MIB_MIN: u64 = 16;
const MEMORY_MIB_MAX: u64 = 16 << 20;
const DISK_MIB_MIN: u64 = crate::disk::LIMIT_BYTES_MIN / MIB;
const DISK_MIB_MAX: u64 = 1 << 30;
/// Environment of one sandbox, names and values together.
const ENV_BYTES_MAX: usize = 1 << 20;
const NAME_BYTES_MAX: usize = 1024;
const MIB: u64 = 1 << 20;

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
        Some(mut record) if matches!(record.state, State::Running(_)) => {
            let woken = pause::wake(inner, &mut record);
            let answer = woken.and_then(|()| already_running(inner, &record));
            entry.record = Some(record);
            answer
        }
        Some(record) => start(inner, &mut entry, record, spec),
    };
    finish(inner, &sandbox, &entry, id, &answer);
    answer
}

pub(crate) fn finish(
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

pub(crate) fn check(spec: &SandboxSpec) -> Result<(), RunnerError> {
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
    let id = spec.id;
    // What was made ahead has its mounts already.
    let claimed = spec.volumes.is_empty().then(|| warm::claim(inner, &spec, &image, &mut phases)).flatten();
    if let Some((record, live, agent_version)) = claimed {
        let ip = Some(inner.slots.parts.net.address(live.process.slot));
        inner.watch(id, &live);
        *entry = Entry { record: Some(record), live: Some(live) };
        return Ok(Running { ip, agent_version, phases: phases.list });
    }
    let slot = inner.slots.take()?;
    phases.mark("slot");
    let number = slot.number;
    let state = State::Creating { slot: number };
    let mut record = Record::new(spec, image.id.clone(), state);
    let ran = run(inner, &image, &mut record, slot, true, &mut phases);
    match ran {
        Ok((live, agent_version)) => {
            let ip = Some(inner.slots.parts.net.address(number));
            inner.watch(id, &live);
            *entry = Entry { record: Some(record), live: Some(live) };
            Ok(Running { ip, agent_version, phases: phases.list })
        }
        Err(error) => {
            unmake(inner, number, id);
            Err(error)
        }
    }
}

/// Takes away everything of a sandbox that could not be made.
pub(crate) fn unmake(inner: &Inner, slot: u32, id: SandboxId) {
    undo(inner, slot, id);
    let gone = inner.disk.destroy(&id.to_string());
    if let Err(error) = &gone {
        tracing::warn!(sandbox = %id, error = chain(error), "disk of a failed create stays until the next start");
    } else if let Err(error) = inner.records.remove(id) {
        tracing::warn!(sandbox = %id, error = chain(&error), "record of a failed create stays until the next start");
    }
}

fn start(inner: &Arc<Inner>, entry: &mut Entry, former: Record, spec: SandboxSpec) -> Result<Running, RunnerError> {
    let id = spec.id;
    let was_archived = matches!(former.state, State::Archived { .. });
    let outcome = archive::restore(inner, &former, &spec).and_then(|()| try_start(inner, &former, spec));
    match outcome {
        Ok((record, live, running)) => {
            inner.watch(id, &live);
            *entry = Entry { record: Some(record), live: Some(live) };
            if was_archived {
                archive::forget(inner, id);
            }
            Ok(running)
        }
        Err(error) => {
            match inner.records.save(&former) {
                // Only now: a record that says "starting" takes the disk for the one that counts.
                Ok(()) if was_archived => archive::drop_disk(inner, id),
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(sandbox = %id, error = chain(&error), "record still says that the sandbox is starting");
                }
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
    let mut record = Record::new(spec, former.image_id.clone(), state);
    let ran = run(inner, &image, &mut record, slot, false, &mut phases);
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

/// From a slot to an answering agent. The record reaches the disk before anything is made.
pub(crate) fn run(
    inner: &Inner,
    image: &Image,
    record: &mut Record,
    slot: Slot,
    fresh: bool,
    phases: &mut Phases,
) -> Result<(Live, String), RunnerError> {
    inner.records.save(record).map_err(|e| internal(&e))?;
    phases.mark("record");
    let spec = &record.spec;
    let config = |inherited: &_| {
        let text = agent_config(spec, image, inherited)?;
        memfd::sealed_message(c"infield-config", &text).map_err(|e| internal(&e))
    };
    let site = Site {
        disk: &spec.id.to_string(),
        socket: &inner.socket_path(spec.id),
        hostname: rootfs::hostname(&spec.name),
        shape: Shape::of(spec),
        network_block_all: spec.network_block_all,
        volumes: &spec.volumes,
        fresh,
    };
    let (live, _) = assemble(inner, image, slot, site, config, phases)?;
    record.state = State::Running(live.process.clone());
    inner.records.save(record).map_err(|e| internal(&e))?;
    phases.mark("record2");
    let version = begun(inner, record, fresh)?;
    phases.mark("agent");
    Ok((live, version))
}

/// Waits until the agent has begun, unless others of its kind did: the answer is its version. What a sandbox's owner did to
/// its files can keep an agent from beginning, so only fresh ones are trusted.
pub(crate) fn begun(inner: &Inner, record: &Record, fresh: bool) -> Result<String, RunnerError> {
    let id = record.spec.id;
    let kind = Kind { image_id: record.image_id.clone(), user: record.spec.user.clone() };
    if let Some(version) = inner.proven.version(&kind).filter(|_| fresh) {
        return Ok(version);
    }
    let question = probe::ask(&inner.socket_path(id)).map_err(NoAnswer::from);
    let version = question.and_then(probe::Question::answer).map_err(|e| no_answer(id, e))?;
    inner.proven.note(kind, &version);
    Ok(version)
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
            volumes: vec![],
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
