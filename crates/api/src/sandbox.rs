//! Sandboxes as clients see them: every field of the newest published model, so that strict clients of any age accept it.
//!
//! Counts are integers (`1.0` breaks clients), maps are never null, unset optional fields are left out.

use crate::state::{DesiredState, SandboxState};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a sandbox is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxClass {
    #[default]
    Container,
    LinuxVm,
    Windows,
    /// Only older servers have it.
    Android,
}

/// One sandbox, in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    pub id: String,
    pub organization_id: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    pub user: String,
    pub env: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub public: bool,
    pub network_block_all: bool,
    #[serde(default)]
    pub kvm: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_allow_list: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_allow_list: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound_proxy_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otel_endpoint_override: Option<String>,
    /// Region id.
    pub target: String,
    /// Whole cores.
    pub cpu: i64,
    pub gpu: i64,
    #[serde(default)]
    pub spot: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spot_evicted_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timed_out_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_type: Option<String>,
    /// GiB.
    pub memory: i64,
    /// GiB.
    pub disk: i64,
    pub state: SandboxState,
    pub desired_state: DesiredState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
    #[serde(default)]
    pub recoverable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_pool_id: Option<String>,
    /// `None`, `Pending`, `InProgress`, `Completed` or `Error`.
    #[serde(default = "backup_none")]
    pub backup_state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_created_at: Option<String>,
    /// Minutes; 0 = never.
    #[serde(default)]
    pub auto_stop_interval: i64,
    /// Minutes; 0 = never.
    #[serde(default)]
    pub auto_pause_interval: i64,
    /// Minutes.
    #[serde(default)]
    pub auto_archive_interval: i64,
    /// Minutes; negative = never, 0 = as soon as it stops.
    #[serde(default)]
    pub auto_delete_interval: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_destroy_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<i64>,
    #[serde(default)]
    pub volumes: Vec<SandboxVolume>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_info: Option<BuildInfo>,
    #[serde(default)]
    pub created_at: String,
    #[serde(default)]
    pub updated_at: String,
    #[serde(default)]
    pub last_activity_at: String,
    #[serde(default)]
    pub sandbox_class: SandboxClass,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linked_sandbox_id: Option<String>,
    /// Base of the toolbox API; clients append `/<id>/…`.
    pub toolbox_proxy_url: String,
}

fn backup_none() -> String {
    "None".to_owned()
}

/// A sandbox in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxListItem {
    pub id: String,
    pub organization_id: String,
    pub name: String,
    pub target: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_id: Option<String>,
    #[serde(default)]
    pub sandbox_class: SandboxClass,
    pub state: SandboxState,
    pub desired_state: DesiredState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    pub user: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
    #[serde(default)]
    pub recoverable: bool,
    pub public: bool,
    pub network_block_all: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_allow_list: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_allow_list: Option<String>,
    pub cpu: i64,
    pub gpu: i64,
    #[serde(default)]
    pub spot: bool,
    pub memory: i64,
    pub disk: i64,
    pub labels: BTreeMap<String, String>,
    #[serde(default = "backup_none")]
    pub backup_state: String,
    #[serde(default)]
    pub auto_stop_interval: i64,
    #[serde(default)]
    pub auto_pause_interval: i64,
    #[serde(default)]
    pub auto_archive_interval: i64,
    #[serde(default)]
    pub auto_delete_interval: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_destroy_at: Option<String>,
    #[serde(default)]
    pub created_at: String,
    #[serde(default)]
    pub updated_at: String,
    #[serde(default)]
    pub last_activity_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon_version: Option<String>,
    pub toolbox_proxy_url: String,
}

/// A volume mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxVolume {
    pub volume_id: String,
    pub mount_path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subpath: Option<String>,
}

/// What an image was built from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BuildInfo {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile_content: Option<String>,
    #[serde(default)]
    pub context_hashes: Vec<String>,
    pub created_at: String,
    pub updated_at: String,
    pub snapshot_ref: String,
}

/// What to build an image from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CreateBuildInfo {
    #[schema(required = true)]
    pub dockerfile_content: String,
    pub context_hashes: Option<Vec<String>>,
}

/// Body of `POST /sandbox`. Unknown keys are ignored: old callers still send some.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CreateSandbox {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_block_all: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kvm: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_allow_list: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_allow_list: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound_proxy_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otel_endpoint_override: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient_int")]
    pub cpu: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient_int")]
    pub gpu: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub gpu_type: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spot: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient_int")]
    pub memory: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient_int")]
    pub disk: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient_int")]
    pub auto_stop_interval: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient_int")]
    pub auto_pause_interval: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient_int")]
    pub auto_archive_interval: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient_int")]
    pub auto_delete_interval: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient_int")]
    pub ttl_minutes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient_int")]
    pub queue_timeout: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Vec<SandboxVolume>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_info: Option<CreateBuildInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linked_sandbox: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<BTreeMap<String, String>>>,
}

