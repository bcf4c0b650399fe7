//! The house rules as a test: what ARCHITECTURE.md promises of the tree is checked here, and it only ratchets down.
//!
//! Every rule returns sentences; none of them changes a file.

mod dependencies;
mod edges;
mod lints;
mod nouns;
mod ratchet;
mod sizes;

use crate::source::{self, Facts};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One tracked file of Rust, read and parsed.
pub struct RustFile {
    /// Relative to the repository, with `/`.
    pub path: String,
    pub text: String,
    pub facts: Facts,
}

impl RustFile {
    /// The crate's folder name for files below `crates/`.
    pub fn crate_name(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }

    /// Code that only tests run: whole files by their place or name.
    pub fn is_test_code(&self) -> bool {
        let in_folder = self.path.split('/').any(|part| part == "tests" || part == "benches" || part == "fuzz");
        let name = self.path.rsplit('/').next().unwrap_or_default();
        in_folder || name == "tests.rs" || name.ends_with("_tests.rs") || self.path.starts_with("xtask/")
    }
}

/// Every complaint about the tree at `root`.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let tracked = tracked_files(root)?;
    let mut complaints = Vec::new();
    let rust = read_rust(root, &tracked, &mut complaints)?;
    let mut ratchet = ratchet::Ratchet::read(root)?;
    complaints.extend(sizes::check(&rust, &mut ratchet));
    complaints.extend(ratchet.finish());
    complaints.extend(nouns::check(&rust));
    complaints.extend(lints::check(root, &rust)?);
    complaints.extend(edges::check(root)?);
    complaints.extend(dependencies::check(root)?);
    complaints.extend(machine_paths(root, &tracked)?);
    complaints.extend(operations_in_step(root)?);
    Ok(complaints)
}

/// Tracked files and new ones that git does not ignore.
fn tracked_files(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("run git ls-files")?;
    anyhow::ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).context("file names are UTF-8")?;
    let mut files: Vec<String> = names.split('\0').filter(|n| !n.is_empty()).map(str::to_owned).collect();
    files.retain(|name| root.join(name).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}

fn read_rust(root: &Path, tracked: &[String], complaints: &mut Vec<String>) -> Result<Vec<RustFile>> {
    let mut files = Vec::new();
    for path in tracked.iter().filter(|path| path.ends_with(".rs")) {
        let text = std::fs::read_to_string(root.join(path)).with_context(|| format!("read {path}"))?;
        match source::read(&text) {
            Ok(facts) => files.push(RustFile { path: path.clone(), text, facts }),
            Err(error) => complaints.push(format!("{path}: does not parse: {error}")),
        }
    }
    Ok(files)
}

/// Paths of the machine somebody wrote this on, put together so that this file does not hold them.
fn machine_paths(root: &Path, tracked: &[String]) -> Result<Vec<String>> {
    let forbidden = [["/wo", "rk/"].concat(), ["/tmp/", "infield/"].concat()];
    let mut complaints = Vec::new();
    for path in tracked {
        let Ok(text) = std::fs::read_to_string(root.join(path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            let foreign = forbidden.iter().any(|word| names_absolute(line, word));
            if foreign {
                complaints.push(format!("{path}:{}: names a path of one machine", number + 1));
            }
        }
    }
    Ok(complaints)
}

/// The word begins an absolute path: what stands before it is no part of a longer path or of a format string.
fn names_absolute(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !(c.is_alphanumeric() || "}_-.)*".contains(c)))
    })
}

/// The control plane's table of operations names exactly what the published specification names.
fn operations_in_step(root: &Path) -> Result<Vec<String>> {
    let table: PathBuf = root.join("crates/control/src/operations.txt");
    let Ok(text) = std::fs::read_to_string(&table) else {
        return Ok(vec!["crates/control/src/operations.txt: missing; it lists every published operation".into()]);
    };
    let spec = crate::compatibility::published(root, "api")?;
    let listed: Vec<(String, String)> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_uppercase(), words.next()?.to_owned()))
        })
        .collect();
    let mut complaints = Vec::new();
    for operation in &spec {
        let wanted = (operation.method.clone(), operation.path.clone());
        if !listed.contains(&wanted) {
            complaints.push(format!("crates/control/src/operations.txt: lacks {} {}", wanted.0, wanted.1));
        }
    }
    Ok(complaints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_path_is_told_from_a_longer_path() {
        assert!(names_absolute("cd \"/srv/x\"", "/srv/"));
        assert!(!names_absolute("{upper}/srv/x", "/srv/"));
        assert!(!names_absolute("a/srv/x", "/srv/"));
    }
}
