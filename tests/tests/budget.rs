//! What the agent may cost, and what the way to it must carry. Sizes are asserted; speed is only measured, with a release build:
//! `INFIELD_BIN=target/release/infield cargo test --release -p infield-tests --test budget -- --ignored --nocapture`.

use infield_tests::{World, eventually, median};
use std::{
    fs::File,
    io::{Read, Write},
    net::TcpStream,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const BINARY_BYTES_MAX: u64 = 8 << 20;
const IDLE_PSS_KIB_MAX: u64 = 2 << 10;
const IDLE_SANDBOXES: u64 = 10;
const PARALLEL: usize = 200;
const EXECS: usize = 500;
/// Through the sandbox's disk.
const DISK_BYTES: usize = 256 << 20;
/// Through its /dev/shm, which has 64 MiB: the old file and the new one must fit.
const MEMORY_BYTES: usize = 24 << 20;
const TRANSFERS: usize = 5;
const PIECE_BYTES: usize = 256 << 10;

/// The host's pid of a sandbox's agent: the PID 1 that sees this file.
fn agent_of(world: &World, id: &str) -> i32 {
    let marker = format!("/tmp/agent-of-{id}");
    world.sh(id, &format!("touch {marker}"));
    let pids =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let found = pids.into_iter().find(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let inner = status.lines().find_map(|l| l.strip_prefix("NSpid:")).and_then(|l| l.split_whitespace().last());
        inner == Some("1") && *pid != 1 && Path::new(&format!("/proc/{pid}/root{marker}")).exists()
    });
    world.sh(id, &format!("rm {marker}"));
    found.expect("an agent sees the marker")
}

fn pss_kib(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn the_agent_is_small_and_idles_small() {
    let world = World::new("small");
    // Agents share their program's pages, so one alone would be charged for all of them.
    let ids: Vec<String> = (0..IDLE_SANDBOXES).map(|_| world.sandbox()).collect();
    let agents: Vec<i32> = ids.iter().map(|id| agent_of(&world, id)).collect();
    let binary = std::fs::metadata(format!("/proc/{}/exe", agents[0])).unwrap().len();
    println!("the agent's program has {binary} bytes");
    assert!(binary <= BINARY_BYTES_MAX, "{binary} bytes");
    let average = || agents.iter().map(|agent| pss_kib(*agent)).sum::<u64>() / IDLE_SANDBOXES;
    println!("after two commands each an agent uses {} KiB", average());
    let last = eventually("they idle small", Duration::from_secs(60), || {
        Some(average()).filter(|pss| *pss <= IDLE_PSS_KIB_MAX)
    });
    println!("an idle agent uses {last} KiB");
}

#[test]
fn many_execs_at_once_all_answer() {
    let world = World::new("many");
    let id = world.sandbox();
    let began = Instant::now();
    thread::scope(|scope| {
        let callers: Vec<_> = (0..PARALLEL)
            .map(|n| {
                let (world, id) = (&world, &id);
                scope.spawn(move || world.exec(id, &format!("sleep 0.2; echo {n}")))
            })
            .collect();
        for (n, caller) in callers.into_iter().enumerate() {
            assert_eq!(caller.join().unwrap(), (0, format!("{n}\n")));
        }
    });
    println!("{PARALLEL} execs at once took {:?}", began.elapsed());
    let agent = agent_of(&world, &id);
    let left = std::fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).unwrap();
    let zombies = left
        .split_whitespace()
        .filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z ")));
    assert_eq!(zombies.count(), 0);
}

/// Gigabytes per second, the best of several tries.
fn best(what: &str, bytes: usize, mut transfer: impl FnMut()) -> f64 {
    let rates = (0..TRANSFERS).map(|_| {
        let began = Instant::now();
        transfer();
        bytes as f64 / 1e9 / began.elapsed().as_secs_f64()
    });
    let best = rates.fold(0.0, f64::max);
    println!("{what:<44} {best:.2} GB/s");
    best
}

