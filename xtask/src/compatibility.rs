//! `spec/coverage.json` says of every published operation whether it works here and which test shows it;
//! `docs/compatibility.md` is written from it. Knows nothing of how an operation is built.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

/// An operation as a published specification names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub id: String,
    pub method: String,
    pub path: String,
}

/// One row of `spec/coverage.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub id: String,
    pub method: String,
    pub path: String,
    pub group: String,
    pub status: Status,
    /// `<file below tests/ or crates/>::<function>`.
    #[serde(default)]
    pub tests: Vec<String>,
    #[serde(default)]
    pub note: String,
    /// What an operation that is not built answers, where the contract knows something better than 501.
    #[serde(default)]
    pub answers: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// As published, shown by a test.
    Works,
    /// Built, but it answers otherwise than published; the note says how.
    Differs,
    /// Answers 501 (or `answers`) with the standard error body.
    NotYet,
}

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coverage {
    /// Operations of `spec/api.json`.
    pub api: Vec<Row>,
    /// Operations of `spec/toolbox.json`.
    pub toolbox: Vec<Row>,
    /// What clients call although no published file lists it.
    pub extras: Vec<Row>,
}

impl Coverage {
    pub fn read(root: &Path) -> Result<Self> {
        let path = root.join("spec/coverage.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.api.iter().chain(&self.toolbox).chain(&self.extras)
    }
}

/// The operations of `spec/<name>.json`, in the order of the file.
pub fn published(root: &Path, name: &str) -> Result<Vec<Published>> {
    let path = root.join(format!("spec/{name}.json"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let spec: Value = serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
    let mut found = Vec::new();
    for (path, item) in spec["paths"].as_object().context("a specification has paths")? {
        for (method, operation) in item.as_object().into_iter().flatten() {
            if ["get", "post", "put", "patch", "delete", "head"].contains(&method.as_str()) {
                let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
                found.push(Published { id, method: method.to_uppercase(), path: path.clone() });
            }
        }
    }
    Ok(found)
}

/// Where `coverage.json` and the tree disagree, as sentences.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let coverage = Coverage::read(root)?;
    let mut complaints = covers(&coverage.api, &published(root, "api")?);
    complaints.extend(covers(&coverage.toolbox, &published(root, "toolbox")?));
    for row in coverage.rows() {
        let name = format!("{} {}", row.method, row.path);
        match row.status {
            Status::NotYet => {}
            Status::Works | Status::Differs if row.tests.is_empty() => {
                complaints.push(format!("{name}: no test shows it"));
            }
            Status::Differs if row.note.is_empty() => complaints.push(format!("{name}: differs, but no note says how")),
            Status::Works | Status::Differs => {}
        }
        complaints.extend(
            row.tests
                .iter()
                .filter(|test| !test_exists(root, test))
                .map(|test| format!("{name}: names the test {test}, which does not exist")),
        );
    }
    let document = root.join("docs/compatibility.md");
    if std::fs::read_to_string(&document).unwrap_or_default() != render(&coverage)? {
        complaints.push("docs/compatibility.md: stale; run `cargo run -p xtask -- compatibility`".into());
    }
    Ok(complaints)
}

fn covers(rows: &[Row], published: &[Published]) -> Vec<String> {
    let mut complaints = Vec::new();
    for operation in published {
        let matching = rows.iter().filter(|row| row.method == operation.method && row.path == operation.path);
        match matching.count() {
            1 => {}
            n => complaints.push(format!("{} {}: {n} rows in spec/coverage.json", operation.method, operation.path)),
        }
    }
    let known = |row: &&Row| published.iter().any(|o| o.method == row.method && o.path == row.path && o.id == row.id);
    complaints.extend(
        rows.iter()
            .filter(|row| !known(row))
            .map(|row| format!("{} {}: not a published operation", row.method, row.path)),
    );
    complaints
}

/// A test is a function (Rust, Python) or a case name in quotes (TypeScript) of the named file.
fn test_exists(root: &Path, test: &str) -> bool {
    let Some((file, function)) = test.split_once("::") else { return false };
    let Ok(text) = std::fs::read_to_string(root.join(file)) else { return false };
    ["fn {}(", "def {}(", "function {}("].iter().any(|pattern| text.contains(&pattern.replace("{}", function)))
}

/// Writes `docs/compatibility.md`.
pub fn write(root: &Path) -> Result<PathBuf> {
    let path = root.join("docs/compatibility.md");
    std::fs::write(&path, render(&Coverage::read(root)?)?).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn render(coverage: &Coverage) -> Result<String> {
    let mut out = String::from(PREFACE);
    writeln!(out, "| | works | differs | not yet | of |\n|---|---|---|---|---|")?;
    let sections = [
        ("Control plane", &coverage.api),
        ("Toolbox", &coverage.toolbox),
        ("Called by clients, in no published file", &coverage.extras),
    ];
    for (title, rows) in sections {
        let count = |status| rows.iter().filter(|row| row.status == status).count();
        let (works, differs, not_yet) = (count(Status::Works), count(Status::Differs), count(Status::NotYet));
        writeln!(out, "| {title} | {works} | {differs} | {not_yet} | {} |", rows.len())?;
    }
    for (title, rows) in sections {
        section(&mut out, title, rows)?;
    }
    Ok(out)
}

const PREFACE: &str = "# What works\n\n\
    Written by `cargo run -p xtask -- compatibility` from `spec/coverage.json`; do not edit it by hand.\n\n\
    `works`: as published, and the named test drives it on a real server. `differs`: built, and the note says how it\n\
    answers otherwise. `not yet`: answers `501` (or what the note says) with the standard error body; a test asks each.\n\n";

fn section(out: &mut String, title: &str, rows: &[Row]) -> Result<()> {
    if rows.is_empty() {
        bail!("spec/coverage.json: no rows for {title}");
    }
    let mut groups: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        groups.entry(&row.group).or_default().push(row);
    }
    writeln!(out, "\n## {title}")?;
    for (group, rows) in groups {
        writeln!(out, "\n### {group}\n\n| operation | status | shown by | note |\n|---|---|---|---|")?;
        for row in rows {
            let status = match row.status {
                Status::Works => "works",
                Status::Differs => "differs",
                Status::NotYet => "not yet",
            };
            let tests: Vec<String> =
                row.tests.iter().map(|t| format!("`{}`", t.trim_start_matches("tests/"))).collect();
            writeln!(out, "| `{} {}` | {status} | {} | {} |", row.method, row.path, tests.join(", "), row.note)?;
        }
    }
    Ok(())
}
