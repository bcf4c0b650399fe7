//! `/git/*` against real repositories: local ones, and a web server around `git http-backend` with and without a password.

#![allow(clippy::unwrap_used, reason = "a test that stops says where")]

mod common;

use common::git_server::GitServer;
use common::{Agent, Answer, Scratch, host};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A bare repository `r.git` with two branches, a tag and three commits, and a clone of it beside.
fn origin() -> Scratch {
    let scratch = Scratch::new("origin");
    let dir = &scratch.0;
    host(dir, "git", &["init", "-q", "--bare", "-b", "main", "r.git"]);
    host(dir, "git", &["clone", "-q", "r.git", "w"]);
    let work = dir.join("w");
    host(&work, "git", &["checkout", "-q", "-b", "main"]);
    for name in ["one", "two"] {
        fs::write(work.join(name), format!("{name}\n")).unwrap();
        host(&work, "git", &["add", "."]);
        host(&work, "git", &["commit", "-q", "-m", name]);
    }
    host(&work, "git", &["tag", "v1"]);
    host(&work, "git", &["checkout", "-q", "-b", "side"]);
    fs::write(work.join("side"), "side\n").unwrap();
    host(&work, "git", &["add", "."]);
    host(&work, "git", &["commit", "-q", "-m", "side"]);
    host(&work, "git", &["push", "-q", "origin", "main", "side", "v1"]);
    host(&work, "git", &["checkout", "-q", "main"]);
    scratch
}

/// Adds a commit on the remote's main.
fn advance(origin: &Scratch, name: &str) {
    let work = origin.0.join("w");
    host(&work, "git", &["pull", "-q", "--ff-only", "origin", "main"]);
    fs::write(work.join(name), name).unwrap();
    host(&work, "git", &["add", "."]);
    host(&work, "git", &["commit", "-q", "-m", name]);
    host(&work, "git", &["push", "-q", "origin", "main"]);
}

fn ok(answer: Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    if answer.body.is_empty() { Value::Null } else { answer.json() }
}

fn clone(agent: &Agent, url: &str) {
    ok(agent.post("/git/clone", json!({"url": url, "path": "c"})), 200);
}

fn commit(agent: &Agent, file: &str) -> String {
    fs::write(agent.work("c").join(file), file).unwrap();
    ok(agent.post("/git/add", json!({"path": "c", "files": [file]})), 200);
    let body = json!({"path": "c", "message": "m\n", "author": "Bob", "email": "b@x"});
    ok(agent.post("/git/commit", body), 200)["hash"].as_str().unwrap().to_owned()
}

#[test]
fn clone_in_all_its_forms() {
    let (agent, origin) = (Agent::start(), origin());
    let server = GitServer::start(origin.0.clone(), None);
    let url = format!("{}/r.git", server.url);
    let first = host(&origin.0.join("w"), "git", &["rev-list", "--max-parents=0", "HEAD"]);
    let side = host(&origin.0.join("w"), "git", &["rev-parse", "side"]);
    let clone = |body: Value| agent.post("/git/clone", body);
    let status = |path: &str| ok(agent.get(&format!("/git/status?path={path}")), 200);
    let answer = clone(json!({"url": url, "path": "deep/a"}));
    assert_eq!(answer.header("content-type"), None);
    ok(answer, 200);
    let want = json!({"currentBranch": "main", "fileStatus": [], "branchPublished": true, "ahead": 0, "behind": 0,
                      "upstream": "origin/main"});
    assert_eq!(status("deep/a"), want);
    assert!(agent.work("deep/a/two").exists());
    ok(clone(json!({"url": url, "path": "b", "branch": "side"})), 200);
    assert_eq!(status("b")["currentBranch"], "side");
    ok(clone(json!({"url": url, "path": "t", "branch": "v1"})), 200);
    ok(clone(json!({"url": url, "path": "d", "commit_id": first})), 200);
    assert_eq!((status("d")["currentBranch"].as_str(), status("d")["detached"].as_bool()), (Some("HEAD"), Some(true)));
    assert!(agent.work("d/one").exists() && !agent.work("d/two").exists());
    ok(clone(json!({"url": url, "path": "e", "commit_id": &first[..8]})), 200);
    ok(clone(json!({"url": url, "path": "s", "depth": 1})), 200);
    assert_eq!(ok(agent.get("/git/history?path=s"), 200).as_array().unwrap().len(), 1);
    ok(clone(json!({"url": format!("file://{}/r.git", origin.0.display()), "path": "f", "depth": 1})), 200);
    ok(clone(json!({"url": format!("{}/moved/r.git", server.url), "path": "m"})), 200);
    // A commit of another branch: whether it can be had is the server's choice, so both answers are right.
    let other = clone(json!({"url": url, "path": "o", "commit_id": side}));
    assert!(other.status == 200 || other.code() == "NOT_FOUND");
    // The clones are repositories like any other.
    assert_eq!(host(&agent.work("deep/a"), "git", &["status", "--porcelain=v1", "-b"]), "## main...origin/main");
    host(&agent.work("s"), "git", &["fsck", "--strict"]);
}

