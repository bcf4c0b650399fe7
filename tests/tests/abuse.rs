//! A sandbox that misbehaves in each way hurts itself only: its own walls stop it, and a neighbour's commands stay quick.

use infield_tests::{World, eventually, median};
use serde_json::json;
use std::{
    thread,
    time::{Duration, Instant},
};

const NEIGHBOUR_MAX: Duration = Duration::from_millis(100);
const SAMPLES: usize = 20;
/// Processes that come to the host meanwhile without a bomb: sandboxes kept ready, and what else the machine does. A bomb has 2,000.
const OTHERS_MAX: usize = 500;

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
        assert!(!culprit.is_finished(), "the {what} ended before the neighbour had been asked");
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
    beside(&world, &bad, &good, "fork bomb", "bash -c 'bomb() { bomb | bomb & }; bomb; sleep 20'", 20);
    let during = processes();
    assert!(during < before + 8192, "the pids limit holds: {before} processes before, {during} now");
    // However full it is, it can be deleted at once, and then its processes are gone.
    world.delete(&bad);
    eventually("its processes end", Duration::from_secs(20), || (processes() < before + OTHERS_MAX).then_some(()));
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
    // One is killed within a second: the next one follows, as long as the neighbour is asked.
    beside(&world, &bad, &good, "memory hog", &format!("while true; do {hog}; done"), 20);
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
    let filling = format!("while true; do {fill}; rm /home/daytona/fill; done");
    beside(&world, &bad, &good, "disk filler", &filling, 20);
    let (_, output) = world.exec(&bad, fill);
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
    beside(&world, &bad, &good, "log flood", "timeout 20 yes 'a line of a flood'", 30);
    let grown = memory().saturating_sub(before);
    println!("the server grew by {} MiB", grown >> 10);
    assert!(grown < 256 << 10, "the server grew by {} MiB", grown >> 10);
    recovers(&world, &bad);
}

/// Everything a process may try on another one of its user, and what must come of it.
const ATTACKS: &str = r#"
import ctypes, os, resource, signal
libc = ctypes.CDLL(None, use_errno=True)
for number in list(range(1, 65)) * 50:
    try:
        os.kill(1, number)
    except OSError:
        pass
def refused(what, got):
    print(what, "refused" if got == -1 else "DONE")
refused("attach", libc.ptrace(16, 1, 0, 0))
refused("seize", libc.ptrace(0x4206, 1, 0, 0))
for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE):
    try:
        resource.prlimit(1, kind, (1, 1))
        print("limit DONE")
    except PermissionError:
        print("limit refused")
for path in ("/proc/1/mem", "/proc/1/environ", "/proc/1/maps"):
    try:
        open(path, "r+b" if path.endswith("mem") else "rb").read(1)
        print(path, "DONE")
    except OSError:
        print(path, "refused")
try:
    names = os.listdir("/proc/1/fd")
    for name in names:
        os.open("/proc/1/fd/" + name, os.O_RDONLY)
    print("descriptors", "DONE" if names else "refused")
except OSError:
    print("descriptors refused")
refused("pidfd_getfd", libc.syscall(438, libc.syscall(434, 1, 0), 3, 0))
class Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
buffer = ctypes.create_string_buffer(8)
mine, its = Piece(ctypes.addressof(buffer), 8), Piece(0x400000, 8)
refused("read memory", libc.process_vm_readv(1, ctypes.byref(mine), 1, ctypes.byref(its), 1, 0))
"#;

#[test]
fn pid_1_is_out_of_reach_of_its_commands() {
    let world = World::new("pid1");
    for user in ["daytona", "root"] {
        let id = world.create(json!({ "user": user }))["id"].as_str().unwrap().to_owned();
        assert_eq!(world.sh(&id, "id -un").trim(), user);
        let began = world.sh(&id, "cut -d' ' -f22 /proc/1/stat");
        let upload = world.toolbox(&id).call("POST", "/files/upload-v2?path=/tmp/attacks.py", Some(ATTACKS.into()));
        upload.expect(200);
        let report = world.sh(&id, "python3 /tmp/attacks.py");
        assert!(!report.contains("DONE") && report.lines().count() == 12, "as {user}:\n{report}");
        recovers(&world, &id);
        assert_eq!(world.sh(&id, "cut -d' ' -f22 /proc/1/stat"), began, "another PID 1 as {user}");
        // The saved group that protects the agent is no command's.
        assert_eq!(world.sh(&id, "grep -c 65533 /proc/self/status; true").trim(), "0");
    }
}

