//! The seam between the gateway and whoever knows sandboxes and credentials.

use crate::SandboxId;
use std::{fmt, future::Future, pin::Pin};

pub type DirectoryFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, DirectoryError>> + Send + 'a>>;

/// Who may reach what.
pub trait Directory: Send + Sync + 'static {
    /// Resolves a request: `sandbox` is the id (or name) in the path or host, or a link's token; `credential` what the
    /// caller brought.
    fn resolve<'a>(&'a self, sandbox: &'a str, credential: Credential<'a>) -> DirectoryFuture<'a, Target>;
    /// A word that opens this sandbox in this scope for so long, for a cookie.
    fn session<'a>(&'a self, sandbox: SandboxId, scope: &'a str, seconds: u64) -> DirectoryFuture<'a, String>;
    /// Notes activity, so that the sandbox is not stopped for idleness. Cheap; batched by the implementation.
    fn touch(&self, sandbox: SandboxId);
}

/// A credential as it came over the wire. Never logged.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    None,
    /// `Authorization: Bearer …`
    Bearer(&'a str),
    /// `X-Daytona-Preview-Token` or `?DAYTONA_SANDBOX_AUTH_KEY=`
    PreviewToken(&'a str),
    /// `?path=…&expires=…&signature=…`
    SignedFile(SignedFile<'a>),
    /// Nothing: opens what its owner made public.
    Public,
    /// The token is a link's, for this port.
    Link(u16),
    /// The token is one for SSH.
    Ssh,
    /// From [`Directory::session`].
    Session {
        cookie: &'a str,
        scope: &'a str,
    },
}

/// The claim of a signed URL: whoever holds the sandbox's signing key allows one operation on one file.
#[derive(Clone, Copy)]
pub struct SignedFile<'a> {
    pub method: &'a str,
    /// Path inside the toolbox, exactly as the client wrote it.
    pub route: &'a str,
    /// The file, decoded; `None` = not named.
    pub path: Option<&'a [u8]>,
    /// Seconds since the epoch, as text; `0` = never.
    pub expires: &'a str,
    pub signature: &'a str,
}

/// Where an authorized request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub sandbox: SandboxId,
    /// The sandbox runs; otherwise `state` says what to tell the caller.
    pub running: bool,
    pub state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryError {
    /// No or wrong credentials.
    Unauthorized,
    /// Absent, or belongs to somebody else: indistinguishable on purpose.
    NotFound,
    /// The request cannot be judged without this.
    Incomplete(&'static str),
    /// The directory cannot answer now.
    Unavailable(String),
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthorized => f.write_str("invalid or missing credentials"),
            Self::NotFound => f.write_str("sandbox not found"),
            Self::Incomplete(what) => write!(f, "{what} is required"),
            Self::Unavailable(why) => write!(f, "cannot look up the sandbox now: {why}"),
        }
    }
}
impl std::error::Error for DirectoryError {}
