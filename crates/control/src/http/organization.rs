//! Organizations and regions, as far as they can be read. A key sees the one organization it is bound to.

use crate::{
    app::{App, REGION},
    auth::Caller,
    clock::iso,
    error::{ApiError, ApiResult},
};
use axum::{
    Json,
    extract::{Path, State},
};
use infield_api::{
    error::ErrorBody,
    organization::{Organization, OrganizationUsageOverview, Region, RegionUsageOverview},
    sandbox::SandboxClass,
};
use infield_store::OrganizationRow;

const SNAPSHOT_DEACTIVATION_MIN: u32 = 20_160;
/// No organization has quotas here.
const NO_QUOTA: i64 = 0;
const SUSPENSION_GRACE_HOURS: u32 = 24;

/// The organizations this key can act in.
#[utoipa::path(get, path = "/organizations", operation_id = "listOrganizations", tag = "organizations",
    responses((status = 200, body = Vec<Organization>)))]
pub async fn list(State(app): State<App>, caller: Caller) -> ApiResult<Json<Vec<Organization>>> {
    let rows = app.store.organizations_of(&caller.key.user_id).await?;
    let own = rows.into_iter().filter(|row| row.id == caller.organization());
    Ok(Json(own.map(|row| shown(&app, row)).collect()))
}

/// One organization; a key of another one gets 403.
#[utoipa::path(get, path = "/organizations/{organizationId}", operation_id = "getOrganization", tag = "organizations",
    params(("organizationId" = String, Path)),
    responses((status = 200, body = Organization), (status = 403, body = ErrorBody)))]
pub async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(organization): Path<String>,
) -> ApiResult<Json<Organization>> {
    if organization != caller.organization() {
        return Err(ApiError::forbidden("The API key belongs to another organization"));
    }
    let rows = app.store.organizations_of(&caller.key.user_id).await?;
    let row = rows.into_iter().find(|row| row.id == organization);
    row.map(|row| Json(shown(&app, row))).ok_or_else(|| ApiError::forbidden("Not a member of this organization"))
}

/// What the organization's sandboxes hold now. There are no quotas here: 0 means no limit.
#[utoipa::path(get, path = "/organizations/{organizationId}/usage", operation_id = "getOrganizationUsageOverview",
    tag = "organizations", params(("organizationId" = String, Path)),
    responses((status = 200, body = OrganizationUsageOverview), (status = 403, body = ErrorBody)))]
pub async fn usage(
    State(app): State<App>,
    caller: Caller,
    Path(organization): Path<String>,
) -> ApiResult<Json<OrganizationUsageOverview>> {
    if organization != caller.organization() {
        return Err(ApiError::forbidden("The API key belongs to another organization"));
    }
    let now = app.store.usage_now(&organization).await?;
    let limits = app.config.limits;
    let region = RegionUsageOverview {
        region_id: REGION.to_owned(),
        sandbox_class: SandboxClass::Container,
        total_cpu_quota: NO_QUOTA,
        current_cpu_usage: now.cpu,
        total_memory_quota: NO_QUOTA,
        current_memory_usage: now.memory_gib,
        total_disk_quota: NO_QUOTA,
        current_disk_usage: now.disk_gib,
        total_gpu_quota: NO_QUOTA,
        current_gpu_usage: 0,
        max_cpu_per_sandbox: Some(limits.cpu.into()),
        max_memory_per_sandbox: Some(limits.memory_gib.into()),
        max_disk_per_sandbox: Some(limits.disk_gib.into()),
        max_disk_per_non_ephemeral_sandbox: None,
        max_cpu_per_gpu: None,
        max_memory_per_gpu: None,
        max_disk_per_gpu: None,
    };
    Ok(Json(OrganizationUsageOverview {
        region_usage: vec![region],
        total_snapshot_quota: NO_QUOTA,
        current_snapshot_usage: now.snapshots,
        total_volume_quota: NO_QUOTA,
        current_volume_usage: 0,
    }))
}

/// The regions sandboxes can be made in.
#[utoipa::path(get, path = "/regions", operation_id = "listAvailableRegions", tag = "organizations",
    responses((status = 200, body = Vec<Region>)))]
pub async fn regions(_: Caller) -> Json<Vec<Region>> {
    shared_regions().await
}

/// The same, for anybody.
#[utoipa::path(get, path = "/shared-regions", operation_id = "listSharedRegions", tag = "regions",
    responses((status = 200, body = Vec<Region>)))]
pub async fn shared_regions() -> Json<Vec<Region>> {
    Json(vec![Region {
        id: REGION.to_owned(),
        name: REGION.to_owned(),
        region_type: "shared".to_owned(),
        created_at: iso(0),
        updated_at: iso(0),
    }])
}

fn shown(app: &App, row: OrganizationRow) -> Organization {
    let limits = app.config.limits;
    Organization {
        id: row.id,
        name: row.name,
        created_by: row.created_by,
        personal: row.personal,
        created_at: iso(row.created_ms),
        updated_at: iso(row.updated_ms),
        suspended: false,
        suspended_at: iso(0),
        suspension_reason: String::new(),
        suspended_until: iso(0),
        suspension_cleanup_grace_period_hours: SUSPENSION_GRACE_HOURS,
        max_cpu_per_sandbox: limits.cpu,
        max_memory_per_sandbox: limits.memory_gib,
        max_disk_per_sandbox: limits.disk_gib,
        secret_quota: 0,
        max_secrets_per_sandbox: 0,
        snapshot_deactivation_timeout_minutes: SNAPSHOT_DEACTIVATION_MIN,
        default_queue_timeout: None,
        sandbox_limited_network_egress: false,
        preview_warning_enabled: false,
        sso_enabled: false,
        scim_enabled: false,
        default_region_id: REGION.to_owned(),
        authenticated_rate_limit: None,
        sandbox_create_rate_limit: None,
        sandbox_lifecycle_rate_limit: None,
        experimental_config: std::collections::BTreeMap::new(),
        otel_config: None,
        authenticated_rate_limit_ttl_seconds: None,
        sandbox_create_rate_limit_ttl_seconds: None,
        sandbox_lifecycle_rate_limit_ttl_seconds: None,
    }
}
