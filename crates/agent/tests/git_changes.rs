//! `/git/reset`, `/git/restore`, `/git/config` and `/git/credentials`: beside the real `git` wherever both can do the same.

#![allow(clippy::unwrap_used, reason = "a test that stops says where")]

mod common;

use common::git_server::GitServer;
use common::{Agent, Answer, Scratch, host};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn ok(answer: &Answer) {
    assert_eq!((answer.status, answer.body.len()), (200, 0), "{}", answer.text());
}

fn git(dir: &Path, args: &[&str]) -> String {
    host(dir, "git", args)
}

/// Content of the one file `d/f` in the working tree, index, HEAD and HEAD~1; `-` = not there.
const STATES: &[&str] = &[
    "AAAA", "AAAB", "ABCC", "ABCD", "BBCD", "BBCC", "BCCD", "BCCC", "CCCC", "-AAA", "-AAB", "--AA", "--AB", "AA--",
    "AA-B", "ABAB", "BBAB", "AB-B", "A---", "A--B", "-A--", "A-AA", "A-AB", "AAA-", "BAA-", "BBA-", "---B", "--A-",
    "B-A-", "ABA-", "ABBA", "ABB-",
];

fn put(dir: &Path, content: char) {
    let file = dir.join("d/f");
    if content == '-' {
        let _ = fs::remove_file(&file);
    } else {
        fs::create_dir_all(dir.join("d")).unwrap();
        fs::write(file, format!("{content}\n")).unwrap();
    }
}

fn build(dir: &Path, state: &str) {
    let [worktree, index, head, target] = state.chars().collect::<Vec<_>>().try_into().unwrap();
    fs::create_dir(dir).unwrap();
    git(dir, &["init", "-q", "--template=", "-b", "main"]);
    fs::write(dir.join("other"), "other\n").unwrap();
    for content in [target, head] {
        put(dir, content);
        git(dir, &["add", "-A"]);
        git(dir, &["commit", "-q", "--allow-empty", "-m", "c"]);
    }
    put(dir, index);
    git(dir, &["add", "-A"]);
    put(dir, worktree);
}

/// Everything a reset or restore may change.
fn picture(dir: &Path) -> String {
    let head = fs::read_to_string(dir.join(".git/refs/heads/main")).unwrap();
    let file = fs::read_to_string(dir.join("d/f")).unwrap_or_else(|_| "none".to_owned());
    format!("{head}\n{}\n{file}", git(dir, &["ls-files", "-s"]))
}

/// What is done, by the real program and by a request.
type Case = (&'static [&'static str], &'static str, Value);

fn cases() -> Vec<Case> {
    let reset = |mode: &str| json!({"mode": mode, "target": "HEAD~1"});
    let restore = |more: Value| {
        let mut body = more;
        body["files"] = json!(["d"]);
        body
    };
    vec![
        (&["reset", "-q", "--soft", "HEAD~1"], "/git/reset", reset("soft")),
        (&["reset", "-q", "--mixed", "HEAD~1"], "/git/reset", reset("")),
        (&["reset", "-q", "--hard", "HEAD~1"], "/git/reset", reset("hard")),
        (&["reset", "-q", "--merge", "HEAD~1"], "/git/reset", reset("merge")),
        (&["reset", "-q", "--keep", "HEAD~1"], "/git/reset", reset("keep")),
        (&["restore", "d"], "/git/restore", restore(json!({}))),
        (&["restore", "--staged", "d"], "/git/restore", restore(json!({"staged": true}))),
        (&["restore", "-SW", "d"], "/git/restore", restore(json!({"staged": true, "worktree": true}))),
        (&["restore", "-s", "HEAD~1", "d"], "/git/restore", restore(json!({"source": "HEAD~1"}))),
    ]
}

