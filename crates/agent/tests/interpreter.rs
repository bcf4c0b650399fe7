//! The stateful Python interpreter, with code that does its worst.

#![allow(clippy::unwrap_used, reason = "a test that stops says where")]

mod common;

use common::ws::{Rest, Socket};
use common::{Agent, until};
use serde_json::{Value, json};
use tokio::task::block_in_place;

async fn open(agent: &Agent, request: Value) -> Socket {
    let mut socket = Socket::open(agent, "/process/interpreter/execute", &[]).await.unwrap();
    socket.send(&request.to_string()).await;
    socket
}

async fn ask(agent: &Agent, request: Value) -> Rest {
    let rest = open(agent, request).await.rest().await;
    for message in &rest.texts {
        let keys: Vec<_> = message.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["name", "text", "traceback", "type", "value"], "{message}");
    }
    rest
}

async fn run(agent: &Agent, code: &str) -> Rest {
    ask(agent, json!({"code": code})).await
}

fn text(rest: &Rest, kind: &str) -> String {
    rest.texts.iter().filter(|m| m["type"] == kind).map(|m| m["text"].as_str().unwrap()).collect()
}

/// Completed, and nothing else but this output.
#[track_caller]
fn completed(rest: &Rest, out: &str) {
    assert_eq!((text(rest, "stdout").as_str(), text(rest, "control").as_str()), (out, "completed"), "{rest:?}");
    assert_eq!((rest.code, rest.reason.as_str()), (1000, ""), "{rest:?}");
    assert_eq!(rest.texts.last().unwrap()["type"], "control");
}

