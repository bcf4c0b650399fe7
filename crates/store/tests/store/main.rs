//! The store on both databases.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod databases;
mod people;
mod sandbox;
mod signed_preview;
mod snapshot;
mod ssh_access;
mod usage;
mod volume;