/// Does the same with the real program and with the agent, from the same state, and compares what comes out.
fn beside_git(agent: &Agent, state: &str, (args, route, request): &Case) {
    let copy = |to: &str| {
        host(&agent.work(""), "cp", &["-a", &format!("of{state}"), &format!("of{state}-{to}")]);
        agent.work(&format!("of{state}-{to}"))
    };
    let (theirs, ours) = (copy("git"), copy("agent"));
    // The copy's times are new, and some of git's ways take that for a change.
    git(&theirs, &["update-index", "-q", "--refresh"]);
    let output = Command::new("git").args(*args).current_dir(&theirs).output().unwrap();
    let mut body = request.clone();
    body["path"] = json!(format!("of{state}-agent"));
    let answer = agent.post(route, body);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let shown = format!("{args:?} on {state}: git said {said:?}, the agent {} {}", answer.status, answer.text());
    assert_eq!(output.status.success(), answer.status == 200, "{shown}");
    assert_eq!(picture(&ours), picture(&theirs), "{shown}");
    for dir in [theirs, ours] {
        fs::remove_dir_all(dir).unwrap();
    }
}

/// How many threads share the states.
const THREADS: usize = 4;

#[test]
fn reset_and_restore_do_what_git_does() {
    let agent = Agent::start();
    let (agent, cases) = (&agent, &cases());
    std::thread::scope(|scope| {
        for part in STATES.chunks(STATES.len().div_ceil(THREADS)) {
            scope.spawn(move || {
                for state in part {
                    build(&agent.work(&format!("of{state}")), state);
                    cases.iter().for_each(|case| beside_git(agent, state, case));
                }
            });
        }
    });
}

#[test]
fn reset_and_restore_take_paths_literally_and_say_what_is_wrong() {
    let agent = Agent::start();
    let dir = agent.work("c");
    build(&dir, "BBAA");
    fs::write(dir.join("d/g*"), "star").unwrap();
    fs::write(dir.join("d/gg"), "plain").unwrap();
    git(&dir, &["add", "-A"]);
    let reset = |body: Value| agent.post("/git/reset", body);
    let restore = |body: Value| agent.post("/git/restore", body);
    ok(&reset(json!({"path": "c", "files": ["d/g*"]})));
    assert_eq!(git(&dir, &["status", "--porcelain"]), "M  d/f\nA  d/gg\n?? d/g*");
    ok(&restore(json!({"path": "c", "files": ["./d/../d"], "staged": true})));
    assert_eq!(git(&dir, &["diff", "--cached", "--name-only"]), "");
    ok(&restore(json!({"path": "c", "files": ["."]})));
    assert_eq!(fs::read(dir.join("d/f")).unwrap(), b"A\n");
    for (answer, status, code) in [
        (reset(json!({"path": "c", "mode": "sideways"})), 400, "BAD_REQUEST"),
        (reset(json!({"path": "c", "target": "nope"})), 404, "NOT_FOUND"),
        (reset(json!({"path": "c", "mode": "hard", "files": ["d/f"]})), 400, "BAD_REQUEST"),
        (reset(json!({"path": "c", "files": ["nope"]})), 400, "BAD_REQUEST"),
        (reset(json!({"path": "nope"})), 404, "GIT_REPO_NOT_FOUND"),
        (reset(json!({})), 400, "INVALID_REQUEST_BODY"),
        (restore(json!({"path": "c", "files": []})), 400, "BAD_REQUEST"),
        (restore(json!({"path": "c"})), 400, "INVALID_REQUEST_BODY"),
        (restore(json!({"path": "c", "files": ["nope"]})), 400, "BAD_REQUEST"),
        (restore(json!({"path": "c", "files": ["../x"]})), 400, "BAD_REQUEST"),
        (restore(json!({"path": "c", "files": ["d"], "staged": false, "worktree": false})), 400, "BAD_REQUEST"),
        (restore(json!({"path": "c", "files": ["d"], "source": "nope"})), 404, "NOT_FOUND"),
    ] {
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
    }
    // A repository without a commit: what is staged can be taken back.
    git(&agent.work(""), &["init", "-q", "u"]);
    fs::write(agent.work("u/x"), "x").unwrap();
    git(&agent.work("u"), &["add", "x"]);
    ok(&restore(json!({"path": "u", "files": ["x"], "staged": true})));
    git(&agent.work("u"), &["add", "x"]);
    ok(&reset(json!({"path": "u"})));
    assert_eq!(git(&agent.work("u"), &["status", "--porcelain"]), "?? x");
    assert_eq!(reset(json!({"path": "u", "mode": "hard"})).code(), "NOT_FOUND");
}