fn error(rest: &Rest) -> (&str, &str, &str) {
    let error = rest.texts.iter().find(|m| m["type"] == "error").unwrap_or_else(|| panic!("no error: {rest:?}"));
    (error["name"].as_str().unwrap(), error["value"].as_str().unwrap(), error["traceback"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn state_streams_and_errors() {
    let agent = Agent::start();
    completed(&run(&agent, "x = 41\nimport os").await, "");
    let rest =
        run(&agent, "import sys\nprint(x + 1, 'ü')\nprint('e', file=sys.stderr)\nprint('no newline', end='')").await;
    completed(&rest, "42 ü\nno newline");
    assert_eq!(text(&rest, "stderr"), "e\n");
    let rest = run(&agent, "def f():\n    raise ValueError('bad\\n✓')\nf()").await;
    completed(&rest, "");
    let traceback = "Traceback (most recent call last):\n  File \"<stdin>\", line 3, in <module>\n  File \"<stdin>\", \
                     line 2, in f\nValueError: bad\n✓";
    assert_eq!(error(&rest), ("ValueError", "bad\n✓", traceback));
    let rest = run(&agent, "1 +").await;
    assert_eq!(error(&rest).0, "SyntaxError");
    assert_eq!(error(&rest).2.lines().count(), 1);
    completed(
        &run(&agent, "import json\ntry:\n  json.loads('{')\nexcept Exception as e: print(type(e).__name__)").await,
        "JSONDecodeError\n",
    );
    completed(&run(&agent, "import sys\nsys.exit(3)").await, "");
    let rest = run(&agent, "raise KeyboardInterrupt").await;
    assert_eq!((text(&rest, "control").as_str(), rest.code), ("interrupted", 1000));
    let rest = ask(&agent, json!({"code": "print(os.environ.get('A'), os.environ.get('HOME'))", "envs": {"A": "1", "HOME": null}, "contextId": "default"})).await;
    completed(&rest, "1 None\n");
    completed(&run(&agent, "print(os.environ.get('A'), bool(os.environ.get('HOME')))").await, "None True\n");
    completed(
        &run(&agent, "print(__name__, input if False else 'ok')\nimport __main__\nprint(__main__.x)").await,
        "__main__ ok\n41\n",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts() {
    let agent = Agent::start();
    let create = |body: Value| block_in_place(|| agent.post("/process/interpreter/context", body));
    let context = create(json!({"cwd": "/tmp"})).json();
    let id = context["id"].as_str().unwrap().to_owned();
    assert_eq!(
        (&context["cwd"], &context["active"], &context["language"]),
        (&json!("/tmp"), &json!(true), &json!("python"))
    );
    assert_eq!(create(json!({"language": "ruby"})).status, 400);
    assert_eq!(create(json!({"cwd": "/nope"})).status, 500);
    completed(&run(&agent, "y = 1").await, "");
    let within = |code: &str| json!({"code": code, "contextId": id});
    completed(&ask(&agent, within("import os\nprint('y' in globals(), os.getcwd())")).await, "False /tmp\n");
    let list = block_in_place(|| agent.get("/process/interpreter/context").json());
    assert_eq!(list["contexts"].as_array().unwrap().len(), 1, "the default one is not listed");
    let mut busy = open(
        &agent,
        within("import subprocess, time\nsubprocess.Popen(['setsid', 'sleep', '7100'])\nprint('up')\ntime.sleep(1000)"),
    )
    .await;
    assert_eq!(busy.json().await["text"], "up\n");
    let delete =
        |id: &str| block_in_place(|| agent.request("DELETE", &format!("/process/interpreter/context/{id}"), &[], b""));
    assert_eq!(delete(&id).json()["message"], "Context deleted successfully");
    let rest = busy.rest().await;
    assert_eq!((rest.code, rest.reason.as_str()), (1001, "context shutdown"));
    assert_eq!(block_in_place(|| agent.run("pgrep -fc '[s]leep 7100'")).1.trim(), "0");
    assert_eq!((delete(&id).status, delete("default").status), (404, 400));
    let rest = ask(&agent, within("1")).await;
    assert_eq!((rest.code, rest.reason), (1008, format!("context not found: {id}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    let agent = Agent::start();
    for (request, code, reason) in [
        (json!({}), 1008, "code is required"),
        (json!(7), 1002, "invalid JSON payload"),
        (json!({"code": "1", "timeout": 0.5}), 1002, "invalid JSON payload"),
        (json!({"code": "1", "timeout": -1}), 1008, "timeout must be greater than or equal to 0"),
        (json!({"code": "1", "contextId": "x"}), 1008, "context not found: x"),
    ] {
        let rest = ask(&agent, request).await;
        assert_eq!((rest.code, rest.reason.as_str()), (code, reason));
    }
    let agent = Agent::with(r#"{"env": {"PATH": "/nonexistent"}}"#);
    let rest = run(&agent, "1").await;
    assert_eq!(rest.code, 1011);
    assert!(rest.reason.starts_with("failed to get default context: this image has no python3"), "{}", rest.reason);
    assert_eq!(block_in_place(|| agent.post("/process/interpreter/context", json!({})).status), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn time_is_up() {
    let agent = Agent::start();
    completed(&run(&agent, "kept = 1").await, "");
    for code in ["import time\nprint('a')\ntime.sleep(1000)", "while True: pass", "import os\nos.system('sleep 1000')"]
    {
        let rest = ask(&agent, json!({"code": code, "timeout": 1})).await;
        assert_eq!((rest.code, text(&rest, "control").as_str()), (4008, ""), "{code}: {rest:?}");
    }
    completed(&run(&agent, "print(kept)").await, "1\n");
    let stubborn = "import time\nwhile True:\n  try: time.sleep(1000)\n  except BaseException: pass";
    let rest = ask(&agent, json!({"code": stubborn, "timeout": 1})).await;
    assert_eq!((rest.code, text(&rest, "control").as_str()), (4008, ""));
    completed(&run(&agent, "print('kept' in globals())").await, "False\n");
    let id = block_in_place(|| agent.post("/process/interpreter/context", json!({})).json()["id"].clone());
    assert_eq!(ask(&agent, json!({"code": stubborn, "timeout": 1, "contextId": id})).await.code, 4008);
    let rest = ask(&agent, json!({"code": "1", "contextId": id})).await;
    assert_eq!((rest.code, rest.reason.as_str()), (1008, "context is not active"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_code() {
    let agent = Agent::start();
    // Output of children, and by descriptors.
    completed(&run(&agent, "import os, sys\nos.system('echo child')\nos.write(1, b'raw\\n')").await, "child\nraw\n");
    // What looks like the protocol is text.
    let fake = r#"{"type":"control","text":"completed","name":"","value":"","traceback":""}"#;
    completed(&run(&agent, &format!("print('''{fake}''')")).await, &format!("{fake}\n"));
    // Bytes that are no text, and one character in two pieces.
    completed(
        &run(
            &agent,
            "os.write(1, b'\\xff')\nos.write(1, b'\\xc3')\nimport time\ntime.sleep(.05)\nos.write(1, b'\\xbc\\xe2')",
        )
        .await,
        "\u{fffd}ü\u{fffd}",
    );
    // A child of the code that does not know that it is one.
    completed(
        &run(&agent, "pid = os.fork()\nprint('child' if pid == 0 else os.waitpid(pid, 0)[1])").await,
        "child\n0\n",
    );
    completed(
        &run(&agent, "if os.fork() == 0: raise RuntimeError('only the child')\nos.wait()\nprint('parent')").await,
        "parent\n",
    );
    // Streams are good again in the next piece.
    completed(&run(&agent, "sys.stdout.close()\nos.close(1)\nos.close(2)\nsys.stderr = None").await, "");
    let rest = run(&agent, "print('back')\nprint('again', file=sys.stderr)").await;
    completed(&rest, "back\n");
    assert_eq!(text(&rest, "stderr"), "again\n");
    completed(&run(&agent, "sys.stdout = None\nimport builtins\nprint('x')").await, "");
    completed(&run(&agent, "print('y')").await, "y\n");
    // An answer to no question is none; garbage is the end.
    let forged = "os.write(200, b'\\x15\\0\\0\\0' + b'\\xee' * 8 + b'\\1' + bytes(12))\nprint('on')";
    completed(&run(&agent, forged).await, "on\n");
    let rest = run(&agent, "os.write(200, b'\\xff' * 64)\nimport time\ntime.sleep(1000)").await;
    assert_eq!((rest.code, rest.reason.as_str()), (1001, "worker process ended"));
    completed(&run(&agent, "print('new worker')").await, "new worker\n");
    // The end of the process, with what it printed before.
    let rest = run(&agent, "import os\nprint('last words', flush=True)\nos._exit(3)").await;
    assert_eq!((text(&rest, "stdout").as_str(), text(&rest, "control").as_str()), ("last words\n", ""));
    assert_eq!((error(&rest).1, rest.code), ("the interpreter ended with exit code 3", 1001));
    let rest = run(&agent, "import os\nos.kill(os.getpid(), 9)").await;
    assert_eq!((error(&rest).1, rest.code), ("the interpreter was killed by signal 9", 1001));
    let rest = run(&agent, "import os\nos.closerange(3, 1000)\nimport time\ntime.sleep(1000)").await;
    assert_eq!(rest.code, 1001);
    let rest = run(&agent, "class E(Exception):\n  def __str__(self): raise E\nraise E").await;
    assert_eq!(error(&rest).1, "<exception str() failed>");
    let rest = run(&agent, "raise ValueError('x' * 5_000_000)").await;
    assert_eq!(error(&rest).1.len(), 64 << 10);
    let rest = run(&agent, "def f(): f()\nf()").await;
    assert_eq!(error(&rest).0, "RecursionError");
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_and_clients_that_leave() {
    let agent = Agent::start();
    let rest =
        run(&agent, "import sys\nfor _ in range(100): print('z' * 99_999)\nsys.stderr.write('e' * 100_000)").await;
    assert_eq!((text(&rest, "stdout").len(), text(&rest, "stderr").len()), (10_000_000, 100_000));
    // Jobs run one after another, also when nobody waits for them any more.
    let path = agent.work("log").display().to_string();
    let code =
        |n: u32| format!("import time\ntime.sleep(.1)\nopen({path:?}, 'a').write('{n}')\nprint('flood' * 100_000)");
    for n in 0..4 {
        drop(open(&agent, json!({"code": code(n)})).await);
    }
    let log = agent.work("log");
    block_in_place(|| until("all four have run", || std::fs::read(&log).is_ok_and(|t| t.len() == 4)));
    let rest = run(&agent, "print('mine')").await;
    completed(&rest, "mine\n");
    // A child left behind prints on and on; what comes between is not waited for.
    let stray = "import subprocess\nsubprocess.Popen(['sh', '-c', 'while :; do echo stray; done'])\nprint('x')";
    for code in [stray, "print('x')"] {
        let rest = run(&agent, code).await;
        assert!(text(&rest, "stdout").contains("x\n"));
        assert_eq!((text(&rest, "control").as_str(), rest.code), ("completed", 1000));
    }
}
