//! Whole sandboxes on the real kernel: what they are promised, what is kept from them, and that they come and go cleanly.

#![allow(clippy::unwrap_used)]

mod support;

use infield_api::runner::{ObservedState, Runner, RunnerErrorKind, SandboxSpec};
use support::{World, eventually};

#[test]
fn a_sandbox_is_what_was_promised() {
    let world = World::new("promised");
    let spec = world.sandbox();
    let pid = world.pid(spec.id);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in ["CapBnd:\t00000000a80425fb", "CapEff:\t00000000a80425fb", "Seccomp:\t2", "NoNewPrivs:\t0"] {
        assert!(status.contains(line), "{line} not in\n{status}");
    }
    let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    let numbers: Vec<u64> = map.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert!(numbers[0] == 0 && numbers[1] >= 0x2000_0000 && numbers[2] == 65536, "{map}");
    for kind in ["user", "mnt", "pid", "net", "uts", "ipc", "cgroup"] {
        let (inside, outside) = (format!("/proc/{pid}/ns/{kind}"), format!("/proc/self/ns/{kind}"));
        assert_ne!(std::fs::read_link(inside).unwrap(), std::fs::read_link(outside).unwrap(), "{kind}");
    }
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    assert!(limits.contains("Max core file size        1                    1"), "{limits}");
    let (code, out) = world.sh(spec.id, "hostname; cat /etc/hostname; ls /proc/self/fd; cat /proc/self/oom_score_adj");
    assert_eq!((code, out.lines().next()), (0, Some("test-box")), "{out}");
    let (_, mounts) = world.sh(spec.id, "cat /proc/self/mountinfo");
    assert!(mounts.lines().next().unwrap().contains(" / / rw,nodev"), "{mounts}");
    for needed in [" /proc/sys ro", " /sys ro", " /dev ro", " /proc/keys ro", " /dev/shm rw,nosuid,nodev,noexec"] {
        assert!(mounts.contains(needed), "{needed} not in\n{mounts}");
    }
    let (_, devices) = world.sh(spec.id, "ls /sys/devices/virtual/block /sys/fs; cat /sys/block/*/loop/backing_file");
    assert!(!devices.contains("loop0\n") && !devices.contains("btrfs") && !devices.contains("pool.img"), "{devices}");
    assert!(!mounts.contains("/work") && !mounts.contains("infield-promised"), "host paths are visible:\n{mounts}");
    // Commands do not live in the agent's groups.
    let (_, groups) = world.sh(spec.id, "cat /proc/self/cgroup");
    assert!(["memory", "pids", "cpu"].iter().all(|g| groups.contains(&format!("{g}:/user\n"))), "{groups}");
}

#[test]
fn ways_out_are_closed() {
    let world = World::new("closed");
    let spec = world.sandbox();
    let refused = [
        "mount -t tmpfs t /mnt",
        "mount --bind / /mnt",
        "unshare -Ur true",
        "unshare -m true",
        "nsenter -t 1 -m true",
        "mknod /b b 8 0",
        "mknod /c c 1 1",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo b > /proc/sysrq-trigger",
        "echo x > /sys/kernel/uevent_helper",
        "cat /proc/1/environ > /x && echo 0 > /proc/1/exe",
        "echo -900 > /proc/self/oom_score_adj",
        "ls /proc/1/root/proc/1/root/work",
        "echo 1 > /proc/self/uid_map",
        "cat /dev/mem",
        "cat /dev/kmsg",
    ];
    for attempt in refused {
        let (code, out) = world.sh(spec.id, &format!("mkdir -p /mnt; {attempt}"));
        assert_ne!(code, 0, "{attempt}: {out}");
    }
    // The agent is PID 1 of its namespace: a signal from inside does not reach it.
    let (_, out) = world.sh(spec.id, "kill -9 1; kill -15 1; echo still here");
    assert!(out.contains("still here"));
    assert_eq!(world.state(spec.id), ObservedState::Running);
    // No descriptor of the host's, and none of the agent's, reaches a command.
    let (_, fds) = world.sh(spec.id, "ls -l /proc/self/fd");
    assert!(!fds.contains("socket:") && !fds.contains("cgroup") && !fds.contains("memfd"), "{fds}");
}

