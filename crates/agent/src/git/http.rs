//! Git's smart HTTP protocol for libgit2, over a client with its own TLS: nothing of the image is needed but, if it has
//! them, its certificate authorities.
//!
//! One operation, one identity: what [`allow`] sets goes to the first host only. Redirects may change the place, but take
//! no credentials to another host or off TLS.

use super::dns::Dns;
use super::failure::{GitFailure, remember};
use super::places::Places;
use super::{credentials, url};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream, Transport};
use git2::{Error, ErrorClass, ErrorCode, Remote};
use infield_api::toolbox::{DaemonErrorCode as Code, Secret};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, AsSendBody, Body, ResponseExt, SendBody};

const CONNECT_SECONDS_MAX: u64 = 30;
/// A server that says nothing for this long is gone; hooks of large repositories take their time.
const SILENCE_SECONDS_MAX: u64 = 300;
const REDIRECTS_MAX: u32 = 5;
/// A request up to this size is sent with its length, a larger one in chunks.
const WHOLE_REQUEST_BYTES_MAX: usize = 1 << 20;
const CHUNK_BYTES: usize = 64 << 10;
const CHUNKS_WAITING_MAX: usize = 16;
/// Kept of an error page.
const COMPLAINT_BYTES_MAX: u64 = 300;
/// Servers choose their protocol by the first word.
const USER_AGENT: &str = concat!("git/2.0 (infield ", env!("CARGO_PKG_VERSION"), ")");
const SYSTEM_AUTHORITIES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];
const AUTHORITIES_BYTES_MAX: u64 = 16 << 20;

/// Identity and trust of this process's one operation.
#[derive(Clone, Default)]
pub struct Access {
    login: Option<(String, String)>,
    any_certificate: bool,
}

impl Access {
    /// Credentials count only when both are there.
    pub fn new(username: &Option<String>, password: &Option<Secret>, any_certificate: bool) -> Self {
        let login = match (username, password) {
            (Some(user), Some(Secret(password))) if !user.is_empty() && !password.is_empty() => {
                Some((user.clone(), password.clone()))
            }
            _ => None,
        };
        Self { login, any_certificate }
    }
}

static ACCESS: Mutex<Option<Access>> = Mutex::new(None);

/// To be called before the operation.
pub fn allow(access: Access) {
    *ACCESS.lock().unwrap_or_else(PoisonError::into_inner) = Some(access);
}

/// Teaches libgit2 `http` and `https`. `named` holds authorities to trust instead of the image's usual ones.
pub fn register(named: Option<PathBuf>, places: Places) -> Result<(), Error> {
    infield_sys::agent_git::prepare(&["http", "https"], move |remote: &Remote<'_>| {
        let access = ACCESS.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default();
        Transport::smart(remote, true, Http { client: Arc::new(Client::new(access, named.as_deref(), places.clone())) })
    })
}

/// The HTTP client and where the repository turned out to be.
struct Client {
    agent: Agent,
    access: Access,
    places: Places,
    /// Address after redirects, and whether it is still the host that the credentials are for.
    place: Mutex<Option<(String, bool)>>,
}

struct Http {
    client: Arc<Client>,
}

impl SmartSubtransport for Http {
    fn action(&self, address: &str, action: Service) -> Result<Box<dyn SmartSubtransportStream>, Error> {
        let client = self.client.clone();
        match action {
            Service::UploadPackLs => client.advertisement(address, "git-upload-pack"),
            Service::ReceivePackLs => client.advertisement(address, "git-receive-pack"),
            Service::UploadPack => Ok(Box::new(Exchange::new(client, address, "git-upload-pack"))),
            Service::ReceivePack => Ok(Box::new(Exchange::new(client, address, "git-receive-pack"))),
        }
    }

    fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}

fn to_git2(failure: &GitFailure) -> Error {
    remember(failure);
    let code = if failure.code == Code::GitAuthFailed { ErrorCode::Auth } else { ErrorCode::GenericError };
    Error::new(code, ErrorClass::Http, &failure.message)
}

