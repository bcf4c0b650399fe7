//! `unsafe` stays in one crate, nothing unwraps outside tests, and the lint levels that see to it stay as they are.

use super::RustFile;
use anyhow::{Context, Result};
use std::path::Path;

/// Lines that the root manifest must hold, each under its table.
const ROOT_LINTS: &[&str] =
    &["unsafe_code = \"forbid\"", "unwrap_used = \"warn\"", "todo = \"warn\"", "dbg_macro = \"warn\""];
/// Lines of crates/sys, which alone may hold `unsafe`.
const SYS_LINTS: &[&str] =
    &["undocumented_unsafe_blocks = \"deny\"", "unsafe_op_in_unsafe_fn = \"deny\"", "unwrap_used = \"warn\""];

pub fn check(root: &Path, files: &[RustFile]) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    complaints.extend(lacks(root, "Cargo.toml", ROOT_LINTS)?);
    complaints.extend(lacks(root, "crates/sys/Cargo.toml", SYS_LINTS)?);
    // Its code is all tests, where unwrapping is fine.
    complaints.extend(lacks(root, "tests/Cargo.toml", &["unsafe_code = \"forbid\""])?);
    for manifest in manifests(root)? {
        if manifest != "crates/sys/Cargo.toml" {
            complaints.extend(lacks(root, &manifest, &["[lints]", "workspace = true"])?);
        }
    }
    for file in files {
        if file.crate_name() != Some("sys") {
            let lines = file.facts.unsafe_lines.iter();
            complaints.extend(lines.map(|line| format!("{}:{line}: `unsafe` belongs into crates/sys", file.path)));
        }
        if !file.is_test_code() {
            let unwraps = file.facts.unwraps.iter();
            complaints.extend(unwraps.map(|call| {
                format!(
                    "{}:{}: `.{}()` outside tests; return an error that says what to do",
                    file.path, call.line, call.text
                )
            }));
        }
    }
    Ok(complaints)
}

fn lacks(root: &Path, manifest: &str, lines: &[&str]) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(root.join(manifest)).with_context(|| format!("read {manifest}"))?;
    let present = |wanted: &str| text.lines().any(|line| line.trim() == wanted);
    Ok(lines.iter().filter(|line| !present(line)).map(|line| format!("{manifest}: lacks the line `{line}`")).collect())
}

fn manifests(root: &Path) -> Result<Vec<String>> {
    let mut found = vec!["xtask/Cargo.toml".to_owned()];
    for entry in std::fs::read_dir(root.join("crates")).context("read crates/")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let manifest = format!("crates/{name}/Cargo.toml");
        if root.join(&manifest).is_file() {
            found.push(manifest);
        }
    }
    Ok(found)
}
