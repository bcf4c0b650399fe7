//! Sandboxes that begin as copies of others, on the real kernel.

#![allow(clippy::unwrap_used)]

mod support;

use infield_api::runner::{ObservedState, Runner, RunnerErrorKind, RunnerRequest, RunnerResponse, SandboxSpec};
use infield_engine::disk::Backend;
use support::process::{RunnerProcess, connect, receive, send};
use support::{Footprint, World, eventually};

fn fork(world: &World, source: &SandboxSpec, name: &str) -> SandboxSpec {
    let spec = SandboxSpec { name: name.to_owned(), ..world.spec() };
    world.runtime.block_on(world.engine().fork(source.id, spec.clone())).unwrap();
    spec
}

fn copies_are_whole_and_apart(backend: Backend, name: &str) {
    let mut world = World::empty(name);
    world.backend = backend;
    world.open();
    let source = world.sandbox();
    let make = "mkdir -p /d/e; echo old > /d/e/f; ln /d/e/f /d/hard; ln -s e/f /d/soft; rm -f /bin/mknod; \
                (while true; do echo . >> /count; sleep 0.01; done) > /dev/null 2>&1 &";
    assert_eq!(world.sh(source.id, make).0, 0);
    let child = fork(&world, &source, "The Copy");
    assert_eq!(world.state(source.id), ObservedState::Running);
    let (_, seen) = world.sh(child.id, "cat /d/e/f /d/hard /d/soft; hostname; cat /etc/hostname; ls /bin/mknod; true");
    assert!(seen.starts_with("old\nold\nold\nthe-copy\nthe-copy\n") && !seen.contains("\n/bin/mknod\n"), "{seen}");
    // Processes are not copied, files are apart from now on, and the source goes on.
    let count = |id| world.sh(id, "cat /count").1.len();
    let (theirs, ours) = (count(child.id), count(source.id));
    eventually("the source goes on", || count(source.id) > ours);
    assert!(theirs > 0 && count(child.id) == theirs);
    world.sh(child.id, "echo new > /d/e/f");
    assert_eq!(world.sh(source.id, "cat /d/e/f").1, "old\n");
    // A copy of a copy, of a stopped one, and of a paused one, which stays paused.
    let grandchild = fork(&world, &child, "grandchild");
    assert_eq!(world.sh(grandchild.id, "cat /d/hard").1, "new\n");
    world.runtime.block_on(world.engine().pause(source.id)).unwrap();
    let late = fork(&world, &source, "late");
    assert_eq!(world.state(source.id), ObservedState::Paused);
    assert_eq!(world.sh(late.id, "cat /d/soft").1, "old\n");
    world.runtime.block_on(world.engine().stop(source.id, true)).unwrap();
    let last = fork(&world, &source, "last");
    world.runtime.block_on(world.engine().destroy(source.id)).unwrap();
    assert_eq!(world.sh(last.id, "cat /d/soft").1, "old\n");
    // Its limit is its own.
    let (_, out) = world.sh(last.id, "head -c 400000000 /dev/zero > /big; echo $?");
    assert!(!out.ends_with("\n0\n") && out != "0\n", "{out}");
    assert_eq!(world.sh(child.id, "echo fits > /small && cat /small").1, "fits\n");
    // Asked for again it is there, running or not.
    world.runtime.block_on(world.engine().fork(child.id, grandchild.clone())).unwrap();
    world.runtime.block_on(world.engine().stop(grandchild.id, true)).unwrap();
    world.runtime.block_on(world.engine().fork(child.id, grandchild.clone())).unwrap();
    assert_eq!(world.sh(grandchild.id, "cat /d/hard").1, "new\n");
}

#[test]
fn copies_that_share_blocks() {
    copies_are_whole_and_apart(Backend::Auto, "fork");
}

#[test]
fn copies_of_images() {
    copies_are_whole_and_apart(Backend::Ext4Loop, "fork-ext4");
}

#[test]
fn what_cannot_be_copied_leaves_nothing() {
    let world = World::new("nofork");
    let engine = world.engine();
    let source = world.sandbox();
    let forked = |source, spec| world.runtime.block_on(engine.fork(source, spec)).map_err(|e| e.kind);
    eventually("the pool is full", || Footprint::of(&world).disks >= 5);
    assert_eq!(forked(world.spec().id, world.spec()), Err(RunnerErrorKind::NotFound));
    assert_eq!(forked(source.id, source.clone()), Err(RunnerErrorKind::Invalid));
    assert_eq!(forked(source.id, SandboxSpec { cpu: 0, ..world.spec() }), Err(RunnerErrorKind::Invalid));
    // Something stands where the copy would be.
    let spec = world.spec();
    let place = world.data.join("pool").join(spec.id.to_string());
    let made = std::process::Command::new("btrfs").args(["subvolume", "create"]).arg(&place).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    assert_eq!(forked(source.id, spec.clone()), Err(RunnerErrorKind::Conflict));
    assert!(!place.exists());
    assert_eq!(engine_sees(&world), 1);
    assert!(!world.data.join(format!("sandboxes/{}.json", spec.id)).exists());
    assert_eq!(world.sh(source.id, "echo moving").1, "moving\n");
    forked(source.id, spec).unwrap();
}

fn engine_sees(world: &World) -> usize {
    world.runtime.block_on(world.engine().list()).unwrap().len()
}

#[test]
fn a_runner_killed_while_it_copies_leaves_only_whole_copies() {
    let mut world = World::empty("killfork");
    let source = world.spec();
    for round in 0..4 {
        let runner = RunnerProcess::start(&world);
        let mut stream = connect(&world);
        if round == 0 {
            send(&mut stream, 0, RunnerRequest::Create(Box::new(source.clone())));
            assert!(matches!(receive(&mut stream).body, RunnerResponse::Running(_)));
            let write = "(while true; do head -c 9000000 /dev/zero > /x; done) > /dev/null 2>&1 &";
            assert_eq!(world.sh(source.id, write).0, 0);
        }
        for seq in 0..10 {
            let spec = Box::new(world.spec());
            send(&mut stream, seq, RunnerRequest::Fork { source: source.id, spec });
        }
        for _ in 0..round {
            receive(&mut stream);
        }
        runner.kill();
    }
    let recovery = world.open();
    let list = world.runtime.block_on(world.engine().list()).unwrap();
    assert_eq!(list.len(), recovery.adopted, "{recovery:?}");
    assert!(list.iter().all(|seen| seen.state == ObservedState::Running), "{list:?}");
    for seen in &list {
        assert_eq!(world.sh(seen.id, "echo whole").1, "whole\n");
        world.runtime.block_on(world.engine().destroy(seen.id)).unwrap();
    }
    eventually("only the pool is left", || {
        let now = Footprint::of(&world);
        (now.links, now.groups, now.disks, now.sockets) == (4, 4, 0, 0)
    });
}
