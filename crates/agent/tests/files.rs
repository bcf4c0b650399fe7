//! `/files/*`.

#![allow(clippy::unwrap_used, reason = "a test that stops says where")]

mod common;

use common::{Agent, Answer, encoded, until};
use serde_json::json;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, data) in parts {
        body.extend(
            format!("--BOUND\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"x\"\r\n\r\n").bytes(),
        );
        body.extend_from_slice(data);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--BOUND--\r\n");
    body
}

const FORM: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=BOUND");

fn bulk(agent: &Agent, parts: &[(&str, &[u8])]) -> Answer {
    agent.request("POST", "/files/bulk-upload", &[FORM], &form(parts))
}

/// Nothing but these names lies in the working directory.
fn names(agent: &Agent) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(agent.work("")).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn all_bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + n / 251) as u8).collect()
}

#[test]
fn bulk_upload_keeps_bytes_order_and_what_was_there() {
    let agent = Agent::start();
    let data = all_bytes(3_000_000);
    fs::write(agent.work("old"), "old").unwrap();
    fs::set_permissions(agent.work("old"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(agent.work("real"), "real").unwrap();
    symlink("real", agent.work("link")).unwrap();
    symlink("dangling-target", agent.work("dangling")).unwrap();
    let answer = bulk(
        &agent,
        &[
            ("files[0].path", b" deep/dir/big "),
            ("files[0].file", &data),
            ("files[x].path", b"old"),
            ("files[x].file", b"new"),
            ("other", b"ignored"),
            ("files[2].path", b"link"),
            ("files[2].file", b"through"),
            ("files[3].path", b"dangling"),
            ("files[3].file", b""),
        ],
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    let files = answer.json()["files"].clone();
    assert_eq!(files[0], json!({"path": "deep/dir/big", "bytes": 3_000_000}));
    assert_eq!(fs::read(agent.work("deep/dir/big")).unwrap(), data);
    assert_eq!(fs::metadata(agent.work("deep/dir/big")).unwrap().mode() & 0o777, 0o644);
    assert_eq!(fs::metadata(agent.work("old")).unwrap().mode() & 0o777, 0o600);
    assert!(fs::symlink_metadata(agent.work("link")).unwrap().is_symlink());
    assert_eq!(fs::read(agent.work("real")).unwrap(), b"through");
    assert!(fs::symlink_metadata(agent.work("dangling")).unwrap().is_symlink());
    assert_eq!(fs::read(agent.work("dangling-target")).unwrap(), b"");
    assert_eq!(names(&agent), ["dangling", "dangling-target", "deep", "link", "old", "real"]);
}

#[test]
fn bulk_upload_tells_what_failed_and_goes_on() {
    let agent = Agent::start();
    fs::create_dir(agent.work("dir")).unwrap();
    fs::write(agent.work("file"), "x").unwrap();
    let answer = bulk(
        &agent,
        &[
            ("files[0].path", b"dir"),
            ("files[0].file", b"1"),
            ("files[1].file", b"2"),
            ("files[2].path", b""),
            ("files[2].file", b"3"),
            ("files[3].path", b"file/below"),
            ("files[3].file", b"4"),
            ("files[4].path", b"good"),
            ("files[4].file", b"5"),
        ],
    );
    assert_eq!(answer.code(), "BAD_REQUEST");
    let json = answer.json();
    let errors: Vec<&str> = json["errors"].as_array().unwrap().iter().map(|e| e.as_str().unwrap()).collect();
    assert_eq!(errors[0], "dir: create: is a directory");
    assert_eq!(errors[1], "file[1]: missing .path metadata");
    assert_eq!(errors[2], "path[2]: empty path");
    assert!(errors[4].starts_with("file/below: mkdir file: "), "{errors:?}");
    assert_eq!(json["files"], json!([{"path": "good", "bytes": 1}]));
    let answer = agent.request("POST", "/files/bulk-upload", &[], b"x");
    assert!(answer.json()["message"].as_str().unwrap().contains("invalid multipart form"));
    let answer = agent.request("POST", "/files/bulk-upload", &[FORM], b"--BOUND\r\n\r\nbroken");
    assert!(answer.json()["errors"][0].as_str().unwrap().starts_with("reading part: "));
    assert_eq!(names(&agent), ["dir", "file", "good"]);
}

#[test]
fn a_cancelled_upload_leaves_nothing() {
    let agent = Agent::start();
    fs::write(agent.work("kept"), "old content").unwrap();
    let before = fs::metadata(agent.work("kept")).unwrap().ino();
    let mut stream = agent.connect();
    let head = "POST /files/upload-v2?path=kept HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&all_bytes(2_000_000)).unwrap();
    until("the upload has begun", || names(&agent).len() == 2);
    drop(stream);
    until("its file is gone", || names(&agent) == ["kept"]);
    assert_eq!(fs::read(agent.work("kept")).unwrap(), b"old content");
    assert_eq!(fs::metadata(agent.work("kept")).unwrap().ino(), before);

    // Nor the folders that were made for it.
    for target in ["/files/upload-v2?path=a/b/c", "/files/bulk-upload"] {
        let bulk = target.contains("bulk");
        let mut stream = agent.connect();
        let extra = if bulk { "Content-Type: multipart/form-data; boundary=BOUND\r\n" } else { "" };
        stream
            .write_all(
                format!("POST {target} HTTP/1.1\r\nHost: a\r\n{extra}Content-Length: 100000000\r\n\r\n").as_bytes(),
            )
            .unwrap();
        if bulk {
            let whole = form(&[("files[0].path", b"a/b/c"), ("files[0].file", b"")]);
            stream.write_all(&whole[..whole.len() - b"\r\n--BOUND--\r\n".len()]).unwrap();
        }
        stream.write_all(&all_bytes(2_000_000)).unwrap();
        until("the upload has begun", || agent.work("a/b").is_dir());
        drop(stream);
        until("its folders are gone", || names(&agent) == ["kept"]);
    }
}

#[test]
fn single_uploads() {
    let agent = Agent::start();
    let data = all_bytes(700_000);
    let answer = agent.request("POST", "/files/upload-v2?path=a/raw.bin", &[], &data);
    assert_eq!(answer.json(), json!({"name": "raw.bin", "path": "a/raw.bin", "type": "file"}));
    assert_eq!(fs::read(agent.work("a/raw.bin")).unwrap(), data);
    let parts = form(&[("ignored", b"x"), ("file", &data), ("after", b"y")]);
    assert_eq!(agent.request("POST", "/files/upload-v2?path=b", &[FORM], &parts).status, 200);
    assert_eq!(fs::read(agent.work("b")).unwrap(), data);
    let answer = agent.request("POST", "/files/upload?path=c", &[FORM], &form(&[("file", b"c")]));
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(agent.request("POST", "/files/upload-v2", &[], &data).code(), "BAD_REQUEST");
    assert_eq!(agent.request("POST", "/files/upload-v2?path=a", &[], &data).code(), "BAD_REQUEST");
    let answer = agent.request("POST", "/files/upload-v2?path=d", &[FORM], &form(&[("other", b"x")]));
    assert_eq!(answer.code(), "BAD_REQUEST");
    assert_eq!(names(&agent), ["a", "b", "c"]);
}

#[test]
fn hard_links_stay_linked() {
    let agent = Agent::start();
    fs::write(agent.work("one"), "old").unwrap();
    fs::hard_link(agent.work("one"), agent.work("two")).unwrap();
    assert_eq!(agent.request("POST", "/files/upload-v2?path=one", &[], b"new").status, 200);
    assert_eq!(fs::read(agent.work("two")).unwrap(), b"new");
    assert_eq!(names(&agent), ["one", "two"]);

    // One that was cancelled has changed neither.
    let mut stream = agent.connect();
    let head = "POST /files/upload-v2?path=one HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&all_bytes(2_000_000)).unwrap();
    until("the upload has begun", || names(&agent).len() == 3);
    drop(stream);
    until("its file is gone", || names(&agent) == ["one", "two"]);
    assert_eq!(fs::read(agent.work("two")).unwrap(), b"new");
}

#[test]
fn download_whole_in_part_and_when_changed() {
    let agent = Agent::start();
    let data = all_bytes(1_000_000);
    fs::write(agent.work("a \"ü\".bin"), &data).unwrap();
    let target = format!("/files/download?path={}", encoded("a \"ü\".bin".as_bytes()));
    let answer = agent.get(&target);
    assert_eq!((answer.status, answer.body == data, answer.whole), (200, true, true));
    assert!(answer.header("content-disposition").unwrap().ends_with("filename*=utf-8''a%20%22%C3%BC%22.bin"));
    assert_eq!(answer.header("content-length"), Some("1000000"));
    let modified = answer.header("last-modified").unwrap().to_owned();
    let part = agent.request("GET", &target, &[("Range", "bytes=10-19")], b"");
    assert_eq!((part.status, &part.body[..]), (206, &data[10..20]));
    assert_eq!(part.header("content-range"), Some("bytes 10-19/1000000"));
    assert_eq!(agent.request("GET", &target, &[("Range", "bytes=-5")], b"").body, data[999_995..]);
    assert_eq!(agent.request("GET", &target, &[("Range", "bytes=1000000-")], b"").status, 416);
    assert_eq!(agent.request("GET", &target, &[("If-Modified-Since", &modified)], b"").status, 304);
    let head = agent.request("HEAD", &target, &[], b"");
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("1000000"), 0));
    assert_eq!(agent.get("/files/download").code(), "BAD_REQUEST");
    assert_eq!(agent.get("/files/download?path=nope").code(), "FILE_NOT_FOUND");
    let directory = agent.get("/files/download?path=.");
    assert!(directory.json()["message"].as_str().unwrap().contains("path must be a file"));
}

#[test]
fn special_files_do_not_block() {
    let agent = Agent::start();
    std::process::Command::new("mkfifo").arg(agent.work("fifo")).status().unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(agent.work("socket")).unwrap();
    for path in ["fifo", "/dev/zero", "socket"] {
        assert_eq!(agent.get(&format!("/files/download?path={path}")).status, 400);
        assert_eq!(agent.request("POST", &format!("/files/upload-v2?path={path}"), &[], b"x").status, 400);
        assert_eq!(agent.get(&format!("/files/info?path={path}")).status, 200);
        let text = agent.post("/files/bulk-download", json!({"paths": [path]})).text();
        assert!(text.contains("FILE_READ_FAILED"), "{text}");
    }
    assert!(agent.get("/files/info?path=fifo").json()["mode"].as_str().unwrap().starts_with('p'));
    assert_eq!(agent.get("/files/info?path=socket").json()["mode"].as_str().unwrap().chars().next(), Some('S'));
    assert_eq!(agent.get("/files/info?path=/dev/zero").json()["mode"].as_str().unwrap().get(..2), Some("Dc"));
    assert_eq!(agent.get("/files/find?path=.&pattern=x").json(), json!([]));
    let replaced = agent.post("/files/replace", json!({"files": ["fifo", "socket"], "pattern": "a", "newValue": "b"}));
    assert!(replaced.json().as_array().unwrap().iter().all(|r| r["success"] == false), "{}", replaced.text());
    assert_eq!(agent.request("POST", "/files/move?source=fifo&destination=moved", &[], b"").status, 200);
    assert_eq!(agent.request("DELETE", "/files?path=moved", &[], b"").status, 204);
    assert_eq!(agent.request("DELETE", "/files?path=socket", &[], b"").status, 204);
}

#[test]
fn a_huge_sparse_file_comes_in_part_and_whole() {
    const SIZE: u64 = 10 << 30;
    let agent = Agent::start();
    let file = fs::File::create(agent.work("sparse")).unwrap();
    file.set_len(SIZE).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"end", SIZE - 3).unwrap();
    assert_eq!(agent.get("/files/info?path=sparse").json()["size"].as_u64(), Some(SIZE));
    let part = agent.request("GET", "/files/download?path=sparse", &[("Range", "bytes=-3")], b"");
    assert_eq!((part.status, &part.body[..]), (206, &b"end"[..]));
    assert_eq!(part.header("content-range"), Some(format!("bytes {}-{}/{SIZE}", SIZE - 3, SIZE - 1).as_str()));
    assert_eq!(agent.get("/files/find?path=.&pattern=end").json(), json!([]), "it begins like a binary file");
    // The whole of it is only begun; its length is promised and the agent is no larger for it.
    let mut stream = agent.connect();
    stream.write_all(b"GET /files/download?path=sparse HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut start = vec![0; 64 << 20];
    std::io::Read::read_exact(&mut stream, &mut start).unwrap();
    assert!(String::from_utf8_lossy(&start[..600]).contains(&format!("content-length: {SIZE}")));
    let status = fs::read_to_string(format!("/proc/{}/status", agent.process.id())).unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap().trim().split(' ').next().unwrap();
    assert!(peak.parse::<u64>().unwrap() < 48 << 10, "the agent grew to {peak} KiB");
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_breaks_the_answer_off() {
    let agent = Agent::start();
    let file = fs::File::create(agent.work("shrinks")).unwrap();
    file.set_len(1 << 30).unwrap();
    let body = json!({"paths": ["shrinks"]}).to_string();
    let mut stream = agent.connect();
    let head = format!("POST /files/bulk-download HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    let mut start = vec![0; 1 << 20];
    std::io::Read::read_exact(&mut stream, &mut start).unwrap();
    file.set_len(2 << 20).unwrap();
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut stream, &mut rest);
    assert!(rest.len() < 512 << 20 && !rest.ends_with(b"--DAYTONA-FILE-BOUNDARY--\r\n\r\n0\r\n\r\n"));
    assert!(!rest.windows(27).any(|w| w == b"--DAYTONA-FILE-BOUNDARY--\r\n"), "no closing boundary");
    assert_eq!(agent.get("/version").status, 200);
}

#[test]
fn a_hundred_thousand_entries() {
    const ENTRIES: usize = 100_000;
    let agent = Agent::start();
    fs::create_dir(agent.work("many")).unwrap();
    for n in 0..ENTRIES {
        fs::write(agent.work(&format!("many/{n:06}")), "").unwrap();
    }
    let listed = agent.get("/files?path=many");
    assert!(listed.status == 200 && listed.whole, "{}", listed.head);
    let listed = listed.json();
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!((names.len(), names[0], names[ENTRIES - 1]), (ENTRIES, "000000", "099999"));
    assert!(names.is_sorted());
    let found = agent.get("/files/search?path=many&pattern=*9").json();
    assert_eq!(found["files"].as_array().unwrap().len(), ENTRIES / 10);
    let status = fs::read_to_string(format!("/proc/{}/status", agent.process.id())).unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap().trim().split(' ').next().unwrap();
    assert!(peak.parse::<u64>().unwrap() < 48 << 10, "the agent grew to {peak} KiB");
    assert_eq!(agent.request("DELETE", "/files?path=many&recursive=true", &[], b"").status, 204);
}

#[test]
fn lists_of_names_that_are_no_text() {
    let agent = Agent::start();
    fs::create_dir(agent.work("").join(OsStr::from_bytes(b"dir\xff"))).unwrap();
    for name in [&b"dir\xff/new\nline"[..], b"dir\xff/\xfe", b"dir\xff/ a"] {
        fs::write(agent.work("").join(OsStr::from_bytes(name)), "needle").unwrap();
    }
    let root = encoded(b"dir\xff");
    let listed = agent.get(&format!("/files?path={root}")).json();
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!(names, [" a", "new\nline", "\u{fffd}"]);
    assert_eq!(agent.get(&format!("/files/find?path={root}&pattern=needle")).json().as_array().unwrap().len(), 3);
    let found = agent.get(&format!("/files/search?path={root}&pattern=*line")).json();
    assert_eq!(found["files"].as_array().unwrap().len(), 1);
    assert_eq!(agent.request("DELETE", &format!("/files?path={root}&recursive=true"), &[], b"").status, 204);
}

#[test]
fn a_long_line_is_found_and_shown_cut() {
    let agent = Agent::start();
    let mut line = vec![b'x'; 300 << 10];
    line.extend_from_slice(b"needle\n");
    fs::write(agent.work("long"), &line).unwrap();
    fs::write(agent.work("empty"), "").unwrap();
    let found = agent.get("/files/find?path=.&pattern=needle").json();
    assert_eq!((found[0]["line"].as_u64(), found[0]["content"].as_str().map(str::len)), (Some(1), Some(64 << 10)));
    assert_eq!(found[0]["file"], "long");
    assert_eq!(agent.get("/files/find?path=long&pattern=xx").json()[0]["file"], "long");
}

#[test]
fn bulk_download_is_one_part_each() {
    let agent = Agent::start();
    fs::write(agent.work("a.txt"), "alpha\r\n").unwrap();
    fs::write(agent.work("empty"), "").unwrap();
    let answer = agent.post("/files/bulk-download", json!({"paths": ["a.txt", "nope", "", ".", "empty"]}));
    assert_eq!(answer.header("content-type"), Some("multipart/form-data; boundary=DAYTONA-FILE-BOUNDARY"));
    assert!(answer.whole);
    let text = answer.text();
    let first = "--DAYTONA-FILE-BOUNDARY\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"; \
                 filename*=utf-8''a.txt\r\nContent-Length: 7\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nalpha\r\n\r\n";
    assert!(text.starts_with(first), "{text}");
    for code in ["FILE_NOT_FOUND", "INVALID_FILE_PATH", "path is empty", "points to a directory: ."] {
        assert!(text.contains(code), "{text}");
    }
    assert!(text.ends_with(
        "Content-Length: 0\r\nContent-Type: application/octet-stream\r\n\r\n\r\n--DAYTONA-FILE-BOUNDARY--\r\n"
    ));
    assert_eq!(agent.post("/files/bulk-download", json!({"paths": []})).status, 400);
    assert_eq!(agent.request("POST", "/files/bulk-download", &[], b"x").code(), "INVALID_REQUEST_BODY");
}

#[test]
fn info_and_lists() {
    let agent = Agent::start();
    fs::create_dir_all(agent.work("d/e/f")).unwrap();
    fs::write(agent.work("d/b"), "12").unwrap();
    fs::write(agent.work("d/e/x"), "").unwrap();
    symlink("e", agent.work("d/link")).unwrap();
    symlink("nowhere", agent.work("d/broken")).unwrap();
    let listed = |target: &str, field: &str| -> Vec<String> {
        let json = agent.get(target).json();
        json.as_array().unwrap().iter().map(|f| f[field].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(listed("/files?path=d", "name"), ["b", "e", "link"]);
    assert_eq!(listed("/files/?path=./d/", "path"), ["d/b", "d/e", "d/link"]);
    assert_eq!(listed("/files?path=d&depth=3", "path"), ["d/b", "d/e", "d/e/f", "d/e/x", "d/link"]);
    assert_eq!(agent.get("/files").json()[0]["path"], "d");
    assert_eq!(agent.get("/files?path=d&depth=0").code(), "BAD_REQUEST");
    assert_eq!(agent.get("/files?path=nope").code(), "FILE_NOT_FOUND");
    assert_eq!(agent.get("/files?path=d/b").code(), "BAD_REQUEST");
    let info = agent.get("/files/info?path=d/b").json();
    assert_eq!((info["size"].as_u64(), info["mode"].as_str()), (Some(2), Some("-rw-r--r--")));
    assert_eq!((info["owner"].as_str(), info["permissions"].as_str()), (Some("0"), Some("0644")));
    assert!(info.get("path").is_none() && info["modifiedAt"].as_str().unwrap().ends_with('Z'));
    assert_eq!(agent.get("/files/info?path=d/link").json()["isDir"], true);
    assert_eq!(agent.get("/files/info?path=/tmp").json()["mode"], "dtrwxrwxrwx");
    assert_eq!(agent.get("/files/info?path=d/broken").code(), "FILE_NOT_FOUND");
}

#[test]
fn folders_deletes_moves_and_permissions() {
    let agent = Agent::start();
    let post = |target: &str| agent.request("POST", target, &[], b"");
    let delete = |target: &str| agent.request("DELETE", target, &[], b"");
    let created = post("/files/folder?path=x/y/z&mode=700");
    assert_eq!((created.status, created.body.len(), created.header("content-type")), (201, 0, None));
    assert_eq!(fs::metadata(agent.work("x/y/z")).unwrap().mode() & 0o777, 0o700);
    assert_eq!(post("/files/folder?path=x").status, 201);
    assert_eq!(post("/files/folder?path=q&mode=9").status, 400);
    fs::write(agent.work("x/file"), "1").unwrap();
    assert_eq!(post("/files/folder?path=x/file").status, 400);
    assert_eq!(post("/files/permissions?path=x/file&mode=0751&owner=nobody&group=65534").status, 200);
    let changed = fs::metadata(agent.work("x/file")).unwrap();
    assert_eq!((changed.mode() & 0o777, changed.uid(), changed.gid()), (0o751, 65534, 65534));
    let unknown = post("/files/permissions?path=x/file&owner=no-such");
    assert!(unknown.json()["message"].as_str().unwrap().contains("user not found"));
    assert_eq!(post("/files/permissions?path=nope&mode=644").code(), "FILE_NOT_FOUND");
    assert_eq!(post("/files/move?source=x/file&destination=x/moved").status, 200);
    assert_eq!(post("/files/move?source=x/moved&destination=x/y").code(), "CONFLICT");
    assert_eq!(post("/files/move?source=nope&destination=n").code(), "FILE_NOT_FOUND");
    assert_eq!(post("/files/move?source=x/moved&destination=no/dir").code(), "FILE_NOT_FOUND");
    assert_eq!(delete("/files?path=x").status, 400);
    symlink("/etc", agent.work("x/link")).unwrap();
    assert_eq!(delete("/files?path=x/link").status, 204);
    assert_eq!(delete("/files?path=x&recursive=true").status, 204);
    assert_eq!(delete("/files?path=x&recursive=true").code(), "FILE_NOT_FOUND");
    assert!(names(&agent).is_empty() && Path::new("/etc/passwd").exists());
}

#[test]
fn find_search_and_replace() {
    let agent = Agent::start();
    fs::create_dir_all(agent.work("d/sub")).unwrap();
    fs::write(agent.work("d/hello.txt"), "one\ntwo a.b\nthree a.b").unwrap();
    fs::write(agent.work("d/sub/x.py"), "a.b\n").unwrap();
    fs::write(agent.work("d/binary"), b"a.b\0").unwrap();
    let found = agent.get("/files/find?path=d&pattern=a.b").json();
    assert_eq!(found[0], json!({"file": "d/hello.txt", "line": 2, "content": "two a.b"}));
    assert_eq!((found.as_array().unwrap().len(), found[2]["file"].as_str()), (3, Some("d/sub/x.py")));
    assert_eq!(agent.get("/files/find?path=nope&pattern=x").json(), json!([]));
    assert_eq!(agent.get("/files/find?path=d").status, 400);
    let search =
        |pattern: &str| agent.get(&format!("/files/search?path=d&pattern={}", encoded(pattern.as_bytes()))).json();
    assert_eq!(search("*.txt"), json!({"files": ["d/hello.txt"]}));
    assert_eq!(search("[a-e]*"), json!({"files": ["d", "d/binary"]}));
    assert_eq!(search("["), json!({"files": []}));
    let body = json!({"files": ["d/hello.txt", "nope", "d"], "pattern": "a.b", "newValue": ""});
    let replaced = agent.post("/files/replace", body).json();
    assert_eq!(replaced[0], json!({"file": "d/hello.txt", "success": true}));
    assert_eq!((replaced[1]["success"].as_bool(), replaced[2]["success"].as_bool()), (Some(false), Some(false)));
    assert_eq!(fs::read(agent.work("d/hello.txt")).unwrap(), b"one\ntwo \nthree ");
    assert_eq!(agent.post("/files/replace", json!({"files": [], "pattern": "x"})).code(), "INVALID_REQUEST_BODY");
}

#[test]
fn any_name_the_kernel_takes() {
    let agent = Agent::start();
    for name in [&b"a b"[..], b"new\nline", b"\xff\xfe", "日本".as_bytes(), b"-rf", b"%2F", b"a&b=c+d", b"\"q'\\"] {
        let target = |route: &str| format!("/files/{route}?path={}", encoded(name));
        assert_eq!(agent.request("POST", &target("upload-v2"), &[], name).status, 200);
        assert_eq!(fs::read(agent.work("").join(OsStr::from_bytes(name))).unwrap(), name);
        assert_eq!(agent.get(&target("download")).body, name);
        assert_eq!(agent.get(&target("info")).status, 200);
        assert_eq!(agent.request("DELETE", &target("").replace("/files/?", "/files?"), &[], b"").status, 204);
    }
}
