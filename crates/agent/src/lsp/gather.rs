//! Which files of a project may define a symbol. For servers that cannot search a project themselves, its files are looked
//! through here and only those that contain the word are asked about. A project may be anything a user put on the disk.

use super::language::Language;
use crate::small_file;
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const DEPTH_MAX: usize = 24;
const ENTRIES_MAX: usize = 50_000;
/// Files read in search of the word, and how much of each.
const FILES_READ_MAX: usize = 5_000;
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Files that the server is asked about.
const FILES_FOUND_MAX: usize = 200;
const SECONDS_MAX: u64 = 10;
/// Directories of other people's code, or of nothing that somebody wrote.
const SKIPPED: [&str; 9] =
    ["node_modules", "__pycache__", "site-packages", "venv", "env", "target", "dist", "build", "vendor"];

/// Files below `project` that belong to the language and contain the word, whatever its case; nearest first.
pub fn candidates(project: &Path, language: Language, word: &str) -> Vec<PathBuf> {
    let until = Instant::now() + Duration::from_secs(SECONDS_MAX);
    let word = word.to_lowercase();
    let mut found = Vec::new();
    let mut waiting = VecDeque::from([(0, project.to_owned())]);
    let (mut entries, mut read) = (0, 0);
    while let Some((depth, dir)) = waiting.pop_front() {
        let mut names: Vec<fs::DirEntry> =
            fs::read_dir(&dir).into_iter().flatten().flatten().take(ENTRIES_MAX - entries).collect();
        names.sort_unstable_by_key(fs::DirEntry::file_name);
        entries += names.len();
        for entry in names {
            let full = read == FILES_READ_MAX || found.len() == FILES_FOUND_MAX;
            if full || Instant::now() > until {
                return found;
            }
            // Links are not followed: they may lead in circles.
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            if kind.is_dir() && depth < DEPTH_MAX && !is_skipped(&entry) {
                waiting.push_back((depth + 1, path));
            } else if kind.is_file() && language.has(&path) {
                read += 1;
                if contains(&path, &word) {
                    found.push(path);
                }
            }
        }
    }
    found
}

fn is_skipped(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    let name = name.to_string_lossy();
    name.starts_with('.') || SKIPPED.contains(&name.as_ref())
}

fn contains(path: &Path, word: &str) -> bool {
    let Ok(text) = small_file::read(path, FILE_BYTES_MAX) else { return false };
    String::from_utf8_lossy(&text).to_lowercase().contains(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_with_the_word_and_no_circles() {
        let dir = std::env::temp_dir().join(format!("ifa-gather-{}", std::process::id()));
        for (name, text) in [
            ("a.py", "class Greeter: pass"),
            ("sub/b.py", "def greet(: # broken"),
            ("sub/c.py", "nothing"),
            ("sub/d.txt", "Greeter"),
            ("node_modules/e.py", "Greeter"),
            (".git/f.py", "Greeter"),
        ] {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        std::os::unix::fs::symlink("..", dir.join("sub/up")).unwrap();
        let found = candidates(&dir, Language::Python, "GREET");
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found, [dir.join("a.py"), dir.join("sub/b.py")]);
    }
}
