//! The toolbox over plain HTTP, through the relay: what the SDK suites do not call, with exact statuses and bodies.

use infield_tests::{Api, GitServer, Reply, World};
use serde_json::{Value, json};

/// The daemon's error body: the code selects the SDKs' exception class.
#[track_caller]
fn fails(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status, status, "{}", reply.text());
    let body = reply.json();
    assert_eq!((body["source"].as_str(), body["code"].as_str()), (Some("DAYTONA_DAEMON"), Some(code)), "{body}");
    assert_eq!(body["statusCode"], status, "{body}");
}

fn put(toolbox: &Api, path: &str, content: &str) {
    toolbox.call("POST", &format!("/files/upload-v2?path={path}"), Some(content.into())).expect(200);
}

#[test]
fn information_and_environment() {
    let world = World::new("info");
    let id = world.sandbox();
    let toolbox = world.toolbox(&id);
    assert!(toolbox.get("/version").expect(200).json()["version"].is_string());
    for path in ["/user-home-dir", "/work-dir", "/project-dir"] {
        assert_eq!(toolbox.get(path).expect(200).json()["dir"], "/home/daytona", "{path}");
    }
    toolbox.post("/init", json!({ "token": "t" })).expect(200);
    toolbox.post("/env", json!({ "set": { "ADDED": "later" } })).expect(200);
    assert_eq!(world.sh(&id, "echo $ADDED"), "later\n");
    toolbox.post("/env", json!({ "unset": ["ADDED"] })).expect(200);
    assert_eq!(world.sh(&id, "echo [$ADDED]"), "[]\n");
    world.sh(&id, "(setsid python3 -m http.server 3456 >/dev/null 2>&1 &); for i in $(seq 100); do curl -s -o /dev/null http://127.0.0.1:3456 && exit 0; sleep 0.05; done; exit 1");
    let in_use = |port: u16| toolbox.get(&format!("/port/{port}/in-use"));
    assert_eq!(in_use(3456).expect(200).json()["isInUse"], true);
    assert_eq!(in_use(3457).expect(200).json()["isInUse"], false);
    assert_eq!(in_use(80).status, 400);
    infield_tests::eventually("the port is listed", std::time::Duration::from_secs(10), || {
        let ports = toolbox.get("/port").expect(200).json();
        ports["ports"].as_array().unwrap().contains(&json!(3456)).then_some(())
    });
    assert_eq!(toolbox.get("/no/such/route").status, 404);
}

#[test]
fn metrics_are_the_sandboxs_own() {
    let world = World::new("metrics");
    let id = world.sandbox();
    let toolbox = world.toolbox(&id);
    let metrics = || toolbox.get("/system/metrics").expect(200).json();
    let first = metrics();
    assert_eq!((first["cpuCount"].as_u64(), first["memTotal"].as_u64()), (Some(1), Some(1 << 30)), "{first}");
    assert_eq!(first["diskTotal"].as_u64(), Some(3 << 30), "{first}");
    assert_eq!(first["timestamp"].as_str().map(|t| (t.len(), t.ends_with('Z'))), Some((20, true)), "{first}");
    let number = |name: &str| metrics()[name].as_u64().unwrap();
    // Half of the memory and more than the host could have given a fresh sandbox by chance.
    world.sh(&id, "nohup python3 -c 'x = bytearray(400 << 20)\nwhile True: pass' >/dev/null 2>&1 &");
    let long = std::time::Duration::from_secs(60);
    infield_tests::eventually("its memory shows", long, || {
        (400 << 20..1 << 30).contains(&number("memUsed")).then_some(())
    });
    infield_tests::eventually("its processor use shows", long, || {
        let percent = metrics()["cpuUsedPct"].as_f64().unwrap();
        assert!((0.0..=100.0).contains(&percent), "{percent}");
        (percent > 10.0).then_some(())
    });
    let before = number("diskUsed");
    world.sh(&id, "dd if=/dev/urandom of=big bs=1M count=200 conv=fsync 2>&1");
    infield_tests::eventually("its disk use shows", long, || {
        (number("diskUsed") >= before + (190 << 20)).then_some(())
    });
    let last = metrics();
    assert_eq!(last["diskFree"].as_u64(), Some((3 << 30) - last["diskUsed"].as_u64().unwrap()), "{last}");
    let other = world.sandbox();
    let beside = world.toolbox(&other).get("/system/metrics").expect(200).json();
    assert!(beside["memUsed"].as_u64().unwrap() < 200 << 20, "a neighbour's memory does not count: {beside}");
    // What the agent was handed stays with it: no command has a descriptor of the host's files.
    assert_eq!(world.sh(&id, "ls -l /proc/self/fd | grep -E 'cpuacct|cpu.stat|memory|referenced' | wc -l").trim(), "0");
}

