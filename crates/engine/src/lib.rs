//! The container runtime of one host: images, root file systems, disks, control groups, networks and the zygote, behind
//! `api::Runner`.
//!
//! Architecture Invariant: knows no user, organization, quota, database or public API. What cannot be enforced is an error.

mod archive;
mod assemble;
mod cgroup;
pub mod disk;
pub mod doctor;
mod engine;
mod error;
mod fork;
pub mod image;
mod launch;
pub mod net;
mod pack;
mod pause;
mod probe;
mod proven;
mod record;
mod recover;
mod resize;
mod rootfs;
mod seccomp;
pub mod server;
pub mod setup;
mod shared_tables;
mod slot;
mod stage;
mod stop;
mod volume;
mod warm;
mod watch;
pub mod zygote;

pub use engine::{Engine, EngineConfig, EngineError, Recovery, tag_of};
