//! The control plane: the public API over a store and a runner.
//!
//! Architecture Invariant: knows axum, the store and `dyn Runner`; no namespaces, cgroups, mounts, host paths or SQL text.
//! Handlers in `http/` are thin; what happens to sandboxes is in `lifecycle/`.

mod activity;
mod agent;
mod app;
mod auth;
mod bootstrap;
mod cache;
mod clock;
mod directory;
mod error;
mod events;
mod http;
mod lifecycle;
mod names;
mod secret;
mod signed_url;
pub mod simulation;
mod snapshots;
mod volumes;

pub use app::{App, ControlConfig, Limits, REGION, SshListener};
pub use bootstrap::{ADMIN, AdminKey, another_admin_key, bootstrap};
pub use http::openapi::openapi_json;
/// The pure heart of the lifecycle, for its property test.
pub use lifecycle::plan;
