//! Telemetry, against a collector of the test's own.

#![allow(clippy::unwrap_used, reason = "a test that stops says where")]

mod common;

use common::{Agent, until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One request: its path, the token it carried, its body.
type Post = (String, Option<String>, Value);

#[derive(Clone)]
struct Collector {
    endpoint: String,
    posts: Arc<Mutex<Vec<Post>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let posts: Arc<Mutex<Vec<Post>>> = Arc::default();
        let collector = Self { endpoint, posts: posts.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let posts = posts.clone();
                std::thread::spawn(move || {
                    while let Some(post) = read(&stream) {
                        posts.lock().unwrap().push(post)
                    }
                });
            }
        });
        collector
    }

    fn find(&self, what: impl Fn(&Post) -> bool) -> Option<Post> {
        self.posts.lock().unwrap().iter().find(|post| what(post)).cloned()
    }
}

fn read(stream: &TcpStream) -> Option<Post> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let path = line.split(' ').nth(1).unwrap().to_owned();
    let (mut length, mut token) = (0, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "sandbox-auth-token" => token = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    { stream }.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}").unwrap();
    Some((path, token, serde_json::from_slice(&body).unwrap()))
}

#[test]
fn entry_point_lines_and_metrics_reach_the_collector() {
    let collector = Collector::start();
    let config = json!({
        "env": {
            "PATH": "/usr/bin:/bin",
            "DAYTONA_SANDBOX_ID": "abc",
            "DAYTONA_OTEL_ENDPOINT": collector.endpoint,
        },
        "entrypoint": ["sh", "-c", "echo first line; read never; true"],
        "usage": { "cpu_cores": 1, "memory_bytes": 1 << 30 },
    });
    let agent = Agent::with(&config.to_string());
    let has = |text: &str| collector.find(|(path, _, body)| path == "/v1/logs" && body.to_string().contains(text));
    until("the line has arrived", || has("first line").is_some());
    let (_, token, body) = has("first line").unwrap();
    assert_eq!(token, None);
    assert!(body.to_string().contains("sandbox-abc") && body.to_string().contains("daytona-entrypoint"), "{body}");
    assert_eq!(agent.post("/init", json!({ "token": "secret-token" })).status, 200);
    until("metrics have arrived", || collector.find(|(path, _, _)| path == "/v1/metrics").is_some());
    let (_, token, body) = collector.find(|(path, _, _)| path == "/v1/metrics").unwrap();
    assert_eq!(token.as_deref(), Some("secret-token"));
    assert!(body.to_string().contains("daytona.sandbox.memory.limit"), "{body}");
}

#[test]
fn without_an_endpoint_nothing_happens_and_a_bad_one_is_told() {
    let agent = Agent::start();
    assert_eq!(agent.post("/init", json!({ "token": "t" })).status, 200);
    assert_eq!(agent.post("/init", json!({})).status, 200);
    agent.post("/env", json!({ "set": { "DAYTONA_OTEL_ENDPOINT": "collector:4318" } }));
    assert_eq!(agent.post("/init", json!({ "token": "t" })).code(), "BAD_REQUEST");
}
