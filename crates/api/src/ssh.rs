//! Access to a sandbox by SSH.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The token is told this once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SshAccessDto {
    pub id: String,
    pub sandbox_id: String,
    pub token: String,
    pub expires_at: String,
    pub created_at: String,
    pub updated_at: String,
    pub ssh_command: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SshAccessValidationDto {
    pub valid: bool,
    /// Empty when the token is not valid: clients need a text here.
    pub sandbox_id: String,
}
