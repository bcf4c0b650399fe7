//! The real language servers, installed once below `target/language-servers`, and one in Python that does as it is told.

use super::Agent;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// The folder with their programs.
pub fn real() -> String {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let folder = repository.join("target/language-servers");
    let install = Command::new(repository.join("scripts/language-servers")).arg(&folder).output().unwrap();
    assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
    folder.join("bin").to_str().unwrap().to_owned()
}

/// An agent whose `PATH` begins with these folders.
pub fn agent_with_path(folder: &str) -> Agent {
    let agent = Agent::start();
    let path = format!("{folder}:/usr/local/bin:/usr/bin:/bin");
    assert_eq!(agent.post("/env", serde_json::json!({"set": {"PATH": path}})).status, 200);
    agent
}

/// An agent that finds the program `pylsp`, which does what `behaviour` (Python, see `FAKE`) says.
pub fn agent_with_fake(behaviour: &str) -> Agent {
    let agent = Agent::start();
    let bin = agent.work("bin");
    std::fs::create_dir(&bin).unwrap();
    write_fake(&agent, behaviour);
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display());
    assert_eq!(agent.post("/env", serde_json::json!({"set": {"PATH": path}})).status, 200);
    agent
}

pub fn write_fake(agent: &Agent, behaviour: &str) {
    let file = agent.work("bin/pylsp");
    std::fs::write(&file, format!("{FAKE}\n{behaviour}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Reads and writes messages, and writes its process number beside the project. `serve` runs a server that finds the names
/// of classes and functions; `special` may answer a message itself.
const FAKE: &str = r#"#!/usr/bin/env python3
import json, os, re, signal, subprocess, sys, time
out, inp = sys.stdout.buffer, sys.stdin.buffer
open("pid", "w").write(str(os.getpid()))
log = open("log", "a", buffering=1)
def read():
    length = 0
    while (line := inp.readline().strip()):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    text = inp.read(length)
    if not text:
        sys.exit(0)
    return json.loads(text)
def raw(data):
    out.write(data)
    out.flush()
def send(message):
    text = json.dumps({"jsonrpc": "2.0", **message}).encode()
    raw(b"Content-Length: %d\r\n\r\n" % len(text) + text)
def symbols(text):
    found = []
    for number, line in enumerate(text.split("\n")):
        for kind, name in re.findall(r"\b(class|def) (\w+)", line):
            at = {"start": {"line": number, "character": 0}, "end": {"line": number, "character": len(line)}}
            found.append({"name": name, "kind": 5 if kind == "class" else 12, "range": at, "selectionRange": at})
    return found
def serve(special=lambda message: False, capabilities={}):
    texts = {}
    while True:
        message = read()
        method, params, number = message.get("method"), message.get("params") or {}, message.get("id")
        print(method, json.dumps(params.get("textDocument", {}).get("uri")), file=log)
        if special(message):
            continue
        if method == "initialize":
            open("initialize", "w").write(json.dumps(params))
            send({"id": number, "result": {"capabilities": capabilities}})
        elif method == "textDocument/didOpen":
            texts[params["textDocument"]["uri"]] = params["textDocument"]["text"]
        elif method == "textDocument/didClose":
            texts.pop(params["textDocument"]["uri"], None)
        elif method == "textDocument/documentSymbol":
            send({"id": number, "result": symbols(texts[params["textDocument"]["uri"]])})
        elif method == "textDocument/completion":
            send({"id": number, "result": [{"label": json.dumps(params), "documentation": "words"}]})
        elif number is not None and method:
            send({"id": number, "error": {"code": -32601, "message": "no " + method}})
"#;
