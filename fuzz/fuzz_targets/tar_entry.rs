//! Archive bytes to members to decisions: nothing let through names anything outside the layer, and memory stays bounded.
#![no_main]

use infield_fuzz::image::{
    entry::{self, Action, LayerPath},
    tarfile::TarReader,
};
use libfuzzer_sys::fuzz_target;
use std::os::unix::ffi::OsStrExt;

fn assert_inside(path: &LayerPath) {
    for part in path.parts() {
        let part = part.as_bytes();
        assert!(!part.is_empty() && part != b"." && part != b".." && !part.contains(&b'/') && !part.contains(&0));
    }
}

fuzz_target!(|data: &[u8]| {
    let mut archive = TarReader::new(data);
    while let Ok(Some(member)) = archive.next_member() {
        if let Some(pieces) = &member.sparse {
            let mut end = 0;
            for piece in pieces {
                assert!(piece.offset >= end, "pieces overlap");
                end = piece.offset.checked_add(piece.length).expect("a piece ends beyond 2^64");
            }
            assert!(end <= member.size, "a piece ends beyond its file");
        }
        assert_eq!(member.mode & !0o7777, 0);
        match entry::decide(&member) {
            Ok(Action::Hardlink(path, target)) => {
                assert_inside(&path);
                assert_inside(&target);
            }
            Ok(Action::Directory(path) | Action::Opaque(path) | Action::Symlink(path, _)) => assert_inside(&path),
            Ok(Action::File(path) | Action::Fifo(path) | Action::Whiteout(path)) => {
                assert_inside(&path);
                assert!(!path.parts().is_empty());
            }
            Ok(Action::Skip) | Err(_) => {}
        }
        for (key, _) in &member.xattrs {
            if matches!(entry::decide_xattr(key), Ok(entry::XattrAction::Keep)) {
                assert!(!key.starts_with(b"trusted.") && !key.starts_with(b"user.overlay.") && !key.contains(&0));
            }
        }
    }
});
