//! What can go wrong between a client and a server, kept apart so that a person can be told what to do.

use http::StatusCode;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens there, or the name does not resolve: the address is probably wrong.
    #[error("connection refused: {url}")]
    Refused {
        url: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection broke while a request was under way.
    #[error("the connection to {url} broke")]
    Broken {
        url: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server said no.
    #[error("{message}")]
    Http {
        status: StatusCode,
        /// `GIT_PUSH_REJECTED` and the like, when the server gave one.
        code: Option<String>,
        message: String,
    },
    /// The server's answer cannot be read.
    #[error("{url} answered something unexpected: {why}")]
    Unexpected { url: String, why: String },
    /// The address or an argument makes no request.
    #[error("{0}")]
    Invalid(String),
}

impl ClientError {
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Http { status, .. } => Some(*status),
            _ => None,
        }
    }

    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Http { code, .. } => code.as_deref(),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }
}
