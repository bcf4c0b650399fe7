//! Words between runner and zygote: one JSON message per request and answer, descriptors beside it.

use serde::{Deserialize, Serialize};

/// Longest message in either direction.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 10;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Answered with descriptors: user namespace, network namespace.
    Pair { first: u32, count: u32 },
    /// Comes with descriptors: netns, userns, root mount, `cgroups` files to join, then what the agent inherits from 3 up.
    Start { start: Start, cgroups: usize },
}

/// What the zygote has to know about a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub hostname: String,
    /// Which inherited descriptor is the agent's program.
    pub program: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Pair,
    /// Comes with the pidfd.
    Started(Started),
    Failed {
        step: String,
        errno: i32,
        message: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Started {
    pub pid: i32,
    /// Name and microseconds of each part, in order.
    pub phases: Vec<(String, u32)>,
}
