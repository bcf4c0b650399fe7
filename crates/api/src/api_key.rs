//! API keys and the permissions they carry.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a key may do. Reading sandboxes, snapshots, registries and regions needs none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum Permission {
    #[serde(rename = "write:registries")]
    WriteRegistries,
    #[serde(rename = "delete:registries")]
    DeleteRegistries,
    #[serde(rename = "write:snapshots")]
    WriteSnapshots,
    #[serde(rename = "delete:snapshots")]
    DeleteSnapshots,
    #[serde(rename = "write:sandboxes")]
    WriteSandboxes,
    #[serde(rename = "delete:sandboxes")]
    DeleteSandboxes,
    #[serde(rename = "read:volumes")]
    ReadVolumes,
    #[serde(rename = "write:volumes")]
    WriteVolumes,
    #[serde(rename = "delete:volumes")]
    DeleteVolumes,
    #[serde(rename = "write:regions")]
    WriteRegions,
    #[serde(rename = "delete:regions")]
    DeleteRegions,
    #[serde(rename = "read:runners")]
    ReadRunners,
    #[serde(rename = "write:runners")]
    WriteRunners,
    #[serde(rename = "delete:runners")]
    DeleteRunners,
    #[serde(rename = "read:audit_logs")]
    ReadAuditLogs,
    #[serde(rename = "manage:api_keys")]
    ManageApiKeys,
    #[serde(rename = "manage:secrets")]
    ManageSecrets,
    #[serde(rename = "read:limits")]
    ReadLimits,
    #[serde(rename = "manage:sso")]
    ManageSso,
    #[serde(rename = "read:billing")]
    ReadBilling,
    #[serde(rename = "manage:billing")]
    ManageBilling,
}

impl Permission {
    /// Every permission, in the order of the published enum.
    pub const ALL: [Permission; 21] = [
        Self::WriteRegistries,
        Self::DeleteRegistries,
        Self::WriteSnapshots,
        Self::DeleteSnapshots,
        Self::WriteSandboxes,
        Self::DeleteSandboxes,
        Self::ReadVolumes,
        Self::WriteVolumes,
        Self::DeleteVolumes,
        Self::WriteRegions,
        Self::DeleteRegions,
        Self::ReadRunners,
        Self::WriteRunners,
        Self::DeleteRunners,
        Self::ReadAuditLogs,
        Self::ManageApiKeys,
        Self::ManageSecrets,
        Self::ReadLimits,
        Self::ManageSso,
        Self::ReadBilling,
        Self::ManageBilling,
    ];
}

/// Body of `POST /api-keys`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateApiKey {
    pub name: String,
    pub permissions: Vec<Permission>,
    /// ISO-8601; absent or null = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// A new key: the only time its value is shown.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyResponse {
    pub name: String,
    pub value: String,
    pub created_at: String,
    pub permissions: Vec<Permission>,
    #[schema(required = true)]
    pub expires_at: Option<String>,
}

/// A key in a list; `value` is masked.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyList {
    pub name: String,
    pub value: String,
    pub created_at: String,
    pub permissions: Vec<Permission>,
    #[schema(required = true)]
    pub last_used_at: Option<String>,
    #[schema(required = true)]
    pub expires_at: Option<String>,
    pub user_id: String,
    pub organization_id: String,
}
