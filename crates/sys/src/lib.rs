//! Words to the kernel. All `unsafe` code of Infield lives here, each block with the reason why it is sound.
//!
//! Architecture Invariant: nothing here knows sandboxes, policy, serialization, logging or an async runtime. Functions take
//! plain data and descriptors and answer `std::io::Error` or an error that names the step that failed.

pub mod agent_fd;
#[cfg(feature = "git")]
pub mod agent_git;
pub mod beneath;
pub mod btrfs;
pub mod caps;
pub mod child;
pub mod fd;
pub mod loopdev;
pub mod memfd;
pub mod mount;
pub mod netlink;
pub mod ns;
pub mod pid1;
pub mod pidfd;
pub mod process;
pub mod seccomp;
pub mod socket;
pub mod trial;
