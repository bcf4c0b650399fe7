//! The container runtime of one host: images, root file systems, disks, control groups, networks and the zygote, behind
//! `api::Runner`.
//!
//! Architecture Invariant: knows no user, organization, quota, database or public API. What cannot be enforced is an error.

mod cgroup;
pub mod disk;
pub mod doctor;
pub mod image;
pub mod net;
mod seccomp;
pub mod zygote;
