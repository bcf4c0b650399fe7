//! The error envelope of the toolbox and its machine-readable codes.

use serde::{Deserialize, Serialize};

/// `source` of every error the agent sends; clients pick their exception class by `source` and `code` together.
pub const ERROR_SOURCE: &str = "DAYTONA_DAEMON";

/// Body of every toolbox error. `path` is the request path, in bulk-download error parts the file's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    pub status_code: u16,
    pub message: String,
    #[serde(default)]
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// RFC 3339 with milliseconds, UTC.
    pub timestamp: String,
    pub path: String,
    #[serde(default)]
    pub method: String,
}

/// Codes the clients know. Each belongs to one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DaemonErrorCode {
    BadRequest,
    InvalidRequestBody,
    Forbidden,
    NotFound,
    Conflict,
    Internal,
    FileNotFound,
    FileAccessDenied,
    InvalidFilePath,
    FileReadFailed,
    GitAuthFailed,
    GitRepoNotFound,
    GitBranchNotFound,
    GitBranchExists,
    GitPushRejected,
    GitDirtyWorktree,
    GitMergeConflict,
    GitTransportFailed,
    GitRemoteRejected,
    LspServerNotInitialized,
    RequestTimeout,
    ProcessExecutionTimeout,
    ProcessNotFound,
    SessionEnded,
    CommandAlreadyCompleted,
}

impl DaemonErrorCode {
    /// The HTTP status and the word on the wire.
    pub const fn parts(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => (400, "BAD_REQUEST"),
            Self::InvalidRequestBody => (400, "INVALID_REQUEST_BODY"),
            Self::Forbidden => (403, "FORBIDDEN"),
            Self::NotFound => (404, "NOT_FOUND"),
            Self::Conflict => (409, "CONFLICT"),
            Self::Internal => (500, "INTERNAL_SERVER_ERROR"),
            Self::FileNotFound => (404, "FILE_NOT_FOUND"),
            Self::FileAccessDenied => (403, "FILE_ACCESS_DENIED"),
            Self::InvalidFilePath => (400, "INVALID_FILE_PATH"),
            Self::FileReadFailed => (500, "FILE_READ_FAILED"),
            Self::GitAuthFailed => (401, "GIT_AUTH_FAILED"),
            Self::GitRepoNotFound => (404, "GIT_REPO_NOT_FOUND"),
            Self::GitBranchNotFound => (404, "GIT_BRANCH_NOT_FOUND"),
            Self::GitBranchExists => (409, "GIT_BRANCH_EXISTS"),
            Self::GitPushRejected => (409, "GIT_PUSH_REJECTED"),
            Self::GitDirtyWorktree => (409, "GIT_DIRTY_WORKTREE"),
            Self::GitMergeConflict => (409, "GIT_MERGE_CONFLICT"),
            Self::GitTransportFailed => (502, "GIT_TRANSPORT_FAILED"),
            Self::GitRemoteRejected => (422, "GIT_REMOTE_REJECTED"),
            Self::LspServerNotInitialized => (400, "LSP_SERVER_NOT_INITIALIZED"),
            Self::RequestTimeout => (408, "REQUEST_TIMEOUT"),
            Self::ProcessExecutionTimeout => (408, "PROCESS_EXECUTION_TIMEOUT"),
            Self::ProcessNotFound => (404, "PROCESS_NOT_FOUND"),
            Self::SessionEnded => (410, "SESSION_ENDED"),
            Self::CommandAlreadyCompleted => (410, "COMMAND_ALREADY_COMPLETED"),
        }
    }

    pub const fn status(self) -> u16 {
        self.parts().0
    }

    pub const fn as_str(self) -> &'static str {
        self.parts().1
    }
}