#[test]
fn clones_that_fail_leave_nothing_and_say_why() {
    let (agent, origin) = (Agent::start(), origin());
    let server = GitServer::start(origin.0.clone(), None);
    let url = format!("{}/r.git", server.url);
    host(&origin.0, "git", &["init", "-q", "--bare", "empty.git"]);
    let code = |body: Value| {
        let answer = agent.post("/git/clone", body);
        (answer.status, answer.code())
    };
    let at = |name: &str| format!("{}/{name}", server.url);
    assert_eq!(code(json!({"url": at("nope.git"), "path": "c"})), (404, "GIT_REPO_NOT_FOUND".into()));
    assert_eq!(code(json!({"url": "/nope", "path": "c"})), (404, "GIT_REPO_NOT_FOUND".into()));
    assert_eq!(code(json!({"url": url, "path": "c", "branch": "nope"})), (404, "GIT_BRANCH_NOT_FOUND".into()));
    assert_eq!(code(json!({"url": url, "path": "c", "commit_id": "0123456789"})), (404, "NOT_FOUND".into()));
    assert_eq!(code(json!({"url": at("empty.git"), "path": "c"})), (404, "NOT_FOUND".into()));
    assert_eq!(code(json!({"url": "http://127.0.0.1:1/x", "path": "c"})), (502, "GIT_TRANSPORT_FAILED".into()));
    assert_eq!(code(json!({"url": "https://name.invalid/x", "path": "c"})), (502, "GIT_TRANSPORT_FAILED".into()));
    assert_eq!(code(json!({"url": url, "path": "c", "depth": -1})), (400, "INVALID_REQUEST_BODY".into()));
    assert_eq!(code(json!({"path": "c"})), (400, "INVALID_REQUEST_BODY".into()));
    assert!(!agent.work("c").exists());
    fs::create_dir(agent.work("full")).unwrap();
    fs::write(agent.work("full/x"), "x").unwrap();
    // Files that were there stay, whether the clone goes well or not.
    fs::write(agent.work("full/one"), "mine").unwrap();
    assert_eq!(code(json!({"url": url, "path": "full"})).0, 409, "one would be overwritten");
    assert_eq!(fs::read(agent.work("full/one")).unwrap(), b"mine");
    assert!(!agent.work("full/.git").exists());
    fs::remove_file(agent.work("full/one")).unwrap();
    assert_eq!(agent.post("/git/clone", json!({"url": url, "path": "full"})).status, 200);
    assert!(agent.work("full/x").exists() && agent.work("full/one").exists());
    assert_eq!(code(json!({"url": url, "path": "full"})), (409, "CONFLICT".into()));
}

