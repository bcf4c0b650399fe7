//! The life of a sandbox. Handlers write only what is desired ([`commands`]); the one task of a sandbox ([`driver`]) asks
//! [`plan`] for the next step, runs it and writes `state`. What lies between is (state, desired), shown by [`rules::shown`].
//!
//! ```text
//!   create ─► creating ─► started ◄─ start ─ stopped        delete, ephemeral stop, auto-delete:
//!                │          │  └─ stop, idle ─►  │          any settled state ─► destroyed (row purged after a day)
//!                └──────────┴──► error ◄─────────┘
//! ```

pub mod commands;
pub mod create;
pub mod driver;
pub mod janitor;
pub mod plan;
pub mod reconcile;
pub mod rules;
