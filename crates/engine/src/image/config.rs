//! The configuration document of an OCI image: what of it a sandbox uses, read and written.

use super::{
    error::{ImageError, Result},
    reference::hex_of,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// One configuration or manifest document.
pub const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Layers of one image; what Docker allows.
pub const LAYERS_MAX: usize = 127;

/// What an image says about running it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// `NAME=value` each.
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub workdir: Option<String>,
    /// Name or uid, optionally `:group`.
    pub user: Option<String>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Document {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    config: Option<Section>,
    pub rootfs: RootFs,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type", default)]
    kind: String,
    /// Bottom first.
    pub diff_ids: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Section {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    env: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entrypoint: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cmd: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    working_dir: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    labels: Option<BTreeMap<String, String>>,
}

impl Document {
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let unusable = |why: String| ImageError::Config { why };
        let document: Document = serde_json::from_slice(bytes).map_err(|error| unusable(error.to_string()))?;
        let diff_ids = &document.rootfs.diff_ids;
        if diff_ids.is_empty() {
            return Err(unusable("it has no layers, so there is nothing to run".into()));
        }
        if diff_ids.len() > LAYERS_MAX {
            return Err(unusable(format!("{} layers, more than {LAYERS_MAX}", diff_ids.len())));
        }
        match diff_ids.iter().find(|id| hex_of(id).is_none()) {
            Some(id) => Err(unusable(format!("layer id {id:?} is no sha256 digest"))),
            None => Ok(document),
        }
    }

    pub fn new(config: &ImageConfig, diff_ids: Vec<String>, created: OffsetDateTime) -> Self {
        let filled = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        let section = Section {
            user: config.user.clone(),
            env: filled(&config.env),
            entrypoint: filled(&config.entrypoint),
            cmd: filled(&config.cmd),
            working_dir: config.workdir.clone(),
            labels: (!config.labels.is_empty()).then(|| config.labels.clone()),
        };
        Self {
            created: created.format(&Rfc3339).ok(),
            architecture: architecture().into(),
            os: "linux".into(),
            config: Some(section),
            rootfs: RootFs { kind: "layers".into(), diff_ids },
        }
    }

    pub fn config(&self) -> ImageConfig {
        let Some(section) = &self.config else { return ImageConfig::default() };
        let text = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
        ImageConfig {
            env: section.env.clone().unwrap_or_default(),
            entrypoint: section.entrypoint.clone().unwrap_or_default(),
            cmd: section.cmd.clone().unwrap_or_default(),
            workdir: text(&section.working_dir),
            user: text(&section.user),
            labels: section.labels.clone().unwrap_or_default(),
        }
    }

    /// The document with another run configuration, as bytes.
    pub fn overridden(mut self, over: &ImageConfig) -> Result<Vec<u8>> {
        let config = self.config().overridden(over);
        let fresh = Document::new(&config, Vec::new(), OffsetDateTime::UNIX_EPOCH);
        self.config = fresh.config;
        self.to_bytes()
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| ImageError::Config { why: error.to_string() })
    }

    pub fn created_at_ms(&self) -> Option<i64> {
        let created = OffsetDateTime::parse(self.created.as_deref()?, &Rfc3339).ok()?;
        i64::try_from(created.unix_timestamp_nanos() / 1_000_000).ok()
    }
}

impl ImageConfig {
    /// Whatever `over` says wins; environment variables are merged by name.
    pub fn overridden(mut self, over: &ImageConfig) -> Self {
        for line in &over.env {
            let name = line.split('=').next().unwrap_or(line);
            self.env.retain(|own| own.split('=').next() != Some(name));
            self.env.push(line.clone());
        }
        if !over.entrypoint.is_empty() {
            (self.entrypoint, self.cmd) = (over.entrypoint.clone(), over.cmd.clone());
        } else if !over.cmd.is_empty() {
            self.cmd = over.cmd.clone();
        }
        self.workdir = over.workdir.clone().or(self.workdir);
        self.user = over.user.clone().or(self.user);
        self.labels.extend(over.labels.clone());
        self
    }
}

/// This host's architecture, in the words of OCI.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}
