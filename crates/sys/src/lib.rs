//! Words to the kernel. All `unsafe` code of Infield lives here, each block with the reason why it is sound.
//!
//! Architecture Invariant: nothing here knows sandboxes, policy, serialization, logging or an async runtime. Functions take
//! plain data and descriptors and answer `std::io::Error` or an error that names the step that failed.

#[cfg(feature = "git")]
pub mod agent_git;
pub mod beneath;
pub mod caps;
pub mod child;
pub mod fd;
pub mod memfd;
pub mod mount;
pub mod ns;
pub mod pidfd;
pub mod process;
pub mod sandbox;
pub mod seccomp;
pub mod socket;