#[test]
fn an_unfinished_merge_can_be_taken_back() {
    let agent = Agent::start();
    let dir = agent.work("c");
    build(&dir, "AAAA");
    git(&dir, &["checkout", "-q", "-b", "side"]);
    for (branch, content) in [("side", 'S'), ("main", 'M')] {
        git(&dir, &["checkout", "-q", branch]);
        put(&dir, content);
        git(&dir, &["commit", "-q", "-am", branch]);
    }
    let merge = || {
        let who = ["-c", "user.name=A", "-c", "user.email=a@x", "merge", "-q", "side"];
        let merged = Command::new("git").args(who).current_dir(&dir).output().unwrap();
        assert!(!merged.status.success());
    };
    let reset = |mode: &str| agent.post("/git/reset", json!({"path": "c", "mode": mode}));
    merge();
    let status = agent.get("/git/status?path=c").json();
    let both = "Updated but unmerged";
    assert_eq!(status["fileStatus"], json!([{"name": "d/f", "extra": "", "staging": both, "worktree": both}]));
    assert_eq!(reset("keep").code(), "GIT_DIRTY_WORKTREE");
    assert_eq!(reset("soft").code(), "CONFLICT");
    ok(&reset("merge"));
    assert_eq!(
        (git(&dir, &["status", "--porcelain"]), fs::read_to_string(dir.join("d/f")).unwrap()),
        (String::new(), "M\n".into())
    );
    merge();
    ok(&agent.post("/git/restore", json!({"path": "c", "files": ["."], "staged": true, "worktree": true})));
    assert_eq!(fs::read_to_string(dir.join("d/f")).unwrap(), "M\n");
    assert_eq!(git(&dir, &["ls-files", "-u"]), "");
}

#[test]
fn configuration_of_every_scope() {
    let scratch = Scratch::new("system");
    let system = scratch.path("gitconfig");
    let config = json!({"env": {"PATH": "/usr/bin:/bin", "HOME": scratch.path("home"), "GIT_CONFIG_SYSTEM": system}});
    fs::create_dir(scratch.0.join("home")).unwrap();
    let agent = Agent::with(&config.to_string());
    build(&agent.work("c"), "AAAA");
    let set = |body: Value| agent.post("/git/config", body);
    let get = |query: &str| agent.get(&format!("/git/config?{query}"));
    assert_eq!(get("key=user.name").json(), json!({}));
    ok(&set(json!({"key": "user.name", "value": "A \"B\"; # C"})));
    ok(&set(json!({"key": "user.name", "value": "local", "scope": "local", "path": "c"})));
    ok(&set(json!({"key": "branch.a.b/c.remote", "value": "sys\ttem", "scope": "system"})));
    assert_eq!(get("key=user.name").json(), json!({"value": "A \"B\"; # C"}));
    assert_eq!(get("key=user.name&scope=local&path=c").json(), json!({"value": "local"}));
    assert_eq!(get("key=branch.a.b%2Fc.remote&scope=system").json(), json!({"value": "sys\ttem"}));
    assert_eq!(get("key=nope.nope&scope=local&path=c").json(), json!({}));
    // The real program reads and writes the same.
    let file = scratch.path("home/.gitconfig");
    assert_eq!(git(&agent.work("c"), &["config", "--file", &file, "user.name"]), "A \"B\"; # C");
    git(&agent.work("c"), &["config", "--file", &file, "--add", "user.name", "second"]);
    assert_eq!(get("key=user.name").json(), json!({"value": "second"}));
    ok(&set(json!({"key": "user.name", "value": "only"})));
    assert_eq!(git(&agent.work("c"), &["config", "--file", &file, "--get-all", "user.name"]), "only");
    ok(&agent.post("/git/config/user", json!({"name": "N", "email": "n@x", "scope": "local", "path": "c"})));
    assert_eq!(git(&agent.work("c"), &["config", "--local", "user.email"]), "n@x");
    for (answer, status, code) in [
        (get("scope=global"), 400, "BAD_REQUEST"),
        (get("key=name"), 400, "BAD_REQUEST"),
        (get("key=user.name&scope=local"), 400, "BAD_REQUEST"),
        (get("key=user.name&scope=worktree"), 400, "BAD_REQUEST"),
        (get("key=user.name&scope=local&path=nope"), 404, "GIT_REPO_NOT_FOUND"),
        (set(json!({"key": "user.name", "value": ""})), 400, "INVALID_REQUEST_BODY"),
        (set(json!({"key": "user name", "value": "x"})), 400, "BAD_REQUEST"),
        (set(json!({"key": "user.name", "value": "a\0b"})), 400, "BAD_REQUEST"),
        (agent.post("/git/config/user", json!({"name": "N"})), 400, "INVALID_REQUEST_BODY"),
    ] {
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
    }
}

