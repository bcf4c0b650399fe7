//! One real server for one test, and its end: every sandbox deleted, every process ended, and nothing left in the kernel.

use crate::{
    eventually, footprint,
    http::Api,
    process::{self, Seen, binary, repository, signal},
    subnet::Subnet,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// A server must answer within this time after its start, pool file and cold caches included.
const START_MAX: Duration = Duration::from_secs(60);
/// After the last sandbox is gone and the server was told to end.
const END_MAX: Duration = Duration::from_secs(30);

/// How a world differs from the usual one.
#[derive(Default)]
pub struct Options {
    /// Added to the server's environment.
    pub environment: Vec<(String, String)>,
    /// Added to its command line.
    pub arguments: Vec<String>,
    /// An image store of its own instead of the shared one.
    pub own_images: bool,
}

/// A running server with everything private to it.
pub struct World {
    pub data_dir: PathBuf,
    pub port: u16,
    pub tag: String,
    pub key: String,
    folder: PathBuf,
    server: Child,
    subnet: Subnet,
    options: Options,
}

impl World {
    /// A world with the shared image store and SQLite.
    pub fn new(name: &str) -> Self {
        Self::with(name, Options::default())
    }

    pub fn with(name: &str, options: Options) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Short: unix socket paths end at 107 bytes. Not below the repository: the API worker has no privileges there.
        let folder = std::env::temp_dir().join(format!("ift-{name}-{}-{number}", std::process::id()));
        let data_dir = folder.join("d");
        std::fs::create_dir_all(&folder).unwrap();
        let subnet = Subnet::claim();
        let port = free_port();
        let server = start(&folder, &data_dir, port, &subnet, &options);
        let mut world =
            Self { data_dir, port, tag: String::new(), key: String::new(), folder, server, subnet, options };
        world.wait_ready();
        world
    }

    /// What goes into `DAYTONA_API_URL`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/api", self.port)
    }

    /// A caller with the first key.
    pub fn api(&self) -> Api {
        Api::new(self.url(), Some(&self.key))
    }

    /// A caller of one sandbox's toolbox.
    pub fn toolbox(&self, id: &str) -> Api {
        self.api().at(format!("http://127.0.0.1:{}/toolbox/{id}", self.port))
    }

    /// A folder of this world for files of the test.
    pub fn scratch(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// Creates a sandbox and returns what the server answered.
    #[track_caller]
    pub fn create(&self, body: Value) -> Value {
        let sandbox = self.api().post("/sandbox", body).expect(200).json();
        assert_eq!(sandbox["state"], "started", "{sandbox}");
        sandbox
    }

    /// Creates a sandbox with all defaults and returns its id.
    #[track_caller]
    pub fn sandbox(&self) -> String {
        self.create(json!({}))["id"].as_str().unwrap().to_owned()
    }

    /// Runs a command through the toolbox: exit code and output.
    #[track_caller]
    pub fn exec(&self, id: &str, command: &str) -> (i64, String) {
        let reply = self.toolbox(id).post("/process/execute", json!({ "command": command, "timeout": 60 }));
        let body = reply.expect(200).json();
        (body["exitCode"].as_i64().unwrap(), body["result"].as_str().unwrap().to_owned())
    }

    /// As [`World::exec`], where only success will do.
    #[track_caller]
    pub fn sh(&self, id: &str, command: &str) -> String {
        let (code, output) = self.exec(id, command);
        assert_eq!(code, 0, "`{command}` said: {output}");
        output
    }

    /// Deletes a sandbox and waits until the API knows it no more.
    #[track_caller]
    pub fn delete(&self, id: &str) {
        let reply = self.api().delete(&format!("/sandbox/{id}"));
        assert!([200, 404].contains(&reply.status), "{}", reply.text());
        eventually("the sandbox is gone", Duration::from_secs(30), || {
            (self.api().get(&format!("/sandbox/{id}")).status == 404).then_some(())
        });
    }

    /// Ids of every sandbox the API lists.
    pub fn listed(&self) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page =
                self.api().get(&format!("/sandbox?limit=200&includeErroredDeleted=true{cursor}")).expect(200).json();
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }

    /// A program of this workspace, pointed at this server as its user would.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(binary(program));
        command
            .env("DAYTONA_API_URL", self.url())
            .env("DAYTONA_API_KEY", &self.key)
            .env("NO_COLOR", "1")
            .current_dir(&self.folder);
        command
    }

    /// With these, a program that starts a server by itself starts this world's.
    pub fn serve_environment(&self) -> [(&'static str, String); 5] {
        [
            ("INFIELD_DATA_DIR", self.data_dir.display().to_string()),
            ("INFIELD_LISTEN", format!("127.0.0.1:{}", self.port)),
            ("INFIELD_SUBNET", self.subnet.cidr()),
            ("INFIELD_SSH_LISTEN", "127.0.0.1:0".to_owned()),
            ("INFIELD_IMAGE_DIR", shared_images().display().to_string()),
        ]
    }

    /// The supervisor's process.
    pub fn supervisor(&self) -> i32 {
        self.server.id() as i32
    }

    /// A process of the server by its role (`api-worker`, `runner`, `zygote`): the supervisor's child, or a child's child.
    pub fn role(&self, role: &str) -> Option<Seen> {
        let all = process::all();
        let mut family = vec![self.supervisor()];
        let mut at = 0;
        while let Some(&parent) = family.get(at) {
            family.extend(all.iter().filter(|p| p.parent == parent).map(|p| p.pid));
            at += 1;
        }
        let mut members = all.into_iter().filter(|p| p.pid != self.supervisor() && family.contains(&p.pid));
        members.find(|p| p.arguments.get(1).is_some_and(|word| word == role) && !process::ended(p.pid))
    }

    /// Kills the supervisor, and after it whatever of the server still runs; sandboxes are left alone.
    pub fn kill_server(&mut self) {
        let roles: Vec<i32> =
            ["api-worker", "runner", "zygote"].iter().filter_map(|role| self.role(role)).map(|p| p.pid).collect();
        signal(self.supervisor(), Signal::KILL);
        let _ = self.server.wait();
        eventually("the server's other processes end with it", END_MAX, || {
            roles.iter().all(|pid| process::ended(*pid)).then_some(())
        });
    }

    /// Starts the server again on the same data, after [`World::kill_server`].
    pub fn restart(&mut self) {
        self.server = start(&self.folder, &self.data_dir, self.port, &self.subnet, &self.options);
        self.wait_ready();
    }

    /// Waits until the API answers and can reach its runner.
    pub fn wait_ready(&mut self) {
        let (log, url) = (self.log(), self.url());
        let file = |name: &str| {
            let text = std::fs::read_to_string(self.data_dir.join(name)).unwrap_or_default();
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let server = &mut self.server;
        let (tag, key) = eventually("the server answers", START_MAX, || {
            if let Some(status) = server.try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            let (tag, key) = (file("instance")?, file("admin.key")?);
            let ready = Api::new(&url, Some(&key)).try_call("GET", "/health/ready", None);
            ready.is_ok_and(|reply| reply.status == 200).then_some((tag, key))
        });
        (self.tag, self.key) = (tag, key);
    }

    /// The range of addresses that its sandboxes have.
    pub fn cidr(&self) -> String {
        self.subnet.cidr()
    }

    /// Where the server writes what it has to say.
    pub fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// What the server holds in the kernel now.
    pub fn footprint(&self) -> BTreeSet<String> {
        let mut found = footprint::of(&self.data_dir, &self.tag);
        found.extend(footprint::routes(&self.subnet.cidr()).into_iter().map(|route| format!("route {route}")));
        found
    }

    /// Ends the server in an orderly way and returns what is left of it.
    fn end(&mut self) -> BTreeSet<String> {
        let ids: Vec<String> = match self.api().try_call("GET", "/sandbox?limit=200", None) {
            Ok(reply) if reply.status == 200 => {
                let items = reply.json()["items"].as_array().cloned().unwrap_or_default();
                items.iter().filter_map(|item| item["id"].as_str().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        };
        for id in &ids {
            let _ = self.api().try_call("DELETE", &format!("/sandbox/{id}"), None);
        }
        self.await_no_sandboxes();
        let mut left = self.sandboxes_on_disk();
        signal(self.supervisor(), Signal::TERM);
        for _ in 0..END_MAX.as_millis() / 20 {
            if self.server.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if self.server.try_wait().unwrap().is_none() {
            left.insert(format!("the server ignored SIGTERM for {END_MAX:?}"));
            signal(self.supervisor(), Signal::KILL);
            let _ = self.server.wait();
        }
        left.extend(self.files_at_the_end());
        self.remove_installation();
        for _ in 0..100 {
            if self.footprint().is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        left.extend(self.footprint());
        left
    }

    fn await_no_sandboxes(&self) {
        for _ in 0..500 {
            if self.sandboxes_on_disk().is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Records and agents' sockets that the runner still keeps; not those of sandboxes kept ready.
    fn sandboxes_on_disk(&self) -> BTreeSet<String> {
        let ready = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("ready-"));
        self.agent_files().into_iter().filter(|path| !ready(path)).map(|p| format!("file {}", p.display())).collect()
    }

    fn agent_files(&self) -> Vec<PathBuf> {
        let folders = [self.data_dir.join("sandboxes"), self.data_dir.join("run/agents")];
        folders.iter().flat_map(|folder| footprint::files(folder)).collect()
    }

    /// After the server's end the ready ones are gone, too.
    fn files_at_the_end(&self) -> BTreeSet<String> {
        self.agent_files().into_iter().map(|path| format!("file {}", path.display())).collect()
    }

    /// What an installation keeps for its next start (pool, tables, routes) goes when the data directory goes.
    fn remove_installation(&self) {
        let mut command = Command::new(binary("infield"));
        command.arg("teardown").arg("--data-dir").arg(&self.data_dir).args(["--subnet", &self.subnet.cidr()]);
        let output = process::run(&mut command, Duration::from_secs(60));
        if !output.status.success() {
            eprintln!("infield teardown: {}{}", process::text(&output.stdout), process::text(&output.stderr));
        }
    }

    /// Whatever a failed test left, by force, so that the next test starts clean.
    fn sweep(&self) {
        for seen in footprint::processes(&self.data_dir, &self.tag) {
            signal(seen.pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(200));
        for at in footprint::mounts(&self.data_dir).iter().rev() {
            let _ = Command::new("umount").args(["-l", at]).status();
        }
        for link in footprint::links(&self.tag) {
            let _ = Command::new("ip").args(["link", "del", &link]).status();
        }
        for route in footprint::routes(&self.subnet.cidr()) {
            let words = route.split_whitespace().take_while(|word| *word != "proto");
            let _ = Command::new("ip").args(["route", "del"]).args(words).status();
        }
        for table in footprint::tables(&self.tag) {
            let words: Vec<&str> = table.split_whitespace().collect();
            let _ = Command::new("nft").arg("delete").args(&words).status();
        }
        for cgroup in footprint::cgroups(&self.tag) {
            let _ = Command::new("find").arg(&cgroup).args(["-depth", "-type", "d", "-delete"]).status();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            eprintln!("server log:\n{}", tail(&self.log(), 80));
        }
        let left = self.end();
        self.sweep();
        if std::env::var_os("INFIELD_TEST_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
        let report = left.iter().map(|line| format!("  {line}\n")).collect::<String>();
        if !report.is_empty() && failed {
            eprintln!("left behind:\n{report}");
        }
        assert!(failed || left.is_empty(), "left behind:\n{report}");
    }
}

fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The image store that `make image` fills once for all tests.
pub fn shared_images() -> PathBuf {
    let path = std::env::var_os("INFIELD_TEST_IMAGES")
        .map_or_else(|| repository().join("target/infield-images"), PathBuf::from);
    assert!(path.is_dir(), "{} is missing; run `make image` first", path.display());
    path
}

fn start(folder: &Path, data_dir: &Path, port: u16, subnet: &Subnet, options: &Options) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("server.log")).unwrap();
    let mut command = Command::new(binary("infield"));
    command.arg("serve").arg("--data-dir").arg(data_dir).args(["--listen", &format!("127.0.0.1:{port}")]);
    command.args(["--subnet", &subnet.cidr()]).env("INFIELD_SSH_LISTEN", "127.0.0.1:0");
    if !options.own_images {
        command.arg("--image-dir").arg(shared_images());
    }
    command.args(&options.arguments).envs(options.environment.iter().map(|(name, value)| (name, value)));
    for name in ["DAYTONA_API_URL", "DAYTONA_API_KEY", "INFIELD_DATA_DIR"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}