#[test]
fn credentials_are_used_and_never_kept() {
    let (agent, origin) = (Agent::start(), origin());
    let server = GitServer::start(origin.0.clone(), Some(("bob", "s3cr3t")));
    let url = format!("{}/r.git", server.url);
    let clone = |user: &str, password: &str| {
        agent.post("/git/clone", json!({"url": url, "path": "c", "username": user, "password": password}))
    };
    assert_eq!(clone("", "s3cr3t").code(), "GIT_AUTH_FAILED");
    let wrong = clone("bob", "wr0ng");
    assert_eq!((wrong.status, wrong.code()), (401, "GIT_AUTH_FAILED".into()));
    assert!(!wrong.text().contains("wr0ng"));
    let embedded = url.replace("http://", "http://bob:wr0ng@");
    let wrong = agent.post("/git/clone", json!({"url": embedded, "path": "c"}));
    assert_eq!(wrong.code(), "GIT_AUTH_FAILED");
    assert!(!wrong.text().contains("wr0ng"), "{}", wrong.text());
    ok(clone("bob", "s3cr3t"), 200);
    assert!(!fs::read_to_string(agent.work("c/.git/config")).unwrap().contains("s3cr3t"));
    commit(&agent, "new");
    let push = |body: Value| agent.post("/git/push", body);
    assert_eq!(push(json!({"path": "c"})).code(), "GIT_AUTH_FAILED");
    ok(push(json!({"path": "c", "username": "bob", "password": "s3cr3t"})), 200);
    assert_eq!(agent.post("/git/pull", json!({"path": "c"})).code(), "GIT_AUTH_FAILED");
    ok(agent.post("/git/pull", json!({"path": "c", "username": "bob", "password": "s3cr3t"})), 200);
}

#[test]
fn status_words() {
    let (agent, origin) = (Agent::start(), origin());
    clone(&agent, &origin.path("r.git"));
    let dir = agent.work("c");
    fs::write(dir.join("one"), "changed").unwrap();
    fs::create_dir(dir.join("n")).unwrap();
    fs::write(dir.join("n/new"), "x").unwrap();
    fs::write(dir.join("n/other"), "x").unwrap();
    fs::remove_file(dir.join("two")).unwrap();
    ok(agent.post("/git/add", json!({"path": "c", "files": ["n/new"]})), 200);
    let status = ok(agent.get("/git/status?path=c"), 200);
    let file = |name: &str| {
        let found = status["fileStatus"].as_array().unwrap().iter().find(|f| f["name"] == name).unwrap();
        (found["staging"].as_str().unwrap().to_owned(), found["worktree"].as_str().unwrap().to_owned())
    };
    assert_eq!(file("one"), ("Unmodified".into(), "Modified".into()));
    assert_eq!(file("n/new"), ("Added".into(), "Unmodified".into()));
    assert_eq!(file("n/other"), ("Untracked".into(), "Untracked".into()));
    assert_eq!(file("two"), ("Unmodified".into(), "Deleted".into()));
    ok(agent.post("/git/add", json!({"path": "c", "files": ["."]})), 200);
    let porcelain = host(&dir, "git", &["status", "--porcelain"]);
    assert_eq!(porcelain, "A  n/new\nA  n/other\nM  one\nD  two");
    assert_eq!(agent.get("/git/status?path=nope").code(), "GIT_REPO_NOT_FOUND");
    assert_eq!(agent.get("/git/status").code(), "BAD_REQUEST");
    assert_eq!(agent.post("/git/add", json!({"path": "c", "files": ["nope"]})).status, 400);
    assert_eq!(agent.post("/git/add", json!({"path": "c", "files": ["../x"]})).status, 400);
    assert_eq!(agent.post("/git/add", json!({"path": "c"})).code(), "INVALID_REQUEST_BODY");
}

