//! Bodies of `/process/*`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `POST /process/execute`. The command goes to the sandbox's shell through its standard input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecuteRequest {
    #[serde(default)]
    pub command: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envs: Option<BTreeMap<String, String>>,
    /// Seconds; absent or 0 = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

/// Answer of `/process/execute`; `result` holds stdout and stderr as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecuteResponse {
    pub exit_code: i32,
    pub result: String,
}

/// `POST /process/code-run`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeRunRequest {
    #[serde(default)]
    pub code: String,
    /// `python`, `javascript` or `typescript`.
    #[serde(default)]
    pub language: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envs: Option<BTreeMap<String, String>>,
    /// Seconds; absent or 0 = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

/// First text message of the WebSocket `GET /process/execute/stream` (an Infield extension).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRequest {
    #[serde(default)]
    pub command: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envs: Option<BTreeMap<String, String>>,
    /// Whether the client will send input. Without it the command reads an empty standard input.
    #[serde(default)]
    pub stdin: bool,
    /// Instead of a command: `sftp`, a server of that protocol on its standard input and output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subsystem: Option<String>,
}

/// Later text messages of the client on that socket; binary messages are input bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StreamControl {
    /// `{"signal":"INT"}`: send a signal to the command's process group.
    Signal(String),
    /// `{"eof":true}`: no more input.
    Eof(bool),
}

/// Last text message of the server on that socket; it closes with 1000 after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamEnd {
    pub exit_code: i32,
}

/// First byte of a binary message of the server that carries standard output.
pub const STREAM_STDOUT: u8 = 1;
/// First byte of a binary message of the server that carries standard error.
pub const STREAM_STDERR: u8 = 2;
