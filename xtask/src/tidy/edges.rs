//! Which crate may depend on which: the table of ARCHITECTURE.md, compared with what cargo reads from the manifests.

use anyhow::{Context, Result};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

/// Arrows point down only; level-2 crates never see each other.
const EDGES: &[(&str, &[&str])] = &[
    ("infield-api", &[]),
    ("infield-sys", &[]),
    ("infield-store", &["infield-api"]),
    ("infield-client", &["infield-api"]),
    ("infield-engine", &["infield-api", "infield-sys"]),
    ("infield-agent", &["infield-api", "infield-sys"]),
    ("infield-control", &["infield-api", "infield-store"]),
    ("infield-gateway", &["infield-api"]),
    ("specgen-sandbox", &["infield-client"]),
    (
        "infield",
        &[
            "infield-api",
            "infield-client",
            "infield-control",
            "infield-engine",
            "infield-gateway",
            "infield-store",
            "infield-sys",
            "specgen-sandbox",
        ],
    ),
    ("xtask", &[]),
    ("infield-tests", &[]),
];

/// What no crate may know, whatever the level: (crate, dependency).
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("infield-api", &["tokio", "axum", "hyper", "sqlx"]),
    ("infield-sys", &["serde", "tokio", "tracing"]),
    ("infield-store", &["axum", "hyper", "http"]),
    ("infield-client", &["axum", "sqlx"]),
    ("infield-engine", &["axum", "sqlx", "utoipa"]),
    ("infield-agent", &["sqlx"]),
    ("infield-control", &["sqlx", "libc", "rustix", "nix"]),
    ("infield-gateway", &["sqlx", "libc", "rustix", "nix"]),
    ("specgen-sandbox", &["axum", "sqlx"]),
];

pub fn check(root: &Path) -> Result<Vec<String>> {
    let found = manifests(root)?;
    let mut complaints = Vec::new();
    for (name, dependencies) in &found {
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| known == name) else {
            complaints
                .push(format!("{name}: a crate that the table of edges does not know; is it justified by a wall?"));
            continue;
        };
        let actual: BTreeSet<&str> =
            dependencies.iter().map(String::as_str).filter(|d| found.contains_key(*d)).collect();
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        complaints.extend(actual.difference(&allowed).map(|d| format!("{name} -> {d}: not an edge of the table")));
        complaints.extend(allowed.difference(&actual).map(|d| format!("{name} -> {d}: stands in the table only")));
        let foreign = FORBIDDEN.iter().find(|(known, _)| known == name).map_or(&[][..], |(_, list)| list);
        complaints.extend(
            foreign
                .iter()
                .filter(|d| dependencies.contains(**d))
                .map(|d| format!("{name} -> {d}: this crate may not know {d}")),
        );
    }
    Ok(complaints)
}

/// Every workspace package with the names of its dependencies of all kinds.
fn manifests(root: &Path) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    anyhow::ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).context("parse cargo metadata")?;
    let mut found = BTreeMap::new();
    for package in metadata["packages"].as_array().context("packages")? {
        let name = package["name"].as_str().unwrap_or_default().to_owned();
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let names = dependencies.filter_map(|d| d["name"].as_str()).filter(|d| *d != name).map(str::to_owned).collect();
        found.insert(name, names);
    }
    Ok(found)
}