#[test]
fn stored_credentials_are_found_again_and_nowhere_else() {
    let scratch = Scratch::new("stored");
    git(&scratch.0, &["init", "-q", "--bare", "-b", "main", "r.git"]);
    build(&scratch.0.join("w"), "AAAA");
    git(&scratch.0.join("w"), &["push", "-q", "../r.git", "main"]);
    let server = GitServer::start(scratch.0.clone(), Some(("b@b", "s:3/cr%t")));
    let url = format!("{}/r.git", server.url);
    let agent = Agent::start();
    let clone = |path: &str| agent.post("/git/clone", json!({"url": url, "path": path}));
    assert_eq!(clone("a").code(), "GIT_AUTH_FAILED");
    let place = server.url.trim_start_matches("http://").to_owned();
    fs::write(agent.work(".git-credentials"), format!("https://x:y@other.example\nhttp://b%40b:old@{place}\n"))
        .unwrap();
    let store = |body: Value| agent.post("/git/credentials", body);
    ok(&store(json!({"username": "b@b", "password": "s:3/cr%t", "host": place, "protocol": "http"})));
    ok(&clone("a"));
    let file = agent.work(".git-credentials");
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text, format!("http://b%40b:s%3A3%2Fcr%25t@{place}\nhttps://x:y@other.example\n"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!agent.work(".git-credentials.lock").exists());
    // The image's own git finds them too.
    let (code, said) = agent.run(&format!(
        "GIT_TERMINAL_PROMPT=0 git -c safe.directory='*' ls-remote {url} && git config --global credential.helper"
    ));
    assert!(code == 0 && said.ends_with("store\n"), "{said}");
    ok(&store(json!({"username": "me", "password": "pw"})));
    assert!(fs::read_to_string(&file).unwrap().starts_with("https://me:pw@github.com\n"));
    for (field, value) in
        [("username", "a\nb"), ("password", "a\rb"), ("host", "a\0b"), ("protocol", "ht tp"), ("host", "h/x")]
    {
        let mut body = json!({"username": "u", "password": "p"});
        body[field] = json!(value);
        let answer = store(body);
        assert_eq!((answer.status, answer.code().as_str()), (400, "BAD_REQUEST"), "{field}");
    }
    assert_eq!(store(json!({"username": "u"})).code(), "INVALID_REQUEST_BODY");
    // Only for that place, and a password in the request wins.
    let wrong = agent.post("/git/clone", json!({"url": url, "path": "b", "username": "b@b", "password": "no"}));
    assert_eq!(wrong.code(), "GIT_AUTH_FAILED");
    assert!(!wrong.text().contains("cr%t"));
}
