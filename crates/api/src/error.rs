//! The error body every API answer with a status of 400 or more carries.
//!
//! Clients decide by the HTTP status alone; `message` is shown to people, so it says what to do next.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `source` of errors that the control plane itself made.
pub const SOURCE_API: &str = "DAYTONA_API";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// Path of the request, without its query.
    pub path: String,
    /// ISO-8601 UTC with milliseconds.
    pub timestamp: String,
    pub status_code: u16,
    /// Reason phrase of the status.
    pub error: String,
    pub message: String,
    /// Upper-snake word for programs.
    pub code: String,
    /// Which part of the service failed.
    pub source: String,
}
