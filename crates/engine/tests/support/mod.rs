//! A private world for each test of whole sandboxes: own data directory, own addresses, a small image made from this
//! host's programs, the test agent. Ending it removes everything, also when the test fails.
#![allow(dead_code, clippy::unwrap_used)]

pub mod process;

use infield_api::SandboxId;
use infield_api::runner::{ObservedState, Runner, SandboxSpec};
use infield_engine::disk::Backend;
use infield_engine::image::{ImageConfig, Silent, Store};
use infield_engine::{Engine, EngineConfig, Recovery, zygote};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

pub const LAB: &str = env!("CARGO_BIN_EXE_engine-lab");
pub const IMAGE: &str = "lab/base:1";
const PROGRAMS: [&str; 17] = [
    "/bin/sh",
    "/bin/cat",
    "/bin/ls",
    "/bin/grep",
    "/bin/mount",
    "/bin/mknod",
    "/bin/sleep",
    "/bin/ln",
    "/bin/rm",
    "/bin/mkdir",
    "/bin/hostname",
    "/usr/bin/unshare",
    "/usr/bin/id",
    "/usr/bin/tail",
    "/usr/bin/head",
    "/bin/true",
    "/usr/bin/nsenter",
];

/// Polls until something holds; a test that waits for ever fails with words.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The agent, compiled once per test program.
pub fn agent() -> &'static Path {
    static AGENT: OnceLock<PathBuf> = OnceLock::new();
    AGENT.get_or_init(|| compile("agent"))
}

/// The program that asks the kernel for scarce things; `/bin/probe` in the image.
pub fn probe() -> &'static Path {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(|| compile("probe"))
}

fn compile(name: &str) -> PathBuf {
    let source = format!("{}/tests/support/{name}.rs.in", env!("CARGO_MANIFEST_DIR"));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("test-{name}-{}", std::process::id()));
    let out = path.to_str().unwrap();
    let copy = format!("{out}.rs");
    std::fs::copy(source, &copy).unwrap();
    let flags = ["--edition", "2024", "-O", "-Ctarget-feature=+crt-static", "-Cpanic=abort", "-Cstrip=symbols"];
    run("rustc", &[&flags[..], &["--crate-name", name, "-o", out, &copy]].concat());
    std::fs::remove_file(copy).unwrap();
    path
}

/// A root file system with a few programs of this host and the libraries they name.
fn import_image(data: &Path) {
    let mut files: BTreeSet<String> = BTreeSet::new();
    for program in PROGRAMS {
        files.insert(program.to_owned());
        let libraries = run("ldd", &[program]);
        files.extend(libraries.split_whitespace().filter(|w| w.starts_with('/')).map(str::to_owned));
    }
    let mut tar = tar::Builder::new(Vec::new());
    let named = files.iter().map(|file| (Path::new(file), file.as_str()));
    for (file, name) in named.chain([(probe(), "/bin/probe")]) {
        let content = std::fs::read(file).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, name.trim_start_matches('/'), content.as_slice()).unwrap();
    }
    let store = Store::open_for(data.join("images"), data).unwrap();
    store.import_tar(tar.into_inner().unwrap().as_slice(), IMAGE, &ImageConfig::default(), &Silent).unwrap();
}

pub struct World {
    pub data: PathBuf,
    pub subnet: (std::net::Ipv4Addr, u8),
    pub runtime: tokio::runtime::Runtime,
    pub backend: Backend,
    engine: Option<Engine>,
}

impl World {
    /// A data directory with an image, and no engine yet.
    pub fn empty(name: &str) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let third = NEXT.fetch_add(1, Ordering::Relaxed) * 16;
        let data = std::env::temp_dir().join(format!("infield-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&data).unwrap();
        import_image(&data);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        Self {
            data,
            subnet: (std::net::Ipv4Addr::new(10, 71, third, 0), 20),
            runtime,
            backend: Backend::Auto,
            engine: None,
        }
    }

    pub fn new(name: &str) -> Self {
        let mut world = Self::empty(name);
        world.open();
        world
    }

    pub fn config(&self) -> EngineConfig {
        EngineConfig {
            subnet: self.subnet,
            pool_bytes: Some(2 << 30),
            disk_backend: self.backend,
            slots_ready: 4,
            zygotes: 2,
            ..EngineConfig::new(self.data.clone(), std::fs::read(agent()).unwrap().into())
        }
    }

    pub fn open(&mut self) -> Recovery {
        let zygotes = zygote::spawn_program(LAB.into(), 2).unwrap();
        let _context = self.runtime.enter();
        let (engine, recovery) = Engine::open(self.config(), zygotes).unwrap();
        self.engine = Some(engine);
        recovery
    }

    /// Drops the engine; sandboxes go on.
    pub fn leave(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.close();
        }
        // Background work may still hold the lock of the data directory for a moment.
        let lock = std::fs::File::open(self.data.join("run/runner.lock")).unwrap();
        eventually("the engine lets go", || lock.try_lock().is_ok());
    }

    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    pub fn spec(&self) -> SandboxSpec {
        SandboxSpec {
            id: SandboxId::random(),
            name: "Test Box".into(),
            image: IMAGE.into(),
            user: None,
            env: Default::default(),
            labels: Default::default(),
            cpu: 1,
            memory_mib: 128,
            disk_mib: 256,
            network_block_all: false,
            entrypoint: vec![],
            volumes: vec![],
        }
    }

