//! Tables of the kernel that all sandboxes share and that no control group counts, raised so that a few sandboxes cannot use
//! up what the others need.

use std::fs;
use std::io;

/// Pseudo-terminals: each sandbox may open a thousand, the kernel's own bound is for the whole host.
const TABLES: [(&str, u64); 1] = [("/proc/sys/kernel/pty/max", 1 << 20)];

/// Never lowers anything. A table that cannot be raised is logged: sandboxes run all the same.
pub(crate) fn raise() {
    for (path, least) in TABLES {
        if let Err(error) = raise_one(path, least) {
            tracing::warn!(path, %error, "cannot raise a table of the kernel; few sandboxes can fill it for all");
        }
    }
}

fn raise_one(path: &str, least: u64) -> io::Result<()> {
    let now: u64 = fs::read_to_string(path)?.trim().parse().map_err(io::Error::other)?;
    if now < least { fs::write(path, least.to_string()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_raised_and_never_lowered() {
        let file = std::env::temp_dir().join(format!("infield-table-{}", std::process::id()));
        let path = file.to_str().unwrap();
        let after = |before: &str| {
            fs::write(path, before).unwrap();
            raise_one(path, 100).unwrap();
            fs::read_to_string(path).unwrap()
        };
        assert_eq!(
            (after("7\n").as_str(), after("100\n").as_str(), after("101\n").as_str()),
            ("100", "100\n", "101\n")
        );
        fs::write(path, "many").unwrap();
        assert!(raise_one(path, 100).is_err());
        fs::remove_file(file).unwrap();
    }
}
