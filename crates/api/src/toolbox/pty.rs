//! Bodies of `/process/pty*`, and the words of its sockets.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `POST /process/pty`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PtyCreateRequest {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envs: Option<BTreeMap<String, String>>,
    /// Absent or 0 = 80.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cols: Option<i64>,
    /// Absent or 0 = 24.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    /// The shell starts when the first client connects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lazy_start: Option<bool>,
    /// Run by the shell instead of an interactive one (an Infield extension).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PtyCreateResponse {
    pub session_id: String,
}

/// `POST /process/pty/{id}/resize`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PtyResizeRequest {
    pub cols: i64,
    pub rows: i64,
}

/// A terminal as list and info report it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PtySessionInfo {
    pub id: String,
    pub cwd: String,
    /// Those of the request, and TERM.
    pub envs: BTreeMap<String, String>,
    pub cols: u16,
    pub rows: u16,
    /// RFC 3339.
    pub created_at: String,
    /// Its shell runs.
    pub active: bool,
    pub lazy_start: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PtyListResponse {
    pub sessions: Vec<PtySessionInfo>,
}
