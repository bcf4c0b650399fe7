//! Words on the wire, shared by every room of the house: ids, states, DTOs, the error body and the seam traits.
//!
//! Architecture Invariant: plain data only. Nothing here knows tokio, axum, SQL, files, the environment or any behaviour
//! beyond parsing and printing itself.

pub mod api_key;
pub mod config;
#[cfg(unix)]
pub mod directory;
pub mod error;
pub mod organization;
pub mod preview;
#[cfg(unix)]
pub mod runner;
pub mod sandbox;
pub mod snapshot;
pub mod ssh;
pub mod state;
pub mod toolbox;
pub mod user;
pub mod volume;

mod id;
pub use id::SandboxId;