impl Client {
    fn new(access: Access, named: Option<&Path>, places: Places) -> Self {
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(authorities(named))))
            .disable_verification(access.any_certificate)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(REDIRECTS_MAX)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(USER_AGENT)
            .timeout_connect(Some(Duration::from_secs(CONNECT_SECONDS_MAX)))
            .timeout_per_read(Some(Duration::from_secs(SILENCE_SECONDS_MAX)))
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::default(), Dns);
        Self { agent, access, places, place: Mutex::new(None) }
    }

    /// What the request says, else what the address says, else what the user stored for this host.
    fn login(&self, address: &str, given: Option<(String, String)>) -> Option<String> {
        let stored = || credentials::stored(&self.places, &url::split_credentials(address).0, url::user_of(address));
        let (user, password) = self.access.login.clone().or(given).or_else(stored)?;
        Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }

    /// `GET …/info/refs`, the beginning of every conversation; follows redirects and remembers where they led.
    fn advertisement(&self, address: &str, service: &str) -> Result<Box<dyn SmartSubtransportStream>, Error> {
        let (base, given) = url::split_credentials(address);
        let base = base.trim_end_matches('/');
        let mut request = self.agent.get(format!("{base}/info/refs?service={service}"));
        if let Some(login) = self.login(address, given) {
            request = request.header("Authorization", login);
        }
        let answer = request.header("Accept", "*/*").call().map_err(|e| to_git2(&unreachable(base, &e)))?;
        let answer = checked(answer, base).map_err(|e| to_git2(&e))?;
        let kind = answer.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        if kind != format!("application/x-{service}-advertisement") {
            let message = format!("{base} is not a Git repository (the server answered {kind:?})");
            return Err(to_git2(&GitFailure::new(Code::GitRepoNotFound, message)));
        }
        let led_to = answer.get_uri().to_string();
        let same_host = same_place(answer.get_uri(), base);
        let place = led_to.split("/info/refs").next().unwrap_or(base).to_owned();
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some((place, same_host));
        Ok(Box::new(Advertisement(Box::new(answer.into_body().into_reader()))))
    }

    fn post(&self, address: &str, service: &str, body: impl AsSendBody) -> Result<Box<dyn Read + Send>, GitFailure> {
        let (base, given) = url::split_credentials(address);
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (base, trusted) = place.unwrap_or((base.trim_end_matches('/').to_owned(), true));
        let mut request = self
            .agent
            .post(format!("{base}/{service}"))
            .config()
            .max_redirects(0)
            .build()
            .header("Content-Type", format!("application/x-{service}-request"))
            .header("Accept", format!("application/x-{service}-result"));
        if let Some(login) = self.login(address, given).filter(|_| trusted) {
            request = request.header("Authorization", login);
        }
        let answer = request.send(body).map_err(|e| unreachable(&base, &e))?;
        Ok(Box::new(checked(answer, &base)?.into_body().into_reader()))
    }
}

fn same_place(led_to: &Uri, base: &str) -> bool {
    let Ok(asked) = base.parse::<Uri>() else { return false };
    let kept_tls = asked.scheme_str() != Some("https") || led_to.scheme_str() == Some("https");
    kept_tls && asked.host() == led_to.host()
}

fn unreachable(base: &str, e: &ureq::Error) -> GitFailure {
    let why = match e {
        ureq::Error::HostNotFound => "the host name cannot be resolved".to_owned(),
        other => url::without_credentials(&other.to_string()),
    };
    GitFailure::new(Code::GitTransportFailed, format!("cannot reach {base}: {why}"))
}

fn checked(answer: Response<Body>, base: &str) -> Result<Response<Body>, GitFailure> {
    let status = answer.status();
    let code = match status {
        StatusCode::OK => return Ok(answer),
        StatusCode::UNAUTHORIZED => Code::GitAuthFailed,
        StatusCode::FORBIDDEN => Code::Forbidden,
        StatusCode::NOT_FOUND | StatusCode::GONE => Code::GitRepoNotFound,
        _ => Code::GitTransportFailed,
    };
    let what = match code {
        Code::GitAuthFailed => {
            "authentication required: give a username and a password or token that this server takes"
        }
        Code::Forbidden => "permission denied",
        Code::GitRepoNotFound => "repository not found",
        _ => "the server refused",
    };
    let mut said = Vec::new();
    let is_text = answer.headers().get("content-type").is_some_and(|v| v.as_bytes().starts_with(b"text/plain"));
    if is_text {
        let _ = answer.into_body().into_reader().take(COMPLAINT_BYTES_MAX).read_to_end(&mut said);
    }
    let said = String::from_utf8_lossy(&said);
    let said = said.trim().lines().next().map(|l| format!(": {l}")).unwrap_or_default();
    Err(GitFailure::new(code, format!("{base}: {what} (HTTP {}){said}", status.as_u16())))
}

