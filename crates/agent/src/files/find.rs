//! `GET /files/find` (text in files) and `GET /files/search` (names).

use super::{blocking, glob, path};
use crate::body;
use crate::error::Answer;
use crate::query::Query;
use crate::small_file;
use infield_api::toolbox::{Match, SearchFilesResponse};
use memchr::memmem;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// A file with a NUL byte in its beginning is not searched.
const SNIFF_BYTES: usize = 512;
/// Longer lines are cut here, for the search as for the answer.
const LINE_BYTES_MAX: usize = 64 << 10;
/// The search stops when it has found this much.
const FOUND_BYTES_MAX: usize = 32 << 20;
const FOUND_NAMES_MAX: usize = 200_000;
const READ_BUFFER_BYTES: usize = 128 << 10;

pub async fn find(query: Query) -> Answer {
    let (root, pattern) = (query.path("path")?, query.required("pattern")?.to_vec());
    blocking(move || {
        let mut found = Found { finder: memmem::Finder::new(&pattern), matches: Vec::new(), bytes: 0 };
        walk(&root, |file, is_file| {
            if is_file {
                // A file that cannot be read is left out.
                let _ = found.search_file(file);
            }
            found.bytes < FOUND_BYTES_MAX
        });
        Ok(body::ok(&found.matches))
    })
    .await
}

pub async fn search(query: Query) -> Answer {
    let (root, pattern) = (query.path("path")?, query.required("pattern")?.to_vec());
    blocking(move || {
        let pattern = String::from_utf8_lossy(&pattern).into_owned();
        let mut files = Vec::new();
        walk(&root, |file, _| {
            if glob::matches(&pattern, &String::from_utf8_lossy(&path::base(file))) {
                files.push(file.to_string_lossy().into_owned());
            }
            files.len() < FOUND_NAMES_MAX
        });
        Ok(body::ok(&SearchFilesResponse { files }))
    })
    .await
}

/// Calls `visit` with everything below `root` and itself, by name, without following links. Stops when it says `false`.
fn walk(root: &Path, mut visit: impl FnMut(&Path, bool) -> bool) {
    let mut pending = vec![root.to_owned()];
    while let Some(at) = pending.pop() {
        let Ok(metadata) = fs::symlink_metadata(&at) else { continue };
        if !visit(&at, metadata.is_file()) {
            return;
        }
        if metadata.is_dir() {
            let mut below: Vec<PathBuf> = fs::read_dir(&at)
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(path::join(&at, Path::new(&entry.ok()?.file_name()))))
                .collect();
            below.sort_unstable_by(|a, b| b.cmp(a));
            pending.extend(below);
        }
    }
}

struct Found<'a> {
    finder: memmem::Finder<'a>,
    matches: Vec<Match>,
    bytes: usize,
}

impl Found<'_> {
    fn search_file(&mut self, file: &Path) -> std::io::Result<()> {
        let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, small_file::open_regular(file)?);
        let start = reader.fill_buf()?;
        if memchr::memchr(0, &start[..start.len().min(SNIFF_BYTES)]).is_some() {
            return Ok(());
        }
        let mut line = Vec::new();
        let mut number = 0;
        while read_line(&mut reader, &mut line)? {
            number += 1;
            if self.finder.find(&line).is_some() {
                self.add(file, number, &line);
                if self.bytes >= FOUND_BYTES_MAX {
                    break;
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, file: &Path, line: u64, content: &[u8]) {
        let found = Match {
            file: file.to_string_lossy().into_owned(),
            line,
            content: String::from_utf8_lossy(content.strip_suffix(b"\r").unwrap_or(content)).into_owned(),
        };
        self.bytes += found.file.len() + found.content.len() + size_of::<Match>();
        self.matches.push(found);
    }
}

/// One line without its end into `line`, cut at the bound. `false` at the end of the file.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = memchr::memchr(b'\n', buffer);
        let taken = end.unwrap_or(buffer.len());
        let room = LINE_BYTES_MAX - line.len();
        line.extend_from_slice(&buffer[..taken.min(room)]);
        reader.consume(end.map_or(taken, |at| at + 1));
        if end.is_some() {
            return Ok(true);
        }
    }
}
