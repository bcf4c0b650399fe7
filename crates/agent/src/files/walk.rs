//! Going through a tree one entry at a time: in pre-order, by name, symbolic links not entered, folders that cannot be read
//! left out. What waits to be visited is held in memory, so that is bounded; depth costs no stack.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

/// Names that wait, with what holding them costs. Some 400,000 usual ones.
const WAITING_BYTES_MAX: usize = 32 << 20;
const NAME_OVERHEAD_BYTES: usize = 48;

/// One entry. Its metadata is its own, not that of what a link leads to.
pub struct Entry {
    /// Below the root; empty for the root itself.
    pub relative: PathBuf,
    pub full: PathBuf,
    pub metadata: Metadata,
}

/// A folder being gone through.
struct Level {
    relative: PathBuf,
    /// In descending order: the next one is the last.
    names: Vec<OsString>,
}

pub struct Walk {
    root: PathBuf,
    depth_max: usize,
    root_waits: bool,
    levels: Vec<Level>,
    waiting_bytes: usize,
}

impl Walk {
    /// The root and everything below it. A root that does not exist is an empty tree.
    pub fn with_root(root: PathBuf) -> Self {
        Self { root, depth_max: usize::MAX, root_waits: true, levels: Vec::new(), waiting_bytes: 0 }
    }

    /// What lies below the root, so deep; the root must be a folder that can be read.
    pub fn below(root: PathBuf, depth_max: usize) -> io::Result<Self> {
        let mut walk = Self { root, depth_max, root_waits: false, levels: Vec::new(), waiting_bytes: 0 };
        walk.enter(PathBuf::new())?;
        Ok(walk)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn full(&self, relative: &Path) -> PathBuf {
        if relative.as_os_str().is_empty() { self.root.clone() } else { self.root.join(relative) }
    }

    fn enter(&mut self, relative: PathBuf) -> io::Result<()> {
        let full = self.full(&relative);
        let mut names = Vec::new();
        for entry in fs::read_dir(&full)? {
            let name = entry?.file_name();
            self.waiting_bytes += cost(&name);
            if self.waiting_bytes > WAITING_BYTES_MAX {
                let text = format!("{} has too many entries to sort; use a command instead", full.display());
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, text));
            }
            names.push(name);
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        self.levels.push(Level { relative, names });
        Ok(())
    }

    fn next_path(&mut self) -> Option<PathBuf> {
        if std::mem::take(&mut self.root_waits) {
            return Some(PathBuf::new());
        }
        loop {
            let level = self.levels.last_mut()?;
            match level.names.pop() {
                Some(name) => {
                    self.waiting_bytes = self.waiting_bytes.saturating_sub(cost(&name));
                    return Some(level.relative.join(name));
                }
                None => drop(self.levels.pop()),
            }
        }
    }
}

fn cost(name: &OsString) -> usize {
    name.len() + NAME_OVERHEAD_BYTES
}

impl Iterator for Walk {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<io::Result<Entry>> {
        loop {
            let relative = self.next_path()?;
            let full = self.full(&relative);
            // Gone again.
            let Ok(metadata) = fs::symlink_metadata(&full) else { continue };
            if metadata.is_dir()
                && self.levels.len() < self.depth_max
                && let Err(e) = self.enter(relative.clone())
                && e.kind() == io::ErrorKind::QuotaExceeded
            {
                return Some(Err(e));
            }
            return Some(Ok(Entry { relative, full, metadata }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(walk: Walk) -> Vec<String> {
        walk.map(|e| e.unwrap().relative.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn pre_order_to_a_depth_and_no_links() {
        let root = std::env::temp_dir().join(format!("infield-walk-{}", std::process::id()));
        fs::create_dir_all(root.join("b/c/d")).unwrap();
        fs::write(root.join("a"), "").unwrap();
        fs::write(root.join("b.txt"), "").unwrap();
        std::os::unix::fs::symlink("b", root.join("link")).unwrap();
        assert_eq!(names(Walk::below(root.clone(), 1).unwrap()), ["a", "b", "b.txt", "link"]);
        assert_eq!(names(Walk::below(root.clone(), 2).unwrap()), ["a", "b", "b/c", "b.txt", "link"]);
        assert_eq!(names(Walk::with_root(root.clone())), ["", "a", "b", "b/c", "b/c/d", "b.txt", "link"]);
        assert!(Walk::below(root.join("a"), 1).is_err());
        assert!(names(Walk::with_root(root.join("none"))).is_empty());
        fs::remove_dir_all(root).unwrap();
    }
}