/// The host's pid of the sandbox's agent: the one PID 1 that sees this file.
fn agent_of(marker: &str) -> Option<i32> {
    let pids =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.into_iter().find(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let inner = status.lines().find_map(|l| l.strip_prefix("NSpid:")).and_then(|l| l.split_whitespace().last());
        inner == Some("1") && *pid != 1 && std::path::Path::new(&format!("/proc/{pid}/root{marker}")).exists()
    })
}

#[test]
fn a_killed_agent_is_an_error_that_can_be_recovered() {
    let world = World::new("agentkill");
    let (id, good) = (world.sandbox(), world.sandbox());
    let marker = format!("/home/daytona/marker-{id}");
    world.sh(&id, &format!("echo kept > {marker}"));
    let path = format!("/sandbox/{id}");
    let kill = || {
        let agent = agent_of(&marker).expect("an agent sees the marker");
        infield_tests::process::signal(agent, rustix::process::Signal::KILL);
        eventually("the API says so", Duration::from_secs(30), || {
            let row = world.api().get(&path).expect(200).json();
            (row["state"] == "error").then_some(row)
        })
    };
    let row = thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let body = json!({ "command": "touch /tmp/begun; sleep 120" }).to_string().into_bytes();
            world.toolbox(&id).try_call("POST", "/process/execute", Some(body)).map_or(0, |reply| reply.status)
        });
        eventually("the command runs", Duration::from_secs(30), || {
            (world.exec(&id, "test -e /tmp/begun").0 == 0).then_some(())
        });
        let row = kill();
        assert_eq!(caller.join().unwrap(), 502, "whoever waits is told");
        row
    });
    assert!(row["errorReason"].as_str().unwrap().contains("agent"), "{row}");
    assert_eq!(row["recoverable"], true, "{row}");
    let refused = world.toolbox(&id).get("/version");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (400, Some("SANDBOX_NOT_STARTED")));
    assert_eq!(world.api().post(&format!("{path}/start"), json!({})).status, 400);
    let recover = |query: &str| world.api().post(&format!("{path}/recover{query}"), json!({}));
    let back = recover("").expect(200).json();
    assert_eq!((&back["state"], &back["errorReason"]), (&json!("started"), &json!(null)), "{back}");
    assert_eq!(world.sh(&id, &format!("cat {marker}")), "kept\n");
    assert_eq!(recover("").status, 400, "nothing to recover");

    kill();
    assert_eq!(recover("?skipStart=true").expect(200).json()["state"], "stopped");
    world.api().post(&format!("{path}/start"), json!({})).expect(200);
    assert_eq!(world.sh(&id, &format!("cat {marker}")), "kept\n");

    kill();
    world.delete(&id);
    assert_eq!(world.sh(&good, "echo fine"), "fine\n");
}

#[test]
fn a_full_disk_costs_no_file_and_no_answer() {
    let world = World::new("full");
    let id = world.sandbox();
    let toolbox = world.toolbox(&id);
    world.sh(&id, "echo old > precious; dd if=/dev/zero of=fill bs=1M count=4000 2>/dev/null; sync; true");
    let put = |path: &str, bytes: usize| {
        toolbox.call("POST", &format!("/files/upload-v2?path={path}"), Some(vec![b'x'; bytes]))
    };
    let reply = put("precious", 64 << 20);
    let message = reply.json()["message"].as_str().unwrap().to_lowercase();
    assert_eq!(reply.status, 400, "{message}");
    assert!(message.contains("no space") || message.contains("quota"), "{message}");
    assert_eq!(put("new/folder/file", 64 << 20).status, 400);
    assert_eq!(world.sh(&id, "cat precious; ls -A | sort"), expected_home(&world, &id));
    toolbox.get("/system/metrics").expect(200);
    toolbox.delete("/files?path=fill").expect(204);
    eventually("there is room again", Duration::from_secs(60), || {
        (put("precious", 64 << 20).status == 200).then_some(())
    });
    assert_eq!(world.sh(&id, "stat -c %s precious").trim(), (64 << 20).to_string());
}

/// What was there before, and nothing beside it.
fn expected_home(world: &World, id: &str) -> String {
    let names = world.sh(id, "ls -A | grep -v -e '^new$' -e part$ | sort");
    format!("old\n{names}")
}

fn resident_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}
