//! What a file request is made of: queries decode to what was encoded, joined paths are clean, patterns end, ranges stay inside.
#![no_main]

use arbitrary::Arbitrary;
use infield_fuzz::{glob, path, query_pairs, range};
use libfuzzer_sys::fuzz_target;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    raw: &'a str,
    name: &'a [u8],
    root: &'a [u8],
    pattern: &'a str,
    range: &'a str,
    size: u64,
}

fuzz_target!(|input: Input| {
    let _ = query_pairs::pairs(input.raw);
    let encoded = percent_encoding::percent_encode(input.name, percent_encoding::NON_ALPHANUMERIC).to_string();
    let pairs = query_pairs::pairs(&format!("a=b&path={encoded}"));
    assert_eq!(pairs[1], (b"path".to_vec(), input.name.to_vec()));

    let (root, name) = (Path::new(OsStr::from_bytes(input.root)), Path::new(OsStr::from_bytes(input.name)));
    let joined = path::join(root, name);
    let bytes = joined.as_os_str().as_bytes();
    assert!(!bytes.is_empty() && !bytes.windows(2).any(|w| w == b"//"));
    assert_eq!(path::join(Path::new(""), &joined), joined, "clean paths stay as they are");
    let base = path::base(name);
    assert!(!base.is_empty() && (base == b"/" || !base.contains(&b'/')));

    // Bounded: the pattern is a client's, the name a sandbox's.
    let (pattern, text) = (input.pattern, String::from_utf8_lossy(input.name));
    if pattern.len() * text.len() < 1 << 20 {
        let _ = glob::matches(pattern, &text);
    }
    let escaped: String = text.chars().flat_map(|c| ['\\', c]).collect();
    assert!(glob::matches(&escaped, &text));

    for range in [input.range.to_owned(), format!("bytes={}", input.range)] {
        if let Ok(Some((start, bytes))) = range::parse_range(&range, input.size) {
            assert!(bytes > 0 && start.checked_add(bytes).is_some_and(|end| end <= input.size));
        }
    }
});
