//! A private world for each black-box test: a real server with its own data directory, port and addresses, and on leaving
//! a look for everything it could have left behind.
//!
//! It drives the built binary and the published interfaces only; it links none of the product's crates.

pub mod footprint;
pub mod git;
pub mod http;
pub mod postgres;
pub mod process;
pub mod registry;
pub mod sdk;
pub mod subnet;
pub mod world;

pub use git::GitServer;
pub use http::{Api, Reply};
pub use world::{Options, World};

use std::time::{Duration, Instant};

/// Waits until `condition` gives a value; panics with `what` when it never does.
pub fn eventually<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < within, "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The middle value.
pub fn median(mut samples: Vec<Duration>) -> Duration {
    assert!(!samples.is_empty(), "a median of nothing");
    samples.sort();
    samples[samples.len() / 2]
}