/// `cat` into a unix socket, `cat` out of it.
fn cat(from: &Path, to: &Path) {
    let (left, right) = UnixStream::pair().unwrap();
    let start = |stdin: Stdio, stdout: Stdio| Command::new("cat").stdin(stdin).stdout(stdout).spawn().unwrap();
    let mut source = start(File::open(from).unwrap().into(), OwnedFd::from(left).into());
    let mut sink = start(OwnedFd::from(right).into(), File::create(to).unwrap().into());
    assert!(source.wait().unwrap().success() && sink.wait().unwrap().success());
}

fn head(stream: &mut TcpStream, world: &World, method: &str, target: &str, bytes: usize) {
    let text = format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Length: {bytes}\r\n\r\n",
        world.key
    );
    stream.write_all(text.as_bytes()).unwrap();
}

/// Reads an answer's head; what of the body came with it is counted.
fn answered(stream: &mut TcpStream, buffer: &mut [u8]) -> usize {
    let mut length = 0;
    loop {
        let n = stream.read(&mut buffer[length..]).unwrap();
        assert!(n > 0, "no answer");
        length += n;
        if let Some(end) = buffer[..length].windows(4).position(|w| w == b"\r\n\r\n") {
            assert!(buffer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&buffer[..end]));
            return length - end - 4;
        }
    }
}

fn upload(world: &World, id: &str, path: &str, bytes: usize) {
    let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
    let piece = vec![7; PIECE_BYTES];
    head(&mut stream, world, "POST", &format!("/toolbox/{id}/files/upload-v2?path={path}"), bytes);
    for _ in 0..bytes / PIECE_BYTES {
        stream.write_all(&piece).unwrap();
    }
    answered(&mut stream, &mut vec![0; PIECE_BYTES]);
}

fn download(world: &World, id: &str, path: &str, bytes: usize) {
    let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
    let mut buffer = vec![0; PIECE_BYTES];
    head(&mut stream, world, "GET", &format!("/toolbox/{id}/files/download?path={path}"), 0);
    let mut got = answered(&mut stream, &mut buffer);
    while got < bytes {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "the answer broke off after {got} bytes");
        got += n;
    }
}

/// `true` over one kept connection to the agent's own socket.
fn exec_at_agent(socket: &Path) -> Duration {
    let mut stream = UnixStream::connect(socket).unwrap();
    let body = r#"{"command":"true"}"#;
    let request = format!("POST /process/execute HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut buffer = vec![0; 4096];
    median(
        (0..EXECS)
            .map(|_| {
                let began = Instant::now();
                stream.write_all(request.as_bytes()).unwrap();
                let n = stream.read(&mut buffer).unwrap();
                assert!(buffer[..n].ends_with(b"}"), "{}", String::from_utf8_lossy(&buffer[..n]));
                began.elapsed()
            })
            .collect(),
    )
}

#[test]
#[ignore = "a measurement; see the head of this file"]
fn speed() {
    let world = World::new("speed");
    let id = world.sandbox();
    let socket: PathBuf = world.data_dir.join("run/agents").join(format!("{id}.sock"));
    println!("{:<44} {:?}", "exec of `true` at the agent, median", exec_at_agent(&socket));

    let memory = PathBuf::from(format!("/dev/shm/infield-budget-{}", std::process::id()));
    let (full, copy) = (memory.with_extension("in"), memory.with_extension("out"));
    let nowhere = Path::new("/dev/null");
    let disk = world.data_dir.join("pool").join(&id).join("u/cat");
    let percent = |part: f64, whole: f64| part / whole * 100.0;
    for (place, bytes, file, copy) in
        [("memory", MEMORY_BYTES, "/dev/shm/budget", &copy), ("disk", DISK_BYTES, "/home/daytona/budget", &disk)]
    {
        std::fs::write(&full, vec![7; bytes]).unwrap();
        let cat_in = best(&format!("cat into a file ({place})"), bytes, || cat(&full, copy));
        let cat_out = best(&format!("cat out of a file ({place})"), bytes, || cat(copy, nowhere));
        std::fs::remove_file(&full).unwrap();
        std::fs::remove_file(copy).unwrap();
        let up = best(&format!("upload ({place})"), bytes, || upload(&world, &id, file, bytes));
        let down = best(&format!("download ({place})"), bytes, || download(&world, &id, file, bytes));
        println!("of cat: upload {:.0} %, download {:.0} %", percent(up, cat_in), percent(down, cat_out));
    }
}
