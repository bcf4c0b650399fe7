//! The control plane behind its real HTTP server, on a simulated host: the contract's acceptance assertions, failures and
//! restarts. Every answer of the contract is checked against spec/api.json on the way (`world::strict`).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod access;
mod failure;
mod list;
mod plan;
mod reshape;
mod sandbox;
mod signing;
mod snapshot;
mod speed;
mod world;
