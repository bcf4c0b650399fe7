//! Sandboxes that stand still, and sandboxes that get other limits, on the real kernel.

#![allow(clippy::unwrap_used)]

mod support;

use infield_api::SandboxId;
use infield_api::runner::{ObservedState, Runner, RunnerErrorKind, SandboxSpec};
use support::{World, eventually};

const COUNT: &str = "(n=0; while true; do n=$((n+1)); echo $n > /dev/shm/n; done) > /dev/null 2>&1 &";

fn cpu(world: &World, id: SandboxId) -> u64 {
    world.runtime.block_on(world.engine().stats(id)).unwrap().cpu_usage_us
}

fn pause(world: &World, id: SandboxId) {
    world.runtime.block_on(world.engine().pause(id)).unwrap();
}

fn resume(world: &World, id: SandboxId) {
    world.runtime.block_on(world.engine().resume(id)).unwrap();
}

fn number(world: &World, id: SandboxId) -> u64 {
    // Truncated and written again all the time: now and then it is empty.
    let mut found = None;
    eventually("the counter is read", || {
        found = world.sh(id, "cat /dev/shm/n").1.trim().parse().ok();
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_paused_sandbox_uses_no_processor_and_forgets_nothing() {
    let world = World::new("paused");
    let spec = world.sandbox();
    let (id, engine) = (spec.id, world.engine());
    assert_eq!(world.sh(id, COUNT).0, 0);
    let before = number(&world, id);
    pause(&world, id);
    pause(&world, id);
    assert_eq!(world.state(id), ObservedState::Paused);
    let used = cpu(&world, id);
    let started = std::time::Instant::now();
    let refused = world.runtime.block_on(engine.connect(id)).unwrap_err();
    assert_eq!(refused.kind, RunnerErrorKind::Conflict);
    assert!(refused.message.contains("resume"), "{refused}");
    assert!(!world.data.join(format!("run/agents/{id}.sock")).exists());
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(cpu(&world, id), used, "after {:?}", started.elapsed());
    let stats = world.runtime.block_on(engine.stats(id)).unwrap();
    assert!(stats.memory_bytes > 0 && stats.pids >= 2, "{stats:?}");
    resume(&world, id);
    resume(&world, id);
    assert_eq!(world.state(id), ObservedState::Running);
    let after = number(&world, id);
    assert!(after >= before, "{before} {after}");
    eventually("it counts on", || number(&world, id) > after);
    // Nobody is held still, so nobody can be let go.
    world.runtime.block_on(engine.stop(id, true)).unwrap();
    for verb in [engine.pause(id), engine.resume(id)] {
        assert_eq!(world.runtime.block_on(verb).unwrap_err().kind, RunnerErrorKind::Conflict);
    }
    let nobody = world.runtime.block_on(engine.pause(SandboxId::random())).unwrap_err();
    assert_eq!(nobody.kind, RunnerErrorKind::NotFound);
}

#[test]
fn a_pause_outlives_the_runner() {
    let mut world = World::new("outpause");
    let (paused, other) = (world.sandbox(), world.sandbox());
    assert_eq!(world.sh(paused.id, COUNT).0, 0);
    pause(&world, paused.id);
    let used = cpu(&world, paused.id);
    world.leave();
    let recovery = world.open();
    assert_eq!((recovery.adopted, recovery.failed), (2, 0), "{recovery:?}");
    assert_eq!(world.state(paused.id), ObservedState::Paused);
    assert_eq!(world.state(other.id), ObservedState::Running);
    assert_eq!(cpu(&world, paused.id), used);
    resume(&world, paused.id);
    assert_eq!(world.sh(paused.id, "echo awake").1, "awake\n");
    // What somebody else let go is not paused, whatever the record says; and what somebody else froze is let go.
    pause(&world, paused.id);
    let frozen = |id, word: &str| {
        let slot = slot_of(&world, id);
        let base = format!("infield-{}", infield_engine::tag_of(&world.data).unwrap());
        let file = std::path::Path::new("/sys/fs/cgroup/freezer").join(base).join(slot).join("freezer.state");
        if file.exists() {
            std::fs::write(file, word).unwrap();
            return true;
        }
        false
    };
    if frozen(paused.id, "THAWED") && frozen(other.id, "FROZEN") {
        world.leave();
        world.open();
        for id in [paused.id, other.id] {
            assert_eq!(world.state(id), ObservedState::Running);
            assert_eq!(world.sh(id, "echo awake").1, "awake\n");
        }
    }
}

fn slot_of(world: &World, id: SandboxId) -> String {
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", world.pid(id))).unwrap();
    let line = groups.lines().find(|l| l.contains(":freezer:")).unwrap();
    line.rsplit('/').next().unwrap().to_owned()
}

#[test]
fn paused_sandboxes_end_like_others() {
    let world = World::new("endpause");
    let engine = world.engine();
    for force in [true, false] {
        let spec = world.sandbox();
        let note = "trap 'echo told > /told; exit 0' TERM; while true; do sleep 0.05; done";
        let script = format!("({note}) > /dev/null 2>&1 &");
        assert_eq!(world.sh(spec.id, &script.replace('\n', ";")).0, 0);
        std::thread::sleep(std::time::Duration::from_millis(100));
        pause(&world, spec.id);
        world.runtime.block_on(engine.stop(spec.id, force)).unwrap();
        assert_eq!(world.state(spec.id), ObservedState::Stopped);
        world.runtime.block_on(engine.start(spec.clone())).unwrap();
        let told = world.sh(spec.id, "cat /told").1;
        assert_eq!(told == "told\n", !force, "{told}");
        // Started again it is not paused, and asked to start it goes on.
        pause(&world, spec.id);
        world.runtime.block_on(engine.start(spec.clone())).unwrap();
        assert_eq!(world.state(spec.id), ObservedState::Running);
        pause(&world, spec.id);
        world.runtime.block_on(engine.destroy(spec.id)).unwrap();
        assert!(world.runtime.block_on(engine.inspect(spec.id)).is_err());
    }
    eventually("nothing is left", || {
        let now = support::Footprint::of(&world);
        std::fs::read_dir(world.data.join("run/agents")).unwrap().count() == now.disks
    });
}

#[test]
fn limits_change_while_it_runs() {
    let mut world = World::new("resize");
    let spec = world.sandbox();
    let id = spec.id;
    let resize = |world: &World, spec: &SandboxSpec| world.runtime.block_on(world.engine().resize(spec.clone()));
    let group = |world: &World, file: &str| {
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", world.pid(id))).unwrap();
        let (controller, _) = file.split_once('.').unwrap();
        let line = groups.lines().find(|l| l.split(':').nth(1) == Some(controller)).unwrap();
        let dir = format!("/sys/fs/cgroup/{controller}{}", line.rsplit(':').next().unwrap());
        std::fs::read_to_string(format!("{dir}/{file}")).unwrap().trim().to_owned()
    };
    let bigger = SandboxSpec { cpu: 2, memory_mib: 256, disk_mib: 512, ..spec.clone() };
    resize(&world, &bigger).unwrap();
    resize(&world, &bigger).unwrap();
    if std::path::Path::new("/sys/fs/cgroup/cpu").exists() {
        assert_eq!(group(&world, "cpu.cfs_quota_us"), "200000");
        assert_eq!(group(&world, "memory.limit_in_bytes"), ((256u64 + 64) << 20).to_string());
    }
    // 150 MiB of memory and 300 MiB of disk are possible now.
    assert_eq!(world.sh(id, "head -c 157286400 /dev/zero > /dev/shm/x 2>/dev/null; true").0, 0);
    let (_, out) = world.sh(id, "head -c 314572800 /dev/zero > /big && echo fits");
    assert_eq!(out, "fits\n");
    // /dev/shm takes 64 MiB and no more.
    let small = SandboxSpec { memory_mib: 32, ..bigger.clone() };
    let refused = resize(&world, &small).unwrap_err();
    assert_eq!(refused.kind, RunnerErrorKind::Conflict);
    assert!(refused.message.contains("MiB of memory now"), "{refused}");
    let refused = resize(&world, &SandboxSpec { disk_mib: 128, ..bigger.clone() }).unwrap_err();
    assert_eq!(refused.kind, RunnerErrorKind::Conflict, "{refused}");
    assert_eq!(world.sh(id, "echo unhurt").1, "unhurt\n");
    world.sh(id, "rm /dev/shm/x");
    resize(&world, &small).unwrap();
    assert_eq!(world.sh(id, "echo unhurt").1, "unhurt\n");
    // What counts is written down: the next runner has it, and the sandbox keeps it when it is started by it.
    world.leave();
    let record = std::fs::read_to_string(world.data.join(format!("sandboxes/{id}.json"))).unwrap();
    assert!(record.contains("\"memory_mib\":32") && record.contains("\"resizing\":false"), "{record}");
    // A runner that died in the middle: the next one finishes.
    let unfinished = record.replace("\"memory_mib\":32", "\"memory_mib\":64").replace("g\":false}", "g\":true}");
    std::fs::write(world.data.join(format!("sandboxes/{id}.json")), unfinished).unwrap();
    world.open();
    if std::path::Path::new("/sys/fs/cgroup/memory").exists() {
        assert_eq!(group(&world, "memory.limit_in_bytes"), ((64u64 + 64) << 20).to_string());
    }
    world.runtime.block_on(world.engine().stop(id, true)).unwrap();
    resize(&world, &SandboxSpec { disk_mib: 600, ..small.clone() }).unwrap();
    assert_eq!(world.state(id), ObservedState::Stopped);
    let absurd = resize(&world, &SandboxSpec { cpu: 0, ..small }).unwrap_err();
    assert_eq!(absurd.kind, RunnerErrorKind::Invalid);
}
