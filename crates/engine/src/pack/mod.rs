//! The writable layer of a sandbox as a stream, and back. As an archive it keeps everything, what overlayfs noted included;
//! as an image layer it is what a registry would have sent. The tree was arranged by somebody hostile: nothing in it is
//! followed, and what it can make this program hold in memory is bounded. Knows directories and streams, not sandboxes.

mod header;
mod restore;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use restore::restore;
pub(crate) use tree::pack;

use infield_api::runner::{RunnerError, RunnerErrorKind};
use std::io;
use std::path::PathBuf;

/// What kind of stream is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Everything as it lies on disk.
    Archive,
    /// Like a layer of an image: deleted files as whiteouts, nothing that only one sandbox has.
    Layer,
}

/// What went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packed {
    pub entries: u64,
    /// Of file contents, without holes.
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    #[error("{} {why}", path.display())]
    Refused { path: PathBuf, why: String },
    #[error("cannot {what} {}", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    #[error("the archive is damaged: {0}")]
    Damaged(String),
}

impl From<PackError> for RunnerError {
    fn from(error: PackError) -> Self {
        let full = |e: &io::Error| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let kind = match &error {
            PackError::Refused { .. } => RunnerErrorKind::Conflict,
            PackError::File { source, .. } | PackError::Write(source) if full(source) => RunnerErrorKind::Exhausted,
            _ => RunnerErrorKind::Internal,
        };
        RunnerError::new(kind, crate::error::chain(&error))
    }
}
