//! The life of a sandbox.
//!
//! ```text
//!            create            stop, idle                 start
//!   (insert) ─────► creating ─► started ───────► stopped ───────► started
//!                      │           │ agent died     │                │
//!                      └───────────┴──► error ◄─────┴────────────────┘
//!   any settled state ── delete, ephemeral stop, auto-delete ──► destroyed (row purged after a day)
//! ```
//!
//! Handlers write only what is desired ([`commands`]); the one task of a sandbox ([`driver`]) asks [`plan`] for the next
//! step, runs it and writes `state`, comparing before it sets. What is in between exists only as (state, desired) and is
//! shown as an overlay ([`rules::shown`]). [`reconcile`] and [`janitor`] run beside them.

pub mod commands;
pub mod create;
pub mod driver;
pub mod janitor;
pub mod plan;
pub mod reconcile;
pub mod rules;