#[test]
fn commits_and_history() {
    let agent = Agent::start();
    ok(agent.post("/git/init", json!({"path": "c", "initial_branch": "trunk"})), 201);
    assert_eq!(agent.post("/git/init", json!({"path": "c"})).code(), "CONFLICT");
    assert_eq!(ok(agent.get("/git/status?path=c"), 200)["currentBranch"], "trunk");
    assert_eq!(agent.get("/git/history?path=c").status, 404);
    let body = json!({"path": "c", "message": "m", "author": "B", "email": "b@x"});
    assert_eq!(agent.post("/git/commit", body.clone()).code(), "CONFLICT");
    let first = commit(&agent, "a");
    assert_eq!(first.len(), 40);
    let mut empty = body;
    empty["allow_empty"] = json!(true);
    let second = ok(agent.post("/git/commit", empty), 200)["hash"].clone();
    let history = ok(agent.get("/git/history?path=c"), 200);
    assert_eq!((&history[0]["hash"], history[1]["hash"].as_str()), (&second, Some(first.as_str())));
    assert_eq!((history[1]["author"].as_str(), history[1]["message"].as_str()), (Some("Bob"), Some("m\n")));
    host(&agent.work("c"), "git", &["fsck", "--strict"]);
}

#[test]
fn branches() {
    let (agent, origin) = (Agent::start(), origin());
    clone(&agent, &origin.path("r.git"));
    fs::write(agent.work("c/one"), "kept change").unwrap();
    let create = |name: &str| agent.post("/git/branches", json!({"path": "c", "name": name}));
    let answer = create("feature/x");
    assert_eq!((answer.status, answer.body.len()), (201, 0));
    assert_eq!(create("main").code(), "GIT_BRANCH_EXISTS");
    assert_eq!(create("a..b").status, 400);
    let listed = ok(agent.get("/git/branches?path=c"), 200);
    assert_eq!(listed, json!({"branches": ["feature/x", "main"], "current": "feature/x"}));
    assert_eq!(fs::read(agent.work("c/one")).unwrap(), b"kept change");
    let checkout = |branch: &str| agent.post("/git/checkout", json!({"path": "c", "branch": branch}));
    ok(checkout("main"), 200);
    assert_eq!(checkout("nope").code(), "GIT_BRANCH_NOT_FOUND");
    let first = host(&agent.work("c"), "git", &["rev-list", "--max-parents=0", "HEAD"]);
    fs::write(agent.work("c/two"), "changed, and the older commit has no such file").unwrap();
    assert_eq!(checkout(&first[..10]).code(), "GIT_DIRTY_WORKTREE");
    host(&agent.work("c"), "git", &["checkout", "-q", "two"]);
    ok(checkout(&first[..10]), 200);
    assert_eq!(ok(agent.get("/git/branches?path=c"), 200).get("current"), None);
    let delete = |name: &str| {
        agent.request("DELETE", "/git/branches", &[], json!({"path": "c", "name": name}).to_string().as_bytes())
    };
    assert_eq!(delete("feature/x").status, 204);
    assert_eq!(delete("feature/x").code(), "GIT_BRANCH_NOT_FOUND");
}

#[test]
fn pull_moves_forward_only() {
    let (agent, origin) = (Agent::start(), origin());
    let server = GitServer::start(origin.0.clone(), None);
    clone(&agent, &format!("{}/r.git", server.url));
    let pull = || agent.post("/git/pull", json!({"path": "c"}));
    ok(pull(), 200);
    advance(&origin, "three");
    let fetched = ok(pull(), 200);
    assert!(fetched.is_null() && agent.work("c/three").exists());
    assert_eq!(ok(agent.get("/git/status?path=c"), 200)["behind"], 0);
    advance(&origin, "four");
    fs::write(agent.work("c/four"), "mine, and in the way").unwrap();
    assert_eq!(pull().code(), "GIT_DIRTY_WORKTREE");
    fs::remove_file(agent.work("c/four")).unwrap();
    ok(pull(), 200);
    advance(&origin, "five");
    commit(&agent, "local");
    let diverged = pull();
    assert_eq!((diverged.status, diverged.code()), (409, "GIT_MERGE_CONFLICT".into()));
    assert_eq!(agent.post("/git/pull", json!({"path": "c", "branch": "nope"})).code(), "GIT_BRANCH_NOT_FOUND");
    assert_eq!(agent.post("/git/pull", json!({"path": "c", "remote": "nope"})).code(), "NOT_FOUND");
}

