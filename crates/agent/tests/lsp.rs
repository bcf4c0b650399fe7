//! `/lsp/*` with the real language servers, and with one that lies, dies, floods and falls silent.

#![allow(clippy::unwrap_used, reason = "a test that stops says where")]

mod common;

use common::language_servers::{agent_with_fake, agent_with_path, real, write_fake};
use common::{Agent, Answer, until};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

struct Project<'a> {
    agent: &'a Agent,
    language: &'a str,
}

impl Project<'_> {
    fn post(&self, what: &str, more: Value) -> Answer {
        let mut body = json!({"languageId": self.language, "pathToProject": "proj"});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        self.agent.post(&format!("/lsp/{what}"), body)
    }

    fn ok(&self, what: &str, more: Value) {
        let answer = self.post(what, more);
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{what}: {}", answer.text());
    }

    fn query(&self, what: &str, more: &str) -> Answer {
        self.agent.get(&format!("/lsp/{what}?languageId={}&pathToProject=proj&{more}", self.language))
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.agent.work("proj").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn names(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let symbols = answer.json();
    for symbol in symbols.as_array().unwrap() {
        let keys: Vec<&String> = symbol.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["kind", "location", "name"]);
        assert!(symbol["location"]["uri"].as_str().unwrap().starts_with("file:///"), "{symbol}");
        assert!(symbol["location"]["range"]["end"]["line"].is_u64());
    }
    symbols.as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect()
}

fn labels(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let list = answer.json();
    assert!(list["isIncomplete"].is_boolean());
    list["items"].as_array().unwrap().iter().map(|i| i["label"].as_str().unwrap().to_owned()).collect()
}

/// The process that the fake server wrote down.
fn pid(agent: &Agent) -> String {
    fs::read_to_string(agent.work("pid")).unwrap()
}

fn gone(pid: &str) -> bool {
    !Path::new("/proc").join(pid).exists()
}

const PYTHON: &str = "class Greeter:\n    def greet(self, name):\n        return f'hi {name}'\n\nGreeter().gr\n";

#[test]
fn python_as_its_server_really_is() {
    let agent = agent_with_path(&real());
    let project = Project { agent: &agent, language: "python" };
    project.file("sample.py", PYTHON);
    project.file("pkg/other file.py", "class GreeterFactory:\n    pass\n");
    project.file("pkg/broken.py", "class Greet_broken(:\n  def x(\n\nclass GreeterAfter: pass\n");
    project.ok("start", json!({}));
    project.ok("start", json!({}));
    project.ok("did-open", json!({"uri": "file://proj/sample.py"}));
    let found = names(&project.query("document-symbols", "uri=file://proj/sample.py"));
    assert!(found.contains(&"Greeter".into()) && found.contains(&"greet".into()), "{found:?}");
    let found = names(&project.query("workspacesymbols", "query=greeter"));
    for wanted in ["Greeter", "GreeterFactory", "GreeterAfter"] {
        assert!(found.contains(&wanted.into()), "{found:?}");
    }
    assert_eq!(names(&project.query("workspacesymbols", "query=nosuchname")), [""; 0]);
    let at = json!({"uri": "file://proj/sample.py", "position": {"line": 4, "character": 12}});
    let found = labels(&project.post("completions", at));
    assert!(found.iter().any(|l| l.starts_with("greet")), "{found:?}");
    let zero = json!({"uri": "file://proj/sample.py", "position": {"line": 0, "character": 0},
                      "context": {"triggerKind": 1}});
    labels(&project.post("completions", zero));
    project.ok("did-close", json!({"uri": "file://proj/sample.py"}));
    project.ok("stop", json!({}));
    let (code, left) = agent.run("ps -eo args | grep '[p]ylsp' | grep language-servers || true");
    assert_eq!((code, left.contains("pylsp")), (0, false), "{left}");
}

