//! What callers write for files and projects (`file://` and a path, often relative, rarely encoded), and what language
//! servers need: absolute, encoded URIs.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// The absolute path of a project or a file below `workdir`; `None` for another scheme or what no path can be.
pub fn path_of(workdir: &Path, text: &str) -> Option<PathBuf> {
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("file") => rest,
        Some(_) => return None,
        None => text,
    };
    if rest.is_empty() || rest.contains('\0') {
        return None;
    }
    let literal = absolute(workdir, Path::new(rest));
    if !rest.contains('%') || literal.exists() {
        return Some(literal);
    }
    // Some callers do encode.
    let decoded = OsString::from_vec(percent_decode_str(rest).collect());
    let decoded = absolute(workdir, Path::new(&decoded));
    Some(if decoded.exists() { decoded } else { literal }).filter(|p| !p.as_os_str().as_bytes().contains(&0))
}

/// Joined, and without `.` and `..`, because servers compare URIs as text.
fn absolute(workdir: &Path, path: &Path) -> PathBuf {
    let mut whole = PathBuf::from("/");
    for part in workdir.join(path).components() {
        match part {
            Component::Normal(name) => whole.push(name),
            Component::ParentDir => drop(whole.pop()),
            _ => {}
        }
    }
    whole
}

pub fn uri_of(path: &Path) -> String {
    format!("file://{}", percent_encode(path.as_os_str().as_bytes(), ENCODED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_callers_write() {
        let path = |text: &str| path_of(Path::new("/base"), text).map(|p| p.display().to_string());
        assert_eq!(path("file://proj/a.py").as_deref(), Some("/base/proj/a.py"));
        assert_eq!(path("file:///abs/./x/../a.py").as_deref(), Some("/abs/a.py"));
        assert_eq!(path("proj").as_deref(), Some("/base/proj"));
        assert_eq!(path("file:///../../x").as_deref(), Some("/x"));
        assert_eq!(path("file:///no%20such").as_deref(), Some("/no%20such"));
        assert_eq!(path("file:///%65tc").as_deref(), Some("/etc"));
        assert_eq!((path("http://x/y"), path("file://"), path("a\0b")), (None, None, None));
        assert_eq!(uri_of(Path::new("/a b/ü%.py")), "file:///a%20b/%C3%BC%25.py");
    }

    proptest! {
        #[test]
        fn a_uri_is_the_path_again(name in "[^/\\x00]{1,20}") {
            prop_assume!(name != "." && name != "..");
            let path = Path::new("/").join(&name);
            let uri = uri_of(&path);
            prop_assert!(uri.bytes().all(|b| b.is_ascii_graphic()));
            let decoded: Vec<u8> = percent_decode_str(uri.strip_prefix("file://").unwrap()).collect();
            prop_assert_eq!(decoded, path.as_os_str().as_bytes());
        }

        #[test]
        fn nothing_breaks_it(text: String) {
            if let Some(path) = path_of(Path::new("/base"), &text) {
                prop_assert!(path.is_absolute());
            }
        }
    }
}
