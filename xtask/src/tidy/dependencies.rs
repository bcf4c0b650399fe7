//! Cargo.lock: how many packages there may be, and which there may not.

use anyhow::{Context, Result};
use std::path::Path;

/// Dependencies are code that nobody here wrote; their number is bounded.
const LOCK_PACKAGES_MAX: usize = 500;

pub fn check(root: &Path) -> Result<Vec<String>> {
    let read = |name: &str| std::fs::read_to_string(root.join(name)).with_context(|| format!("read {name}"));
    let (lock, deny) = (read("Cargo.lock")?, read("deny.toml")?);
    let packages = packages(&lock);
    let mut complaints: Vec<String> = bans(&deny)
        .into_iter()
        .filter(|banned| packages.contains(banned))
        .map(|banned| format!("Cargo.lock: {banned} is banned; deny.toml says why"))
        .collect();
    if packages.len() > LOCK_PACKAGES_MAX {
        complaints.push(format!(
            "Cargo.lock: {} packages, at most {LOCK_PACKAGES_MAX}; drop a dependency or a feature",
            packages.len()
        ));
    }
    Ok(complaints)
}

fn packages(lock: &str) -> Vec<&str> {
    lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect()
}

/// Those that nobody may bring along: a ban with `wrappers` has exceptions, which only cargo-deny can tell.
fn bans(deny: &str) -> Vec<&str> {
    let entries = deny.lines().filter(|line| !line.contains("wrappers"));
    entries.filter_map(|line| line.trim().strip_prefix("{ crate = \"")?.split('"').next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_packages_and_bans() {
        let lock = "version = 4\n[[package]]\nname = \"openssl\"\nversion = \"1.0.0\"\n";
        assert_eq!(packages(lock), ["openssl"]);
        let deny = "deny = [\n    { crate = \"openssl\", reason = \"x\" },\n    { crate = \"chrono\", wrappers = [\"a\"] },\n]\n";
        assert_eq!(bans(deny), ["openssl"]);
    }
}
