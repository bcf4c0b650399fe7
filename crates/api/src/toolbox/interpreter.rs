//! Bodies of `/process/interpreter/*`, and the first message of its socket.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `POST /process/interpreter/context`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateContextRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Only `python`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InterpreterContext {
    pub id: String,
    pub cwd: String,
    /// RFC 3339.
    pub created_at: String,
    /// Its process runs.
    pub active: bool,
    pub language: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListContextsResponse {
    pub contexts: Vec<InterpreterContext>,
}

/// What a client of `GET /process/interpreter/execute` sends once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct InterpreterRequest {
    pub code: Option<String>,
    /// Absent = the default one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_id: Option<String>,
    /// Set for this execution; `null` = unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envs: Option<BTreeMap<String, Option<String>>>,
    /// Seconds; absent = 600, 0 = none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}
