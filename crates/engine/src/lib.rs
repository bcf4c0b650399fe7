//! Being built.

pub mod image;
pub mod disk;
pub mod net;
pub mod doctor;
