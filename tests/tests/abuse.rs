//! A sandbox that misbehaves in each way hurts itself only: its own walls stop it, and a neighbour's commands stay quick.

use infield_tests::{World, eventually, median};
use serde_json::json;
use std::{
    thread,
    time::{Duration, Instant},
};

const NEIGHBOUR_MAX: Duration = Duration::from_millis(100);
const SAMPLES: usize = 20;

/// Starts `command` in one sandbox without waiting for it, and measures `true` in another meanwhile.
fn beside(world: &World, bad: &str, neighbour: &str, what: &str, command: &str, seconds: u64) -> u16 {
    thread::scope(|scope| {
        let culprit = scope.spawn(|| {
            let body = json!({ "command": command, "timeout": seconds }).to_string().into_bytes();
            world.toolbox(bad).try_call("POST", "/process/execute", Some(body)).map_or(0, |reply| reply.status)
        });
        thread::sleep(Duration::from_secs(1));
        let samples: Vec<Duration> = (0..SAMPLES)
            .map(|_| {
                let start = Instant::now();
                assert_eq!(world.exec(neighbour, "true").0, 0);
                let took = start.elapsed();
                thread::sleep(Duration::from_millis(50));
                took
            })
            .collect();
        let worst = *samples.iter().max().unwrap();
        let middle = median(samples);
        println!("neighbour's `true` beside a {what}: median {middle:?}, worst {worst:?}");
        assert!(middle < NEIGHBOUR_MAX, "a neighbour's `true` takes {middle:?} beside a {what}");
        culprit.join().unwrap()
    })
}

/// The sandbox answers again.
fn recovers(world: &World, id: &str) {
    eventually("the sandbox is usable again", Duration::from_secs(30), || {
        let body = json!({ "command": "echo fine", "timeout": 5 }).to_string().into_bytes();
        let reply = world.toolbox(id).try_call("POST", "/process/execute", Some(body)).ok()?;
        (reply.status == 200 && reply.json()["result"] == "fine\n").then_some(())
    });
}

#[test]
fn fork_bomb() {
    let world = World::new("bomb");
    let (bad, good) = (world.sandbox(), world.sandbox());
    let before = processes();
    beside(&world, &bad, &good, "fork bomb", "bash -c 'bomb() { bomb | bomb & }; bomb; sleep 8'", 8);
    let during = processes();
    assert!(during < before + 8192, "the pids limit holds: {before} processes before, {during} now");
    // However full it is, it can be deleted at once, and then its processes are gone.
    world.delete(&bad);
    eventually("its processes end", Duration::from_secs(20), || (processes() < before + 64).then_some(()));
    assert_eq!(world.sh(&good, "echo fine"), "fine\n");
}

fn processes() -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().parse::<u32>().is_ok())
        .count()
}

#[test]
fn memory_hog() {
    let world = World::new("hog");
    let (bad, good) = (world.sandbox(), world.sandbox());
    let hog = "python3 -c 'x = []\nwhile True: x.append(bytearray(16 << 20))'; echo ended with $?";
    beside(&world, &bad, &good, "memory hog", hog, 30);
    let (_, output) = world.exec(&bad, hog);
    assert!(output.contains("ended with 137"), "killed at the limit: {output}");
    recovers(&world, &bad);
    assert_eq!(world.sh(&bad, "cat /proc/1/comm | wc -l").trim(), "1", "the agent was not the victim");
}

#[test]
fn disk_filler() {
    let world = World::new("disk");
    let (bad, good) = (world.sandbox(), world.sandbox());
    let fill = "dd if=/dev/zero of=/home/daytona/fill bs=1M count=5000 2>&1; sync; du -sm /home/daytona/fill | cut -f1";
    let (_, output) = {
        beside(&world, &bad, &good, "disk filler", fill, 55);
        world.exec(&bad, fill)
    };
    assert!(output.contains("No space") || output.contains("quota"), "{output}");
    let size: u64 = output.lines().last().unwrap().trim().parse().unwrap();
    assert!((2500..=3100).contains(&size), "3 GiB were asked for, {size} MiB fit");
    world.sh(&good, "dd if=/dev/zero of=f bs=1M count=64 conv=fsync 2>&1");
    world.sh(&bad, "rm /home/daytona/fill; sync; echo again > /home/daytona/again");
}

#[test]
fn log_flood() {
    let world = World::new("flood");
    let (bad, good) = (world.sandbox(), world.sandbox());
    let memory = || -> u64 {
        let all = ["api-worker", "runner"].iter().filter_map(|role| world.role(role)).map(|p| resident_kib(p.pid));
        all.sum()
    };
    let before = memory();
    beside(&world, &bad, &good, "log flood", "timeout 10 yes 'a line of a flood'", 20);
    let grown = memory().saturating_sub(before);
    println!("the server grew by {} MiB", grown >> 10);
    assert!(grown < 256 << 10, "the server grew by {} MiB", grown >> 10);
    recovers(&world, &bad);
}

fn resident_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}