#[test]
fn typescript_as_its_server_really_is() {
    let agent = agent_with_path(&real());
    let project = Project { agent: &agent, language: "typescript" };
    project.file("a.ts", "export class Greeter {\n  greet(name: string) { return name; }\n}\nnew Greeter().gr\n");
    project.file("b.js", "function greetAll() {}\n");
    project.file("package.json", "{}");
    project.ok("start", json!({}));
    let found = names(&project.query("workspacesymbols", "query=Greet"));
    assert!(found.contains(&"Greeter".into()), "nothing is open yet: {found:?}");
    project.ok("did-open", json!({"uri": "file://proj/a.ts"}));
    let found = names(&project.query("document-symbols", "uri=file://proj/a.ts"));
    assert!(found.contains(&"Greeter".into()) && found.contains(&"greet".into()), "{found:?}");
    let found = names(&project.query("workspacesymbols", "query=Greet"));
    assert!(found.contains(&"Greeter".into()), "{found:?}");
    let at = json!({"uri": "file://proj/a.ts", "position": {"line": 3, "character": 16}});
    let found = labels(&project.post("completions", at));
    assert!(found.contains(&"greet".into()), "{found:?}");
    // JavaScript is a server of its own, of the same program.
    let javascript = Project { agent: &agent, language: "javascript" };
    assert_eq!(javascript.query("workspacesymbols", "query=x").code(), "LSP_SERVER_NOT_INITIALIZED");
    javascript.ok("start", json!({}));
    assert_eq!(names(&javascript.query("document-symbols", "uri=file://proj/b.js")), ["greetAll"]);
    javascript.ok("stop", json!({}));
    project.ok("stop", json!({}));
}

#[test]
fn what_is_missing_is_said() {
    let agent = Agent::start();
    for (language, hint) in [
        ("python", "pip install python-lsp-server"),
        ("typescript", "npm install -g typescript-language-server typescript"),
    ] {
        assert_eq!(agent.post("/env", json!({"set": {"PATH": "/nowhere"}})).status, 200);
        let project = Project { agent: &agent, language };
        let answer = project.post("start", json!({}));
        assert_eq!((answer.status, answer.code().as_str()), (500, "INTERNAL_SERVER_ERROR"));
        assert!(
            answer.text().contains(hint) && answer.text().contains("error starting LSP server"),
            "{}",
            answer.text()
        );
        assert_eq!(project.query("document-symbols", "uri=x").code(), "LSP_SERVER_NOT_INITIALIZED");
        let stop = project.post("stop", json!({}));
        assert_eq!((stop.status, stop.code().as_str()), (500, "INTERNAL_SERVER_ERROR"));
    }
    let unknown = Project { agent: &agent, language: "cobol" };
    for answer in [unknown.post("start", json!({})), unknown.query("workspacesymbols", "query=x")] {
        assert_eq!((answer.status, answer.code().as_str()), (400, "BAD_REQUEST"));
    }
    let project = Project { agent: &agent, language: "python" };
    for (answer, code) in [
        (agent.post("/lsp/start", json!({"languageId": "python"})), "INVALID_REQUEST_BODY"),
        (project.post("did-open", json!({})), "INVALID_REQUEST_BODY"),
        (project.post("completions", json!({"uri": "x"})), "INVALID_REQUEST_BODY"),
        (
            project.post("completions", json!({"uri": "x", "position": {"line": -1, "character": 0}})),
            "INVALID_REQUEST_BODY",
        ),
        (project.query("document-symbols", ""), "BAD_REQUEST"),
        (project.query("workspacesymbols", "query="), "BAD_REQUEST"),
    ] {
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{}", answer.text());
    }
}

