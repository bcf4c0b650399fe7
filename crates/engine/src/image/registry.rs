//! Speaks the OCI distribution protocol to one registry: manifests and blobs, token and basic authentication.
//!
//! Thin on purpose: the client crates there are read answers of any length into memory, and a registry that a user
//! names is not trusted here. Every answer is bounded, TLS is never left on the way, credentials go only where asked for.

use super::{
    error::{ImageError, Result},
    manifest::ACCEPTED,
    reach::{Reach, Resolver},
    reference::Reference,
    registries::{Credentials, Endpoint},
};
use reqwest::{
    Client, RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, RANGE, WWW_AUTHENTICATE},
    redirect,
};
use serde::Deserialize;
use std::{
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two pieces of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: usize = 5;
const TOKEN_BYTES_MAX: u64 = 64 << 10;
const CHALLENGE_BYTES_MAX: usize = 4 << 10;

pub struct Registry {
    endpoint: Endpoint,
    /// As the user wrote it, for errors.
    shown: String,
    repository: String,
    client: Client,
    reach: Option<Arc<Reach>>,
    /// What the last challenge asked for; secret.
    authorization: Mutex<Option<HeaderValue>>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: String,
}

impl Registry {
    /// `reach` bounds where an endpoint may be that the operator did not name.
    pub async fn open(endpoint: Endpoint, reference: &Reference, reach: Option<&Arc<Reach>>) -> Result<Self> {
        let reach = reach.filter(|_| !endpoint.named).cloned();
        if let Some(reach) = &reach
            && !reach.allows_host(&endpoint.host).await
        {
            return Err(ImageError::Forbidden { reference: reference.to_string(), registry: endpoint.host });
        }
        Self::new(endpoint, reference, reach)
    }

    fn new(endpoint: Endpoint, reference: &Reference, reach: Option<Arc<Reach>>) -> Result<Self> {
        let unusable = |why: String| ImageError::Unreachable {
            reference: reference.to_string(),
            registry: endpoint.host.clone(),
            why,
        };
        // Fails only when the process chose a provider already, which then is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(redirects(reach.clone()))
            .https_only(!endpoint.plain_http)
            .referer(false)
            .user_agent(concat!("infield/", env!("CARGO_PKG_VERSION")));
        if let Some(reach) = &reach {
            client = client.dns_resolver(Resolver(reach.clone()));
        }
        if let Some(path) = &endpoint.ca_file {
            let pem = std::fs::read(path).map_err(ImageError::io(format!("cannot read {}", path.display())))?;
            let found = reqwest::Certificate::from_pem_bundle(&pem);
            for certificate in found.map_err(|error| unusable(format!("{}: {}", path.display(), chain(&error))))? {
                client = client.add_root_certificate(certificate);
            }
        }
        let client =
            client.build().map_err(|error| unusable(format!("{} (are ca-certificates installed?)", chain(&error))))?;
        Ok(Self {
            shown: reference.to_string(),
            repository: reference.repository().into(),
            endpoint,
            client,
            reach,
            authorization: Mutex::default(),
        })
    }

    pub fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// The bytes of a manifest, at most `bytes_max` of them.
    pub async fn manifest(&self, tag_or_digest: &str, bytes_max: u64) -> Result<Vec<u8>> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let answer = self.get(&format!("manifests/{tag_or_digest}"), headers).await?;
        self.whole(self.usable(answer)?, bytes_max).await
    }

    /// A blob from `offset` on. The answer starts there only when its status is 206; `usable` was not asked yet.
    pub async fn blob(&self, digest: &str, offset: u64) -> Result<Response> {
        let mut headers = HeaderMap::new();
        if offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={offset}-"));
            headers.insert(RANGE, range.map_err(|error| self.nonsense(error.to_string()))?);
        }
        self.get(&format!("blobs/{digest}"), headers).await
    }

    /// Reads an answer of at most `bytes_max` bytes.
    pub async fn whole(&self, mut answer: Response, bytes_max: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() as u64 + piece.len() as u64 > bytes_max {
                return Err(self.nonsense(format!("a document is larger than {bytes_max} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// Turns a refusal into the error that says what to do.
    pub fn usable(&self, answer: Response) -> Result<Response> {
        match answer.status() {
            status if status.is_success() => Ok(answer),
            StatusCode::NOT_FOUND => {
                Err(ImageError::NotInRegistry { reference: self.shown.clone(), registry: self.endpoint.host.clone() })
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.unauthorized()),
            StatusCode::TOO_MANY_REQUESTS => Err(self.unavailable("too many requests; wait or log in".into())),
            status if status.is_server_error() => Err(self.unavailable(format!("HTTP status {status}"))),
            status => Err(self.nonsense(format!("HTTP status {status}"))),
        }
    }

    pub fn unreachable(&self, error: &reqwest::Error) -> ImageError {
        self.unavailable(explain(error, self.endpoint.plain_http))
    }

    /// Worth another try, or another registry.
    fn unavailable(&self, why: String) -> ImageError {
        ImageError::Unreachable { reference: self.shown.clone(), registry: self.endpoint.host.clone(), why }
    }

    pub fn nonsense(&self, why: String) -> ImageError {
        ImageError::Registry { reference: self.shown.clone(), registry: self.endpoint.host.clone(), why }
    }

    fn unauthorized(&self) -> ImageError {
        let hint = match &self.endpoint.credentials {
            Some(_) => "check user name and password",
            None => "it is private or does not exist; check the name or give a user name and password",
        };
        ImageError::Unauthorized {
            reference: self.shown.clone(),
            registry: self.endpoint.host.clone(),
            hint: hint.into(),
        }
    }

    /// Asks once, answers a challenge, asks again.
    async fn get(&self, path: &str, headers: HeaderMap) -> Result<Response> {
        let scheme = if self.endpoint.plain_http { "http" } else { "https" };
        let url = format!("{scheme}://{}/v2/{}/{path}", self.endpoint.host, self.repository);
        let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = self.send(self.client.get(&url).headers(headers.clone()), known.as_ref()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let authorization = self.authenticate(&answer).await?;
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization.clone());
        self.send(self.client.get(&url).headers(headers), Some(&authorization)).await
    }

    async fn send(&self, request: RequestBuilder, authorization: Option<&HeaderValue>) -> Result<Response> {
        let request = match authorization {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        };
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    async fn authenticate(&self, answer: &Response) -> Result<HeaderValue> {
        let challenges = answer.headers().get_all(WWW_AUTHENTICATE).into_iter();
        let challenges =
            challenges.filter_map(|value| value.to_str().ok()).filter(|text| text.len() <= CHALLENGE_BYTES_MAX);
        for text in challenges {
            for challenge in http_auth::parse_challenges(text).unwrap_or_default() {
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let value = |name: &str| {
                        let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                        found.map(|(_, value)| value.to_unescaped())
                    };
                    let realm =
                        value("realm").ok_or_else(|| self.nonsense("it asks for a token but not from where".into()))?;
                    return self.fetch_token(&realm, value("service")).await;
                }
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    let credentials = self.endpoint.credentials.as_ref().ok_or_else(|| self.unauthorized())?;
                    return secret(&basic(credentials)).ok_or_else(|| self.unauthorized());
                }
            }
        }
        Err(self.unauthorized())
    }

    /// The client refuses a realm without TLS for a registry with TLS, so neither credentials leave it nor can a registry
    /// point at plain-http services near this host.
    async fn fetch_token(&self, realm: &str, service: Option<String>) -> Result<HeaderValue> {
        let mut url = Url::parse(realm).map_err(|error| self.nonsense(format!("token server {realm:?}: {error}")))?;
        if self.reach.as_ref().is_some_and(|reach| !reach.allows_text_of(&url)) {
            return Err(self.nonsense(format!("token server {realm:?} is not allowed")));
        }
        url.query_pairs_mut().append_pair("scope", &format!("repository:{}:pull", self.repository));
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let credentials = self.endpoint.credentials.as_ref().map(basic);
        let authorization = credentials.as_deref().and_then(secret);
        let answer = self.send(self.client.get(url), authorization.as_ref()).await?;
        if !answer.status().is_success() {
            return Err(self.unauthorized());
        }
        let bytes = self.whole(answer, TOKEN_BYTES_MAX).await?;
        let token: Token =
            serde_json::from_slice(&bytes).map_err(|_| self.nonsense("the token server sent no token".into()))?;
        secret(&format!("Bearer {}", token.token)).ok_or_else(|| self.nonsense("the token is unusable".into()))
    }
}

/// Names are looked at when they are resolved, bare addresses here.
fn redirects(reach: Option<Arc<Reach>>) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        if attempt.previous().len() > REDIRECTS_MAX {
            return attempt.error("too many redirects");
        }
        match &reach {
            Some(reach) if !reach.allows_text_of(attempt.url()) => attempt.error("a redirect to a forbidden address"),
            _ => attempt.follow(),
        }
    })
}

fn basic(credentials: &Credentials) -> String {
    use base64::Engine;
    let pair = format!("{}:{}", credentials.username, credentials.password);
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

/// A header value that is never printed.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The innermost cause says what happened; the outer ones only where.
fn explain(error: &reqwest::Error, plain_http: bool) -> String {
    let why = chain(error);
    if why.contains("certificate") || why.contains("UnknownIssuer") {
        return format!("{why}; its certificate is not trusted: name its CA under ca_files in registries.json");
    }
    if !plain_http && (why.contains("InvalidContentType") || why.contains("corrupt message")) {
        return format!("{why}; it does not speak TLS: list it under plain_http if that is meant");
    }
    why
}

/// Without the URL: it may name internal hosts, and the reference is told anyway.
fn chain(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "timed out".to_string() } else { String::new() };
    let mut source = error.source();
    while let Some(inner) = source {
        let part = inner.to_string();
        if !text.contains(&part) {
            text = if text.is_empty() { part } else { format!("{text}: {part}") };
        }
        source = inner.source();
    }
    if text.is_empty() { "the request failed".into() } else { text }
}
