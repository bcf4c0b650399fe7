//! Foreign nouns: words that betray that a crate has learnt something it must not know.
//!
//! Only code counts (identifiers and string literals), never comments; test code is exempt. A word is compared with the
//! parts of an identifier (`mount_count` and `MountCount` both hold `mount`).

use super::RustFile;

/// (crate, words it may not use, why).
const FOREIGN: &[(&str, &[&str], &str)] = &[
    ("api", &["tokio", "axum", "sqlx", "hyper"], "words on the wire have no behaviour"),
    ("sys", &["sandbox", "tokio", "serde", "tracing", "organization"], "words to the kernel know no policy"),
    ("store", &["axum", "hyper", "cgroup", "netns"], "rows know neither HTTP nor the kernel"),
    ("client", &["axum", "sqlx", "cgroup"], "a client knows no server code"),
    // `quota` is not here: btrfs calls its accounting so.
    ("engine", &["axum", "organization", "organizations", "sqlx", "utoipa"], "the engine knows no tenants and no API"),
    ("agent", &["organization", "sqlx", "overlayfs", "btrfs"], "the agent knows only its own sandbox"),
    (
        "control",
        &["cgroup", "cgroups", "namespace", "namespaces", "netns", "mounts", "btrfs", "overlayfs", "seccomp", "sqlx"],
        "the control plane knows no kernel and no SQL",
    ),
    ("gateway", &["sqlx", "cgroup", "organization", "snapshot", "lifecycle"], "the gateway moves bytes"),
    ("specgen-sandbox", &["axum", "sqlx", "cgroup"], "the hands know only the API"),
];

pub fn check(files: &[RustFile]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        let Some(name) = file.crate_name() else { continue };
        if file.is_test_code() {
            continue;
        }
        if let Some((_, words, why)) = FOREIGN.iter().find(|(known, _, _)| *known == name) {
            complaints.extend(foreign(file, words, why));
        }
        if name != "store" {
            complaints.extend(sql(file));
        }
        if !reads_environment(&file.path) {
            let reads = file.facts.env_reads.iter();
            complaints.extend(reads.map(|read| {
                format!("{}:{}: a library reads the environment; take a value instead", file.path, read.line)
            }));
        }
    }
    complaints
}

/// The edges where configuration is parsed once.
fn reads_environment(path: &str) -> bool {
    path.starts_with("crates/infield/")
        || path.starts_with("crates/specgen-sandbox/")
        || path == "crates/agent/src/main.rs"
        || path.ends_with("/build.rs")
}

fn foreign(file: &RustFile, words: &[&str], why: &str) -> Vec<String> {
    let used = file.facts.identifiers.iter();
    used.filter_map(|used| {
        let word = parts(&used.text).into_iter().find(|part| words.contains(&part.as_str()))?;
        Some(format!("{}:{}: `{word}` is a foreign noun here: {why}", file.path, used.line))
    })
    .collect()
}

/// Lower-case parts of a snake, camel or screaming identifier.
fn parts(identifier: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut previous_lower = false;
    for c in identifier.chars() {
        if c == '_' || (c.is_uppercase() && previous_lower) {
            parts.push(String::new());
        }
        previous_lower = c.is_lowercase() || c.is_ascii_digit();
        if c != '_'
            && let Some(part) = parts.last_mut()
        {
            part.extend(c.to_lowercase());
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn sql(file: &RustFile) -> Vec<String> {
    let literals = file.facts.strings.iter().filter(|literal| looks_like_sql(&literal.text));
    literals.map(|literal| format!("{}:{}: SQL text belongs into crates/store", file.path, literal.line)).collect()
}

fn looks_like_sql(literal: &str) -> bool {
    let text = literal.trim_start_matches(['r', '#', '"', 'b']).trim_start();
    let has = |word: &str| text.split_whitespace().any(|w| w == word);
    (text.starts_with("SELECT ") && has("FROM"))
        || text.starts_with("INSERT INTO ")
        || (text.starts_with("UPDATE ") && has("SET"))
        || text.starts_with("DELETE FROM ")
        || text.starts_with("CREATE TABLE ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_split_at_every_joint() {
        assert_eq!(parts("mount_count"), ["mount", "count"]);
        assert_eq!(parts("MountCount"), ["mount", "count"]);
        assert_eq!(parts("MOUNT_MAX"), ["mount", "max"]);
        assert_eq!(parts("amount"), ["amount"]);
    }

    #[test]
    fn sql_is_told_from_prose() {
        assert!(looks_like_sql("\"SELECT id FROM sandbox\""));
        assert!(looks_like_sql("r#\"UPDATE sandbox SET name = $1\"#"));
        assert!(!looks_like_sql("\"SELECT one of them\""));
        assert!(!looks_like_sql("\"UPDATE the table in ARCHITECTURE.md\""));
    }
}
