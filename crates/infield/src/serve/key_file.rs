//! The first key on its way from the API process, which makes it, to a file that only root reads.
//!
//! It travels over a pipe: not in arguments, not in the environment, not in a file that the API's user keeps.

use crate::paths::{self, Paths};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::ChildStdout,
};

/// Tells the API process whether the local command line lacks a key.
pub const WANTED_ENV: &str = "INFIELD_KEY_WANTED";
const LINE_PREFIX: &str = "admin-key ";
/// Everything that the API process may ever say on its standard output.
const SAID_BYTES_MAX: u64 = 4096;

#[derive(Clone)]
pub struct KeyFile {
    paths: Paths,
}

impl KeyFile {
    pub fn new(paths: Paths) -> Self {
        Self { paths }
    }

    pub fn is_missing(&self) -> bool {
        !self.paths.admin_key().exists()
    }

    /// Waits for a key, keeps it and shows it this once.
    pub async fn receive(self, stdout: ChildStdout) {
        let mut lines = BufReader::new(stdout.take(SAID_BYTES_MAX)).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(key) = line.strip_prefix(LINE_PREFIX).filter(|key| is_key(key)) {
                self.keep(key);
            }
        }
    }

    fn keep(&self, key: &str) {
        let path = self.paths.admin_key();
        if let Err(e) = paths::write_file(&path, 0o600, &format!("{key}\n")) {
            eprintln!("infield: cannot write {}: {e}", path.display());
        }
        let url = std::fs::read_to_string(self.paths.api_url()).unwrap_or_default();
        println!("admin key, shown this once (kept for the local command line in {}):", path.display());
        println!("  export DAYTONA_API_URL={} DAYTONA_API_KEY={key}", url.trim());
    }
}

/// What the API process says when it made a key.
pub fn line(key: &str) -> String {
    format!("{LINE_PREFIX}{key}")
}

pub fn wanted() -> bool {
    std::env::var(WANTED_ENV).is_ok_and(|wanted| wanted == "1")
}

/// Exactly what the contract says a key is: the file is read by root's command line.
fn is_key(text: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.strip_prefix("dtn_").is_some_and(|rest| rest.len() == 64 && rest.bytes().all(hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_are_keys() {
        assert!(is_key(&format!("dtn_{}", "0a".repeat(32))));
        for text in ["", "dtn_", "dtn_$(reboot)", &format!("dtn_{}", "G".repeat(64))] {
            assert!(!is_key(text), "{text}");
        }
    }
}
