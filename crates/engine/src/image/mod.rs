//! Images of one host: where they come from (`pull`, `import`), how they are taken apart safely (`tarfile`, `entry`,
//! `unpack`) and how they lie on disk (`store`). Knows nothing of sandboxes: it hands out directories that overlayfs
//! can use as lower layers, and collects those nobody names any more.

mod archive;
mod config;
mod entry;
mod error;
mod import;
mod layer;
mod progress;
mod reference;
mod staging;
mod store;
mod tarfile;
mod tarhead;
mod unpack;

pub use config::ImageConfig;
pub use error::{ImageError, Result};
pub use progress::{Progress, Silent, Unit};
pub use reference::Reference;
pub use staging::Staging;
pub use store::{GcReport, Image, Store};