#[test]
fn files_find_search_replace_and_permissions() {
    let world = World::new("files");
    let id = world.sandbox();
    let toolbox = world.toolbox(&id);
    toolbox.call("POST", "/files/folder?path=dir/sub&mode=750", None).expect(201);
    assert_eq!(toolbox.get("/files/info?path=dir/sub").expect(200).json()["permissions"], "0750");
    put(&toolbox, "dir/hello.txt", "one\nneedle two\n");
    put(&toolbox, "dir/sub/other.md", "needle\n");
    let found = toolbox.get("/files/find?path=dir&pattern=needle").expect(200).json();
    let lines: Vec<(&str, i64)> =
        found.as_array().unwrap().iter().map(|m| (m["file"].as_str().unwrap(), m["line"].as_i64().unwrap())).collect();
    assert_eq!(lines, [("dir/hello.txt", 2), ("dir/sub/other.md", 1)]);
    let searched = toolbox.get("/files/search?path=dir&pattern=*.txt").expect(200).json();
    assert_eq!(searched["files"], json!(["dir/hello.txt"]));
    let replaced = toolbox
        .post("/files/replace", json!({ "files": ["dir/hello.txt", "absent"], "pattern": "needle", "newValue": "pin" }))
        .expect(200)
        .json();
    assert_eq!((replaced[0]["success"].clone(), replaced[1]["success"].clone()), (json!(true), json!(false)));
    assert_eq!(toolbox.get("/files/download?path=dir/hello.txt").expect(200).text(), "one\npin two\n");
    toolbox.call("POST", "/files/permissions?path=dir/hello.txt&mode=600", None).expect(200);
    let info = toolbox.get("/files/info?path=dir/hello.txt").expect(200).json();
    assert_eq!((info["permissions"].as_str(), info["mode"].as_str()), (Some("0600"), Some("-rw-------")));
    assert!(info["modTime"].as_str().unwrap().contains(" +0000 UTC"), "{info}");
    assert!(info["owner"].as_str().unwrap().parse::<u32>().is_ok(), "numeric: {info}");
    toolbox.call("POST", "/files/move?source=dir/hello.txt&destination=dir/sub/other.md", None);
    fails(
        &toolbox.call("POST", "/files/move?source=dir/hello.txt&destination=dir/sub/other.md", None),
        409,
        "CONFLICT",
    );
    fails(&toolbox.get("/files/info?path=nowhere"), 404, "FILE_NOT_FOUND");
    fails(&toolbox.get("/files/download?path=/root/secret"), 403, "FILE_ACCESS_DENIED");
    assert_eq!(toolbox.delete("/files?path=dir").status, 400, "a folder needs recursive");
    toolbox.delete("/files?path=dir&recursive=true").expect(204);
    let names = toolbox.get("/files?path=.").expect(200).json();
    assert!(names.as_array().unwrap().iter().all(|f| f["name"] != "dir"), "{names}");
}

#[test]
fn links_and_leftovers_of_uploads() {
    let world = World::new("links");
    let id = world.sandbox();
    let toolbox = world.toolbox(&id);
    world.sh(&id, "mkdir u; echo old > u/real; ln -s real u/link; ln -s new u/dangling; chmod 640 u/real");
    put(&toolbox, "u/link", "through");
    put(&toolbox, "u/dangling", "made");
    put(&toolbox, "u/plain", "x");
    assert_eq!(
        world.sh(&id, "cd u; cat real; echo; cat new; echo; stat -c '%F %a' link dangling plain | sort; ls -A | wc -l"),
        "through\nmade\nregular file 644\nsymbolic link 777\nsymbolic link 777\n5\n"
    );
    let reply = toolbox.call("POST", "/files/upload-v2?path=u", Some(b"x".to_vec()));
    assert_eq!(reply.status, 400, "a folder is no target: {}", reply.text());
    assert_eq!(world.sh(&id, "ls -A u | wc -l"), "5\n");
}

#[test]
fn the_legacy_upload_route() {
    let world = World::new("legacy");
    let id = world.sandbox();
    let target = format!("http://127.0.0.1:{}/toolbox/{id}/files/upload?path=old.txt", world.port);
    let file = world.scratch("legacy").join("f");
    std::fs::write(&file, "legacy\n").unwrap();
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "--fail", "-H", &format!("Authorization: Bearer {}", world.key), "-F"]);
    curl.arg(format!("file=@{}", file.display())).arg(target);
    infield_tests::process::succeeded(&infield_tests::process::run(&mut curl, std::time::Duration::from_secs(30)));
    assert_eq!(world.sh(&id, "cat old.txt"), "legacy\n");
}

fn git(toolbox: &Api, route: &str, body: Value) -> Reply {
    toolbox.post(&format!("/git/{route}"), body)
}

