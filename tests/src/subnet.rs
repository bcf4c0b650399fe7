//! Address ranges for servers that run at the same time: sixteen /20 below 10.213.0.0/16, each held by a file lock that
//! goes with the process.

use std::fs::{File, OpenOptions};

/// A range that no other test process uses while this value lives.
pub struct Subnet {
    number: u32,
    _lock: File,
}

impl Subnet {
    /// The first free range.
    pub fn claim() -> Self {
        let folder = std::env::temp_dir().join("infield-test-subnets");
        std::fs::create_dir_all(&folder).unwrap();
        crate::eventually("a free subnet", std::time::Duration::from_secs(300), || {
            (0..16).find_map(|number| {
                let path = folder.join(number.to_string());
                let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).unwrap();
                file.try_lock().ok().map(|()| Self { number, _lock: file })
            })
        })
    }

    /// As the server's option wants it.
    pub fn cidr(&self) -> String {
        format!("10.213.{}.0/20", self.number * 16)
    }
}
