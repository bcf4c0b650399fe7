//! The control plane's operations, one method each.

use crate::{
    dto::{ApiKey, CreateApiKey, CreateSandbox, Labels, Sandbox, SandboxPage},
    error::ClientError,
    toolbox::Toolbox,
    transport::{Answer, Endpoint, NO_BODY},
};
use http::{HeaderMap, Method};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use std::{collections::BTreeMap, time::Duration};

/// Pages asked for before a list counts as endless.
const LIST_PAGES_MAX: usize = 1000;
/// What may not stand bare in one path segment or query value.
pub(crate) const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b'/')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

#[derive(Clone)]
pub struct Api {
    endpoint: Endpoint,
}

/// Where a server says its time went.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ServerPhase {
    pub name: String,
    pub duration_ms: f64,
}

impl Api {
    pub fn new(base: &str, key: &str) -> Result<Self, ClientError> {
        Ok(Self { endpoint: Endpoint::new(base, key)? })
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether a server of this kind answers.
    pub async fn health(&self) -> Result<(), ClientError> {
        self.endpoint.no_answer(Method::GET, &self.endpoint.url("/health"), NO_BODY).await
    }

    pub async fn create(&self, spec: &CreateSandbox) -> Result<Sandbox, ClientError> {
        self.create_timed(spec).await.map(|(sandbox, _)| sandbox)
    }

    /// `create`, and the phases of the server's `Server-Timing`.
    pub async fn create_timed(&self, spec: &CreateSandbox) -> Result<(Sandbox, Vec<ServerPhase>), ClientError> {
        let url = self.endpoint.url("/sandbox");
        let answer: Answer<Sandbox> = self.endpoint.json(Method::POST, &url, Some(spec)).await?;
        Ok((answer.body, server_timing(&answer.headers)))
    }

    /// By id or name.
    pub async fn get(&self, id: &str) -> Result<Sandbox, ClientError> {
        self.one(Method::GET, id, "").await
    }

    pub async fn start(&self, id: &str) -> Result<Sandbox, ClientError> {
        self.one(Method::POST, id, "/start").await
    }

    pub async fn stop(&self, id: &str) -> Result<Sandbox, ClientError> {
        self.one(Method::POST, id, "/stop").await
    }

    /// Some servers answer without a body, so nothing is made of it.
    pub async fn delete(&self, id: &str) -> Result<(), ClientError> {
        self.endpoint.no_answer(Method::DELETE, &self.sandbox_url(id, ""), NO_BODY).await
    }

    /// Replaces all labels.
    pub async fn set_labels(&self, id: &str, labels: BTreeMap<String, String>) -> Result<(), ClientError> {
        self.endpoint.no_answer(Method::PUT, &self.sandbox_url(id, "/labels"), Some(&Labels { labels })).await
    }

    pub async fn list(&self) -> Result<Vec<Sandbox>, ClientError> {
        let mut all = Vec::new();
        let mut url = self.endpoint.url("/sandbox?limit=100");
        for _ in 0..LIST_PAGES_MAX {
            let page: SandboxPage = self.endpoint.json(Method::GET, &url, NO_BODY).await?.body;
            all.extend(page.items);
            match page.next_cursor.filter(|cursor| !cursor.is_empty()) {
                Some(cursor) => {
                    url = self.endpoint.url(&format!("/sandbox?limit=100&cursor={}", encode(&cursor)));
                }
                None => return Ok(all),
            }
        }
        Err(ClientError::Unexpected { url, why: format!("more than {LIST_PAGES_MAX} pages") })
    }

    /// Polls until the sandbox runs; a state it cannot leave by itself ends the wait.
    pub async fn wait_started(&self, mut sandbox: Sandbox, limit: Duration) -> Result<Sandbox, ClientError> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut pause = Duration::from_millis(50);
        loop {
            match sandbox.state.as_str() {
                "started" => return Ok(sandbox),
                "error" | "build_failed" | "destroyed" => return Err(failed(&sandbox)),
                _ if tokio::time::Instant::now() >= deadline => return Err(failed(&sandbox)),
                _ => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_secs(1));
            sandbox = self.get(&sandbox.id).await?;
        }
    }

    /// The toolbox inside a sandbox.
    pub async fn toolbox(&self, sandbox: &Sandbox) -> Result<Toolbox, ClientError> {
        let mut base = sandbox.toolbox_proxy_url.clone();
        if base.is_empty() {
            let url = self.sandbox_url(&sandbox.id, "/toolbox-proxy-url");
            let answer: Answer<serde_json::Value> = self.endpoint.json(Method::GET, &url, NO_BODY).await?;
            base = answer.body["url"].as_str().unwrap_or_default().to_owned();
        }
        Toolbox::new(self.endpoint.clone(), &base, &sandbox.id)
    }

    pub async fn create_key(&self, key: &CreateApiKey) -> Result<ApiKey, ClientError> {
        Ok(self.endpoint.json(Method::POST, &self.endpoint.url("/api-keys"), Some(key)).await?.body)
    }

    pub async fn keys(&self) -> Result<Vec<ApiKey>, ClientError> {
        Ok(self.endpoint.json(Method::GET, &self.endpoint.url("/api-keys"), NO_BODY).await?.body)
    }

    pub async fn delete_key(&self, name: &str) -> Result<(), ClientError> {
        let url = self.endpoint.url(&format!("/api-keys/{}", encode(name)));
        self.endpoint.no_answer(Method::DELETE, &url, NO_BODY).await
    }

    async fn one(&self, method: Method, id: &str, tail: &str) -> Result<Sandbox, ClientError> {
        Ok(self.endpoint.json(method, &self.sandbox_url(id, tail), NO_BODY).await?.body)
    }

    fn sandbox_url(&self, id: &str, tail: &str) -> String {
        self.endpoint.url(&format!("/sandbox/{}{tail}", encode(id)))
    }
}

pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

fn failed(sandbox: &Sandbox) -> ClientError {
    let reason = sandbox.error_reason.as_deref().unwrap_or("no reason given");
    let message = format!("sandbox {} is in state {}: {reason}", sandbox.id, sandbox.state);
    ClientError::Http { status: http::StatusCode::INTERNAL_SERVER_ERROR, code: None, message }
}

fn server_timing(headers: &HeaderMap) -> Vec<ServerPhase> {
    let values = headers.get_all("server-timing").iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).filter_map(server_phase).collect()
}

/// `name;dur=1.5;desc="…"`.
fn server_phase(entry: &str) -> Option<ServerPhase> {
    let mut parts = entry.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let duration_ms = parts.find_map(|p| p.strip_prefix("dur="))?.parse().ok()?;
    Some(ServerPhase { name: name.to_owned(), duration_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_timing_entries() {
        let mut headers = HeaderMap::new();
        headers.append("server-timing", "db;dur=0.4, engine;desc=\"x\";dur=3".parse().expect("value"));
        headers.append("server-timing", "miss".parse().expect("value"));
        let phases = server_timing(&headers);
        assert_eq!(phases.len(), 2);
        assert_eq!((phases[1].name.as_str(), phases[1].duration_ms), ("engine", 3.0));
    }
}
