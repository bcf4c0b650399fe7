//! One file per command: its arguments (the doc comments are the help) and what it does.

pub mod delete;
pub mod exec;
pub mod info;
pub mod list;
pub mod spin;
pub mod sync;

/// Label that remembers where the repository lies in the sandbox, so that `exec` and `sync` need not be told.
pub const WORKDIR_LABEL: &str = "infield.dev/workdir";
/// Label that remembers what was cloned.
pub const REPO_LABEL: &str = "infield.dev/repo";

use infield_client::dto::Sandbox;

pub fn workdir<'a>(sandbox: &'a Sandbox, asked: Option<&'a str>) -> Option<&'a str> {
    asked.or_else(|| sandbox.labels.get(WORKDIR_LABEL).map(String::as_str)).filter(|dir| !dir.is_empty())
}
