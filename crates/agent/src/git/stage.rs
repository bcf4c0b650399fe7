//! Which entries of the index and of a revision the caller's paths mean: a path is a file or a directory, never a pattern.

use super::failure::{GitFailure, Result};
use git2::{Index, IndexEntry, ObjectType, Repository, Tree};
use infield_api::toolbox::DaemonErrorCode as Code;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Entries by path. Only merged ones (stage 0).
pub type Entries = BTreeMap<PathBuf, IndexEntry>;

/// The path relative to the repository, without `.` elements.
pub fn inside_of(root: &Path, file: &str) -> Result<PathBuf> {
    let path = Path::new(file);
    let relative = if path.is_absolute() { path.strip_prefix(root).ok() } else { Some(path) };
    let outside = || GitFailure::new(Code::BadRequest, format!("{file:?} is outside of the repository"));
    let mut inside = PathBuf::new();
    for part in relative.ok_or_else(outside)?.components() {
        match part {
            Component::Normal(name) => inside.push(name),
            Component::CurDir => {}
            Component::ParentDir if inside.pop() => {}
            _ => return Err(outside()),
        }
    }
    Ok(inside)
}

/// The paths of a request; an empty list is an error.
pub fn wanted(root: &Path, files: Option<&Vec<String>>) -> Result<Vec<PathBuf>> {
    let files = files.map(Vec::as_slice).unwrap_or_default();
    if files.is_empty() {
        return Err(GitFailure::new(Code::BadRequest, "files is empty: name files or directories, or \".\" for all"));
    }
    files.iter().map(|file| inside_of(root, file)).collect()
}

pub fn path_of(entry: &IndexEntry) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&entry.path))
}

pub fn of_index(index: &Index) -> Entries {
    let merged = index.iter().filter(|entry| (entry.flags >> 12) & 3 == 0);
    merged.map(|entry| (path_of(&entry), entry)).collect()
}

/// Paths with entries of more than one side.
pub fn unmerged(index: &Index) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        index.iter().filter(|entry| (entry.flags >> 12) & 3 != 0).map(|entry| path_of(&entry)).collect();
    paths.dedup();
    paths
}

pub fn of_tree(tree: &Tree<'_>) -> Result<Entries> {
    let mut index = Index::new()?;
    index.read_tree(tree)?;
    Ok(of_index(&index))
}

/// The tree of any revision.
pub fn tree_of<'r>(repo: &'r Repository, revision: &str) -> Result<Tree<'r>> {
    let unknown = |_| GitFailure::new(Code::NotFound, format!("unknown revision: {revision}"));
    let object = repo.revparse_single(revision).map_err(unknown)?;
    object.peel(ObjectType::Tree).map_err(unknown)?.into_tree().map_err(|_| unknown(git2::Error::from_str("")))
}

/// Every wanted path must mean something in one of the sets.
pub fn check_matched(wanted: &[PathBuf], sets: &[&Entries], unmerged: &[PathBuf]) -> Result<()> {
    for path in wanted {
        let below = |known: &PathBuf| known.starts_with(path);
        let found = sets.iter().any(|set| set.range(path.clone()..).next().is_some_and(|(first, _)| below(first)));
        // A neighbour may sort between a directory's name and its content ("a-b" before "a/b").
        if !found && !sets.iter().any(|set| set.keys().any(below)) && !unmerged.iter().any(below) {
            let message = format!("pathspec {:?} did not match any files", path.display().to_string());
            return Err(GitFailure::new(Code::BadRequest, message));
        }
    }
    Ok(())
}

pub fn is_wanted(wanted: &[PathBuf], path: &Path) -> bool {
    wanted.iter().any(|w| path.starts_with(w))
}

/// Makes the index hold, at the wanted paths, exactly what `source` has.
pub fn stage(index: &mut Index, source: &Entries, wanted: &[PathBuf]) -> Result<()> {
    let known: Vec<PathBuf> = index.iter().map(|entry| path_of(&entry)).collect();
    for path in known.iter().filter(|path| is_wanted(wanted, path)) {
        let _ = index.conflict_remove(path);
        if !source.contains_key(path) {
            let _ = index.remove_path(path);
        }
    }
    for (_, entry) in source.iter().filter(|(path, _)| is_wanted(wanted, path)) {
        index.add(entry)?;
    }
    Ok(index.write()?)
}

/// Removes a file of the working tree and the directories that it leaves empty. Follows no link on the way.
pub fn remove_file(root: &Path, path: &Path) {
    let mut parent = root.to_owned();
    let Some(directory) = path.parent() else { return };
    for part in directory.components() {
        parent.push(part);
        if !parent.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            return;
        }
    }
    if std::fs::remove_file(root.join(path)).is_err() {
        return;
    }
    while parent != root && std::fs::remove_dir(&parent).is_ok() {
        parent.pop();
    }
}
