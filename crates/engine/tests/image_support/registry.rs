//! Registries to pull from: Debian's real `docker-registry` on loopback, and a scripted one for what no honest registry
//! does. Both end with the test, however it ends.

use super::Scratch;
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

pub const USER: (&str, &str) = ("tester", "secret");
/// bcrypt of the password above, as `htpasswd -B` writes it.
const HTPASSWD: &str = "tester:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A `docker-registry` process with its own storage and port.
pub struct RealRegistry {
    child: Child,
    pub host: String,
    storage: PathBuf,
    authorization: Option<String>,
}

impl RealRegistry {
    pub fn start(scratch: &Scratch) -> Self {
        Self::start_with(scratch, "", None)
    }

    pub fn start_with_password(scratch: &Scratch) -> Self {
        let file = scratch.path("htpasswd");
        fs::write(&file, HTPASSWD).unwrap();
        use base64::Engine;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", USER.0, USER.1));
        let auth = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display());
        Self::start_with(scratch, &auth, Some(format!("Basic {pair}")))
    }

    /// `more` is added to the registry's configuration. It picks a free port and says which.
    pub fn start_with(scratch: &Scratch, more: &str, authorization: Option<String>) -> Self {
        let storage = scratch.path("registry");
        fs::create_dir_all(&storage).unwrap();
        let config = scratch.path("registry.yml");
        let http = if more.contains("http:") { "" } else { "http: {addr: \"127.0.0.1:0\"}\n" };
        let text =
            format!("version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n{http}{more}", storage.display());
        fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("these tests need Debian's package docker-registry");
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let host = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "docker-registry ended");
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split([',', '"', ' ']).next().unwrap().to_string();
            }
        };
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, host, storage, authorization }
    }

    pub fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let started = self.request("POST", &format!("http://{}/v2/{repository}/blobs/uploads/", self.host), "", b"");
        let location = started.headers().get("location").unwrap().to_str().unwrap().to_string();
        let put = format!("{location}{}digest={digest}", if location.contains('?') { '&' } else { '?' });
        self.request("PUT", &put, "application/octet-stream", bytes);
        digest
    }

    /// Returns the manifest's digest.
    pub fn push_manifest(&self, repository: &str, tag: &str, kind: &str, manifest: &str) -> String {
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.host);
        self.request("PUT", &url, kind, manifest.as_bytes());
        digest(manifest.as_bytes())
    }

    /// What a broken disk or a forger does: other bytes under the same digest.
    pub fn forge(&self, digest: &str, change: impl Fn(&mut Vec<u8>)) {
        let hex = digest.trim_start_matches("sha256:");
        let path = self.storage.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data");
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
    }

    fn request(&self, method: &str, url: &str, kind: &str, body: &[u8]) -> ureq::http::Response<ureq::Body> {
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        ureq::run(request.body(body).unwrap()).unwrap()
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// One request as the scripted registry sees it.
pub struct Asked {
    pub path: String,
    pub authorization: Option<String>,
}

/// A status line's number, extra header lines and the body.
pub type Answer = (u16, String, Vec<u8>);

/// Answers by a function, one request per connection. It runs until dropped.
pub struct Scripted {
    pub host: String,
    ended: Arc<AtomicBool>,
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    pub fn start(script: impl Fn(&str, &Asked) -> Answer + Send + Sync + 'static) -> Self {
        let (asked, script) = (Arc::new(Mutex::new(Vec::new())), Arc::new(script));
        let heard = asked.clone();
        let (host, ended) = serve(move |stream, own| {
            let Some(request) = read_request(&stream) else { return };
            heard.lock().unwrap().push(format!("{} {}", request.path, request.authorization.as_deref().unwrap_or("-")));
            let (status, headers, body) = script(own, &request);
            let head =
                format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n", body.len());
            let mut stream = stream;
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        });
        Self { host, ended, asked }
    }
}

/// Forwards connections to a registry, and cuts the first `cuts` of them that carry more than `bytes`.
pub fn cutting_proxy(to: &str, cuts: usize, bytes: u64) -> Scripted {
    let (to, left) = (to.to_string(), Arc::new(AtomicUsize::new(cuts)));
    let (host, ended) = serve(move |client, _| {
        let server = TcpStream::connect(&to).unwrap();
        let (mut up_from, mut up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut up_from, &mut up_to));
        let mut client = client;
        let forwarded = std::io::copy(&mut (&server).take(bytes), &mut client).unwrap_or(0);
        let spent = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err();
        if forwarded == bytes && spent {
            let _ = std::io::copy(&mut (&server), &mut client);
        }
        let _ = client.shutdown(std::net::Shutdown::Both);
        let _ = server.shutdown(std::net::Shutdown::Both);
    });
    Scripted { host, ended, asked: Arc::default() }
}

fn serve(answer: impl Fn(TcpStream, &str) + Send + Sync + 'static) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let (ended, answer, own) = (Arc::new(AtomicBool::new(false)), Arc::new(answer), host.clone());
    let stop = ended.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            let (answer, own) = (answer.clone(), own.clone());
            thread::spawn(move || answer(stream.unwrap(), &own));
        }
    });
    (host, ended)
}

fn read_request(stream: &TcpStream) -> Option<Asked> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_string();
    let head = lines.take_while(|line| !line.is_empty());
    let mut authorization = None;
    for line in head {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.trim().to_string());
        }
    }
    Some(Asked { path, authorization })
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(&self.host);
    }
}
