//! Names of images, in the one spelling the store uses. `python:3.12` and `docker.io/library/python:3.12` are the same.

use super::error::{ImageError, Result};
use std::{fmt, str::FromStr};

const DOCKER_HUB: &str = "docker.io";
/// The prefix of content ids.
const SHA256: &str = "sha256:";

/// A parsed name: registry, repository, and tag or digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference(oci_client::Reference);

impl Reference {
    pub fn parse(text: &str) -> Result<Self> {
        let unusable = |why: String| ImageError::Reference { reference: text.into(), why };
        let parsed = oci_client::Reference::from_str(text.trim()).map_err(|error| unusable(error.to_string()))?;
        if parsed.digest().is_some_and(|digest| hex_of(digest).is_none()) {
            return Err(unusable("only sha256 digests are supported".into()));
        }
        Ok(Self(parsed))
    }

    pub fn registry(&self) -> &str {
        self.0.registry()
    }

    pub fn digest(&self) -> Option<&str> {
        self.0.digest()
    }

    pub(super) fn as_oci(&self) -> &oci_client::Reference {
        &self.0
    }

    /// The same repository, named by another registry.
    pub(super) fn at_registry(&self, registry: &str) -> oci_client::Reference {
        let (repository, tag) = (self.0.repository().to_string(), self.0.tag().unwrap_or("latest").to_string());
        match self.0.digest() {
            Some(digest) => oci_client::Reference::with_digest(registry.into(), repository, digest.into()),
            None => oci_client::Reference::with_tag(registry.into(), repository, tag),
        }
    }
}

/// The short spelling, as people write it: without the default registry.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (registry, mut name) = (self.0.registry(), self.0.repository());
        if registry == DOCKER_HUB {
            name = name.strip_prefix("library/").unwrap_or(name);
        } else {
            write!(f, "{registry}/")?;
        }
        f.write_str(name)?;
        match (self.0.digest(), self.0.tag()) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, tag) => write!(f, ":{}", tag.unwrap_or("latest")),
        }
    }
}

/// The 64 hexadecimal digits of a `sha256:` digest.
pub fn hex_of(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix(SHA256)?;
    let is_hex = hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (hex.len() == 64 && is_hex).then_some(hex)
}

pub fn sha256_of(bytes: &[u8]) -> String {
    use sha2::Digest;
    format!("{SHA256}{}", hex::encode(sha2::Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_belong_to_docker_hub() {
        let python = Reference::parse("python:3.12").unwrap();
        assert_eq!((python.registry(), python.to_string().as_str()), ("docker.io", "python:3.12"));
        assert_eq!(Reference::parse("docker.io/library/python:3.12").unwrap(), python);
        for (text, shown) in [
            ("alpine", "alpine:latest"),
            ("infield/base:1", "infield/base:1"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("ghcr.io/x/y:z", "ghcr.io/x/y:z"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_text_in_the_error() {
        for text in ["", "UPPER", "a b", "x:y:z", "../etc", "name@sha256:12", "http://x/y"] {
            let error = Reference::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
