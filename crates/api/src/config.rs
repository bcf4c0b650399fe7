//! What a client may learn about this server without a key.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Answer of `GET /config`. `maintananceMode` is misspelled in the published contract.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DaytonaConfiguration {
    pub version: String,
    pub oidc: OidcConfig,
    pub linked_accounts_enabled: bool,
    pub announcements: BTreeMap<String, Announcement>,
    pub proxy_template_url: String,
    pub proxy_toolbox_url: String,
    pub default_snapshot: String,
    pub dashboard_url: String,
    pub max_auto_archive_interval: u32,
    pub maintanance_mode: bool,
    pub environment: String,
    #[serde(flatten)]
    pub ssh: Option<SshGateway>,
}

/// How the SSH gateway is reached and known; absent where SSH is off.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SshGateway {
    /// With `{{TOKEN}}` in it.
    pub ssh_gateway_command: String,
    pub ssh_gateway_host: String,
    pub ssh_gateway_port: u16,
    /// As in a `known_hosts` file, without the host.
    pub ssh_gateway_host_keys: Vec<String>,
    /// `SHA256:…`, in the same order.
    pub ssh_gateway_host_key_fingerprints: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OidcConfig {
    pub issuer: String,
    pub client_id: String,
    pub audience: String,
    pub provider: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learn_more_url: Option<String>,
}

/// Answer of `GET /health`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    pub status: String,
}

/// Answer of `GET /health/ready`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    pub status: String,
    pub info: BTreeMap<String, Component>,
    pub error: BTreeMap<String, Component>,
    pub details: BTreeMap<String, Component>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Component {
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
