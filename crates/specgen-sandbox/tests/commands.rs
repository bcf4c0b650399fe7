//! Every command against a fake server that answers from a table and remembers what it was asked.

use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
};

const ID: &str = "7a1f0c52-9f3e-4a51-8a55-0d0c8f4b9d11";

type Table = HashMap<String, (u16, String)>;

struct Fake {
    url: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Fake {
    /// `table`: "METHOD /path?query" to status and body. Whatever is not in it is 404.
    fn start(entries: &[(&str, u16, Value)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let url = format!("http://{}/api", listener.local_addr().expect("address"));
        let toolbox = url.replace("/api", "/toolbox");
        let text = |body: &Value| match body {
            Value::Null => String::new(),
            body => body.to_string().replace("TOOLBOX", &toolbox),
        };
        let table: Table = entries.iter().map(|(ask, status, body)| ((*ask).into(), (*status, text(body)))).collect();
        let asked = Arc::<Mutex<Vec<_>>>::default();
        let remember = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.expect("accept"), &table, &remember);
            }
        });
        Self { url, asked }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_specgen-sandbox"));
        command.args(args).stdin(Stdio::null()).env("DAYTONA_API_URL", &self.url).env("DAYTONA_API_KEY", "dtn_secret");
        for name in
            ["GIT_USERNAME", "GIT_TOKEN", "GIT_PASSWORD", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "SPECGEN_PROVIDER"]
        {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("run")
    }

    /// The requests so far.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("lock").iter().map(|(ask, _)| ask.clone()).collect()
    }

    /// The body that came with a request.
    fn body(&self, ask: &str) -> Value {
        let asked = self.asked.lock().expect("lock");
        asked.iter().find(|(a, _)| a == ask).unwrap_or_else(|| panic!("{ask} was not asked: {asked:?}")).1.clone()
    }
}

