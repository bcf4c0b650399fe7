//! Every code that a Git operation can end with, provoked by what really causes it.

#![allow(clippy::unwrap_used, reason = "a test that stops says where")]

mod common;

use common::git_server::GitServer;
use common::{Agent, Answer, Scratch, host};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

struct Place {
    agent: Agent,
    origin: Scratch,
    server: GitServer,
}

impl Place {
    /// A repository `r.git` behind a server, and a clone `c` of it.
    fn new() -> Self {
        let origin = Scratch::new("errors");
        let git = |dir: &str, args: &[&str]| host(&origin.0.join(dir), "git", args);
        git("", &["init", "-q", "--bare", "-b", "main", "r.git"]);
        git("", &["init", "-q", "--bare", "-b", "main", "empty.git"]);
        git("", &["init", "-q", "-b", "main", "w"]);
        fs::write(origin.0.join("w/f"), "1\n").unwrap();
        git("w", &["add", "."]);
        git("w", &["commit", "-q", "-m", "1"]);
        git("w", &["push", "-q", "../r.git", "main"]);
        let (agent, server) = (Agent::start(), GitServer::start(origin.0.clone(), None));
        let place = Self { agent, origin, server };
        place.is(&place.clone("r.git", "c"), 200, "");
        place
    }

    fn post(&self, operation: &str, mut body: Value) -> Answer {
        if body["path"].is_null() {
            body["path"] = json!("c");
        }
        self.agent.post(&format!("/git/{operation}"), body)
    }

    fn clone(&self, name: &str, path: &str) -> Answer {
        self.post("clone", json!({"url": format!("{}/{name}", self.server.url), "path": path}))
    }

    fn is(&self, answer: &Answer, status: u16, code: &str) {
        assert_eq!(answer.status, status, "{}", answer.text());
        if status >= 400 {
            assert_eq!(answer.code(), code);
        }
    }

    fn commit(&self, file: &str, content: &str) {
        fs::write(self.agent.work("c").join(file), content).unwrap();
        self.is(&self.post("add", json!({"files": [file]})), 200, "");
        self.is(&self.post("commit", json!({"message": "m", "author": "A", "email": "a@x"})), 200, "");
    }

    /// Somebody else's commit on the remote.
    fn advance(&self, content: &str) {
        let work = self.origin.0.join("w");
        fs::write(work.join("f"), content).unwrap();
        host(&work, "git", &["commit", "-q", "-am", "theirs"]);
        host(&work, "git", &["push", "-q", "../r.git", "main"]);
    }
}

#[test]
fn of_the_remote() {
    let place = Place::new();
    place.is(&place.clone("forbidden/r.git", "x"), 403, "FORBIDDEN");
    place.is(&place.clone("nope.git", "x"), 404, "GIT_REPO_NOT_FOUND");
    place.is(&place.clone("empty.git", "x"), 404, "NOT_FOUND");
    place.is(&place.clone("broken/r.git", "x"), 502, "GIT_TRANSPORT_FAILED");
    let login = GitServer::start(place.origin.0.clone(), Some(("u", "p")));
    let url = format!("{}/r.git", login.url);
    let remote = |name: &str, url: &str| place.post("remotes", json!({"name": name, "url": url}));
    for (name, url, status, code) in [
        ("login", url.clone(), 401, "GIT_AUTH_FAILED"),
        ("forbidden", format!("{}/forbidden/r.git", place.server.url), 403, "FORBIDDEN"),
        ("gone", format!("{}/gone.git", place.server.url), 404, "GIT_REPO_NOT_FOUND"),
        ("away", place.origin.path("away.git"), 404, "GIT_REPO_NOT_FOUND"),
        ("unreachable", "http://127.0.0.1:1/r.git".to_owned(), 502, "GIT_TRANSPORT_FAILED"),
        ("nameless", "https://no-such-host.invalid/r.git".to_owned(), 502, "GIT_TRANSPORT_FAILED"),
        ("breaks", format!("{}/broken/r.git", place.server.url), 502, "GIT_TRANSPORT_FAILED"),
    ] {
        assert_eq!(remote(name, &url).status, 201);
        place.is(&place.post("pull", json!({"remote": name, "branch": "main"})), status, code);
        place.is(&place.post("push", json!({"remote": name})), status, code);
    }
    place.is(&place.post("pull", json!({"remote": "nobody"})), 404, "NOT_FOUND");
    place.is(&place.post("push", json!({"remote": "nobody"})), 404, "NOT_FOUND");
    place.is(&place.post("pull", json!({"branch": "nope"})), 404, "GIT_BRANCH_NOT_FOUND");
    place.is(&place.post("push", json!({"branch": "nope"})), 404, "GIT_BRANCH_NOT_FOUND");
    place.is(&remote("login", "x"), 409, "CONFLICT");
    let added = place.post("remotes", json!({"name": "f", "url": url, "fetch": true}));
    place.is(&added, 401, "GIT_AUTH_FAILED");
}

