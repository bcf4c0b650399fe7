//! HTTP to one server: pooled keep-alive connections, TLS only where the address says https, errors a person can use.

use crate::error::ClientError;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT},
};
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// The largest JSON answer that is read.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// The largest error body that is read; the rest is cut.
const ERROR_BYTES_MAX: usize = 64 << 10;
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
const IDLE_MAX: Duration = Duration::from_secs(30);

pub type Body = UnsyncBoxBody<Bytes, io::Error>;
pub type Connector = HttpsConnector<HttpConnector>;
type Http = Client<Connector, Body>;

/// Where a server is and who is asking. Cheap to clone; clones share connections. Has no `Debug`: it holds the key.
#[derive(Clone)]
pub struct Endpoint {
    shared: Arc<Shared>,
}

struct Shared {
    base: String,
    authorization: HeaderValue,
    plain: Http,
    /// Made on first use: reading the system's certificates takes longer than a whole local request.
    tls: OnceLock<(Http, Connector)>,
    plain_connector: Connector,
}

/// An answer whose status was good.
pub struct Answer<T> {
    pub headers: HeaderMap,
    pub body: T,
}

impl Endpoint {
    /// `base` is the API's address, `https://host/api`; a trailing slash does not matter.
    pub fn new(base: &str, key: &str) -> Result<Self, ClientError> {
        let base = base.trim().trim_end_matches('/');
        let scheme = base.parse::<Uri>().ok().and_then(|uri| uri.scheme_str().map(str::to_owned));
        if !matches!(scheme.as_deref(), Some("http" | "https")) {
            return Err(ClientError::Invalid(format!("{base:?} is not an http:// or https:// address")));
        }
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", key.trim()))
            .map_err(|_| ClientError::Invalid("the API key holds characters that no key has".into()))?;
        authorization.set_sensitive(true);
        let plain_connector = plain_connector();
        let plain = client(plain_connector.clone());
        let shared = Shared { base: base.to_owned(), authorization, plain, tls: OnceLock::new(), plain_connector };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub fn base(&self) -> &str {
        &self.shared.base
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.shared.base)
    }

    pub(crate) fn authorization(&self) -> HeaderValue {
        self.shared.authorization.clone()
    }

    pub(crate) fn connector(&self, url: &Uri) -> Result<Connector, ClientError> {
        if is_tls(url) { Ok(self.tls()?.1.clone()) } else { Ok(self.shared.plain_connector.clone()) }
    }

    fn http(&self, url: &Uri) -> Result<Http, ClientError> {
        if is_tls(url) { Ok(self.tls()?.0.clone()) } else { Ok(self.shared.plain.clone()) }
    }

    fn tls(&self) -> Result<&(Http, Connector), ClientError> {
        if let Some(tls) = self.shared.tls.get() {
            return Ok(tls);
        }
        let connector = tls_connector().map_err(|e| {
            ClientError::Invalid(format!("cannot read this system's certificates: {e}; install ca-certificates"))
        })?;
        Ok(self.shared.tls.get_or_init(|| (client(connector.clone()), connector)))
    }