fn answer(stream: TcpStream, table: &Table, asked: &Mutex<Vec<(String, Value)>>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let lower = head.to_lowercase();
    assert!(lower.contains("authorization: bearer dtn_secret"), "{head}");
    let length = lower.lines().find_map(|l| l.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("body");
    let ask = head.split(' ').take(2).collect::<Vec<_>>().join(" ").replace("/api/", "/").replace("/toolbox/", "/t/");
    asked.lock().expect("lock").push((ask.clone(), serde_json::from_slice(&body).unwrap_or_default()));
    let missing = (404, "404 page not found".to_owned());
    let (status, text) = table.get(&ask).unwrap_or(&missing);
    let reply = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
    let _ = stream.get_mut().write_all(reply.as_bytes());
}

fn sandbox(labels: Value) -> Value {
    json!({
        "id": ID, "name": "box", "state": "started", "labels": labels, "cpu": 1, "memory": 1, "disk": 3,
        "toolboxProxyUrl": "TOOLBOX", "user": "daytona", "target": "us",
    })
}

fn get_box(labels: Value) -> (&'static str, u16, Value) {
    ("GET /sandbox/box", 200, sandbox(labels))
}

fn toolbox(method: &str, path: &str) -> String {
    format!("{method} /t/{ID}{path}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn spin_as_the_documentation_writes_it() {
    let fake = Fake::start(&[
        ("POST /sandbox", 200, sandbox(json!({}))),
        (&toolbox("GET", "/user-home-dir"), 200, json!({"dir": "/home/daytona"})),
        (&toolbox("POST", "/git/clone"), 200, Value::Null),
        (&format!("PUT /sandbox/{ID}/labels"), 200, json!({"labels": {}})),
    ]);
    let url = "https://github.com/bl1nk-bot/specbl1z.git";
    let args = ["spin", "--provider", "daytona", "--repo", url, "--branch", "main", "--name", "my-sandbox"];
    let output = fake.command(&args).env("GIT_TOKEN", "tok").output().expect("run");
    let said = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(said.contains(ID) && said.contains("started") && said.contains("exec --id"), "{said}");
    assert_eq!(fake.body("POST /sandbox")["name"], "my-sandbox");
    assert_eq!(
        fake.body(&toolbox("POST", "/git/clone")),
        json!({"url": url, "path": "/home/daytona/specbl1z", "branch": "main", "username": "git", "password": "tok"})
    );
    let labels = fake.body(&format!("PUT /sandbox/{ID}/labels"));
    assert_eq!(labels["labels"]["infield.dev/workdir"], "/home/daytona/specbl1z");
    assert!(!said.contains("tok\n"));
}

#[test]
fn a_failed_clone_leaves_no_sandbox() {
    let refusal = json!({"statusCode": 404, "message": "branch nope not found", "code": "GIT_BRANCH_NOT_FOUND"});
    let fake = Fake::start(&[
        ("POST /sandbox", 200, sandbox(json!({}))),
        (&toolbox("GET", "/user-home-dir"), 200, json!({"dir": "/home/daytona"})),
        (&toolbox("POST", "/git/clone"), 404, refusal),
        (&format!("DELETE /sandbox/{ID}"), 200, Value::Null),
    ]);
    let output = fake.run(&["spin", "--repo", "https://h/r.git", "--branch", "nope"]);
    assert_eq!(output.status.code(), Some(8));
    let said = text(&output.stderr);
    assert!(said.contains("branch nope not found") && said.contains("--branch") && said.contains("deleted"), "{said}");
    assert!(fake.asked().contains(&format!("DELETE /sandbox/{ID}")));
}

#[test]
fn creation_that_fails_says_cause_and_fix() {
    let quota = json!({"statusCode": 400, "message": "Total CPU limit exceeded"});
    let fake = Fake::start(&[("POST /sandbox", 400, quota)]);
    let output = fake.run(&["spin"]);
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(
        text(&output.stderr),
        "error: sandbox creation failed\n  detail: Total CPU limit exceeded\n  cause:  Network/quota issue\n  \
         fix:    Wait 30s, retry; check quota on dashboard\n"
    );
    let output = fake.run(&["spin", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!((&said["error"], &said["cause"]), (&"sandbox creation failed".into(), &"Network/quota issue".into()));
}

#[test]
fn exec_runs_where_the_repository_is_and_exits_with_its_code() {
    let fake = Fake::start(&[
        get_box(json!({"infield.dev/workdir": "/home/daytona/repo"})),
        (&toolbox("POST", "/process/execute"), 200, json!({"exitCode": 42, "result": "out\n"})),
    ]);
    let output = fake.run(&["exec", "--id", "box", "--cmd", "make all", "--env", "A=b=c"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(42), "out\n"));
    let said = text(&output.stderr);
    assert!(said.contains("exec exit code != 0") && said.contains("Read output, fix command, retry"), "{said}");
    assert_eq!(
        fake.body(&toolbox("POST", "/process/execute")),
        json!({"command": "make all", "cwd": "/home/daytona/repo", "envs": {"A": "b=c"}})
    );
    let quiet = fake.run(&["exec", "-q", "--id", "box", "--path", "/tmp", "--", "echo", "a b"]);
    assert_eq!(text(&quiet.stderr), "");
    let json = fake.run(&["exec", "--json", "--id", "box", "--cmd", "x"]);
    let said: Value = serde_json::from_slice(&json.stdout).expect("one JSON document");
    assert_eq!((&said["exitCode"], &said["stdout"], json.status.code()), (&42.into(), &"out\n".into(), Some(42)));
    let tty = fake.run(&["exec", "-t", "--id", "box", "--cmd", "x"]);
    assert_eq!(tty.status.code(), Some(125));
    assert!(text(&tty.stderr).contains("not there yet"));
}

#[test]
fn exec_wakes_a_sandbox_that_stopped_by_itself() {
    let mut stopped = sandbox(json!({}));
    stopped["state"] = "stopped".into();
    let fake = Fake::start(&[
        ("GET /sandbox/box", 200, stopped),
        (&format!("POST /sandbox/{ID}/start"), 200, sandbox(json!({}))),
        (&toolbox("POST", "/process/execute"), 200, json!({"exitCode": 0, "result": "up\n"})),
    ]);
    let output = fake.run(&["exec", "--id", "box", "--cmd", "x"]);
    assert_eq!(text(&output.stdout), "up\n", "{}", text(&output.stderr));
    assert!(fake.asked().contains(&format!("POST /sandbox/{ID}/start")));
}

#[test]
fn sync_commits_names_the_branch_and_pushes() {
    let status = json!({"currentBranch": "main", "fileStatus": [{"name": "a", "staging": "Untracked", "worktree": "Untracked"}]});
    let path = "/home/daytona/repo";
    let query = "?path=%2Fhome%2Fdaytona%2Frepo";
    let fake = Fake::start(&[
        get_box(json!({"infield.dev/workdir": path, "infield.dev/repo": "https://h/repo.git"})),
        (&toolbox("GET", &format!("/git/status{query}")), 200, status),
        (&toolbox("GET", &format!("/git/branches{query}")), 200, json!({"branches": ["main"]})),
        (&toolbox("POST", "/git/add"), 200, Value::Null),
        (&toolbox("POST", "/git/commit"), 200, json!({"hash": "a".repeat(40)})),
        (&toolbox("POST", "/git/branches"), 201, Value::Null),
        (&toolbox("POST", "/git/push"), 200, Value::Null),
    ]);
    let args = ["sync", "--id", "box", "--branch", "cleanup/reorg", "--author", "N", "--email", "n@e", "-m", "msg"];
    let output = fake.run(&args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("pushed cleanup/reorg"), "{}", text(&output.stdout));
    let commit = json!({"path": path, "message": "msg", "author": "N", "email": "n@e", "allow_empty": false});
    assert_eq!(fake.body(&toolbox("POST", "/git/commit")), commit);
    // Committed before anything else is touched, so that nothing can be lost.
    let writes: Vec<_> = fake.asked().into_iter().filter(|ask| ask.starts_with("POST")).collect();
    let order = ["/git/add", "/git/commit", "/git/branches", "/git/push"].map(|path| toolbox("POST", path));
    assert_eq!(writes, order);
}

#[test]
fn a_diverged_branch_is_a_sync_conflict() {
    let rejected = json!({"statusCode": 409, "message": "non-fast-forward", "code": "GIT_PUSH_REJECTED"});
    let query = "?path=%2Fr";
    let fake = Fake::start(&[
        get_box(json!({})),
        (&toolbox("GET", &format!("/git/status{query}")), 200, json!({"currentBranch": "main", "fileStatus": []})),
        (&toolbox("POST", "/git/push"), 409, rejected),
        (&toolbox("POST", "/process/execute"), 200, json!({"exitCode": 0, "result": ""})),
    ]);
    let output = fake.run(&["sync", "--id", "box", "--path", "/r"]);
    assert_eq!(output.status.code(), Some(6));
    let said = text(&output.stderr);
    for words in ["sync conflict", "Branch diverged from remote", "Run git pull --rebase inside sandbox first"] {
        assert!(said.contains(words), "{said}");
    }
    assert!(!fake.asked().contains(&toolbox("POST", "/git/commit")), "nothing to commit is fine");
    let nowhere = fake.run(&["sync", "--id", "box"]);
    assert_eq!(nowhere.status.code(), Some(2), "{}", text(&nowhere.stderr));
}

#[test]
fn delete_info_and_list() {
    let fake = Fake::start(&[
        get_box(json!({"a": "b"})),
        (&format!("DELETE /sandbox/{ID}"), 200, sandbox(json!({}))),
        ("GET /sandbox?limit=100", 200, json!({"items": [sandbox(json!({}))], "nextCursor": "c/1"})),
        ("GET /sandbox?limit=100&cursor=c%2F1", 200, json!({"items": [sandbox(json!({}))], "nextCursor": null})),
    ]);
    assert!(fake.run(&["delete", "--id", "box"]).status.success());
    assert!(fake.asked().contains(&format!("DELETE /sandbox/{ID}")));
    let info = text(&fake.run(&["info", "--id", "box"]).stdout);
    assert!(info.contains(ID) && info.contains("a=b"), "{info}");
    assert_eq!(text(&fake.run(&["list"]).stdout).matches(ID).count(), 2);
    let listed: Value = serde_json::from_slice(&fake.run(&["list", "--json"]).stdout).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    let missing = fake.run(&["delete", "--id", "nobody"]);
    assert_eq!(missing.status.code(), Some(7), "{}", text(&missing.stderr));
}

#[test]
fn the_key_and_the_address() {
    let fake = Fake::start(&[("GET /sandbox?limit=100", 401, json!({"message": "Unauthorized"}))]);
    let output = fake.command(&["list", "--provider", "daytona"]).env_remove("DAYTONA_API_KEY").output().expect("run");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        text(&output.stderr),
        "error: DAYTONA_API_KEY not set\n  cause:  No API key in env\n  fix:    Get key from https://app.daytona.io/dashboard/keys\n"
    );
    assert_eq!(fake.run(&["list"]).status.code(), Some(3), "a wrong key");
    let refused = fake.command(&["list"]).env("DAYTONA_API_URL", "http://127.0.0.1:1/api").output().expect("run");
    assert_eq!(refused.status.code(), Some(4));
    let said = text(&refused.stderr);
    assert!(said.contains("error: connection refused") && said.contains("cause:  API endpoint wrong"), "{said}");
    assert!(said.contains("fix:    Verify DAYTONA_API_URL (default: https://app.daytona.io/api)"), "{said}");
}

#[test]
fn without_a_key_and_without_a_server_the_local_provider_says_what_to_do() {
    let fake = Fake::start(&[]);
    let data = "/nowhere/infield";
    // Nothing beside the program: it runs from a folder of its own.
    let folder = tempdir();
    let own = folder.join("specgen-sandbox");
    // A link, not a copy: a file that another test's child still holds open for writing cannot be run.
    std::fs::hard_link(env!("CARGO_BIN_EXE_specgen-sandbox"), &own).expect("link");
    let mut command = Command::new(&own);
    command.args(["list", "--data-dir", data]).env_remove("DAYTONA_API_KEY").env("PATH", "/nowhere");
    let output = command.env_remove("SPECGEN_PROVIDER").output().expect("run");
    std::fs::remove_dir_all(folder).expect("remove");
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("sudo infield serve"), "{}", text(&output.stderr));
    assert!(fake.asked().is_empty());
}

fn tempdir() -> std::path::PathBuf {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("specgen-own-{}", std::process::id()));
    std::fs::create_dir_all(&path).expect("folder");
    path
}

#[test]
fn completions() {
    let fake = Fake::start(&[]);
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(text(&fake.run(&["completions", shell]).stdout).contains("specgen-sandbox"), "{shell}");
    }
    assert!(text(&fake.run(&["--help"]).stdout).contains("Exit codes:"));
}
