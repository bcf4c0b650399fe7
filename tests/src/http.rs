//! Plain HTTP against the server under test: any method, any body, status and body handed back whatever they are.

use serde_json::Value;
use std::time::Duration;
use ureq::{Agent, http};

/// Long enough for a slow build machine, short enough that a hang is found.
const REQUEST_MAX: Duration = Duration::from_secs(120);

/// A caller with a base address and a credential.
#[derive(Clone)]
pub struct Api {
    agent: Agent,
    pub base: String,
    pub key: Option<String>,
    headers: Vec<(String, String)>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Panics with the body unless the status is the wanted one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// The standard error body with this status, and a message for people.
    #[track_caller]
    pub fn expect_error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        let body = self.json();
        assert_eq!(body["statusCode"], status, "{body}");
        for field in ["path", "timestamp", "error", "message"] {
            assert!(body[field].is_string(), "`{field}` is missing or no text: {body}");
        }
        let message = body["message"].as_str().unwrap().to_owned();
        assert!(!message.is_empty(), "an empty message: {body}");
        message
    }
}

impl Api {
    pub fn new(base: impl Into<String>, key: Option<&str>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(REQUEST_MAX))
            .proxy(None)
            .max_redirects(0)
            .build();
        Self { agent: Agent::new_with_config(config), base: base.into(), key: key.map(str::to_owned), headers: vec![] }
    }

    /// The same caller with one more header.
    pub fn with_header(&self, name: &str, value: &str) -> Self {
        let mut other = self.clone();
        other.headers.push((name.to_owned(), value.to_owned()));
        other
    }

    /// The same caller with another credential.
    pub fn with_key(&self, key: Option<&str>) -> Self {
        Self { key: key.map(str::to_owned), ..self.clone() }
    }

    /// The same caller with another base address.
    pub fn at(&self, base: impl Into<String>) -> Self {
        Self { base: base.into(), ..self.clone() }
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        self.call("GET", path, None)
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: Value) -> Reply {
        self.call("POST", path, Some(body.to_string().into_bytes()))
    }

    #[track_caller]
    pub fn put(&self, path: &str, body: Value) -> Reply {
        self.call("PUT", path, Some(body.to_string().into_bytes()))
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> Reply {
        self.call("DELETE", path, None)
    }

    #[track_caller]
    pub fn call(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Reply {
        self.try_call(method, path, body).unwrap_or_else(|error| panic!("{method} {}{path}: {error}", self.base))
    }

    /// As [`Api::call`]; a broken connection is an answer too.
    pub fn try_call(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Result<Reply, ureq::Error> {
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if body.is_some() {
            request = request.header("Content-Type", "application/json");
        }
        let mut response = match body {
            Some(bytes) => self.agent.run(request.body(bytes)?)?,
            None => self.agent.run(request.body(())?)?,
        };
        let headers = response.headers().iter();
        let headers =
            headers.map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect();
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(1 << 30).read_to_vec()?;
        Ok(Reply { status, headers, body })
    }
}