#[test]
fn push_and_its_refusals() {
    let (agent, origin) = (Agent::start(), origin());
    let server = GitServer::start(origin.0.clone(), None);
    clone(&agent, &format!("{}/r.git", server.url));
    let push = |body: Value| agent.post("/git/push", body);
    let hash = commit(&agent, "pushed");
    assert_eq!(ok(agent.get("/git/status?path=c"), 200)["ahead"], 1);
    ok(push(json!({"path": "c"})), 200);
    ok(push(json!({"path": "c"})), 200);
    assert_eq!(host(&origin.0.join("r.git"), "git", &["rev-parse", "main"]), hash);
    assert_eq!(ok(agent.get("/git/status?path=c"), 200)["ahead"], 0);
    ok(agent.post("/git/branches", json!({"path": "c", "name": "topic"})), 201);
    assert_eq!(ok(agent.get("/git/status?path=c"), 200)["branchPublished"], false);
    // More than fits into one piece, so it is sent as it is made.
    let noise: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(agent.work("c/noise"), noise).unwrap();
    commit(&agent, "other");
    ok(agent.post("/git/add", json!({"path": "c", "files": ["noise"]})), 200);
    commit(&agent, "third");
    ok(push(json!({"path": "c", "set_upstream": true})), 200);
    let status = ok(agent.get("/git/status?path=c"), 200);
    assert_eq!((status["upstream"].as_str(), status["ahead"].as_u64()), (Some("origin/topic"), Some(0)));
    ok(agent.post("/git/checkout", json!({"path": "c", "branch": "main"})), 200);
    advance(&origin, "theirs");
    commit(&agent, "ours");
    let rejected = push(json!({"path": "c"}));
    assert_eq!((rejected.status, rejected.code()), (409, "GIT_PUSH_REJECTED".into()));
    let hook = origin.write("r.git/hooks/pre-receive", "#!/bin/sh\necho policy says no >&2\nexit 1\n");
    fs::set_permissions(hook, fs::Permissions::from_mode(0o755)).unwrap();
    ok(agent.post("/git/checkout", json!({"path": "c", "branch": "topic"})), 200);
    commit(&agent, "declined");
    let declined = push(json!({"path": "c"}));
    assert_eq!((declined.status, declined.code()), (422, "GIT_REMOTE_REJECTED".into()));
    assert!(declined.text().contains("policy says no"), "{}", declined.text());
    assert_eq!(push(json!({"path": "c", "branch": "nope"})).code(), "GIT_BRANCH_NOT_FOUND");
    ok(agent.post("/git/checkout", json!({"path": "c", "branch": &hash})), 200);
    assert_eq!(push(json!({"path": "c"})).code(), "NOT_FOUND");
}

#[test]
fn remotes_and_repositories_of_others() {
    let (agent, origin) = (Agent::start(), origin());
    clone(&agent, &origin.path("r.git"));
    let add = |body: Value| agent.post("/git/remotes", body);
    let second = json!({"path": "c", "name": "two", "url": "https://me:pw@host/x"});
    assert_eq!(add(second.clone()).status, 201);
    assert_eq!(add(second).code(), "CONFLICT");
    assert_eq!(
        add(json!({"path": "c", "name": "two", "url": origin.path("r.git"), "overwrite": true, "fetch": true})).status,
        201
    );
    assert_eq!(add(json!({"path": "c", "name": "three", "url": "https://me:pw@host/x"})).status, 201);
    let listed = ok(agent.get("/git/remotes?path=c"), 200);
    assert_eq!(listed["remotes"][1], json!({"name": "three", "url": "https://me@host/x"}));
    host(&agent.work("c"), "git", &["rev-parse", "two/side"]);
    host(&agent.work(""), "chown", &["-R", "12345", "c"]);
    ok(agent.get("/git/status?path=c"), 200);
    assert_eq!(add(json!({"path": "c", "name": "-x", "url": "u"})).status, 400);
}