#[test]
fn documents_are_told_as_files_are() {
    let agent = agent_with_fake("serve()");
    let project = Project { agent: &agent, language: "python" };
    project.file("a.py", "class One: pass\n");
    project.file("ü b.py", "def one_more(: # broken\n");
    project.ok("start", json!({}));
    let told: Value = serde_json::from_slice(&fs::read(agent.work("initialize")).unwrap()).unwrap();
    assert_eq!(told["rootUri"], format!("file://{}", agent.work("proj").display()));
    assert_eq!(told["capabilities"]["textDocument"]["documentSymbol"]["hierarchicalDocumentSymbolSupport"], false);
    let uri = format!("file://{}", agent.work("proj/a.py").display());
    let log = || fs::read_to_string(agent.work("log")).unwrap();
    // Not opened: opened for the question only.
    let answer = project.query("document-symbols", "uri=file://proj/./a.py");
    assert_eq!(names(&answer), ["One"]);
    assert_eq!(answer.json()[0]["location"]["uri"], uri.as_str());
    let script = format!(
        "textDocument/didOpen \"{uri}\"\ntextDocument/documentSymbol \"{uri}\"\ntextDocument/didClose \"{uri}\"\n"
    );
    until("the document is closed again", || log().ends_with(&script));
    project.ok("did-open", json!({"uri": "file://proj/a.py"}));
    project.file("a.py", "class Two: pass\n");
    assert_eq!(names(&project.query("document-symbols", &format!("uri={uri}"))), ["One"], "what was opened counts");
    project.ok("did-open", json!({"uri": "file://proj/a.py"}));
    assert_eq!(names(&project.query("document-symbols", "uri=proj/a.py")), ["Two"]);
    assert_eq!(names(&project.query("workspacesymbols", "query=O")), ["Two", "one_more"]);
    let place = json!({"uri": uri, "position": {"line": 0, "character": 0},
                       "context": {"triggerKind": 2, "triggerCharacter": "."}});
    let answer = project.post("completions", place).json();
    assert_eq!(answer["items"][0]["documentation"], json!({"kind": "plaintext", "value": "words"}));
    let sent: Value = serde_json::from_str(answer["items"][0]["label"].as_str().unwrap()).unwrap();
    assert_eq!((&sent["context"]["triggerKind"], &sent["position"]["line"]), (&json!(2), &json!(0)));
    project.ok("did-close", json!({"uri": "file://proj/a.py"}));
    for uri in ["file://proj/nope.py", "file://proj", "http://x/y"] {
        let answer = project.post("did-open", json!({"uri": uri}));
        assert_eq!((answer.status, answer.code().as_str()), (400, "BAD_REQUEST"), "{}", answer.text());
    }
    fs::write(agent.work("proj/huge.py"), vec![b'x'; 3 << 20]).unwrap();
    assert!(project.post("did-open", json!({"uri": "proj/huge.py"})).text().contains("larger than"));
    host_fifo(&agent.work("proj/fifo.py"));
    assert_eq!(project.post("did-open", json!({"uri": "proj/fifo.py"})).status, 400);
}

fn host_fifo(path: &Path) {
    common::host(path.parent().unwrap(), "mkfifo", &[path.to_str().unwrap()]);
}

#[test]
fn stop_ends_the_server_and_all_that_it_started() {
    // Neither it nor its child cares for polite signals, and it says nothing to `shutdown`.
    let agent = agent_with_fake(
        "for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(s, signal.SIG_IGN)\n\
         child = subprocess.Popen(['sleep', '1000'])\nopen('child', 'w').write(str(child.pid))\n\
         serve(lambda m: m.get('method') == 'shutdown')",
    );
    let project = Project { agent: &agent, language: "python" };
    project.ok("start", json!({}));
    let first = pid(&agent);
    project.ok("start", json!({}));
    assert_eq!(pid(&agent), first, "a second start changes nothing");
    let child = fs::read_to_string(agent.work("child")).unwrap();
    project.ok("stop", json!({}));
    assert!(gone(&first), "collected when stop answers");
    until("its child is gone", || {
        fs::read_to_string(format!("/proc/{child}/stat")).map_or(true, |stat| stat.contains(") Z "))
    });
    assert_eq!(project.post("stop", json!({})).status, 500);
    assert_eq!(project.query("workspacesymbols", "query=x").code(), "LSP_SERVER_NOT_INITIALIZED");
    project.ok("start", json!({}));
    assert_ne!(pid(&agent), first);
    project.ok("stop", json!({}));
}

