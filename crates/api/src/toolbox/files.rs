//! Bodies of `/files/*`.

use super::ErrorBody;
use serde::{Deserialize, Serialize};

/// One file, as list and info report it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileInfo {
    pub name: String,
    /// Only in lists: the requested root joined with the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    pub size: u64,
    /// Like `-rw-r--r--` or `dtrwxrwxrwx`.
    pub mode: String,
    /// Legacy text form of `modified_at`.
    pub mod_time: String,
    /// RFC 3339.
    #[serde(default)]
    pub modified_at: String,
    pub is_dir: bool,
    /// Numeric uid as text.
    pub owner: String,
    /// Numeric gid as text.
    pub group: String,
    /// Like `0644`.
    pub permissions: String,
}

/// One hit of `/files/find`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    pub file: String,
    /// From 1.
    pub line: u64,
    pub content: String,
}

/// Answer of `/files/search`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchFilesResponse {
    pub files: Vec<String>,
}

/// `POST /files/replace`: literal replacement in each file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplaceRequest {
    #[serde(default)]
    pub files: Option<Vec<String>>,
    #[serde(default)]
    pub pattern: String,
    #[serde(default)]
    pub new_value: Option<String>,
}

/// What happened to one file of a [`ReplaceRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceResult {
    pub file: String,
    pub success: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `POST /files/bulk-download`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesDownloadRequest {
    #[serde(default)]
    pub paths: Vec<String>,
}

/// Answer of `/files/bulk-upload`; on failure the fields of the error envelope stand beside these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadFilesResponse {
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<ErrorBody>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    #[serde(default)]
    pub files: Vec<UploadedFile>,
}

/// A file that arrived whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadedFile {
    pub path: String,
    pub bytes: u64,
}

/// Answer of `/files/upload-v2`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadFileResponse {
    pub name: String,
    pub path: String,
    /// Always `file`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// Boundary of every `/files/bulk-download` answer.
pub const DOWNLOAD_BOUNDARY: &str = "DAYTONA-FILE-BOUNDARY";
