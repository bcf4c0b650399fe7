//! `GET /files` and `GET /files/info`.

use super::walk::{Entry, Walk};
use super::{blocking, json_stream, path};
use crate::body;
use crate::error::{Answer, Failure};
use crate::query::Query;
use crate::{sdk, timestamp};
use http::HeaderMap;
use infield_api::toolbox::FileInfo;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

pub async fn info(query: Query) -> Answer {
    let path = query.path("path")?;
    blocking(move || {
        let metadata = fs::metadata(&path).map_err(|e| Failure::file(&path, &e))?;
        Ok(body::ok(&describe(&path::base(&path), &metadata, None)))
    })
    .await
}

pub async fn list(query: Query, headers: HeaderMap) -> Answer {
    let strict = sdk::is_strict_go(&headers);
    let path = if query.bytes("path").is_some() { query.path("path")? } else { PathBuf::from(".") };
    let depth = match query.text("depth") {
        None => 1,
        Some(text) => text
            .parse::<usize>()
            .ok()
            .filter(|d| *d >= 1)
            .ok_or_else(|| Failure::bad_request("depth must be an integer >= 1"))?,
    };
    json_stream::answer("[", "]", move || {
        let walk = Walk::below(path.clone(), depth).map_err(|e| Failure::file(&path, &e))?;
        Ok(walk.map(move |entry| {
            let Entry { relative, full, metadata } = entry?;
            // A link is described as what it leads to, and left out when that is nowhere.
            let metadata = if metadata.is_symlink() { fs::metadata(&full).ok() } else { Some(metadata) };
            let shown = (!strict).then(|| path::join(&path, &relative));
            Ok(metadata.map(|m| describe(&path::base(&relative), &m, shown.as_deref())))
        }))
    })
    .await
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
