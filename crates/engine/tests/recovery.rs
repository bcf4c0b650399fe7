//! Killed at any moment: runner, zygotes and half-made sandboxes.

#![allow(clippy::unwrap_used)]

mod support;

use infield_api::SandboxId;
use infield_api::runner::{Frame, ObservedState, Runner, RunnerRequest, RunnerResponse};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use support::{Footprint, LAB, World, agent, eventually, exec};

struct RunnerProcess(Child);

impl RunnerProcess {
    fn start(world: &World) -> Self {
        let subnet = format!("{}/{}", world.subnet.0, world.subnet.1);
        let mut child = Command::new(LAB)
            .arg("runner")
            .args([world.data.as_os_str(), agent().as_os_str(), subnet.as_ref()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("ready"), "{line}");
        Self(child)
    }

    /// As `kill -9` does.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn connect(world: &World) -> UnixStream {
    UnixStream::connect(world.data.join("run/runner.sock")).unwrap()
}

fn send(stream: &mut UnixStream, seq: u64, body: RunnerRequest) {
    let text = serde_json::to_vec(&Frame { seq, body }).unwrap();
    stream.write_all(&(text.len() as u32).to_le_bytes()).unwrap();
    stream.write_all(&text).unwrap();
}

fn receive(stream: &mut UnixStream) -> Frame<RunnerResponse> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut text = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}

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