/// Answer of `GET /sandbox`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListSandboxesResponse {
    pub items: Vec<SandboxListItem>,
    /// Null on the last page; never left out.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

/// Answer of `GET /sandbox/paginated`, which older clients use.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PaginatedSandboxes_deprecated)]
pub struct PaginatedSandboxes {
    pub items: Vec<Sandbox>,
    pub total: i64,
    pub page: i64,
    pub total_pages: i64,
}

/// Body and answer of `PUT /sandbox/{id}/labels`: the whole map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SandboxLabels {
    pub labels: BTreeMap<String, String>,
}

/// Body of `POST /sandbox/{id}/resize`: what is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ResizeSandbox {
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient_int")]
    pub cpu: Option<i64>,
    /// GiB.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient_int")]
    pub memory: Option<i64>,
    /// GiB; only grows.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient_int")]
    pub disk: Option<i64>,
}

/// Body of `POST /sandbox/{id}/fork`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ForkSandbox {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Body of `POST /sandbox/{id}/snapshot`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CreateSandboxSnapshot {
    /// Name of the new snapshot.
    #[schema(required = true)]
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_memory: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ToolboxProxyUrl {
    pub url: String,
}

/// Body of `POST /sandbox/{id}/clone`: a git repository to clone inside the sandbox.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct CloneRepository {
    /// `repo` is accepted as another name.
    #[serde(alias = "repo", alias = "repoUrl")]
    #[schema(required = true)]
    pub url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Default: the repository's name, below the working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    #[serde(alias = "commitId", skip_serializing_if = "Option::is_none")]
    pub commit_id: Option<String>,
}

/// Answer of `POST /sandbox/{id}/clone`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClonedRepository {
    pub path: String,
}

/// Body of `POST /sandbox/{id}/exec`.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ExecCommand {
    /// `cmd` is accepted as another name.
    #[serde(alias = "cmd")]
    #[schema(required = true)]
    pub command: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(alias = "env", skip_serializing_if = "BTreeMap::is_empty")]
    pub envs: BTreeMap<String, String>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient_int")]
    pub timeout: Option<i64>,
}

/// Answer of `POST /sandbox/{id}/exec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecOutcome {
    pub exit_code: i64,
    pub result: String,
}

/// Whole numbers, also when a client's language printed them as `1.0`; null is absent.
pub(crate) fn lenient_int<'de, D: Deserializer<'de>>(d: D) -> Result<Option<i64>, D::Error> {
    match Option::<serde_json::Number>::deserialize(d)? {
        None => Ok(None),
        Some(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => Ok(Some(i)),
            (None, Some(f)) if f.fract() == 0.0 && f.abs() < 9e15 => Ok(Some(f as i64)),
            _ => Err(de::Error::custom(format!("{n} is not a whole number"))),
        },
    }
}

/// A list, or one element in its place.
pub(crate) fn one_or_many<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::<OneOrMany>::deserialize(d)?.map(|v| match v {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_client_are_read() {
        let body: CreateSandbox =
            serde_json::from_str(r#"{"autoStopInterval":5.0,"cpu":null,"gpuType":"H100","envVars":{"old":"key"}}"#)
                .unwrap();
        assert_eq!(body.auto_stop_interval, Some(5));
        assert_eq!(body.cpu, None);
        assert_eq!(body.gpu_type, Some(vec!["H100".to_owned()]));
        assert!(serde_json::from_str::<CreateSandbox>(r#"{"disk":1.5}"#).is_err());
        assert!(serde_json::from_str::<CreateSandbox>(r#"{"disk":"1"}"#).is_err());
    }

    #[test]
    fn the_commands_other_names_are_read() {
        let exec: ExecCommand = serde_json::from_str(r#"{"cmd":"make all","env":{"A":"b"},"timeout":3}"#).unwrap();
        assert_eq!((exec.command.as_str(), exec.envs["A"].as_str(), exec.timeout), ("make all", "b", Some(3)));
        let clone: CloneRepository = serde_json::from_str(r#"{"repo":"u","commit_id":"c"}"#).unwrap();
        assert_eq!((clone.url.as_str(), clone.commit_id.as_deref()), ("u", Some("c")));
    }
}
