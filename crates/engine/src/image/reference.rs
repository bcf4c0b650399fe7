//! Names of images, in the one spelling the store uses. `python:3.12` and `docker.io/library/python:3.12` are the same.

use super::error::{ImageError, Result};
use std::fmt;

const DOCKER_HUB: &str = "docker.io";
/// Where Docker Hub keeps the images whose names have one part.
const OFFICIAL: &str = "library/";
/// The prefix of content ids.
const SHA256: &str = "sha256:";

/// What Docker allows for registry and repository together, and for a tag.
const NAME_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;

/// A parsed name: registry, repository, and tag or digest (which wins over a tag).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: String,
    digest: Option<String>,
}

impl Reference {
    pub fn parse(text: &str) -> Result<Self> {
        Self::read(text).map_err(|why| ImageError::Reference { reference: text.into(), why: why.into() })
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                (name, Some(hex_of(digest).map(|_| digest).ok_or("a digest is sha256: and 64 digits")?))
            }
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (name, "latest"),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((host, rest)) if names_host(host) => (host, rest),
            _ => (DOCKER_HUB, name),
        };
        let registry = if registry == "index.docker.io" { DOCKER_HUB } else { registry };
        let official = registry == DOCKER_HUB && !repository.contains('/');
        let repository = if official { format!("{OFFICIAL}{repository}") } else { repository.to_string() };
        if registry.len() + repository.len() > NAME_BYTES_MAX {
            return Err("the name is too long");
        }
        if !is_host(registry) {
            return Err("the registry is not a host name with an optional port");
        }
        if !repository.split('/').all(is_component) {
            return Err("a name is lower-case letters and digits, with single separators between them");
        }
        if !is_tag(tag) {
            return Err("a tag is letters, digits, `_`, `.` and `-`");
        }
        let digest = digest.map(str::to_string);
        Ok(Self { registry: registry.into(), repository, tag: tag.into(), digest })
    }

    pub fn registry(&self) -> &str {
        &self.registry
    }

    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What a registry is asked for.
    pub fn tag_or_digest(&self) -> &str {
        self.digest.as_deref().unwrap_or(&self.tag)
    }
}

/// Tells a host from the first part of a repository's name.
fn names_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost"
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let plain =
        host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-') && !host.starts_with(['.', '-']);
    let ipv6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let is_ipv6 = ipv6.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    !host.is_empty() && (plain || is_ipv6) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// `[a-z0-9]+` parts with `.`, `_`, `__` or any number of `-` between them.
fn is_component(text: &str) -> bool {
    let is_word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let edges = text.as_bytes().first().is_some_and(is_word) && text.as_bytes().last().is_some_and(is_word);
    let separators =
        text.as_bytes().split(is_word).all(|s| matches!(s, b"" | b"." | b"_" | b"__") || s.iter().all(|b| *b == b'-'));
    edges && separators
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = text.bytes().next().is_some_and(is_word);
    first && text.len() <= TAG_BYTES_MAX && text.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

/// The short spelling, as people write it: without the default registry, unless it would be read as something else.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (registry, mut name) = (&self.registry, self.repository.as_str());
        let mistakable = name.split_once('/').is_some_and(|(first, _)| names_host(first));
        if registry != DOCKER_HUB || mistakable {
            write!(f, "{registry}/")?;
        } else {
            name = name.strip_prefix(OFFICIAL).filter(|rest| !rest.contains('/')).unwrap_or(name);
        }
        f.write_str(name)?;
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => write!(f, ":{}", self.tag),
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
        for same in ["docker.io/library/python:3.12", "docker.io/python:3.12", "library/python:3.12"] {
            assert_eq!(Reference::parse(same).unwrap(), python, "{same}");
        }
        for (text, shown) in [
            ("alpine", "alpine:latest"),
            ("docker.io/alpine:3", "alpine:3"),
            ("index.docker.io/alpine:3", "alpine:3"),
            ("docker.io/library/a/b", "library/a/b:latest"),
            ("docker.io/localhost/a", "docker.io/localhost/a:latest"),
            ("docker.io/a.b/c", "docker.io/a.b/c:latest"),
            ("infield/base:1", "infield/base:1"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("ghcr.io/x/y:z", "ghcr.io/x/y:z"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_text_in_the_error() {
        let bad = [
            "",
            "UPPER",
            "a b",
            "x:y:z",
            "../etc",
            "name@sha256:12",
            "http://x/y",
            "a//b",
            "a/",
            "a..b",
            "-a",
            "x:",
            "h.io:0/x",
            "h.io:99999/x",
            "x\n",
        ];
        for text in bad {
            let error = Reference::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_and_the_spelling_is_stable(text in "[a-zA-Z0-9:/@._\\[\\]-]{0,60}") {
            if let Ok(parsed) = Reference::parse(&text) {
                let shown = parsed.to_string();
                let again = Reference::parse(&shown).unwrap();
                proptest::prop_assert_eq!(again.to_string(), shown);
                proptest::prop_assert_eq!(again.registry(), parsed.registry());
                proptest::prop_assert_eq!(again.repository(), parsed.repository());
                proptest::prop_assert!(!parsed.repository().split('/').any(|part| part == ".."));
            }
        }
    }
}
