//! What an operator says about registries: mirrors, plain-http hosts, own certificate authorities, credentials.
//! Kept in `<data>/registries.json`; pure but for reading that file.

use super::{
    error::{ImageError, Result},
    reference::Reference,
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// Docker Hub's name in references is not the host that serves it.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// ```json
/// { "mirrors": { "docker.io": ["mirror.example:5000"] }, "plain_http": ["mirror.example:5000"],
///   "ca_files": { "registry.example": "/etc/ssl/own.pem" },
///   "credentials": { "registry.example": { "username": "u", "password": "p" } } }
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistriesConfig {
    /// Asked first, in this order; the registry itself comes last.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Hosts (with port) spoken to without TLS. `localhost` and loopback addresses are too, unless `ca_files` names them.
    pub plain_http: BTreeSet<String>,
    /// PEM files trusted for a host, in addition to the system's.
    pub ca_files: BTreeMap<String, PathBuf>,
    pub credentials: BTreeMap<String, Credentials>,
}

#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// One host to ask for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host` or `host:port`, for errors.
    pub host: String,
    pub plain_http: bool,
    pub ca_file: Option<PathBuf>,
    pub credentials: Option<Credentials>,
    /// The operator named it, so it may be anywhere.
    pub named: bool,
}

impl RegistriesConfig {
    /// Its name in a data directory.
    pub const FILE: &str = "registries.json";

    /// A missing file means nothing is configured.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other.map_err(ImageError::io(format!("cannot read {}", path.display())))?,
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| ImageError::Config { why: format!("{}: {error}", path.display()) })
    }

    /// Whom to ask, in order. `given` credentials go to the reference's own registry only, never to a mirror.
    pub fn endpoints(&self, reference: &Reference, given: Option<&Credentials>) -> Vec<Endpoint> {
        let registry = reference.registry();
        let mirrors = self.mirrors.get(registry).into_iter().flatten().map(|mirror| self.endpoint(mirror));
        let mut own = self.endpoint(registry);
        own.credentials = given.cloned().or(own.credentials);
        mirrors.chain([own]).collect()
    }

    fn endpoint(&self, name: &str) -> Endpoint {
        let host = host_of(name);
        let served_by = if host == DOCKER_HUB.0 { DOCKER_HUB.1 } else { host };
        // Whoever names a certificate authority for a loopback registry means TLS.
        let loopback = is_loopback(host) && !self.ca_files.contains_key(host);
        let plain_http = name.starts_with("http://") || self.plain_http.contains(host) || loopback;
        Endpoint {
            host: served_by.into(),
            plain_http: plain_http && !name.starts_with("https://"),
            ca_file: self.ca_files.get(host).cloned(),
            credentials: self.credentials.get(host).cloned(),
            named: self.names(host),
        }
    }

    fn names(&self, host: &str) -> bool {
        let mut mirrors = self.mirrors.values().flatten();
        self.plain_http.contains(host)
            || self.ca_files.contains_key(host)
            || self.credentials.contains_key(host)
            || mirrors.any(|mirror| host_of(mirror) == host)
    }
}

/// A mirror may be written with a scheme.
fn host_of(name: &str) -> &str {
    let bare = name.strip_prefix("http://").or_else(|| name.strip_prefix("https://"));
    bare.unwrap_or(name).trim_end_matches('/')
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_first_and_get_no_foreign_credentials() {
        let config: RegistriesConfig = serde_json::from_str(
            r#"{"mirrors": {"docker.io": ["http://mirror.example:5000", "other.example"]},
                "credentials": {"other.example": {"username": "o", "password": "p"}}}"#,
        )
        .unwrap();
        let given = Credentials { username: "u".into(), password: "secret".into() };
        let found = config.endpoints(&Reference::parse("python").unwrap(), Some(&given));
        let hosts: Vec<_> = found.iter().map(|e| (e.host.as_str(), e.plain_http)).collect();
        assert_eq!(hosts, [("mirror.example:5000", true), ("other.example", false), ("registry-1.docker.io", false)]);
        let users: Vec<_> = found.iter().map(|e| e.credentials.as_ref().map(|c| c.username.as_str())).collect();
        assert_eq!(users, [None, Some("o"), Some("u")]);
        assert!(!format!("{found:?}").contains("secret"));
        // Credentials that come with a request are nobody's consent.
        assert_eq!(found.iter().map(|e| e.named).collect::<Vec<_>>(), [true, true, false]);
        assert!(config.names("mirror.example:5000") && !config.names("mirror.example"));
    }

    #[test]
    fn only_loopback_is_plain_by_itself() {
        for (host, plain) in [
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("localhost.example", false),
            ("10.0.0.1:5000", false),
            ("127.0.0.1.example:80", false),
        ] {
            assert_eq!(is_loopback(host), plain, "{host}");
        }
    }

    #[test]
    fn a_misspelt_field_is_an_error() {
        assert!(serde_json::from_str::<RegistriesConfig>(r#"{"mirror": {}}"#).is_err());
    }
}
