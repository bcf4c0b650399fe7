//! Errors as sentences: an error with all its causes on one line, and as what the control plane may see.

use infield_api::runner::{RunnerError, RunnerErrorKind};

/// `what: cause: deeper cause`. A source that the display already repeats is not said twice.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let said = source.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = source.source();
    }
    text
}

pub(crate) fn internal(error: &dyn std::error::Error) -> RunnerError {
    RunnerError::new(RunnerErrorKind::Internal, chain(error))
}

impl From<crate::slot::SlotError> for RunnerError {
    fn from(error: crate::slot::SlotError) -> Self {
        let kind = match error {
            crate::slot::SlotError::Exhausted(_) => RunnerErrorKind::Exhausted,
            crate::slot::SlotError::Zygote(crate::zygote::ZygoteError::Gone(_)) => RunnerErrorKind::Unavailable,
            _ => RunnerErrorKind::Internal,
        };
        RunnerError::new(kind, chain(&error))
    }
}

impl From<crate::disk::DiskError> for RunnerError {
    fn from(error: crate::disk::DiskError) -> Self {
        use crate::disk::DiskError;
        let kind = match error {
            DiskError::Exhausted(_) => RunnerErrorKind::Exhausted,
            DiskError::Exists(_) => RunnerErrorKind::Conflict,
            DiskError::NotFound(_) => RunnerErrorKind::NotFound,
            DiskError::Invalid(_) => RunnerErrorKind::Invalid,
            DiskError::Unsupported(_) => RunnerErrorKind::Unsupported,
            _ => RunnerErrorKind::Internal,
        };
        RunnerError::new(kind, chain(&error))
    }
}
