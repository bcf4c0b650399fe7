//! `GET /files` and `GET /files/info`.

use super::{blocking, path};
use crate::body;
use crate::error::{Answer, Failure};
use crate::query::Query;
use crate::timestamp;
use infield_api::toolbox::FileInfo;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// More than this is asked for in several requests.
const LIST_ENTRIES_MAX: usize = 200_000;

pub async fn info(query: Query) -> Answer {
    let path = query.path("path")?;
    blocking(move || {
        let metadata = fs::metadata(&path).map_err(|e| Failure::file(&path, &e))?;
        Ok(body::ok(&describe(&path::base(&path), &metadata, None)))
    })
    .await
}

pub async fn list(query: Query) -> Answer {
    let path = if query.bytes("path").is_some() { query.path("path")? } else { PathBuf::from(".") };
    let depth = match query.text("depth") {
        None => 1,
        Some(text) => text
            .parse::<usize>()
            .ok()
            .filter(|d| *d >= 1)
            .ok_or_else(|| Failure::bad_request("depth must be an integer >= 1"))?,
    };
    blocking(move || {
        let mut found = Vec::new();
        walk(&path, depth, &mut found).map_err(|e| Failure::file(&path, &e))?;
        Ok(body::ok(&found))
    })
    .await
}

/// Pre-order, by name, symbolic links not entered. Iterative, because a tree can be deeper than a stack.
fn walk(root: &Path, depth: usize, found: &mut Vec<FileInfo>) -> io::Result<()> {
    let mut pending: Vec<(PathBuf, usize)> = entries(root, Path::new(""))?.into_iter().map(|p| (p, 1)).collect();
    while let Some((relative, level)) = pending.pop() {
        let full = root.join(&relative);
        let Ok(metadata) = fs::metadata(&full) else { continue };
        if found.len() >= LIST_ENTRIES_MAX {
            return Err(io::Error::other(format!("more than {LIST_ENTRIES_MAX} entries; list with a smaller depth")));
        }
        found.push(describe(&path::base(&relative), &metadata, Some(&path::join(root, &relative))));
        let is_real_dir = metadata.is_dir() && fs::symlink_metadata(&full).is_ok_and(|m| m.is_dir());
        if level < depth
            && is_real_dir
            && let Ok(below) = entries(root, &relative)
        {
            pending.extend(below.into_iter().map(|p| (p, level + 1)));
        }
    }
    Ok(())
}

/// Relative paths of a directory's entries in descending order, so that a stack gives them ascending.
fn entries(root: &Path, relative: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names: Vec<_> = Vec::new();
    for entry in fs::read_dir(root.join(relative))? {
        if names.len() > LIST_ENTRIES_MAX {
            break;
        }
        names.push(entry?.file_name());
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names.into_iter().map(|name| relative.join(name)).collect())
}

fn describe(name: &[u8], metadata: &Metadata, path: Option<&Path>) -> FileInfo {
    let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
    FileInfo {
        name: String::from_utf8_lossy(name).into_owned(),
        path: path.map(|p| p.to_string_lossy().into_owned()),
        size: metadata.size(),
        mode: go_mode(metadata),
        mod_time: timestamp::go_text(seconds, nanoseconds),
        modified_at: timestamp::rfc3339(seconds, nanoseconds),
        is_dir: metadata.is_dir(),
        owner: metadata.uid().to_string(),
        group: metadata.gid().to_string(),
        permissions: format!("{:04o}", metadata.mode() & 0o777),
    }
}

/// Letters for the type and the special bits, then `rwxrwxrwx`.
fn go_mode(metadata: &Metadata) -> String {
    let (mode, kind) = (metadata.mode(), metadata.file_type());
    let mut text = String::new();
    let letters = [
        (kind.is_dir(), "d"),
        (kind.is_symlink(), "L"),
        (kind.is_block_device(), "D"),
        (kind.is_fifo(), "p"),
        (kind.is_socket(), "S"),
        (mode & 0o4000 != 0, "u"),
        (mode & 0o2000 != 0, "g"),
        (kind.is_char_device(), "Dc"),
        (mode & 0o1000 != 0, "t"),
    ];
    letters.iter().filter(|(on, _)| *on).for_each(|(_, letter)| text.push_str(letter));
    if text.is_empty() {
        text.push('-');
    }
    for (bit, letter) in (0..9).rev().zip("rwxrwxrwx".chars()) {
        text.push(if mode & (1 << bit) != 0 { letter } else { '-' });
    }
    text
}
