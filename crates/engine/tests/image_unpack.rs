//! Hostile and honest archives against the real file system: what must be refused is refused by name, and nothing is
//! ever written outside the layer.

#![allow(clippy::unwrap_used)] // A test that cannot go on says where by panicking.

mod image_support;

use image_support::{Entry, Scratch, tar};
use infield_engine::image::{Image, ImageConfig, ImageError, Silent};
use proptest::prelude::*;
use std::{
    fs,
    io::Read,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

fn import(scratch: &Scratch, archive: &[u8]) -> Result<Arc<Image>, ImageError> {
    scratch.store().import_tar(archive, "test/image:1", &ImageConfig::default(), &Silent)
}

fn layer(scratch: &Scratch, archive: &[u8]) -> std::path::PathBuf {
    import(scratch, archive).unwrap().layers[0].clone()
}

/// The import fails, the error names the entry, and neither the host nor the store keeps anything of it.
#[track_caller]
fn refused(entries: &[Entry], named: &str, why: &str) {
    let scratch = Scratch::new();
    let canary = scratch.path("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("file"), "untouched").unwrap();
    let error = import(&scratch, &tar(entries)).unwrap_err().to_string();
    assert!(error.contains(named) && error.contains(why), "{error}");
    assert_eq!(fs::read_to_string(canary.join("file")).unwrap(), "untouched");
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 1);
    for part in ["layers", "configs", "refs", "tmp"] {
        assert_eq!(fs::read_dir(scratch.path("store").join(part)).unwrap().count(), 0, "{part} is not empty");
    }
}

#[test]
fn dot_dot_is_refused() {
    refused(&[Entry::file("a/../../../etc/infield-evil", "x")], "a/../../../etc/infield-evil", "`..`");
    refused(&[Entry::file("../evil", "x")], "../evil", "`..`");
    refused(&[Entry::file("f", "x"), Entry::hardlink("h", "../../canary/file")], "\"h\"", "`..`");
}

#[test]
fn absolute_names_stay_inside_the_layer() {
    let scratch = Scratch::new();
    let root = layer(&scratch, &tar(&[Entry::file("/infield-evil", "x"), Entry::hardlink("/b", "/infield-evil")]));
    assert!(!Path::new("/infield-evil").exists());
    assert_eq!(fs::read_to_string(root.join("b")).unwrap(), "x");
}

#[test]
fn a_link_out_of_the_layer_is_data_but_never_followed_out() {
    let scratch = Scratch::new();
    let canary = scratch.path("canary");
    fs::create_dir(&canary).unwrap();
    let target = canary.to_str().unwrap();
    let root = layer(
        &scratch,
        &tar(&[
            Entry::dir(target.trim_start_matches('/')),
            Entry::symlink("out", target),
            Entry::file("out/evil", "x"),
        ]),
    );
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 0);
    // The write went where the link leads inside the layer.
    assert_eq!(fs::read_to_string(root.join(target.trim_start_matches('/')).join("evil")).unwrap(), "x");
    assert_eq!(fs::read_link(root.join("out")).unwrap(), canary);
}

#[test]
fn relative_links_cannot_climb_out() {
    let scratch = Scratch::new();
    let up = "../".repeat(40);
    let root = layer(&scratch, &tar(&[Entry::symlink("out", &up), Entry::file("out/infield-evil", "x")]));
    assert!(!Path::new("/infield-evil").exists());
    assert_eq!(fs::read_to_string(root.join("infield-evil")).unwrap(), "x");
}

#[test]
fn a_directory_swapped_for_a_link_between_entries_stays_inside() {
    let scratch = Scratch::new();
    let canary = scratch.path("canary");
    fs::create_dir(&canary).unwrap();
    let target = canary.to_str().unwrap();
    let swapped = [Entry::dir("d"), Entry::symlink("d", target), Entry::file("d/evil", "x")];
    // Inside the layer the target does not exist, so the write has nowhere to go.
    let error = import(&scratch, &tar(&swapped)).unwrap_err().to_string();
    assert!(error.contains("d/evil") && error.contains("dangling"), "{error}");
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 0);
    refused(&[Entry::dir("d"), Entry::file("d/f", "x"), Entry::symlink("d", "/etc")], "\"d\"", "already has entries");
}

