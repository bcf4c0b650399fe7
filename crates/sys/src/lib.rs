//! Words to the kernel. All `unsafe` code of Infield lives here, each block with the reason why it is sound.
//!
//! Architecture Invariant: nothing here knows sandboxes, policy, serialization, logging or an async runtime. Functions take
//! plain data and descriptors and answer `std::io::Error` or an error that names the step that failed.

pub mod child;
pub mod fd;
