//! Manifests and manifest lists, OCI's and Docker's alike: what they say, and the choice of a platform. Pure.

use super::{config, reference::hex_of};
use serde::Deserialize;
use std::fmt;

/// Indexes may name indexes; nobody nests them deeper than this.
pub const INDEX_DEPTH_MAX: usize = 4;

/// Media types a registry is told we understand.
pub const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

#[derive(Debug)]
pub enum Manifest {
    Image(ImageManifest),
    Index(Index),
}

#[derive(Debug, Deserialize)]
pub struct ImageManifest {
    pub config: Descriptor,
    /// Bottom first.
    pub layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
pub struct Index {
    pub manifests: Vec<Descriptor>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Descriptor {
    pub digest: String,
    pub size: u64,
    #[serde(rename = "mediaType", default)]
    pub media_type: String,
    #[serde(default)]
    pub platform: Option<Platform>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default)]
    pub variant: Option<String>,
}

impl Manifest {
    /// Told apart by what they hold: the media type is often missing or wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|error| format!("no manifest: {error}"))?;
        if value.get("manifests").is_some() {
            return serde_json::from_value(value).map(Self::Index).map_err(|error| format!("unusable index: {error}"));
        }
        if value.get("schemaVersion").and_then(serde_json::Value::as_u64) == Some(1) {
            return Err("it is in the old schema 1; push the image again with a current tool".into());
        }
        let manifest: ImageManifest =
            serde_json::from_value(value).map_err(|error| format!("it is no container image: {error}"))?;
        manifest.check().map(|()| Self::Image(manifest))
    }
}

impl ImageManifest {
    fn check(&self) -> Result<(), String> {
        if self.layers.len() > config::LAYERS_MAX {
            return Err(format!("{} layers, more than {}", self.layers.len(), config::LAYERS_MAX));
        }
        for part in self.layers.iter().chain([&self.config]) {
            if hex_of(&part.digest).is_none() {
                return Err(format!("{:?} is no sha256 digest", part.digest));
            }
        }
        let is_tar = |kind: &str| kind.is_empty() || kind.contains(".layer.") || kind.contains(".rootfs.");
        match self.layers.iter().find(|layer| !is_tar(&layer.media_type)) {
            Some(layer) => Err(format!("it is no container image: it holds {:?}", layer.media_type)),
            None => Ok(()),
        }
    }
}

impl Index {
    /// The first that fits; one without a platform fits when nothing else does.
    pub fn choose(&self, wanted: &Platform) -> Option<&Descriptor> {
        let fits = |found: &&Descriptor| found.platform.as_ref().is_some_and(|platform| wanted.accepts(platform));
        self.manifests.iter().find(fits).or_else(|| self.manifests.iter().find(|found| found.platform.is_none()))
    }

    /// For an error.
    pub fn offered(&self) -> String {
        let mut offered: Vec<_> =
            self.manifests.iter().filter_map(|m| m.platform.as_ref()).map(Platform::to_string).collect();
        // Attestations are listed beside images.
        offered.retain(|platform| !platform.starts_with("unknown/"));
        if offered.is_empty() { "nothing".into() } else { offered.join(", ") }
    }
}

impl Platform {
    pub fn host() -> Self {
        Self { os: "linux".into(), architecture: config::architecture().into(), variant: None }
    }

    fn accepts(&self, offered: &Platform) -> bool {
        let variant = self.variant.is_none() || self.variant == offered.variant;
        self.os == offered.os && self.architecture == offered.architecture && variant
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> Index {
        let manifests = platforms.iter().enumerate().map(|(number, text)| {
            let parts: Vec<_> = text.split('/').collect();
            let platform = (!text.is_empty()).then(|| Platform {
                os: parts[0].into(),
                architecture: parts[1].into(),
                variant: parts.get(2).map(|v| v.to_string()),
            });
            Descriptor { digest: format!("sha256:{number:064}"), size: 1, media_type: String::new(), platform }
        });
        Index { manifests: manifests.collect() }
    }

    #[test]
    fn the_platform_decides_and_the_offer_is_named() {
        let wanted = Platform { os: "linux".into(), architecture: "arm64".into(), variant: None };
        let found = index(&["windows/arm64", "linux/amd64", "linux/arm64/v8", "unknown/unknown"]);
        assert_eq!(found.choose(&wanted).unwrap().digest, format!("sha256:{:064}", 2));
        assert_eq!(found.offered(), "windows/arm64, linux/amd64, linux/arm64/v8");
        assert!(index(&["linux/amd64"]).choose(&wanted).is_none());
        assert!(index(&["linux/amd64", ""]).choose(&wanted).is_some());
    }

    #[test]
    fn what_is_no_image_is_said_to_be_none() {
        let digest = format!("sha256:{:064}", 0);
        let chart = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":1}},
                "layers":[{{"digest":"{digest}","size":1,"mediaType":"application/vnd.cncf.helm.chart.content.v1.tar+gzip"}}]}}"#
        );
        assert!(Manifest::parse(chart.as_bytes()).unwrap_err().contains("no container image"));
        assert!(Manifest::parse(br#"{"schemaVersion":1,"fsLayers":[]}"#).unwrap_err().contains("schema 1"));
        assert!(Manifest::parse(b"<html>").unwrap_err().contains("no manifest"));
        let forged = r#"{"config":{"digest":"sha256:../../x","size":1},"layers":[]}"#;
        assert!(Manifest::parse(forged.as_bytes()).unwrap_err().contains("sha256"));
    }
}
