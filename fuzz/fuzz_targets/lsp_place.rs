//! What callers write for a project or a file: a path that is absolute and clean, and a URI that leads back to it.
#![no_main]

use infield_fuzz::lsp::place::{path_of, uri_of};
use libfuzzer_sys::fuzz_target;
use std::path::{Component, Path};

fuzz_target!(|text: &str| {
    let Some(path) = path_of(Path::new("/base/dir"), text) else { return };
    assert!(path.is_absolute());
    assert!(path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_))), "{path:?}");
    let uri = uri_of(&path);
    assert!(uri.starts_with("file:///") && uri.is_ascii() && !uri.contains(char::is_whitespace), "{uri}");
});