#[test]
fn writing_to_a_name_that_is_a_link_replaces_the_link() {
    let scratch = Scratch::new();
    let canary = scratch.path("canary");
    fs::write(&canary, "untouched").unwrap();
    let root = layer(&scratch, &tar(&[Entry::symlink("f", canary.to_str().unwrap()), Entry::file("f", "mine")]));
    assert_eq!(fs::read_to_string(&canary).unwrap(), "untouched");
    assert!(root.join("f").symlink_metadata().unwrap().is_file());
}

#[test]
fn hard_links_cannot_name_host_files() {
    refused(&[Entry::hardlink("h", "/etc/passwd")], "\"h\"", "not in this archive");
    refused(&[Entry::symlink("l", "/etc"), Entry::hardlink("h", "l/passwd")], "\"h\"", "not in this archive");
    refused(&[Entry::dir("d"), Entry::hardlink("h", "d")], "\"h\"", "is a directory");
}

#[test]
fn a_hard_link_to_a_link_does_not_follow_it() {
    let scratch = Scratch::new();
    let root = layer(&scratch, &tar(&[Entry::symlink("l", "/etc/passwd"), Entry::hardlink("h", "l")]));
    assert!(root.join("h").symlink_metadata().unwrap().is_symlink());
}

#[test]
fn device_nodes_are_refused_outside_dev() {
    refused(&[Entry::device("disk", b'4', 8, 0)], "\"disk\"", "8:0");
    refused(&[Entry::device("etc/mem", b'3', 1, 1)], "etc/mem", "1:1");
    let scratch = Scratch::new();
    let root = layer(&scratch, &tar(&[Entry::device("dev/null", b'3', 1, 3), Entry::file("f", "x")]));
    assert!(!root.join("dev/null").exists() && root.join("f").exists());
}

#[test]
fn ids_beyond_a_sandbox_are_refused() {
    refused(&[Entry::file("big", "x").owned(70_000, 0)], "\"big\"", "70000");
    refused(&[Entry::file("big", "x").owned(0, 70_000)], "\"big\"", "group 70000");
}

#[test]
fn attributes_overlayfs_would_obey_are_refused() {
    refused(&[Entry::file("f", "x").xattr("trusted.overlay.redirect", b"/etc")], "\"f\"", "trusted.overlay.redirect");
    refused(&[Entry::dir("d").xattr("user.overlay.opaque", b"y")], "\"d\"", "reserved");
    refused(&[Entry::symlink("l", "x").xattr("trusted.x", b"y")], "\"l\"", "reserved");
}

#[test]
fn impossible_paths_are_refused() {
    refused(&[Entry::file(&"n".repeat(256), "x")], "nnn", "longer than 255");
    refused(&[Entry::file(&"d/".repeat(2_100), "x")], "d/d/", "longer than 4095");
    refused(&[Entry::file("f", "x"), Entry::file("f/g", "x")], "f/g", "not a directory");
    refused(&[Entry::symlink("a", "b"), Entry::symlink("b", "a"), Entry::file("a/f", "x")], "a/f", "circles");
    refused(&[Entry::file(".", "x")], "\".\"", "must be a directory");
}

