//! Joining paths the way the published toolbox spells them (Go's `filepath.Join`), because clients compare the strings.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// `root/name` without empty, `.` and (where possible) `..` elements. Purely lexical.
pub fn join(root: &Path, name: &Path) -> PathBuf {
    let mut all = root.as_os_str().as_bytes().to_vec();
    all.push(b'/');
    all.extend_from_slice(name.as_os_str().as_bytes());
    if root.as_os_str().is_empty() {
        all.remove(0);
    }
    clean(&all)
}

fn clean(path: &[u8]) -> PathBuf {
    let rooted = path.first() == Some(&b'/');
    let mut kept: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match kept.last() {
                Some(&last) if last != b".." => drop(kept.pop()),
                _ if rooted => {}
                _ => kept.push(part),
            },
            _ => kept.push(part),
        }
    }
    let mut out = kept.join(&b'/');
    if rooted {
        out.insert(0, b'/');
    }
    if out.is_empty() {
        out.push(b'.');
    }
    PathBuf::from(OsString::from_vec(out))
}

/// The last element, as Go's `filepath.Base` gives it.
pub fn base(path: &Path) -> Vec<u8> {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|b| *b != b'/').map_or(0, |at| at + 1);
    if end == 0 {
        return if bytes.is_empty() { b".".to_vec() } else { b"/".to_vec() };
    }
    let start = bytes[..end].iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    bytes[start..end].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn like_go() {
        for (root, name, want) in [
            (".", "a", "a"),
            ("/", "a", "/a"),
            ("./x/", "a/b", "x/a/b"),
            ("../x", "a", "../x/a"),
            ("/a/../..", "b", "/b"),
        ] {
            assert_eq!(join(Path::new(root), Path::new(name)), PathBuf::from(want));
        }
        assert_eq!(join(Path::new(""), Path::new("a")), PathBuf::from("a"));
        assert_eq!(
            (base(Path::new("/a/b/")), base(Path::new("/")), base(Path::new(""))),
            (b"b".to_vec(), b"/".to_vec(), b".".to_vec())
        );
    }

    proptest! {
        #[test]
        fn joining_names_what_the_kernel_would_find(root in "(/|\\./|\\.\\./)?[ab/]{0,8}", name in "[a-c\u{e9} \n]{1,6}") {
            let joined = join(Path::new(&root), Path::new(&name));
            prop_assert_eq!(base(&joined), name.as_bytes());
            prop_assert_eq!(joined.is_absolute(), root.starts_with('/'));
            // Joining element by element is the same as joining at once.
            let both = join(&joined, Path::new("x/y"));
            prop_assert_eq!(&both, &join(&join(&joined, Path::new("x")), Path::new("y")));
            prop_assert_eq!(both.parent().and_then(Path::parent), Some(joined.as_path()));
        }

        #[test]
        fn cleaning_twice_changes_nothing(path in "[a./]{0,16}") {
            let once = clean(path.as_bytes());
            prop_assert_eq!(clean(once.as_os_str().as_bytes()), once.clone());
            prop_assert_eq!(once.is_absolute(), path.starts_with('/'));
            prop_assert!(!once.as_os_str().as_bytes().windows(2).any(|w| w == b"//"));
        }
    }
}
