//! Organizations and regions as clients see them.

use crate::sandbox::SandboxClass;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// An organization. The keys that newer clients require although they are null are always present.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Organization {
    pub id: String,
    pub name: String,
    pub created_by: String,
    pub personal: bool,
    pub created_at: String,
    pub updated_at: String,
    pub suspended: bool,
    /// The epoch while not suspended: clients refuse null here.
    pub suspended_at: String,
    pub suspension_reason: String,
    pub suspended_until: String,
    pub suspension_cleanup_grace_period_hours: u32,
    pub max_cpu_per_sandbox: u32,
    pub max_memory_per_sandbox: u32,
    pub max_disk_per_sandbox: u32,
    pub secret_quota: u32,
    pub max_secrets_per_sandbox: u32,
    pub snapshot_deactivation_timeout_minutes: u32,
    #[schema(required = true)]
    pub default_queue_timeout: Option<u32>,
    pub sandbox_limited_network_egress: bool,
    pub preview_warning_enabled: bool,
    pub sso_enabled: bool,
    pub scim_enabled: bool,
    pub default_region_id: String,
    #[schema(required = true)]
    pub authenticated_rate_limit: Option<u32>,
    #[schema(required = true)]
    pub sandbox_create_rate_limit: Option<u32>,
    #[schema(required = true)]
    pub sandbox_lifecycle_rate_limit: Option<u32>,
    pub experimental_config: BTreeMap<String, String>,
    #[schema(required = true)]
    pub otel_config: Option<OtelConfig>,
    #[schema(required = true)]
    pub authenticated_rate_limit_ttl_seconds: Option<u32>,
    #[schema(required = true)]
    pub sandbox_create_rate_limit_ttl_seconds: Option<u32>,
    #[schema(required = true)]
    pub sandbox_lifecycle_rate_limit_ttl_seconds: Option<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OtelConfig {
    pub endpoint: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// A place sandboxes run in; one host is the shared region `us`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Region {
    pub id: String,
    pub name: String,
    pub region_type: String,
    pub created_at: String,
    pub updated_at: String,
}

/// What an organization's sandboxes hold now, and the most they may.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrganizationUsageOverview {
    pub region_usage: Vec<RegionUsageOverview>,
    pub total_snapshot_quota: i64,
    pub current_snapshot_usage: i64,
    pub total_volume_quota: i64,
    pub current_volume_usage: i64,
}

/// The same in one region. Memory and disk in GiB.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegionUsageOverview {
    pub region_id: String,
    pub sandbox_class: SandboxClass,
    pub total_cpu_quota: i64,
    pub current_cpu_usage: i64,
    pub total_memory_quota: i64,
    pub current_memory_usage: i64,
    pub total_disk_quota: i64,
    pub current_disk_usage: i64,
    pub total_gpu_quota: i64,
    pub current_gpu_usage: i64,
    #[schema(required = true)]
    pub max_cpu_per_sandbox: Option<i64>,
    #[schema(required = true)]
    pub max_memory_per_sandbox: Option<i64>,
    #[schema(required = true)]
    pub max_disk_per_sandbox: Option<i64>,
    #[schema(required = true)]
    pub max_disk_per_non_ephemeral_sandbox: Option<i64>,
    #[schema(required = true)]
    pub max_cpu_per_gpu: Option<i64>,
    #[schema(required = true)]
    pub max_memory_per_gpu: Option<i64>,
    #[schema(required = true)]
    pub max_disk_per_gpu: Option<i64>,
}
