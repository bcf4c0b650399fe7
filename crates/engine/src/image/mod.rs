//! Images of one host: where they come from (`pull`, `import`), how they are taken apart safely (`tarfile`, `entry`,
//! `unpack`) and how they lie on disk (`store`). Knows nothing of sandboxes: it hands out directories that overlayfs
//! can use as lower layers, and collects those nobody names any more.

mod archive;
mod config;
mod entry;
mod error;
mod import;
mod layer;
mod manifest;
mod progress;
mod pull;
mod reach;
mod reference;
mod registries;
mod registry;
mod staging;
mod store;
pub(crate) mod tarfile;
mod tarhead;
mod unpack;

pub use config::ImageConfig;
pub use error::{ImageError, Result};
pub use manifest::Platform;
pub use progress::{Progress, Silent, Unit};
pub use pull::PullOptions;
pub use reach::Reach;
pub use reference::Reference;
pub use registries::{Credentials, RegistriesConfig};
pub use staging::Staging;
pub use store::{GcReport, Image, Store};
