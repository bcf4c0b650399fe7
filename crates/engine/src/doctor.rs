//! What a host needs to run sandboxes, tried for real, each finding with its remedy. Used by `infield doctor` and by setup.
//!
//! Nothing it does stays: namespaces are fresh, directories are removed. Knows the engine's needs, not how findings are shown.

mod kernel;
mod network;
mod storage;

pub(crate) use storage::root_mounts;

use serde::Serialize;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

/// What the server would be started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoctorConfig {
    pub data_dir: PathBuf,
    /// The image store; by default `images` in the data directory.
    pub image_dir: PathBuf,
    pub subnet: (Ipv4Addr, u8),
    pub listen: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// Works, with a drawback.
    Warn,
    /// Sandboxes will not run.
    Fail,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub status: Status,
    pub found: String,
    /// What to do about it; a command where there is one.
    pub remedy: Option<String>,
}

/// Looks at everything; takes well under a second. Root is needed for most of it.
pub fn check(config: &DoctorConfig) -> Vec<Check> {
    let mut checks = kernel::check();
    checks.extend(storage::check(config));
    checks.extend(network::check(config));
    checks
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    Check { name, status: Status::Ok, found: found.into(), remedy: None }
}
fn warn(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { name, status: Status::Warn, found: found.into(), remedy: Some(remedy.into()) }
}
fn fail(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { name, status: Status::Fail, found: found.into(), remedy: Some(remedy.into()) }
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The machine the tests run on can run sandboxes, or says clearly why not.
    #[test]
    fn every_problem_has_a_remedy_and_nothing_is_left() {
        let data_dir = std::env::temp_dir().join(format!("infield-doctor-{}", std::process::id()));
        let config = DoctorConfig {
            data_dir: data_dir.clone(),
            image_dir: data_dir.join("images"),
            subnet: (Ipv4Addr::new(10, 231, 0, 0), 16),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let checks = check(&config);
        for check in &checks {
            assert_eq!(check.status == Status::Ok, check.remedy.is_none(), "{check:?}");
            assert!(!check.found.is_empty(), "{check:?}");
        }
        let failed: Vec<_> = checks.iter().filter(|c| c.status == Status::Fail).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        let mut names: Vec<_> = checks.iter().map(|c| c.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), checks.len(), "names are unique");
        assert!(!data_dir.exists(), "the doctor made the data directory");
        assert!(serde_json::to_string(&checks).unwrap().contains(r#""status":"ok""#));
    }

    #[test]
    fn the_image_store_is_tried_where_it_is() {
        let config = DoctorConfig {
            data_dir: std::env::temp_dir(),
            image_dir: PathBuf::from("/proc/sys"), // nothing can be made there
            subnet: (Ipv4Addr::new(10, 231, 0, 0), 16),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let checks = check(&config);
        let found = checks.iter().find(|c| c.name == "idmapped mounts").unwrap();
        assert_eq!(found.status, Status::Fail);
        assert!(found.found.contains("/proc/sys"), "{found:?}");
        assert!(checks.iter().any(|c| c.name == "overlay" && c.status == Status::Ok));
    }

    #[test]
    fn a_port_in_use_and_a_taken_subnet_are_told() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let config = DoctorConfig {
            data_dir: std::env::temp_dir(),
            image_dir: std::env::temp_dir().join("images"),
            subnet: (Ipv4Addr::new(8, 8, 8, 0), 24),
            listen: listener.local_addr().unwrap(),
        };
        let checks = check(&config);
        let status = |name| checks.iter().find(|c| c.name == name).map(|c| c.status);
        assert_eq!(status("port"), Some(Status::Warn));
        assert_eq!(status("subnet"), Some(Status::Fail));
    }
}
