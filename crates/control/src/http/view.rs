//! Rows as clients see them.

use super::extract::BaseUrl;
use crate::{clock::iso, lifecycle::rules};
use infield_api::{
    sandbox::{Sandbox, SandboxClass, SandboxListItem},
    snapshot::SnapshotDto,
    volume::VolumeDto,
};
use infield_store::{SandboxRow, SnapshotRow, VolumeRow};

/// Backups are not made here.
const NO_BACKUP: &str = "None";
const BYTES_PER_GIB: f64 = (1_u64 << 30) as f64;

pub fn sandbox(row: SandboxRow, base: &BaseUrl) -> Sandbox {
    Sandbox {
        id: row.id.to_string(),
        organization_id: row.organization_id,
        name: row.name,
        snapshot: Some(row.snapshot),
        user: row.shown_user,
        env: row.env,
        labels: row.labels,
        public: row.public,
        network_block_all: row.network_block_all,
        kvm: false,
        network_allow_list: None,
        domain_allow_list: None,
        outbound_proxy_url: None,
        otel_endpoint_override: None,
        target: row.target,
        cpu: row.cpu,
        gpu: 0,
        spot: false,
        spot_evicted_at: None,
        queue_timed_out_at: None,
        gpu_type: None,
        memory: row.memory_gib,
        disk: row.disk_gib,
        state: rules::shown((row.state, row.desired)),
        desired_state: row.desired,
        error_reason: row.error_reason,
        recoverable: row.recoverable,
        warm_pool_id: None,
        backup_state: NO_BACKUP.to_owned(),
        backup_created_at: None,
        auto_stop_interval: row.auto_stop_min,
        auto_pause_interval: row.auto_pause_min,
        auto_archive_interval: row.auto_archive_min,
        auto_delete_interval: row.auto_delete_min,
        auto_destroy_at: row.auto_destroy_ms.map(iso),
        queue_timeout: None,
        volumes: row.volumes,
        build_info: None,
        created_at: iso(row.created_ms),
        updated_at: iso(row.updated_ms),
        last_activity_at: iso(row.activity_ms),
        sandbox_class: SandboxClass::Container,
        daemon_version: row.daemon_version,
        runner_id: row.runner_id,
        linked_sandbox_id: row.linked_id.map(|id| id.to_string()),
        toolbox_proxy_url: base.toolbox(),
    }
}

pub fn sandbox_item(row: SandboxRow, base: &BaseUrl) -> SandboxListItem {
    SandboxListItem {
        id: row.id.to_string(),
        organization_id: row.organization_id,
        name: row.name,
        target: row.target,
        runner_id: row.runner_id,
        sandbox_class: SandboxClass::Container,
        state: rules::shown((row.state, row.desired)),
        desired_state: row.desired,
        snapshot: Some(row.snapshot),
        user: row.shown_user,
        error_reason: row.error_reason,
        recoverable: row.recoverable,
        public: row.public,
        network_block_all: row.network_block_all,
        network_allow_list: None,
        domain_allow_list: None,
        cpu: row.cpu,
        gpu: 0,
        spot: false,
        memory: row.memory_gib,
        disk: row.disk_gib,
        labels: row.labels,
        backup_state: NO_BACKUP.to_owned(),
        auto_stop_interval: row.auto_stop_min,
        auto_pause_interval: row.auto_pause_min,
        auto_archive_interval: row.auto_archive_min,
        auto_delete_interval: row.auto_delete_min,
        auto_destroy_at: row.auto_destroy_ms.map(iso),
        created_at: iso(row.created_ms),
        updated_at: iso(row.updated_ms),
        last_activity_at: iso(row.activity_ms),
        daemon_version: row.daemon_version,
        toolbox_proxy_url: base.toolbox(),
    }
}

pub fn snapshot(row: SnapshotRow) -> SnapshotDto {
    SnapshotDto {
        id: row.id,
        organization_id: Some(row.organization_id).filter(|id| !id.is_empty()),
        general: row.general,
        name: row.name,
        image_name: Some(row.image_name),
        state: row.state,
        size: row.size_bytes.map(|bytes| bytes as f64 / BYTES_PER_GIB),
        entrypoint: row.entrypoint,
        cpu: row.cpu,
        gpu: 0,
        mem: row.memory_gib,
        disk: row.disk_gib,
        error_reason: row.error_reason,
        created_at: iso(row.created_ms),
        updated_at: iso(row.updated_ms),
        last_used_at: row.last_used_ms.map(iso),
        build_info: None,
        region_ids: vec![crate::app::REGION.to_owned()],
        reference: row.image,
        source_sandbox_id: row.source_sandbox_id,
        sandbox_class: SandboxClass::Container,
    }
}

pub fn volume(row: VolumeRow) -> VolumeDto {
    VolumeDto {
        id: row.id,
        name: row.name,
        organization_id: row.organization_id,
        state: row.state,
        created_at: iso(row.created_ms),
        updated_at: iso(row.updated_ms),
        last_used_at: row.last_used_ms.map(iso),
        error_reason: row.error_reason,
    }
}