#[test]
fn git_branches_history_and_remotes() {
    let server = GitServer::start();
    let world = World::new("git");
    let url = server.repository("project", &[("a.txt", "a\n")]);
    let id = world.sandbox();
    let toolbox = world.toolbox(&id);
    git(&toolbox, "clone", json!({ "url": url, "path": "p" })).expect(200);
    fails(&git(&toolbox, "clone", json!({ "url": url, "path": "p" })), 409, "CONFLICT");
    let get = |route: &str| toolbox.get(&format!("/git/{route}?path=p")).expect(200).json();
    git(&toolbox, "branches", json!({ "path": "p", "name": "feature" })).expect(201);
    assert_eq!(get("status")["currentBranch"], "feature");
    fails(&git(&toolbox, "branches", json!({ "path": "p", "name": "feature" })), 409, "GIT_BRANCH_EXISTS");
    put(&toolbox, "p/a.txt", "changed\n");
    let status = get("status");
    assert_eq!(
        status["fileStatus"],
        json!([{ "name": "a.txt", "extra": "", "staging": "Unmodified", "worktree": "Modified" }])
    );
    git(&toolbox, "add", json!({ "path": "p", "files": ["."] })).expect(200);
    let commit = json!({ "path": "p", "message": "change", "author": "A", "email": "a@example.org" });
    let hash = git(&toolbox, "commit", commit).expect(200).json()["hash"].as_str().unwrap().to_owned();
    assert_eq!(hash.len(), 40);
    let history = get("history");
    assert_eq!((history[0]["hash"].as_str(), history.as_array().unwrap().len()), (Some(hash.as_str()), 2));
    git(&toolbox, "checkout", json!({ "path": "p", "branch": "main" })).expect(200);
    assert_eq!(world.sh(&id, "cat p/a.txt"), "a\n");
    fails(&git(&toolbox, "checkout", json!({ "path": "p", "branch": "absent" })), 404, "GIT_BRANCH_NOT_FOUND");
    let branches = get("branches");
    assert!(branches["branches"].as_array().unwrap().contains(&json!("feature")), "{branches}");
    let body = json!({ "path": "p", "name": "feature" }).to_string().into_bytes();
    toolbox.call("DELETE", "/git/branches", Some(body)).expect(204);
    git(&toolbox, "remotes", json!({ "path": "p", "name": "other", "url": "https://u:secret@example.org/x.git" }))
        .expect(201);
    let remotes = get("remotes").to_string();
    assert!(remotes.contains("other") && !remotes.contains("secret"), "{remotes}");
    git(&toolbox, "init", json!({ "path": "fresh", "initial_branch": "trunk" })).expect(201);
    assert_eq!(world.sh(&id, "git -C fresh symbolic-ref HEAD"), "refs/heads/trunk\n");
    fails(&toolbox.get("/git/status?path=/tmp"), 404, "GIT_REPO_NOT_FOUND");

    server.commit("project", "main", "b.txt", "b\n");
    git(&toolbox, "pull", json!({ "path": "p" })).expect(200);
    assert_eq!(world.sh(&id, "cat p/b.txt"), "b\n");
    server.commit("project", "main", "c.txt", "c\n");
    put(&toolbox, "p/mine.txt", "mine\n");
    git(&toolbox, "add", json!({ "path": "p", "files": ["mine.txt"] })).expect(200);
    git(&toolbox, "commit", json!({ "path": "p", "message": "m", "author": "A", "email": "a@example.org" }))
        .expect(200);
    fails(&git(&toolbox, "push", json!({ "path": "p" })), 409, "GIT_PUSH_REJECTED");
}

#[test]
fn git_with_credentials() {
    let server = GitServer::start_with(&["--user", "me", "--password", "pass word"]);
    let world = World::new("gitauth");
    let url = server.repository("private", &[("a.txt", "a\n")]);
    let id = world.sandbox();
    let toolbox = world.toolbox(&id);
    fails(&git(&toolbox, "clone", json!({ "url": url, "path": "p" })), 401, "GIT_AUTH_FAILED");
    let wrong = json!({ "url": url, "path": "p", "username": "me", "password": "nonsense-secret" });
    let reply = git(&toolbox, "clone", wrong);
    fails(&reply, 401, "GIT_AUTH_FAILED");
    assert!(!reply.text().contains("nonsense-secret"), "no secret in errors");
    git(&toolbox, "clone", json!({ "url": url, "path": "p", "username": "me", "password": "pass word" })).expect(200);
    assert!(!world.sh(&id, "cat p/.git/config").contains("pass"), "credentials are not stored");
    let closed = url.replace(":8000/", ":9/");
    fails(&git(&toolbox, "clone", json!({ "url": closed, "path": "q" })), 502, "GIT_TRANSPORT_FAILED");
}