    /// A running sandbox.
    pub fn sandbox(&self) -> SandboxSpec {
        let spec = self.spec();
        self.runtime.block_on(self.engine().create(spec.clone())).unwrap();
        spec
    }

    pub fn pid(&self, id: SandboxId) -> i32 {
        self.runtime.block_on(self.engine().inspect(id)).unwrap().pid.unwrap()
    }

    pub fn state(&self, id: SandboxId) -> ObservedState {
        self.runtime.block_on(self.engine().inspect(id)).unwrap().state
    }

    pub fn sh(&self, id: SandboxId, script: &str) -> (i32, String) {
        exec(&self.data, id, &["/bin/sh", "-c", &script.replace('\n', ";")])
    }
}

/// Runs a command through the test agent: exit code and output.
pub fn exec(data: &Path, id: SandboxId, words: &[&str]) -> (i32, String) {
    let (head, out) = ask(data, id, "POST /exec", &words.join("\n"));
    let code = head.lines().find_map(|l| l.strip_prefix("X-Code: ")?.parse().ok()).unwrap_or(-1);
    (code, out)
}

/// What the test agent says of itself.
pub fn version(data: &Path, id: SandboxId) -> String {
    ask(data, id, "GET /version", "").1
}

fn ask(data: &Path, id: SandboxId, what: &str, body: &str) -> (String, String) {
    let mut stream = UnixStream::connect(data.join(format!("run/agents/{id}.sock"))).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "{what} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text);
    let (head, out) = text.split_once("\r\n\r\n").unwrap_or_default();
    (head.to_owned(), out.to_owned())
}

impl Drop for World {
    fn drop(&mut self) {
        if self.engine.is_none() && !std::thread::panicking() {
            self.open();
        }
        if self.engine.is_none() {
            // The test failed with a runner of its own: what it left is found by name, and its files stay to be looked at.
            return;
        }
        let engine = self.engine.take().unwrap();
        self.runtime.block_on(async {
            for seen in engine.list().await.unwrap_or_default() {
                let _ = engine.destroy(seen.id).await;
            }
        });
        engine.close();
        drop(engine);
        let _ = Command::new("umount").arg("-l").arg(self.data.join("pool")).output();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

/// What must not grow: mounts, sandbox links and control groups of this world, descriptors of this process.
#[derive(Debug, PartialEq, Eq)]
pub struct Footprint {
    pub mounts: usize,
    pub links: usize,
    pub groups: usize,
    pub descriptors: usize,
    pub disks: usize,
    pub sockets: usize,
}

impl Footprint {
    pub fn of(world: &World) -> Self {
        let tag = infield_engine::tag_of(&world.data).unwrap();
        let count = |dir: &Path, keep: &dyn Fn(&str) -> bool| {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries.filter(|e| keep(&e.file_name().to_string_lossy())).count()
        };
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let data = world.data.to_string_lossy().into_owned();
        Self {
            mounts: mounts.lines().filter(|l| l.contains(&data)).count(),
            links: count(Path::new("/sys/class/net"), &|n| n.starts_with(&format!("if{tag}v"))),
            groups: count(&PathBuf::from(format!("/sys/fs/cgroup/memory/infield-{tag}")), &|n| n.starts_with('s')),
            descriptors: count(Path::new("/proc/self/fd"), &|_| true),
            disks: count(&world.data.join("pool"), &|n| !n.starts_with('.')),
            sockets: count(&world.data.join("run/agents"), &|_| true),
        }
    }
}
