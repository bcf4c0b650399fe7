//! A small web server around `git http-backend`, with or without a password.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

pub struct GitServer {
    pub url: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Settings {
    root: PathBuf,
    /// `Basic …`, when one is needed.
    login: Option<String>,
}

impl GitServer {
    pub fn start(root: PathBuf, login: Option<(&str, &str)>) -> Self {
        use base64::Engine;
        let encode = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
        let login = login.map(|(user, password)| format!("Basic {}", encode(format!("{user}:{password}"))));
        let settings = Settings { root, login };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let settings = settings.clone();
                std::thread::spawn(move || serve(stream.unwrap(), &settings));
            }
        });
        Self { url, stop, thread: Some(thread) }
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(stream: TcpStream, settings: &Settings) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let (method, target) = (&words[0], &words[1]);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim().split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let body = read_body(&mut reader, header("transfer-encoding"), header("content-length"));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if let Some(place) = path.strip_prefix("/moved") {
        let to = format!(
            "HTTP/1.1 302 Found\r\nLocation: {place}?{query}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let _ = (&stream).write_all(to.as_bytes());
        return;
    }
    for (place, answer) in [
        ("/forbidden", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        ("/broken", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    ] {
        if path.starts_with(place) {
            let _ = (&stream).write_all(answer.as_bytes());
            return;
        }
    }
    if settings.login.is_some() && header("authorization") != settings.login {
        let no = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let _ = (&stream).write_all(no.as_bytes());
        return;
    }
    let output = backend(settings, method, path, query, header("content-type"), &body);
    let _ = (&stream).write_all(&output);
}

fn read_body(reader: &mut impl BufRead, encoding: Option<String>, length: Option<String>) -> Vec<u8> {
    let mut body = Vec::new();
    if encoding.as_deref() != Some("chunked") {
        let length = length.and_then(|l| l.parse().ok()).unwrap_or(0);
        reader.take(length).read_to_end(&mut body).unwrap();
        return body;
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let size = u64::from_str_radix(line.trim(), 16).unwrap();
        reader.by_ref().take(size).read_to_end(&mut body).unwrap();
        reader.read_line(&mut String::new()).unwrap();
        if size == 0 {
            return body;
        }
    }
}

fn backend(settings: &Settings, method: &str, path: &str, query: &str, kind: Option<String>, body: &[u8]) -> Vec<u8> {
    let mut child = Command::new("git")
        .args(["-c", "safe.directory=*", "http-backend"])
        .env("GIT_PROJECT_ROOT", &settings.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("REMOTE_USER", "tester")
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", kind.unwrap_or_default())
        .env("CONTENT_LENGTH", body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let body = body.to_vec();
    let writer = std::thread::spawn(move || drop(input.write_all(&body)));
    let output = child.wait_with_output().unwrap().stdout;
    writer.join().unwrap();
    let end = output.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(0);
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let status = head.lines().find_map(|l| l.strip_prefix("Status: ")).unwrap_or("200 OK");
    let mut answer = format!("HTTP/1.1 {status}\r\n{head}\r\nConnection: close\r\n\r\n").into_bytes();
    answer.extend_from_slice(&output[end + 4..]);
    answer
}
