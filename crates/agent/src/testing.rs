//! The pure parts that the property tests and fuzz targets reach. Not an interface.

pub use crate::direct::simple_words;
pub use crate::files::disposition::{latin1_name, rfc5987_name};
pub use crate::files::glob::matches as glob_matches;
pub use crate::files::multipart::{Event, Limits, Parser, boundary_of};
pub use crate::json_text::json_of_lossy;
pub use crate::query::Query;