#[test]
fn damaged_archives_are_refused() {
    let scratch = Scratch::new();
    let whole = tar(&[Entry::file("f", &"x".repeat(5_000))]);
    for cut in [100, 512, 700, 3_000] {
        if cut == 512 {
            continue;
        }
        let error = import(&scratch, &whole[..cut]).unwrap_err().to_string();
        assert!(error.contains("archive ends"), "{cut}: {error}");
    }
    let mut flipped = whole.clone();
    flipped[20] ^= 1;
    assert!(import(&scratch, &flipped).unwrap_err().to_string().contains("checksum"));
    let error = import(&scratch, b"BZh91AY&SY").unwrap_err().to_string();
    assert!(error.contains("bzip2"), "{error}");
}

#[test]
fn an_extended_header_cannot_ask_for_much_memory() {
    let scratch = Scratch::new();
    let mut huge = Entry::raw(b'L', "././@LongLink", 1 << 40);
    huge.extend_from_slice(&[b'x'; 4096]);
    let error = import(&scratch, &huge).unwrap_err().to_string();
    assert!(error.contains("exceed"), "{error}");
}

#[test]
fn modes_owners_times_and_attributes_are_kept() {
    let scratch = Scratch::new();
    // A capability set with newlines in it: values are binary.
    let capability = b"\x01\x00\x00\x02\x0a\x04\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let root = layer(
        &scratch,
        &tar(&[
            Entry::dir("d").mode(0o1777).mtime(1_000_000_000),
            Entry::file("d/su", "x")
                .mode(0o4755)
                .owned(12, 34)
                .xattr("security.capability", capability)
                .mtime(1_111_111_111),
            Entry::file("d/note", "x").xattr("user.note", b"a\nb").xattr("security.selinux", b"label"),
            Entry::symlink("d/l", "su").owned(5, 6).mtime(1_222_222_222),
            Entry::fifo("d/p").mode(0o620),
        ]),
    );
    let su = fs::metadata(root.join("d/su")).unwrap();
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid(), su.mtime()), (0o4755, 12, 34, 1_111_111_111));
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(root.join("d/su"), "security.capability", &mut value).unwrap();
    assert_eq!(&value[..length], capability);
    let length = rustix::fs::getxattr(root.join("d/note"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..length], b"a\nb");
    let link = fs::symlink_metadata(root.join("d/l")).unwrap();
    assert_eq!((link.uid(), link.gid(), link.mtime()), (5, 6, 1_222_222_222));
    let dir = fs::metadata(root.join("d")).unwrap();
    assert_eq!((dir.permissions().mode() & 0o7777, dir.mtime()), (0o1777, 1_000_000_000));
    let fifo = fs::symlink_metadata(root.join("d/p")).unwrap();
    assert!(fifo.file_type().is_fifo());
    assert_eq!(fifo.mode() & 0o7777, 0o620);
}

#[test]
fn whiteouts_become_what_overlayfs_understands() {
    let scratch = Scratch::new();
    let root = layer(
        &scratch,
        &tar(&[
            Entry::file("a/.wh.gone", ""),
            Entry::file("b/.wh..wh..opq", ""),
            Entry::file("b/new", "x"),
            // Hidden and made again in one layer, in both orders.
            Entry::file(".wh.c", ""),
            Entry::file("c/new", "x"),
            Entry::file("d/new", "x"),
            Entry::file(".wh.d", ""),
            Entry::file(".wh..wh.plnk/1", ""),
        ]),
    );
    let gone = fs::symlink_metadata(root.join("a/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for dir in ["b", "c", "d"] {
        let mut value = [0; 8];
        let length = rustix::fs::getxattr(root.join(dir), "trusted.overlay.opaque", &mut value).unwrap();
        assert_eq!((&value[..length], root.join(dir).join("new").exists()), (&b"y"[..], true), "{dir}");
    }
    assert!(!root.join(".wh..wh.plnk").exists());
    refused(&[Entry::file(".wh.", "")], ".wh.", "must name");
    refused(&[Entry::file(".wh...", "")], ".wh..", "must name");
    refused(&[Entry::file(".wh.d/f", "")], ".wh.d/f", "cannot be a directory");
}

#[test]
fn long_names_and_every_compression_work() {
    let long = format!("{}/{}", "long-directory-name-".repeat(8), "f".repeat(200));
    let plain = tar(&[Entry::file(&long, "content")]);
    let zstd = zstd::encode_all(&plain[..], 3).unwrap();
    let mut gzip = Vec::new();
    flate2::read::GzEncoder::new(&plain[..], flate2::Compression::fast()).read_to_end(&mut gzip).unwrap();
    let mut ids = Vec::new();
    for archive in [plain, zstd, gzip] {
        let scratch = Scratch::new();
        let image = import(&scratch, &archive).unwrap();
        assert_eq!(fs::read_to_string(image.layers[0].join(&long)).unwrap(), "content");
        ids.push(image.layers[0].parent().unwrap().file_name().unwrap().to_owned());
    }
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "one content, one layer id");
}

