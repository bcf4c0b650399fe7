//! What the host is told of a sandbox: platform variables first, then the user's, then identity.

use crate::names;
use infield_api::{
    runner::{SandboxSpec, VolumeMount},
    sandbox::SandboxVolume,
};
use infield_store::SandboxRow;

const MIB_PER_GIB: i64 = 1024;

pub fn spec_of(row: &SandboxRow) -> SandboxSpec {
    let mut env = std::collections::BTreeMap::from([
        ("DAYTONA_SANDBOX_ID".to_owned(), row.id.to_string()),
        ("DAYTONA_SANDBOX_SNAPSHOT".to_owned(), row.snapshot.clone()),
        ("DAYTONA_SANDBOX_USER".to_owned(), row.shown_user.clone()),
    ]);
    env.extend(row.env.clone());
    env.insert("DAYTONA_ORGANIZATION_ID".to_owned(), row.organization_id.clone());
    env.insert("DAYTONA_REGION_ID".to_owned(), row.target.clone());
    SandboxSpec {
        id: row.id,
        name: names::hostname(&row.name),
        image: row.image.clone(),
        user: row.run_as.clone(),
        env,
        labels: row.labels.clone(),
        cpu: u32::try_from(row.cpu).unwrap_or(1).max(1),
        memory_mib: u64::try_from(row.memory_gib * MIB_PER_GIB).unwrap_or(0),
        disk_mib: u64::try_from(row.disk_gib * MIB_PER_GIB).unwrap_or(0),
        network_block_all: row.network_block_all,
        entrypoint: row.entrypoint.clone(),
        volumes: row.volumes.iter().map(mount_of).collect(),
    }
}

fn mount_of(volume: &SandboxVolume) -> VolumeMount {
    let SandboxVolume { volume_id, mount_path, subpath } = volume.clone();
    VolumeMount { volume: volume_id, path: mount_path, subpath }
}
