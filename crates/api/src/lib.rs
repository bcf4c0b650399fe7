//! Words on the wire, shared by every room of the house: ids, states, DTOs, the error body and the seam traits.
//!
//! Architecture Invariant: plain data only. Nothing here knows tokio, axum, SQL, files, the environment or any behaviour
//! beyond parsing and printing itself.

#[cfg(unix)]
pub mod directory;
#[cfg(unix)]
pub mod runner;
pub mod state;
pub mod toolbox;

mod id;
pub use id::SandboxId;
