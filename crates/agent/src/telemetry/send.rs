//! Posts JSON to a collector. Knows nothing of what is in it.

use crate::git::{Dns, authorities};
use serde_json::Value;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::task::spawn_blocking;
use ureq::Agent;
use ureq::http::{Uri, header::HeaderValue};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;

const POST_SECONDS_MAX: u64 = 10;
const TOKEN_HEADER: &str = "sandbox-auth-token";

pub struct Sender {
    /// Without a slash at its end.
    endpoint: String,
    token: Option<HeaderValue>,
    /// Made with the first request: reading certificate authorities takes time.
    client: Arc<OnceLock<Agent>>,
}

/// The collector did not take it.
pub struct Refused;

impl Sender {
    pub fn new(endpoint: &str, token: Option<String>) -> Result<Self, String> {
        let uri: Uri = endpoint.parse().map_err(|e| format!("the telemetry endpoint is no URL: {e}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err("the telemetry endpoint must begin with http:// or https://".to_owned());
        }
        let token = token.filter(|t| !t.is_empty()).map(|t| HeaderValue::from_str(&t)).transpose();
        let mut token = token.map_err(|_| "the token has characters that a header cannot have".to_owned())?;
        if let Some(token) = &mut token {
            token.set_sensitive(true);
        }
        Ok(Self { endpoint: endpoint.trim_end_matches('/').to_owned(), token, client: Arc::default() })
    }

    /// `signal` is `logs` or `metrics`.
    pub async fn send(&self, signal: &str, body: Value) -> Result<(), Refused> {
        let (url, token, client) = (format!("{}/v1/{signal}", self.endpoint), self.token.clone(), self.client.clone());
        let posted = spawn_blocking(move || {
            let mut request = client.get_or_init(new_client).post(url).content_type("application/json");
            if let Some(token) = token {
                request = request.header(TOKEN_HEADER, token);
            }
            request.send(body.to_string())
        });
        match posted.await {
            Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
            _ => Err(Refused),
        }
    }
}

fn new_client() -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(authorities(None)))).build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(Duration::from_secs(POST_SECONDS_MAX)))
        .build();
    Agent::with_parts(config, DefaultConnector::default(), Dns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_and_tokens_are_checked() {
        assert!(Sender::new("http://collector:4318/", Some("t".into())).is_ok());
        assert!(Sender::new("https://x/base", None).is_ok());
        for bad in ["collector:4318", "ftp://x", "", "http://"] {
            assert!(Sender::new(bad, None).is_err(), "{bad}");
        }
        let error = Sender::new("http://x", Some("se\ncret".into())).err().unwrap();
        assert!(!error.contains("cret"));
    }
}
