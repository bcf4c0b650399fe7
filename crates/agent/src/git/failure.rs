//! What went wrong in a Git operation, as the codes that clients know. Messages never carry credentials: URLs are printed
//! without their user part.

use super::url;
use git2::{ErrorClass, ErrorCode};
use infield_api::toolbox::DaemonErrorCode as Code;
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GitFailure {
    pub code: Code,
    pub message: String,
}

pub type Result<T> = std::result::Result<T, GitFailure>;

/// The transport's own account of its last failure. libgit2 keeps only a text of it.
static TRANSPORT: Mutex<Option<GitFailure>> = Mutex::new(None);

pub fn remember(failure: &GitFailure) {
    *TRANSPORT.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure.clone());
}

impl GitFailure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn no_branch(name: &str) -> Self {
        Self::new(Code::GitBranchNotFound, format!("branch not found: {name}"))
    }

    pub fn dirty() -> Self {
        let message = "your local changes would be overwritten; commit them or put them aside first";
        Self::new(Code::GitDirtyWorktree, message)
    }

    fn of_code(e: &git2::Error) -> Code {
        match (e.code(), e.class()) {
            (ErrorCode::Auth, _) => Code::GitAuthFailed,
            (ErrorCode::NotFastForward, _) => Code::GitPushRejected,
            (ErrorCode::Conflict, ErrorClass::Checkout) => Code::GitDirtyWorktree,
            (ErrorCode::MergeConflict | ErrorCode::Unmerged, _) => Code::GitMergeConflict,
            (ErrorCode::Certificate, _) => Code::GitTransportFailed,
            (ErrorCode::InvalidSpec, _) => Code::BadRequest,
            (ErrorCode::NotFound, ErrorClass::Repository) => Code::GitRepoNotFound,
            (ErrorCode::NotFound | ErrorCode::UnbornBranch, _) => Code::NotFound,
            (ErrorCode::Exists | ErrorCode::Locked, _) => Code::Conflict,
            (_, ErrorClass::Net | ErrorClass::Http | ErrorClass::Ssl) => Code::GitTransportFailed,
            (_, ErrorClass::Os) if e.message().contains("resolve path") => Code::GitRepoNotFound,
            (_, ErrorClass::Os) if e.message().contains("resolve") => Code::GitTransportFailed,
            _ => Code::Internal,
        }
    }
}

impl From<git2::Error> for GitFailure {
    fn from(e: git2::Error) -> Self {
        if let Some(known) = TRANSPORT.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return known;
        }
        Self::new(Self::of_code(&e), url::without_credentials(e.message()))
    }
}