/// GNU tar itself writes all its sparse formats; holes stay holes.
#[test]
fn sparse_files_of_gnu_tar_are_read() {
    let scratch = Scratch::new();
    let tree = scratch.path("tree");
    fs::create_dir(&tree).unwrap();
    let file = fs::File::create(tree.join("sparse")).unwrap();
    use std::os::unix::fs::FileExt;
    for piece in 0..40u64 {
        file.write_all_at(format!("piece {piece}").as_bytes(), piece << 20).unwrap();
    }
    file.set_len(64 << 20).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=posix"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=0.0"],
    ] {
        let archive = scratch.path("sparse.tar");
        let status = std::process::Command::new("tar")
            .arg("-S")
            .args(format)
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&tree)
            .arg(".")
            .status();
        assert!(status.unwrap().success());
        let root = layer(&scratch, &fs::read(&archive).unwrap());
        assert_eq!(fs::read(root.join("sparse")).unwrap(), fs::read(tree.join("sparse")).unwrap(), "{format:?}");
        assert!(fs::metadata(root.join("sparse")).unwrap().blocks() * 512 < 8 << 20, "{format:?} lost its holes");
        scratch.store().remove("test/image:1").unwrap();
        scratch.store().gc(&Default::default()).unwrap();
    }
}

/// A few names that keep meeting each other, as files, directories, links out and up, and links to each other.
fn hostile_entry() -> impl Strategy<Value = Entry> {
    let name = prop::sample::select(vec!["a", "b", "a/b", "b/a", "a/b/c", "c", ".wh.a", "a/.wh..wh..opq", "./b/../c"]);
    let target = prop::sample::select(vec!["CANARY", "../CANARY", "a", "b", "../../..", "/", ".", "a/b", "c"]);
    (name, target, 0..5).prop_map(|(name, target, kind)| match kind {
        0 => Entry::file(name, "evil"),
        1 => Entry::dir(name),
        2 => Entry::hardlink(name, target),
        3 => Entry::fifo(name),
        _ => Entry::symlink(name, target),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_sequence_of_entries_reaches_outside(entries in prop::collection::vec(hostile_entry(), 1..12)) {
        let scratch = Scratch::new();
        let canary = scratch.path("canary");
        fs::create_dir(&canary).unwrap();
        fs::write(canary.join("a"), "untouched").unwrap();
        let entries: Vec<_> = entries.into_iter().map(|entry| entry.with_link("CANARY", canary.to_str().unwrap())).collect();
        let _ = import(&scratch, &tar(&entries));
        let left: Vec<_> = fs::read_dir(&canary).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        prop_assert_eq!(left, ["a"]);
        prop_assert_eq!(fs::read_to_string(canary.join("a")).unwrap(), "untouched");
        prop_assert_eq!(fs::metadata(canary.join("a")).unwrap().nlink(), 1);
        prop_assert_eq!(fs::read_dir(scratch.dir()).unwrap().count(), 2);
        prop_assert_eq!(fs::read_dir(scratch.path("store/tmp")).unwrap().count(), 0);
    }
}
