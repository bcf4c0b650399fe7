//! A private world per test: a database in its own directory, a simulated host, the real HTTP server on loopback.
pub mod sim;
pub mod strict;

use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use infield_control::{App, ControlConfig, bootstrap};
use infield_store::Store;
use serde_json::{Value, json};
use sim::Sim;
use std::{
    path::PathBuf,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

type HttpClient = Client<hyper_util::client::legacy::connect::HttpConnector, Full<bytes::Bytes>>;

pub struct World {
    pub sim: Sim,
    pub app: App,
    pub store: Store,
    pub key: String,
    pub url: String,
    dir: Arc<Dir>,
    client: HttpClient,
    /// The server's process: everything it spawned dies with it.
    process: Option<tokio::runtime::Runtime>,
}

struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub text: String,
    pub json: Value,
}

static COUNTER: AtomicU64 = AtomicU64::new(0);

impl World {
    /// Serving, with the background work running and the first comparison with the host done.
    pub async fn new() -> Self {
        Self::quiet(Sim::new()).await.with_background().await
    }

    /// Serving, without background work.
    pub async fn quiet(sim: Sim) -> Self {
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("infield-control-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self::serve(sim, None, Arc::new(Dir(dir))).await
    }

    async fn serve(sim: Sim, key: Option<String>, dir: Arc<Dir>) -> Self {
        let process = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let config = ControlConfig::default();
        let (database, host) = (format!("sqlite:{}/infield.db", dir.0.display()), sim.clone());
        let started = process.spawn(async move {
            let store = Store::open(&database).await.unwrap();
            let first = bootstrap(&store).await.unwrap().map(|key| key.0);
            let app = App::new(config, store.clone(), Arc::new(host));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let router = app.router();
            tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
            (store, first, app, url)
        });
        let (store, first, app, url) = started.await.unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        // Only an empty database makes a key.
        assert_eq!(first.is_some(), key.is_none());
        let key = key.or(first).unwrap();
        Self { sim, app, store, key, url, dir, client, process: Some(process) }
    }

    pub async fn with_background(self) -> Self {
        let app = self.app.clone();
        self.process.as_ref().unwrap().spawn(async move { app.run_background(std::future::pending()).await });
        self.until("the images are snapshots", async |w| !w.get("/snapshots").await.json["items"][0].is_null()).await;
        self
    }

    /// The process dies at whatever it was doing.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.shutdown_background();
        }
    }

    /// A new process on the same database and the same host.
    pub async fn restarted(mut self) -> Self {
        self.kill();
        let (sim, key, dir) = (self.sim.clone(), self.key.clone(), self.dir.clone());
        Self::serve(sim, Some(key), dir).await.with_background().await
    }

    pub async fn call(&self, method: &str, path: &str, key: Option<&str>, body: &str) -> Answer {
        let mut request = http::Request::builder().method(method).uri(format!("{}/api{path}", self.url));
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        if method == "OPTIONS" {
            request = request.header("origin", "http://x").header("access-control-request-method", "POST");
        }
        let body = Full::new(bytes::Bytes::from(body.to_owned()));
        let answer = self.client.request(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        // The specification calls bare text a string of JSON.
        let bare = parts.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/"));
        let described = if bare { Value::String(text.clone()) } else { json.clone() };
        strict::check(method, path, parts.status.as_u16(), &described);
        Answer { status: parts.status.as_u16(), headers: parts.headers, text, json }
    }

    /// A request whose answer may never come.
    pub async fn send(&self, method: &str, path: &str, body: Full<bytes::Bytes>) -> bool {
        let request = http::Request::builder().method(method).uri(format!("{}/api{path}", self.url));
        let request = request.header("authorization", format!("Bearer {}", self.key)).body(body).unwrap();
        self.client.request(request).await.is_ok()
    }

    /// The janitor's work as if it were `now_ms`.
    pub async fn sweep(&self, now_ms: i64) {
        let app = self.app.clone();
        self.process.as_ref().unwrap().spawn(async move { app.sweep(now_ms).await }).await.unwrap();
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, Some(&self.key), "").await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, Some(&self.key), &body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, Some(&self.key), "").await
    }

    /// A started sandbox.
    pub async fn sandbox(&self, body: Value) -> Value {
        let made = self.post("/sandbox", body).await;
        assert_eq!(made.status, 200, "{}", made.text);
        assert_eq!(made.json["state"], "started");
        made.json
    }

    /// A key of the same organization with these permissions.
    pub async fn key_with(&self, name: &str, permissions: Value) -> String {
        let made = self.post("/api-keys", json!({"name": name, "permissions": permissions})).await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.json["value"].as_str().unwrap().to_owned()
    }

    pub async fn state(&self, sandbox: &str) -> String {
        let answer = self.get(&format!("/sandbox/{sandbox}")).await;
        if answer.status == 404 { "gone".to_owned() } else { answer.json["state"].as_str().unwrap().to_owned() }
    }

    pub async fn until_state(&self, sandbox: &str, state: &str) {
        self.until(state, async |w| w.state(sandbox).await == state).await;
    }

    pub async fn until(&self, what: &str, condition: impl AsyncFn(&Self) -> bool) {
        let began = Instant::now();
        while !condition(self).await {
            assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