/// The bundled authorities and those of the image.
pub fn authorities(named: Option<&Path>) -> Vec<Certificate<'static>> {
    let bundled = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|der| Certificate::from_der(der).to_owned());
    let mut all: Vec<_> = bundled.collect();
    let mut system = named.into_iter().chain(SYSTEM_AUTHORITIES.iter().map(Path::new));
    if let Some(pem) = system.find_map(read_authorities) {
        let items = ureq::tls::parse_pem(&pem).filter_map(Result::ok);
        all.extend(items.filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        }));
    }
    all
}

fn read_authorities(path: &Path) -> Option<Vec<u8>> {
    crate::small_file::read(path, AUTHORITIES_BYTES_MAX).ok().filter(|pem| !pem.is_empty())
}

/// The list of references. libgit2 never writes to it.
struct Advertisement(Box<dyn Read + Send>);

impl Read for Advertisement {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Advertisement {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One POST: what is written becomes its body, what is read comes from the answer.
struct Exchange {
    client: Arc<Client>,
    address: String,
    service: &'static str,
    state: State,
}

type Answer = Result<Box<dyn Read + Send>, GitFailure>;

enum State {
    /// Small enough so far to be sent in one piece.
    Gathering(Vec<u8>),
    /// A thread sends while we write.
    Sending {
        chunks: SyncSender<Vec<u8>>,
        pending: Vec<u8>,
        answer: JoinHandle<Answer>,
    },
    Reading(Box<dyn Read + Send>),
    Broken,
}

impl Exchange {
    fn new(client: Arc<Client>, address: &str, service: &'static str) -> Self {
        Self { client, address: address.to_owned(), service, state: State::Gathering(Vec::new()) }
    }

    fn begin_sending(&self, gathered: Vec<u8>) -> State {
        let (chunks, waiting) = sync_channel(CHUNKS_WAITING_MAX);
        let (client, address, service) = (self.client.clone(), self.address.clone(), self.service);
        let answer = std::thread::spawn(move || {
            let mut body = Chunks { waiting, current: gathered, at: 0 };
            client.post(&address, service, SendBody::from_reader(&mut body))
        });
        State::Sending { chunks, pending: Vec::with_capacity(CHUNK_BYTES), answer }
    }

    /// Everything is written: waits for the answer's head.
    fn answer(&mut self) -> Answer {
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Gathering(body) => {
                // Sent with its length: some servers take no chunks.
                self.client.post(&self.address, self.service, &body[..])
            }
            State::Sending { chunks, pending, answer } => {
                let _ = chunks.send(pending);
                drop(chunks);
                answer.join().unwrap_or_else(|_| {
                    Err(GitFailure::new(Code::Internal, "the sending thread of the Git worker failed"))
                })
            }
            State::Reading(reader) => Ok(reader),
            State::Broken => Err(GitFailure::new(Code::GitTransportFailed, "the connection was lost")),
        }
    }
}

fn to_io(failure: &GitFailure) -> io::Error {
    remember(failure);
    io::Error::other(failure.message.clone())
}

impl Read for Exchange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !matches!(self.state, State::Reading(_)) {
            self.state = State::Reading(self.answer().map_err(|e| to_io(&e))?);
        }
        match &mut self.state {
            State::Reading(reader) => reader.read(buffer),
            _ => Ok(0),
        }
    }
}

impl Write for Exchange {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if matches!(self.state, State::Reading(_)) {
            self.state = State::Gathering(Vec::new());
        }
        if let State::Gathering(gathered) = &mut self.state {
            gathered.extend_from_slice(bytes);
            if gathered.len() > WHOLE_REQUEST_BYTES_MAX {
                let gathered = std::mem::take(gathered);
                self.state = self.begin_sending(gathered);
            }
            return Ok(bytes.len());
        }
        let State::Sending { chunks, pending, .. } = &mut self.state else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        pending.extend_from_slice(bytes);
        if pending.len() >= CHUNK_BYTES && chunks.send(std::mem::take(pending)).is_err() {
            // The server answered before it had everything; its answer says why.
            let failure = self.answer().err().unwrap_or_else(|| {
                GitFailure::new(Code::GitTransportFailed, "the server stopped reading before the end of the request")
            });
            return Err(to_io(&failure));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The body of a large request, as the writer gives it.
struct Chunks {
    waiting: Receiver<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() {
            match self.waiting.recv() {
                Ok(next) => (self.current, self.at) = (next, 0),
                Err(_) => return Ok(0),
            }
        }
        let n = buffer.len().min(self.current.len() - self.at);
        buffer[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