/// What the kernel shares out by user or from one table: a sandbox gets no more than its part of it.
#[test]
fn what_one_sandbox_uses_up_others_still_have() {
    let world = World::new("shares");
    let (greedy, neighbour) = (world.sandbox(), world.sandbox());
    let ask = |id, question: &str| -> i64 { world.sh(id, &format!("/bin/probe {question}")).1.trim().parse().unwrap() };
    // Packet sockets under both their names (EAFNOSUPPORT); raw ones for ping are there.
    assert_eq!((ask(greedy.id, "socket 17 3 768"), ask(greedy.id, "socket 2 10 768")), (-97, -97));
    assert!(ask(greedy.id, "socket 2 3 1") > 0 && ask(greedy.id, "socket 10 1 0") > 0);
    #[cfg(target_arch = "x86_64")]
    assert_eq!(ask(greedy.id, "syscall 206"), -38, "io_setup");
    let terminals = ask(greedy.id, "terminals");
    assert!((1000..=1024).contains(&terminals), "{terminals}");
    let before = ask(neighbour.id, "inotify");
    let (id, data) = (greedy.id, world.data.clone());
    let holder = std::thread::spawn(move || support::exec(&data, id, &["/bin/probe", "inotify", "hold"]));
    eventually("the greedy one has all it can get", || ask(greedy.id, "inotify") == 0);
    assert!(before > 0 && ask(neighbour.id, "inotify") == before);
    let root = std::process::Command::new(support::probe()).arg("inotify").output().unwrap();
    assert_ne!(root.stdout, b"0\n", "the host's root has none left");
    world.runtime.block_on(world.engine().stop(greedy.id, true)).unwrap();
    let _ = holder.join();
}

#[test]
fn files_survive_and_hostile_ones_hurt_nobody() {
    let world = World::new("files");
    let spec = world.sandbox();
    let secret = world.data.join("secret");
    std::fs::write(&secret, "host").unwrap();
    let plant = format!("echo mine > /kept; rm -f /etc/hosts; ln -s {} /etc/hosts", secret.display());
    assert_eq!(world.sh(spec.id, &plant).0, 0);
    world.runtime.block_on(world.engine().stop(spec.id, false)).unwrap();
    assert_eq!(world.state(spec.id), ObservedState::Stopped);
    let refused = world.runtime.block_on(world.engine().connect(spec.id)).unwrap_err();
    assert_eq!(refused.kind, RunnerErrorKind::Conflict);
    world.runtime.block_on(world.engine().start(spec.clone())).unwrap();
    assert_eq!(world.sh(spec.id, "cat /kept").1, "mine\n");
    assert!(world.sh(spec.id, "cat /etc/hosts").1.contains("test-box"));
    assert_eq!(std::fs::read_to_string(secret).unwrap(), "host");
}

#[test]
fn verbs_are_idempotent_and_errors_have_their_kind() {
    let world = World::new("verbs");
    let engine = world.engine();
    world.runtime.block_on(async {
        let spec = world.spec();
        let kind = |error: infield_api::runner::RunnerError| error.kind;
        assert_eq!(engine.start(spec.clone()).await.map_err(kind), Err(RunnerErrorKind::NotFound));
        assert_eq!(engine.stop(spec.id, true).await.map_err(kind), Err(RunnerErrorKind::NotFound));
        assert_eq!(engine.inspect(spec.id).await.map_err(kind), Err(RunnerErrorKind::NotFound));
        engine.destroy(spec.id).await.unwrap();
        let absent = SandboxSpec { image: "lab/absent:1".into(), ..spec.clone() };
        assert_eq!(engine.create(absent).await.map_err(kind), Err(RunnerErrorKind::NotFound));
        assert_eq!(engine.inspect(spec.id).await.map_err(kind), Err(RunnerErrorKind::NotFound));
        let first = engine.create(spec.clone()).await.unwrap();
        assert_eq!(engine.create(spec.clone()).await.unwrap().ip, first.ip);
        engine.stop(spec.id, true).await.unwrap();
        engine.stop(spec.id, true).await.unwrap();
        engine.create(spec.clone()).await.unwrap();
        assert!(engine.stats(spec.id).await.unwrap().pids >= 1);
        engine.destroy(spec.id).await.unwrap();
        engine.destroy(spec.id).await.unwrap();
        assert!(engine.list().await.unwrap().is_empty());
    });
}

