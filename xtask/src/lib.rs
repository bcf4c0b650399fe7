//! The checks and generators behind the `xtask` command, as a library so that `cargo test` runs them too.

pub mod compatibility;
pub mod source;
pub mod tidy;

use std::path::PathBuf;

/// The folder that holds the workspace's `Cargo.toml`.
pub fn repository_root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}
