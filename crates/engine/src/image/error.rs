//! What can go wrong with an image, told so that the reader knows the next step. Never holds a credential.

use infield_api::runner::{RunnerError, RunnerErrorKind};
use std::io;

pub type Result<T, E = ImageError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(
        "image {reference} is not on this host: `infield image pull {reference}` fetches it, `infield image list` shows what is there"
    )]
    Missing { reference: String },
    #[error("{reference:?} is not an image reference ({why}): write it as [registry/]name[:tag] or name@sha256:…")]
    Reference { reference: String, why: String },
    #[error(
        "{reference} does not exist in registry {registry}: check name and tag, or name another registry explicitly"
    )]
    NotInRegistry { reference: String, registry: String },
    #[error("registry {registry} refuses access to {reference}: {hint}")]
    Unauthorized { reference: String, registry: String, hint: String },
    #[error(
        "registry {registry} cannot be reached for {reference}: {why}; name an explicit registry or configure a mirror"
    )]
    Unreachable { reference: String, registry: String, why: String },
    #[error(
        "registry {registry} of {reference} is on this server or its own networks: name it in registries.json of the data \
         directory, or pull with `infield image pull`"
    )]
    Forbidden { reference: String, registry: String },
    #[error("registry {registry} answered something unusable for {reference}: {why}")]
    Registry { reference: String, registry: String, why: String },
    #[error("{reference} is not made for {platform}; it offers {offered}")]
    Platform { reference: String, platform: String, offered: String },
    #[error("{what} has digest {found}, not {expected}: it was damaged or forged on the way; nothing was kept")]
    Digest { what: String, expected: String, found: String },
    #[error("archive entry {entry:?} refused: {why}")]
    Refused { entry: String, why: String },
    #[error("not a usable archive: {why}")]
    Archive { why: String },
    #[error("{what} is larger than the limit of {limit}")]
    TooLarge { what: String, limit: String },
    #[error("image configuration is unusable: {why}")]
    Config { why: String },
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    /// The request is fine, the host has no room for it.
    #[error("{why}")]
    Exhausted { why: String },
    #[error("{why}")]
    Setup { why: String },
}

impl ImageError {
    /// An I/O error with the path or action it belongs to.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> ImageError {
        let what = what.into();
        move |source| ImageError::Io { what, source }
    }

    /// Same for the kernel's bare error numbers.
    pub(crate) fn os(what: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> ImageError {
        let what = what.into();
        move |errno| ImageError::Io { what, source: errno.into() }
    }

    /// Without what a stranger could explore networks with; the log has it.
    pub(super) fn vague(self) -> Self {
        match self {
            Self::Unreachable { reference, registry, .. } | Self::Registry { reference, registry, .. } => {
                let why = "it does not serve this image now, the server's log tells why".into();
                Self::Unreachable { reference, registry, why }
            }
            other => other,
        }
    }

    pub fn kind(&self) -> RunnerErrorKind {
        use ImageError as E;
        match self {
            E::Missing { .. } | E::NotInRegistry { .. } => RunnerErrorKind::NotFound,
            E::Unreachable { .. } => RunnerErrorKind::Unavailable,
            E::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => RunnerErrorKind::Exhausted,
            E::Exhausted { .. } => RunnerErrorKind::Exhausted,
            E::Io { .. } | E::Setup { .. } => RunnerErrorKind::Internal,
            _ => RunnerErrorKind::Invalid,
        }
    }
}

impl From<ImageError> for RunnerError {
    fn from(error: ImageError) -> Self {
        let kind = error.kind();
        let message = match &error {
            ImageError::Io { what, source } => format!("{what}: {source}"),
            other => other.to_string(),
        };
        RunnerError::new(kind, message)
    }
}