#[test]
fn a_server_that_dies_says_why_and_can_be_started_again() {
    let agent = agent_with_fake("sys.exit('no module named jedi')");
    let project = Project { agent: &agent, language: "python" };
    project.file("a.py", "class A: pass\n");
    let answer = project.post("start", json!({}));
    assert_eq!((answer.status, answer.code().as_str()), (500, "INTERNAL_SERVER_ERROR"));
    assert!(answer.text().contains("ended with code 1: no module named jedi"), "{}", answer.text());
    // One child in its group, one that has left it.
    write_fake(
        &agent,
        "import subprocess\n\
         children = [subprocess.Popen(['sleep', '7101']), subprocess.Popen(['sleep', '7102'], start_new_session=True)]\n\
         open('children', 'w').write(' '.join(str(c.pid) for c in children))\n\
         serve(lambda m: m.get('method') == 'textDocument/documentSymbol' and os.abort())",
    );
    project.ok("start", json!({}));
    let died = pid(&agent);
    let children = fs::read_to_string(agent.work("children")).unwrap();
    let answer = project.query("document-symbols", "uri=proj/a.py");
    assert_eq!((answer.status, answer.code().as_str()), (400, "LSP_SERVER_NOT_INITIALIZED"));
    assert!(answer.text().contains("ended with code 134"), "{}", answer.text());
    assert!(gone(&died));
    for child in children.split(' ') {
        until("what a crashed server started is gone", || {
            fs::read_to_string(format!("/proc/{child}/stat")).map_or(true, |stat| stat.contains(") Z "))
        });
    }
    let later = project.query("workspacesymbols", "query=x");
    assert!(later.code() == "LSP_SERVER_NOT_INITIALIZED" && later.text().contains("134"), "{}", later.text());
    write_fake(&agent, "serve()");
    project.ok("start", json!({}));
    assert_eq!(names(&project.query("document-symbols", "uri=proj/a.py")), ["A"]);
    project.ok("stop", json!({}));
}

#[test]
fn what_is_not_the_protocol_ends_the_server() {
    for (behaviour, want) in [
        ("print('Welcome to pylsp 9'); sys.stdout.flush(); time.sleep(1000)", "printed \\\"Welcome to pylsp 9\\\""),
        ("raw(b'Content-Length: 9999999999\\r\\n\\r\\n'); time.sleep(1000)", "announced a message of 9999999999 bytes"),
        ("raw(b'Content-Length: -5\\r\\n\\r\\n'); time.sleep(1000)", "the length \\\"-5\\\""),
        ("raw(b'A: b\\r\\n' * 10000); time.sleep(1000)", "headers of more than"),
        ("raw(b'Content-Length: 4\\r\\n\\r\\n{{{{'); raw(b'x' * 100000); time.sleep(1000)", "headers of more than"),
        ("raw(b'Content-Length: 100\\r\\n\\r\\nhalf')", "ended with code 0"),
    ] {
        let agent = agent_with_fake(behaviour);
        let project = Project { agent: &agent, language: "python" };
        let answer = project.post("start", json!({}));
        assert_eq!(answer.status, 500);
        assert!(answer.text().contains(want), "{behaviour}: {}", answer.text());
        assert!(gone(&pid(&agent)), "{behaviour}");
    }
}

