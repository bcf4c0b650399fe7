//! The life of a sandbox. Handlers write only what is desired ([`commands`], [`reshape`]); the one task of a sandbox
//! ([`driver`]) asks [`plan`] for the next step, runs it and writes `state`; [`rules::shown`] is what clients see.
//!
//! ```text
//!   create ─► creating ─► started ◄─ start, stop, idle ─► stopped ◄─ start, archive ─► archived
//!                │        ▲  ▲ └─ pause, start ─► paused     ▲     delete, ephemeral stop, auto-delete, end of life:
//!                └► error ┘  └── resizing, snapshotting, ────┘     any settled state ─► destroyed (purged after a day)
//!                   recover      forking: back to what it was
//! ```

pub mod commands;
pub mod create;
pub mod driver;
pub mod janitor;
pub mod plan;
pub mod reconcile;
pub mod reshape;
pub mod rules;
mod spec;
mod steps;