#[test]
fn bombs_stay_inside_and_the_agent_answers() {
    let world = World::new("bombs");
    let spec = world.sandbox();
    // 4 shells doubling a string until the kernel stops them.
    let (_, out) = world.sh(spec.id, "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done");
    let stats = world.runtime.block_on(world.engine().stats(spec.id)).unwrap();
    assert!(stats.oom_kills >= 1, "{stats:?} {out}");
    assert_eq!(world.state(spec.id), ObservedState::Running);
    let (id, data) = (spec.id, world.data.clone());
    let bomb = std::thread::spawn(move || {
        support::exec(&data, id, &["/bin/sh", "-c", "(b() { b | b & }; b) > /dev/null 2>&1; sleep 3"])
    });
    eventually("the bomb fills its group", || {
        world.runtime.block_on(world.engine().stats(spec.id)).unwrap().pids > 200
    });
    // Both ask the agent while the bomb runs. A command in there would have to fight the bomb for its share of memory.
    assert!(support::version(&world.data, spec.id).contains("test"));
    world.runtime.block_on(world.engine().create(spec.clone())).unwrap();
    let neighbour = world.sandbox();
    assert_eq!(world.sh(neighbour.id, "echo fine").1, "fine\n");
    world.runtime.block_on(world.engine().stop(spec.id, true)).unwrap();
    let _ = bomb.join();
}

#[test]
fn prepared_groups_that_somebody_tidies_away_are_no_loss() {
    let world = World::new("tidy");
    let base = format!("infield-{}", infield_engine::tag_of(&world.data).unwrap());
    let hierarchies = || std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|h| h.path().join(&base));
    eventually("slots are ready", || support::Footprint::of(&world).groups == 4);
    for group in hierarchies().filter_map(|h| std::fs::read_dir(h).ok()).flatten().flatten().map(|entry| entry.path()) {
        // Plain files cannot be removed and stay.
        let _ = (std::fs::remove_dir(group.join("user")), std::fs::remove_dir(group));
    }
    let spec = world.sandbox();
    assert_eq!(world.sh(spec.id, "echo fine").1, "fine\n");
}

#[test]
fn a_dead_agent_is_noticed_and_its_slot_freed() {
    let world = World::new("dead");
    let spec = world.sandbox();
    std::process::Command::new("kill").args(["-9", &world.pid(spec.id).to_string()]).status().unwrap();
    eventually("the death is noticed", || matches!(world.state(spec.id), ObservedState::Failed { .. }));
    world.runtime.block_on(world.engine().start(spec.clone())).unwrap();
    assert_eq!(world.sh(spec.id, "echo back").1, "back\n");
}

#[test]
fn fifty_at_once() {
    let world = World::new("fifty");
    let engine = world.engine().clone();
    world.runtime.block_on(async {
        let specs: Vec<SandboxSpec> = (0..50).map(|_| world.spec()).collect();
        let tasks: Vec<_> = specs
            .iter()
            .cloned()
            .map(|spec| {
                let engine = engine.clone();
                tokio::spawn(async move { engine.create(spec).await })
            })
            .collect();
        let mut addresses = std::collections::BTreeSet::new();
        for task in tasks {
            addresses.insert(task.await.unwrap().unwrap().ip.unwrap());
        }
        assert_eq!((addresses.len(), engine.list().await.unwrap().len()), (50, 50));
    });
}