/// Resident memory of the agent in KiB.
fn resident(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.process.id())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap().to_owned();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn floods_cost_the_agent_little_and_others_nothing() {
    // Questions without end, notifications without end, large useless messages; and the agent's answers are never read.
    let agent = agent_with_fake(
        "def flood(m):\n  if m.get('method') != 'textDocument/documentSymbol': return False\n\
         \x20 open('flooding', 'w').write('1')\n\
         \x20 while True:\n\
         \x20   for n in range(200): send({'id': 'q' * 100, 'method': 'workspace/configuration'})\n\
         \x20   send({'method': 'log', 'params': 'x' * 4000000})\n\
         \x20   send({'id': 123456, 'result': ['y' * 1000000]})\n\
         serve(flood)",
    );
    let project = Project { agent: &agent, language: "python" };
    project.file("a.py", "class A: pass\n");
    project.ok("start", json!({}));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| project.query("document-symbols", "uri=proj/a.py"));
        until("it floods", || agent.work("flooding").exists());
        for _ in 0..50 {
            assert_eq!(agent.get("/version").status, 200);
        }
        let used = resident(&agent);
        assert!(used < 120 << 10, "{used} KiB");
        project.ok("stop", json!({}));
        let answer = asking.join().unwrap();
        assert_eq!(answer.code(), "LSP_SERVER_NOT_INITIALIZED");
        assert!(answer.text().contains("stopped"), "{}", answer.text());
    });
    assert!(gone(&pid(&agent)));
}

#[test]
fn silence_is_a_timeout_and_the_server_goes_on() {
    let agent = agent_with_fake(
        "serve(lambda m: m.get('method') == 'textDocument/documentSymbol' and 'mute' in m['params']['textDocument']['uri'])",
    );
    let project = Project { agent: &agent, language: "python" };
    project.file("mute.py", "class Mute: pass\n");
    project.file("a.py", "class A: pass\n");
    project.ok("start", json!({}));
    let answer = project.query("document-symbols", "uri=proj/mute.py");
    assert_eq!((answer.status, answer.code().as_str()), (408, "REQUEST_TIMEOUT"));
    assert!(
        answer.text().contains("did not answer textDocument/documentSymbol within 30 seconds"),
        "{}",
        answer.text()
    );
    assert_eq!(names(&project.query("document-symbols", "uri=proj/a.py")), ["A"]);
    project.ok("stop", json!({}));
}

#[test]
fn answers_of_the_wrong_shape_and_refusals_are_400() {
    let agent = agent_with_fake(
        "answers = {'a': {'result': {}}, 'b': {'result': [1]}, 'c': {'error': {'code': -32000, 'message': 'no idea'}},\n\
         \x20 'd': {'result': None}, 'e': {}}\n\
         def special(m):\n  if m.get('method') != 'textDocument/documentSymbol': return False\n\
         \x20 send({'id': m['id'], **answers[m['params']['textDocument']['uri'][-4]]})\n  return True\n\
         serve(special, {'workspaceSymbolProvider': True})",
    );
    let project = Project { agent: &agent, language: "python" };
    project.ok("start", json!({}));
    for (name, status) in [("a", 400), ("b", 400), ("c", 400), ("d", 200), ("e", 200)] {
        project.file(&format!("{name}.py"), "class A: pass\n");
        let answer = project.query("document-symbols", &format!("uri=proj/{name}.py"));
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        if status == 200 {
            assert_eq!(answer.json(), json!([]));
        } else {
            assert_eq!(answer.code(), "BAD_REQUEST");
        }
    }
    // It said that it can search and then could not.
    assert_eq!(names(&project.query("workspacesymbols", "query=A")), [""; 0]);
    project.ok("stop", json!({}));
}

#[test]
fn servers_are_counted() {
    let agent = agent_with_fake("serve()");
    let start = |project: &str| agent.post("/lsp/start", json!({"languageId": "python", "pathToProject": project}));
    for number in 0..8 {
        assert_eq!(start(&format!("p{number}")).status, 200);
    }
    let full = start("one more");
    assert_eq!((full.status, full.code().as_str()), (400, "BAD_REQUEST"));
    let stop = agent.post("/lsp/stop", json!({"languageId": "python", "pathToProject": "p3"}));
    assert_eq!(stop.status, 200);
    assert_eq!(start("one more").status, 200);
}
