//! `GET /files/find` (text in files) and `GET /files/search` (names).

use super::walk::Walk;
use super::{glob, json_stream, path};
use crate::error::Answer;
use crate::query::Query;
use crate::small_file;
use infield_api::toolbox::Match;
use memchr::memmem::Finder;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

/// A file with a NUL byte in its beginning is not searched.
const SNIFF_BYTES: usize = 512;
/// Longer lines are searched as a whole and shown cut.
const LINE_BYTES_MAX: usize = 64 << 10;
const READ_BUFFER_BYTES: usize = 128 << 10;
/// Lines that were looked at in vain before somebody asks whether to go on.
const LINES_PER_STEP: usize = 1_000;

pub async fn find(query: Query) -> Answer {
    let (root, pattern) = (query.path("path")?, query.required("pattern")?.to_vec());
    json_stream::answer("[", "]", move || {
        let finder = Finder::new(&pattern).into_owned();
        Ok(Find { walk: Walk::with_root(root), finder, file: None })
    })
    .await
}

pub async fn search(query: Query) -> Answer {
    let (root, pattern) = (query.path("path")?, query.required("pattern")?.to_vec());
    json_stream::answer("{\"files\":[", "]}", move || {
        let pattern = String::from_utf8_lossy(&pattern).into_owned();
        Ok(Walk::with_root(root.clone()).map(move |entry| {
            let path = shown(&root, &entry?.relative);
            let fits = glob::matches(&pattern, &String::from_utf8_lossy(&path::base(&path)));
            Ok(fits.then(|| path.to_string_lossy().into_owned()))
        }))
    })
    .await
}

/// The root as it was given, what is below it as Go joins it.
fn shown(root: &Path, relative: &Path) -> PathBuf {
    if relative.as_os_str().is_empty() { root.to_owned() } else { path::join(root, relative) }
}

struct Find {
    walk: Walk,
    finder: Finder<'static>,
    file: Option<Searched>,
}

/// A file being searched.
struct Searched {
    shown: String,
    reader: BufReader<File>,
    line: Line,
    number: u64,
}

impl Iterator for Find {
    type Item = io::Result<Option<Match>>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(file) = &mut self.file {
            match file.step(&self.finder) {
                // The rest of a file that cannot be read is left out.
                Ok(Step::End) | Err(_) => self.file = None,
                Ok(Step::Nothing) => {}
                Ok(Step::Found(found)) => return Some(Ok(Some(found))),
            }
            return Some(Ok(None));
        }
        let entry = match self.walk.next()? {
            Ok(entry) => entry,
            Err(e) => return Some(Err(e)),
        };
        if entry.metadata.is_file() && entry.metadata.len() > 0 {
            let path = shown(self.walk.root(), &entry.relative);
            self.file = Searched::open(&entry.full, &path).ok().flatten();
        }
        Some(Ok(None))
    }
}

enum Step {
    Found(Match),
    Nothing,
    End,
}

impl Searched {
    /// `None`: a binary file.
    fn open(path: &Path, shown: &Path) -> io::Result<Option<Self>> {
        let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, small_file::open_regular(path)?);
        let start = reader.fill_buf()?;
        if memchr::memchr(0, &start[..start.len().min(SNIFF_BYTES)]).is_some() {
            return Ok(None);
        }
        Ok(Some(Self { shown: shown.to_string_lossy().into_owned(), reader, line: Line::default(), number: 0 }))
    }

    fn step(&mut self, finder: &Finder<'_>) -> io::Result<Step> {
        for _ in 0..LINES_PER_STEP {
            if !self.line.read(&mut self.reader, finder)? {
                return Ok(Step::End);
            }
            self.number += 1;
            if self.line.fits {
                let content = self.line.start.strip_suffix(b"\r").unwrap_or(&self.line.start);
                let content = String::from_utf8_lossy(content).into_owned();
                return Ok(Step::Found(Match { file: self.shown.clone(), line: self.number, content }));
            }
        }
        Ok(Step::Nothing)
    }
}

/// The line that was read last.
#[derive(Default)]
struct Line {
    /// Its beginning, without its end.
    start: Vec<u8>,
    /// Of a longer line, the last bytes that a match could have begun in.
    overlap: Vec<u8>,
    fits: bool,
}

impl Line {
    /// `false` at the end of the file.
    fn read(&mut self, reader: &mut impl BufRead, finder: &Finder<'_>) -> io::Result<bool> {
        self.start.clear();
        self.overlap.clear();
        self.fits = false;
        let mut any = false;
        loop {
            let buffer = reader.fill_buf()?;
            if buffer.is_empty() {
                self.fits |= !self.is_cut() && finder.find(&self.start).is_some();
                return Ok(any);
            }
            any = true;
            let end = memchr::memchr(b'\n', buffer);
            let taken = end.unwrap_or(buffer.len());
            self.add(&buffer[..taken], finder);
            reader.consume(end.map_or(taken, |at| at + 1));
            if end.is_some() {
                self.fits |= !self.is_cut() && finder.find(&self.start).is_some();
                return Ok(true);
            }
        }
    }

    fn is_cut(&self) -> bool {
        !self.overlap.is_empty()
    }

    fn add(&mut self, piece: &[u8], finder: &Finder<'_>) {
        if !self.is_cut() && self.start.len() + piece.len() <= LINE_BYTES_MAX {
            self.start.extend_from_slice(piece);
            return;
        }
        if !self.is_cut() {
            self.overlap.clone_from(&self.start);
            self.start.extend_from_slice(&piece[..LINE_BYTES_MAX - self.start.len()]);
        }
        self.overlap.extend_from_slice(piece);
        self.fits = self.fits || finder.find(&self.overlap).is_some();
        let kept = finder.needle().len().max(2) - 1;
        let gone = self.overlap.len().saturating_sub(kept);
        self.overlap.drain(..gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn lines(text: &[u8], needle: &[u8], buffer: usize) -> Vec<bool> {
        let mut reader = BufReader::with_capacity(buffer, Cursor::new(text));
        let (mut line, mut found) = (Line::default(), Vec::new());
        let finder = Finder::new(needle);
        while line.read(&mut reader, &finder).unwrap() {
            found.push(line.fits);
        }
        found
    }

    #[test]
    fn a_long_line_is_searched_to_its_end() {
        for at in [LINE_BYTES_MAX - 3, LINE_BYTES_MAX, LINE_BYTES_MAX * 3] {
            let mut text = vec![b'x'; at];
            text.extend_from_slice(b"needle\nshort\n");
            assert_eq!(lines(&text, b"needle", 1000), [true, false], "{at}");
            assert_eq!(lines(&text, b"needles", 1000), [false, false], "{at}");
        }
    }

    proptest! {
        #[test]
        fn like_a_plain_search(text in "[ab\n]{0,60}", needle in "[ab]{1,4}", buffer in 1usize..9) {
            let mut want: Vec<bool> = text.split('\n').map(|l| l.contains(&needle)).collect();
            if text.is_empty() || text.ends_with('\n') {
                want.pop();
            }
            prop_assert_eq!(lines(text.as_bytes(), needle.as_bytes(), buffer), want);
        }
    }
}
