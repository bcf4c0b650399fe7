//! The Rust SDK: a typed async client of the API and of the toolbox inside a sandbox, and the runner over its socket.
//!
//! Architecture Invariant: no server code, no terminal, no environment variables; what a caller wants is an argument.

pub mod api;
pub mod dto;
pub mod error;
pub mod exec;
mod multipart;
pub mod toolbox;
mod transport;

#[cfg(unix)]
mod runner;

pub use api::Api;
pub use error::ClientError;
#[cfg(unix)]
pub use runner::RemoteRunner;
pub use toolbox::Toolbox;
pub use transport::Endpoint;