    /// One request; statuses of 400 and above become [`ClientError::Http`].
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        content_type: Option<&str>,
        body: Body,
    ) -> Result<Response<Incoming>, ClientError> {
        let uri: Uri = url.parse().map_err(|_| ClientError::Invalid(format!("{url:?} is not an address")))?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, self.authorization());
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("specgen-sandbox/", env!("CARGO_PKG_VERSION"))));
        headers.insert("x-daytona-source", HeaderValue::from_static("specgen-sandbox"));
        if let Some(content_type) = content_type {
            let value = HeaderValue::from_str(content_type).map_err(|e| ClientError::Invalid(e.to_string()))?;
            headers.insert(CONTENT_TYPE, value);
        }
        let http = self.http(&uri)?;
        *request.uri_mut() = uri;
        let response = http.request(request).await.map_err(|e| transport_error(url, e))?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Answer<T>, ClientError> {
        let response = self.send_json(method, url, body).await?;
        let (head, incoming) = response.into_parts();
        let bytes = collect(url, incoming, ANSWER_BYTES_MAX).await?;
        let body = serde_json::from_slice(&bytes)
            .map_err(|e| ClientError::Unexpected { url: url.into(), why: e.to_string() })?;
        Ok(Answer { headers: head.headers, body })
    }

    /// For requests whose answer has no body, or none that matters.
    pub(crate) async fn no_answer(
        &self,
        method: Method,
        url: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(), ClientError> {
        let response = self.send_json(method, url, body).await?;
        // Read to the end, so that the connection can be used again.
        collect(url, response.into_body(), ANSWER_BYTES_MAX).await.map(drop)
    }

    async fn send_json(
        &self,
        method: Method,
        url: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response<Incoming>, ClientError> {
        match body {
            Some(body) => {
                let bytes = serde_json::to_vec(body).map_err(|e| ClientError::Invalid(e.to_string()))?;
                self.send(method, url, Some("application/json"), full(bytes)).await
            }
            None => self.send(method, url, None, full(Bytes::new())).await,
        }
    }
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The absent body of a request.
pub const NO_BODY: Option<&()> = None;

pub async fn collect(url: &str, body: Incoming, bytes_max: usize) -> Result<Bytes, ClientError> {
    let collected = Limited::new(body, bytes_max).collect().await;
    collected.map(|all| all.to_bytes()).map_err(|source| ClientError::Broken { url: url.into(), source })
}

pub fn transport_error(url: &str, error: hyper_util::client::legacy::Error) -> ClientError {
    let url = url.to_owned();
    if error.is_connect() {
        ClientError::Refused { url, source: error.into() }
    } else {
        ClientError::Broken { url, source: error.into() }
    }
}

async fn refusal(response: Response<Incoming>) -> ClientError {
    let status = response.status();
    let bytes = Limited::new(response.into_body(), ERROR_BYTES_MAX).collect().await;
    let bytes = bytes.map(|all| all.to_bytes()).unwrap_or_default();
    refusal_of(status, &bytes)
}

/// Servers of all versions: `message` (text or list), else `error`; a body that is no JSON is the message itself.
pub fn refusal_of(status: StatusCode, body: &[u8]) -> ClientError {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| match &json[key] {
        serde_json::Value::String(s) if !s.is_empty() => Some(s.clone()),
        serde_json::Value::Array(all) => Some(all.iter().filter_map(|v| v.as_str()).collect::<Vec<_>>().join(", ")),
        _ => None,
    };
    let raw = || String::from_utf8_lossy(body).trim().chars().take(500).collect::<String>();
    let message = text("message").or_else(|| text("error")).unwrap_or_else(raw);
    let message = if message.is_empty() { format!("the server answered {status}") } else { message };
    ClientError::Http { status, code: text("code").or_else(|| text("error_code")), message }
}

fn is_tls(url: &Uri) -> bool {
    matches!(url.scheme_str(), Some("https" | "wss"))
}

fn client(connector: Connector) -> Http {
    Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE_MAX).build(connector)
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_TIME_MAX));
    tcp
}

fn plain_connector() -> Connector {
    // Never used for TLS: an empty trust store refuses every certificate.
    let config = tls_config().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().wrap_connector(tcp())
}

fn tls_connector() -> io::Result<Connector> {
    let provider = rustls::crypto::ring::default_provider();
    let builder = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider)?;
    Ok(builder.https_or_http().enable_http1().wrap_connector(tcp()))
}

fn tls_config() -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    match rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions() {
        Ok(builder) => builder,
        // ring supports both versions, so this arm is the compiler's, not the world's.
        Err(_) => rustls::ClientConfig::builder(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_several_server_generations() {
        let message = |body: &str| match refusal_of(StatusCode::BAD_REQUEST, body.as_bytes()) {
            ClientError::Http { message, code, .. } => (message, code),
            other => panic!("{other}"),
        };
        assert_eq!(message(r#"{"message":"no","code":"X"}"#), ("no".into(), Some("X".into())));
        assert_eq!(message(r#"{"message":["a","b"]}"#), ("a, b".into(), None));
        assert_eq!(message(r#"{"error":"old"}"#), ("old".into(), None));
        assert_eq!(message("plain"), ("plain".into(), None));
        assert_eq!(message(""), ("the server answered 400 Bad Request".into(), None));
    }

    #[test]
    fn addresses() {
        assert_eq!(
            Endpoint::new("http://h:1/api/", "k").map(|e| e.url("/sandbox")).ok(),
            Some("http://h:1/api/sandbox".into())
        );
        assert!(Endpoint::new("h:1/api", "k").is_err());
        assert!(Endpoint::new("http://h", "a\nb").is_err());
    }
}
