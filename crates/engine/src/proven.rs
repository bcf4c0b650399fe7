//! Which images an agent has begun in, as which user: another sandbox of the same kind need not be waited for.
//!
//! A fresh agent fails only for what its image and user lack, and takes a millisecond to say that all is well. Its first
//! request waits in the listening socket anyway; should it die all the same, the watch notices.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Kinds remembered; beyond that all are forgotten and proven again.
const KINDS_MAX: usize = 1024;

/// What an agent's beginning depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub image_id: String,
    pub user: Option<String>,
}

/// Kinds that have begun, with the version their agent answered.
#[derive(Debug, Default)]
pub(crate) struct Proven(Mutex<HashMap<Kind, String>>);

impl Proven {
    pub(crate) fn version(&self, kind: &Kind) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(kind).cloned()
    }

    pub(crate) fn note(&self, kind: Kind, version: &str) {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kinds.len() >= KINDS_MAX {
            kinds.clear();
        }
        kinds.insert(kind, version.to_owned());
    }
}