#[test]
fn of_two_histories() {
    let place = Place::new();
    fs::write(place.agent.work("c/f"), "mine\n").unwrap();
    place.advance("2\n");
    place.is(&place.post("pull", json!({})), 409, "GIT_DIRTY_WORKTREE");
    host(&place.agent.work("c"), "git", &["checkout", "-q", "f"]);
    place.is(&place.post("pull", json!({})), 200, "");
    place.commit("mine", "mine");
    place.advance("3\n");
    place.is(&place.post("push", json!({})), 409, "GIT_PUSH_REJECTED");
    place.is(&place.post("pull", json!({})), 409, "GIT_MERGE_CONFLICT");
    place.is(&place.post("branches", json!({"name": "topic"})), 201, "");
    place.is(&place.post("branches", json!({"name": "main"})), 409, "GIT_BRANCH_EXISTS");
    for (hook, said) in [("pre-receive", "not on a friday"), ("update", "no such ticket")] {
        let file = place.origin.write(&format!("r.git/hooks/{hook}"), format!("#!/bin/sh\necho {said} >&2\nexit 1\n"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let declined = place.post("push", json!({}));
        place.is(&declined, 422, "GIT_REMOTE_REJECTED");
        assert!(declined.text().contains(said), "{}", declined.text());
        fs::remove_file(file).unwrap();
    }
    // A branch that is checked out at the other end is refused by policy, not by its history.
    let remote = json!({"name": "checked-out", "url": place.origin.path("w")});
    assert_eq!(place.post("remotes", remote).status, 201);
    place.is(&place.post("checkout", json!({"branch": "main"})), 200, "");
    host(&place.agent.work("c"), "git", &["reset", "-q", "--hard", "HEAD~1"]);
    let hash = host(&place.agent.work("c"), "git", &["rev-parse", "HEAD"]);
    place.is(&place.post("checkout", json!({"branch": hash})), 200, "");
    place.is(&place.post("push", json!({})), 404, "NOT_FOUND");
}

#[test]
fn of_the_repository() {
    let place = Place::new();
    let agent = &place.agent;
    for query in ["status", "branches", "history", "remotes"] {
        place.is(&agent.get(&format!("/git/{query}?path=nope")), 404, "GIT_REPO_NOT_FOUND");
        place.is(&agent.get(&format!("/git/{query}")), 400, "BAD_REQUEST");
    }
    place.is(&place.clone("r.git", "c"), 409, "CONFLICT");
    place.is(&place.clone("empty.git", "x"), 404, "NOT_FOUND");
    host(&place.agent.work(""), "git", &["clone", "-q", &format!("{}/empty.git", place.server.url), "nothing"]);
    place.is(&place.post("pull", json!({"path": "nothing"})), 404, "NOT_FOUND");
    place.is(&place.post("init", json!({})), 409, "CONFLICT");
    place.is(&place.post("checkout", json!({"branch": "nope"})), 404, "GIT_BRANCH_NOT_FOUND");
    place.is(&place.post("checkout", json!({"branch": "0123abcd"})), 404, "GIT_BRANCH_NOT_FOUND");
    let delete = agent.request("DELETE", "/git/branches", &[], br#"{"path":"c","name":"nope"}"#);
    place.is(&delete, 404, "GIT_BRANCH_NOT_FOUND");
    place.is(&place.post("reset", json!({"target": "v9"})), 404, "NOT_FOUND");
    place.is(&place.post("init", json!({"path": "fresh"})), 201, "");
    place.is(&agent.get("/git/history?path=fresh"), 404, "NOT_FOUND");
    place.is(&place.post("commit", json!({"message": "m", "author": "A", "email": "a@x"})), 409, "CONFLICT");
    place.is(&place.post("add", json!({"files": ["nope"]})), 400, "BAD_REQUEST");
    place.commit("g", "1");
    place.commit("g", "2");
    let first = host(&agent.work("c"), "git", &["rev-parse", "HEAD~1"]);
    fs::write(agent.work("c/g"), "not committed").unwrap();
    place.is(&place.post("checkout", json!({"branch": first})), 409, "GIT_DIRTY_WORKTREE");
    place.is(&place.post("reset", json!({"mode": "keep", "target": first})), 409, "GIT_DIRTY_WORKTREE");
    // What nobody foresaw is 500.
    fs::write(agent.work("c/.git/index"), "no index at all").unwrap();
    place.is(&agent.get("/git/status?path=c"), 500, "INTERNAL_SERVER_ERROR");
}

#[test]
fn fields_that_old_go_clients_do_not_know_stay_out() {
    let place = Place::new();
    let get = |what: &str, version: &str| {
        let headers = [("X-Daytona-Source", "sdk-go"), ("X-Daytona-SDK-Version", version)];
        place.agent.request("GET", &format!("/git/{what}?path=c"), &headers, b"").json()
    };
    assert_eq!(get("status", "0.188.0")["upstream"], "origin/main");
    assert_eq!(get("branches", "0.188.0")["current"], "main");
    assert!(get("status", "0.187.0").get("upstream").is_none());
    let listed = |version: &str| {
        let headers = [("X-Daytona-Source", "sdk-go"), ("X-Daytona-SDK-Version", version)];
        place.agent.request("GET", "/files?path=c", &headers, b"").json()[0].clone()
    };
    assert!(listed("0.188.0")["path"].is_string());
    assert!(listed("0.187.0").get("path").is_none() && listed("0.187.0")["name"].is_string());
    assert_eq!(get("branches", "v0.187.0"), json!({"branches": ["main"]}));
}

#[test]
fn a_pull_follows_what_the_branch_follows_and_a_deleted_branch_leaves_nothing() {
    let place = Place::new();
    place.is(&place.post("branches", json!({"name": "mine"})), 201, "");
    host(&place.agent.work("c"), "git", &["branch", "-q", "--set-upstream-to=origin/main"]);
    place.advance("2\n");
    place.is(&place.post("pull", json!({})), 200, "");
    assert_eq!(fs::read(place.agent.work("c/f")).unwrap(), b"2\n");
    place.is(&place.post("checkout", json!({"branch": "main"})), 200, "");
    let delete = |name: &str| {
        let body = json!({"path": "c", "name": name}).to_string();
        place.agent.request("DELETE", "/git/branches", &[], body.as_bytes()).status
    };
    assert_eq!(delete("mine"), 204);
    let config = fs::read_to_string(place.agent.work("c/.git/config")).unwrap();
    assert_eq!(config.matches("merge =").count(), 1, "that of main: {config}");
    assert_eq!(delete("main"), 204, "the current one as well");
    assert_eq!(place.agent.get("/git/branches?path=c").json(), json!({"branches": [], "current": "main"}));
}

/// Ends TLS in front of a plain server; speaks with a certificate that only its own authority signed.
struct TlsFront {
    process: Child,
    url: String,
}

const FRONT: &str = r#"
import socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def pump(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
    except OSError:
        pass
    try:
        b.shutdown(socket.SHUT_WR)
    except OSError:
        pass
def serve(raw):
    try:
        client = context.wrap_socket(raw, server_side=True)
    except (ssl.SSLError, OSError):
        return
    server = socket.create_connection(("127.0.0.1", int(sys.argv[3])))
    threading.Thread(target=pump, args=(client, server), daemon=True).start()
    pump(server, client)
    client.close()
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

impl TlsFront {
    fn start(scratch: &Scratch, server: &GitServer) -> Self {
        let port = server.url.rsplit(':').next().unwrap();
        let (key, certificate) = (scratch.path("key.pem"), scratch.path("ca.pem"));
        host(
            &scratch.0,
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=infield test",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-keyout",
                &key,
                "-out",
                &certificate,
            ],
        );
        let mut command = Command::new("python3");
        command.args(["-c", FRONT, &certificate, &key, port]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, url: format!("https://127.0.0.1:{}/r.git", line.trim()) }
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn tls_is_verified_also_in_an_image_without_authorities() {
    let place = Place::new();
    let front = TlsFront::start(&place.origin, &place.server);
    let clone = |agent: &Agent, path: &str, any: bool| {
        agent.post("/git/clone", json!({"url": front.url, "path": path, "insecure_skip_tls": any}))
    };
    let bare = Agent::launch("{}", |socket, config| {
        // An image that brings no certificates at all.
        let line = "mount -t tmpfs none /etc/ssl && exec \"$0\" --listen \"$1\" --config \"$2\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", line, common::AGENT, socket, config]);
        command
    });
    for agent in [&place.agent, &bare] {
        let refused = clone(agent, "t", false);
        place.is(&refused, 502, "GIT_TRANSPORT_FAILED");
        assert!(refused.text().contains("certificate"), "{}", refused.text());
        place.is(&clone(agent, "u", true), 200, "");
        assert!(agent.work("u/f").exists() && !agent.work("t").exists());
    }
    let env = json!({"env": {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "SSL_CERT_FILE": place.origin.path("ca.pem")}});
    let trusting = Agent::with(&env.to_string());
    place.is(&clone(&trusting, "t", false), 200, "");
}

#[test]
fn ssh_goes_through_the_programs_of_the_image() {
    let place = Place::new();
    let bin = place.agent.work("bin");
    fs::create_dir(&bin).unwrap();
    let ssh = bin.join("ssh");
    // Answers for one host, with the repository beside it.
    let script = "#!/bin/sh\ncase \"$*\" in *git@good*) shift $(($#-1)); exec sh -c \"git ${1#git-}\";;\n\
                  *git@keys*) echo 'git@keys: Permission denied (publickey).' >&2; exit 255;; esac\n\
                  echo 'ssh: Could not resolve hostname x: Name or service not known' >&2; exit 255\n";
    fs::write(&ssh, script).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    assert_eq!(place.agent.post("/env", json!({"set": {"PATH": path}})).status, 200);
    let clone = |from: &str, to: &str| {
        place.post("clone", json!({"url": format!("git@{from}:{}", place.origin.path("r.git")), "path": to}))
    };
    place.is(&clone("keys", "x"), 401, "GIT_AUTH_FAILED");
    place.is(&clone("lost", "x"), 502, "GIT_TRANSPORT_FAILED");
    place.is(&clone("good", "s"), 200, "");
    assert!(place.agent.work("s/f").exists());
    let other = place.post("clone", json!({"url": "git@good:/nope.git", "path": "x"}));
    place.is(&other, 404, "GIT_REPO_NOT_FOUND");
    place.advance("2\n");
    place.is(&place.post("pull", json!({"path": "s"})), 200, "");
    assert_eq!(fs::read(place.agent.work("s/f")).unwrap(), b"2\n");
}
