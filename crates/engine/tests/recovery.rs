//! Killed at any moment: runner, zygotes and half-made sandboxes.

#![allow(clippy::unwrap_used)]

mod support;

use infield_api::SandboxId;
use infield_api::runner::{ObservedState, Runner, RunnerRequest, RunnerResponse};
use std::process::Command;
use support::process::{RunnerProcess, connect, receive, send};
use support::{Footprint, World, eventually, exec};

#[test]
fn sandboxes_outlive_a_killed_runner() {
    let mut world = World::empty("outlive");
    let runner = RunnerProcess::start(&world);
    let mut stream = connect(&world);
    let ids: Vec<SandboxId> = (0..5)
        .map(|seq| {
            let spec = world.spec();
            send(&mut stream, seq, RunnerRequest::Create(Box::new(spec.clone())));
            let answer = receive(&mut stream);
            assert!(matches!(answer.body, RunnerResponse::Running(_)) && answer.seq == seq, "{answer:?}");
            spec.id
        })
        .collect();
    let count = "(while true; do echo . >> /count; sleep 0.05; done) > /dev/null 2>&1 &";
    for id in &ids {
        assert_eq!(exec(&world.data, *id, &["/bin/sh", "-c", count]).0, 0);
    }
    runner.kill();
    let counted = |id| exec(&world.data, id, &["/bin/sh", "-c", "cat /count"]).1.lines().count();
    let before: Vec<usize> = ids.iter().map(|id| counted(*id)).collect();
    eventually("all go on counting", || ids.iter().zip(&before).all(|(id, was)| counted(*id) > *was));
    let recovery = world.open();
    assert_eq!((recovery.adopted, recovery.failed, recovery.cleaned), (5, 0, 0), "{recovery:?}");
    for id in &ids {
        assert_eq!(world.state(*id), ObservedState::Running);
        assert_eq!(world.sh(*id, "echo here").1, "here\n");
    }
    // A death after the adoption is noticed like any other.
    Command::new("kill").args(["-9", &world.pid(ids[0]).to_string()]).status().unwrap();
    eventually("the death is noticed", || matches!(world.state(ids[0]), ObservedState::Failed { .. }));
}

#[test]
fn a_runner_killed_while_it_creates_leaves_only_whole_sandboxes() {
    let mut world = World::empty("midway");
    for round in 0..4 {
        let runner = RunnerProcess::start(&world);
        let mut stream = connect(&world);
        for seq in 0..20 {
            send(&mut stream, seq, RunnerRequest::Create(Box::new(world.spec())));
        }
        // Killed while the rest is in the works.
        for _ in 0..(round * 3) {
            receive(&mut stream);
        }
        runner.kill();
    }
    let recovery = world.open();
    let list = world.runtime.block_on(world.engine().list()).unwrap();
    assert_eq!(list.len(), recovery.adopted, "{recovery:?}");
    for seen in &list {
        assert_eq!(world.sh(seen.id, "echo whole").1, "whole\n");
        world.runtime.block_on(world.engine().destroy(seen.id)).unwrap();
    }
    eventually("only the pool is left", || {
        let now = Footprint::of(&world);
        (now.links, now.groups, now.disks, now.sockets) == (4, 4, 0, 0)
    });
}

#[test]
fn zygotes_are_replaced_when_they_die() {
    let world = World::new("zygotes");
    let before = world.sandbox();
    let children = format!("/proc/self/task/{}/children", std::process::id());
    let zygotes: Vec<String> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == "infield-zygote\n"))
        .collect();
    assert!(!zygotes.is_empty(), "{children}");
    for pid in &zygotes {
        Command::new("kill").args(["-9", pid]).status().unwrap();
    }
    assert_eq!(world.sh(before.id, "echo alive").1, "alive\n");
    // A call that meets a dead zygote fails and undoes itself; soon every call works again.
    eventually("sandboxes can be made again", || world.runtime.block_on(world.engine().create(world.spec())).is_ok());
}
