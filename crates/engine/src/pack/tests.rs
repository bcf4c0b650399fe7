//! Trees there and back.
#![allow(clippy::unwrap_used)]

use super::*;
use rustix::fs::{FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, mknodat, utimensat};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        // On the disk, not on a tmpfs: holes and attributes of every kind.
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let dir = if dir.is_dir() { dir } else { std::env::temp_dir() };
        let path = dir.join(format!("infield-pack-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("from")).unwrap();
        fs::create_dir_all(path.join("to")).unwrap();
        Self(path)
    }

    fn from(&self) -> PathBuf {
        self.0.join("from")
    }

    fn to(&self) -> PathBuf {
        self.0.join("to")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn set_time(path: &Path, seconds: i64, nanos: u32) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Everything a sandbox may have made of its files, and overlayfs below it.
fn nasty(root: &Path) {
    let attribute = |path: &Path, key: &str, value: &[u8]| lsetxattr(path, key, value, XattrFlags::empty()).unwrap();
    let make = |path: &Path, kind| mknodat(rustix::fs::CWD, path, kind, Mode::from_raw_mode(0o640), 0).unwrap();
    fs::create_dir_all(root.join("deep/er/est")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    let odd = root.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"a b\nc\xff\\"));
    fs::write(&odd, "odd").unwrap();
    fs::write(root.join("n".repeat(255)), "long").unwrap();
    fs::write(root.join("none"), "").unwrap();
    fs::write(root.join("block"), [7; 512]).unwrap();
    fs::write(root.join("big"), vec![9; 700_001]).unwrap();
    fs::hard_link(root.join("big"), root.join("deep/er/hard")).unwrap();
    symlink("/etc/passwd", root.join("soft")).unwrap();
    symlink("x".repeat(1000), root.join("deep/long")).unwrap();
    fs::hard_link(root.join("soft"), root.join("deep/soft")).unwrap();
    for (name, kind) in [("pipe", FileType::Fifo), ("socket", FileType::Socket), ("gone", FileType::CharacterDevice)] {
        make(&root.join(name), kind);
    }
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"start", 0).unwrap();
    sparse.write_all_at(b"middle", 5 << 20).unwrap();
    sparse.set_len(20 << 20).unwrap();
    fs::File::create(root.join("hole")).unwrap().set_len(1 << 40).unwrap();
    chown(root.join("big"), Some(1000), Some(65_534)).unwrap();
    lchown(root.join("soft"), Some(33), Some(44)).unwrap();
    chown(root.join("deep/er"), Some(12), Some(13)).unwrap();
    for (name, mode) in [("big", 0o6751), ("none", 0), ("deep/er/est", 0o1777), ("empty", 0o2700)] {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    attribute(&root.join("big"), "user.note", &[0, 1, 255, b'\n', b'=']);
    attribute(&root.join("big"), "security.capability", &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    attribute(&root.join("deep"), "trusted.overlay.opaque", b"y");
    attribute(&root.join("soft"), "trusted.overlay.origin", &[0, 251, 29, 0]);
    attribute(root, "trusted.overlay.impure", b"y");
    for (name, seconds, nanos) in
        [("big", 1_000_000_000, 123_456_789), ("soft", 5, 0), ("none", -7, 300_000_000), ("deep/er", 1 << 33, 1)]
    {
        set_time(&root.join(name), seconds, nanos);
    }
    set_time(&root.join("deep"), 77, 7);
    set_time(root, 88, 8);
}

/// Everything that can be seen of a tree; hard links by the first of their names.
fn seen(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut inodes: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().to_owned();
        let mut names = vec![0; 65_536];
        let length = rustix::fs::llistxattr(&path, &mut names[..]).unwrap();
        let mut attributes: Vec<String> = names[..length]
            .split(|b| *b == 0)
            .filter(|n| !n.is_empty())
            .map(|name| {
                let name = String::from_utf8_lossy(name).into_owned();
                let mut value = vec![0; 65_536];
                let length = rustix::fs::lgetxattr(&path, &*name, &mut value[..]).unwrap();
                format!("{name}={:?}", &value[..length])
            })
            .collect();
        attributes.sort();
        let content = match meta.file_type() {
            t if t.is_symlink() => format!("{:?}", fs::read_link(&path).unwrap()),
            t if t.is_file() && meta.size() < 1 << 30 => {
                use sha2::Digest;
                hex::encode(sha2::Sha256::digest(fs::read(&path).unwrap()))
            }
            t if t.is_dir() => {
                todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
                String::new()
            }
            _ => String::new(),
        };
        inodes.entry(meta.ino()).and_modify(|first| *first = name.clone().min(first.clone())).or_insert(name.clone());
        let size = if meta.is_dir() { 0 } else { meta.size() };
        let times = (meta.mtime(), meta.mtime_nsec());
        let held = meta.blocks() * 512 < meta.size() / 2;
        all.insert(
            name,
            format!(
                "{:o} {}:{} {size} {times:?} {} {} sparse:{held} {content} {attributes:?} {}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.rdev(),
                meta.ino(),
                if meta.is_dir() { 0 } else { meta.nlink() },
            ),
        );
    }
    for text in all.values_mut() {
        for (number, first) in &inodes {
            *text = text.replace(&format!(" {number} sparse"), &format!(" {first:?} sparse"));
        }
    }
    all
}

fn packed(root: &Path, form: Form) -> Result<Vec<u8>, PackError> {
    let mut bytes = Vec::new();
    pack(root, form, &mut bytes).map(|_| bytes)
}

#[test]
fn what_comes_back_is_what_was_there() {
    let scratch = Scratch::new("whole");
    nasty(&scratch.from());
    let expected = seen(&scratch.from());
    assert!(expected.len() > 15);
    let archive = packed(&scratch.from(), Form::Archive).unwrap();
    assert!(archive.len() < 2 << 20, "holes are not stored");
    restore(&archive[..], &scratch.to()).unwrap();
    let found = seen(&scratch.to());
    for (path, text) in &expected {
        assert_eq!(found.get(path), Some(text), "{}", path.display());
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn half_an_archive_and_a_forged_one_are_refused() {
    let scratch = Scratch::new("damaged");
    nasty(&scratch.from());
    let archive = packed(&scratch.from(), Form::Archive).unwrap();
    let cut = archive.len() / 2 + 100;
    assert!(matches!(restore(&archive[..cut], &scratch.to()), Err(PackError::Damaged(_))));
    let mut forged = Vec::new();
    let head = |path, kind| header::Head { path, kind, mode: 0o755, ..header::Head::default() };
    forged.extend(header::Head { link: b"/tmp", ..head(&b"./out"[..], b'2') }.bytes().unwrap());
    forged.extend(head(&b"./out/file"[..], b'0').bytes().unwrap());
    let refused = restore(&forged[..], &scratch.0.join("to/.."));
    assert!(matches!(refused, Err(PackError::Damaged(_))), "{refused:?}");
    let climbing = head(&b"./../file"[..], b'0').bytes().unwrap();
    assert!(matches!(restore(&climbing[..], &scratch.to()), Err(PackError::Damaged(_))));
}

#[test]
fn files_with_more_holes_than_a_map_takes_are_whole() {
    let scratch = Scratch::new("holes");
    let file = fs::File::create(scratch.from().join("holes")).unwrap();
    let count = crate::image::tarfile::SPARSE_PIECES_MAX as u64 + 100;
    for at in 0..count {
        file.write_all_at(&at.to_le_bytes(), at * 8192).unwrap();
    }
    drop(file);
    let archive = packed(&scratch.from(), Form::Archive).unwrap();
    restore(&archive[..], &scratch.to()).unwrap();
    assert!(fs::read(scratch.from().join("holes")).unwrap() == fs::read(scratch.to().join("holes")).unwrap());
}

#[test]
fn bottomless_trees_are_refused() {
    let scratch = Scratch::new("deep");
    let deep = scratch.from().join(format!("{}x", "d/".repeat(1200)));
    fs::create_dir_all(&deep).unwrap();
    assert!(matches!(packed(&scratch.from(), Form::Archive), Err(PackError::Refused { .. })));
}

#[test]
fn a_layer_says_what_an_image_may() {
    let scratch = Scratch::new("layer");
    nasty(&scratch.from());
    fs::create_dir(scratch.from().join("etc")).unwrap();
    for name in ["hosts", "hostname", "resolv.conf", "passwd"] {
        fs::write(scratch.from().join("etc").join(name), "mine").unwrap();
    }
    let archive = packed(&scratch.from(), Form::Layer).unwrap();
    let mut reader = crate::image::tarfile::TarReader::new(&archive[..]);
    let mut found = BTreeMap::new();
    while let Some(member) = reader.next_member().unwrap() {
        found.insert(String::from_utf8_lossy(&member.path).into_owned(), member);
    }
    for absent in ["./etc/hosts", "./etc/hostname", "./etc/resolv.conf", "./socket"] {
        assert!(!found.contains_key(absent), "{absent}");
    }
    assert!(found.contains_key("./etc/passwd") && found.contains_key("./deep/.wh..wh..opq"));
    assert_eq!((found["./gone"].kind, found["./gone"].device), (b'3', (0, 0)));
    let keys = found.values().flat_map(|m| m.xattrs.iter().map(|(k, _)| String::from_utf8_lossy(k).into_owned()));
    let keys: std::collections::BTreeSet<String> = keys.collect();
    assert_eq!(keys.into_iter().collect::<Vec<_>>(), ["security.capability", "user.note"]);
    fs::write(scratch.from().join(".wh.block"), "").unwrap();
    let refused = packed(&scratch.from(), Form::Layer);
    assert!(matches!(&refused, Err(PackError::Refused { path, .. }) if path == Path::new("/.wh.block")), "{refused:?}");
    fs::remove_file(scratch.from().join(".wh.block")).unwrap();
    lsetxattr(scratch.from().join("block"), "trusted.overlay.metacopy", b"", XattrFlags::empty()).unwrap();
    assert!(matches!(packed(&scratch.from(), Form::Layer), Err(PackError::Refused { .. })));
}
