//! The store: names, sharing, collection, several processes, crashes, and archives of other tools.

#![allow(clippy::unwrap_used)] // A test that cannot go on says where by panicking.

mod image_support;

use image_support::{Entry, Overlay, Scratch, tar};
use infield_api::runner::RunnerErrorKind;
use infield_engine::disk::HOST_RESERVE_BYTES;
use infield_engine::image::{Image, ImageConfig, ImageError, Silent, Store};
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    fs,
    io::Read,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, Barrier},
};

fn import(store: &Store, reference: &str, content: &str) -> Arc<Image> {
    let archive = tar(&[Entry::file("file", content)]);
    store.import_tar(&archive[..], reference, &ImageConfig::default(), &Silent).unwrap()
}

fn count(scratch: &Scratch, part: &str) -> usize {
    fs::read_dir(scratch.path("store").join(part)).unwrap().count()
}

#[test]
fn an_imported_image_is_found_by_every_spelling_of_its_name_and_by_id() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let config = ImageConfig {
        env: vec!["A=1".into()],
        entrypoint: vec!["/bin/x".into()],
        cmd: vec!["y".into()],
        workdir: Some("/w".into()),
        user: Some("u".into()),
        labels: [("k".to_string(), "v".to_string())].into(),
    };
    let archive = tar(&[Entry::file("file", "0123456789")]);
    let image = store.import_tar(&archive[..], "tool:1", &config, &Silent).unwrap();
    assert_eq!((image.config.clone(), image.size_bytes), (config, 10));
    assert_eq!(image.references, ["tool:1"]);
    assert!(image.created_at_ms > 1_600_000_000_000);
    for name in ["tool:1", "docker.io/library/tool:1", image.id.as_str()] {
        assert_eq!(store.resolve(name).unwrap(), image);
        assert_eq!(scratch.store().resolve(name).unwrap(), image, "from another process's view");
    }
    assert_eq!(store.list().unwrap(), [(*image).clone()]);
    for missing in ["tool:2", "sha256:0000000000000000000000000000000000000000000000000000000000000000"] {
        let error = store.resolve(missing).unwrap_err();
        assert!(matches!(&error, ImageError::Missing { .. }) && error.to_string().contains(missing), "{error}");
    }
}

#[test]
fn a_cached_answer_ends_when_another_process_changes_the_name() {
    let scratch = Scratch::new();
    let (ours, theirs) = (scratch.store(), scratch.store());
    let first = import(&theirs, "x:1", "one");
    assert_eq!(ours.resolve("x:1").unwrap().id, first.id);
    let second = import(&theirs, "x:1", "two");
    assert_ne!(first.id, second.id);
    assert_eq!(ours.resolve("x:1").unwrap().id, second.id);
    // The old one lost its name, and the cached answer by id says so.
    assert_eq!(ours.resolve(&first.id).unwrap().references, Vec::<String>::new());
    theirs.remove("x:1").unwrap();
    assert!(matches!(ours.resolve("x:1").unwrap_err(), ImageError::Missing { .. }));
    assert!(matches!(theirs.remove("x:1").unwrap_err(), ImageError::Missing { .. }));
}

#[test]
fn collection_keeps_what_is_named_or_used_and_shares_layers() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let (named, used) = (import(&store, "named:1", "n"), import(&store, "used:1", "used"));
    import(&store, "gone:1", "to be forgotten");
    import(&store, "same:1", "n");
    assert_eq!((count(&scratch, "layers"), count(&scratch, "configs")), (3, 4));
    for name in ["used:1", "gone:1", "same:1"] {
        store.remove(name).unwrap();
    }
    let report = store.gc(&HashSet::from([used.id.clone()])).unwrap();
    assert_eq!((report.layers_removed, report.images_removed, report.bytes_freed, report.busy), (1, 2, 15, false));
    for image in [&named, &used] {
        assert!(store.resolve(&image.id).unwrap().layers[0].join("file").exists());
    }
    let report = store.gc(&HashSet::new()).unwrap();
    assert_eq!((report.layers_removed, report.images_removed), (1, 1));
    assert!(matches!(store.resolve(&used.id).unwrap_err(), ImageError::Missing { .. }));
    assert_eq!(fs::read_to_string(named.layers[0].join("file")).unwrap(), "n");
}

#[test]
fn what_another_data_directory_uses_is_not_collected() {
    let scratch = Scratch::new();
    for dir in ["data-a", "data-b"] {
        fs::create_dir(scratch.path(dir)).unwrap();
    }
    let ours = Store::open_for(scratch.path("store"), &scratch.path("data-a")).unwrap();
    let theirs = Store::open_for(scratch.path("store"), &scratch.path("data-b")).unwrap();
    let image = import(&scratch.store(), "x:1", "x");
    theirs.resolve("x:1").unwrap();
    ours.remove("x:1").unwrap();
    assert_eq!(ours.gc(&HashSet::new()).unwrap().layers_removed, 0);
    assert_eq!(theirs.resolve(&image.id).unwrap().layers, image.layers);
    // Gone with its data directory.
    fs::remove_dir(scratch.path("data-b")).unwrap();
    assert_eq!(ours.gc(&HashSet::new()).unwrap().layers_removed, 1);
    assert_eq!(count(&scratch, "claims"), 1);
}

/// An archive that does not end until the test says so keeps the store busy, as a slow pull would.
#[test]
fn nothing_is_collected_or_swept_while_an_image_is_being_made() {
    let scratch = Scratch::new();
    let store = scratch.store();
    import(&store, "old:1", "old");
    store.remove("old:1").unwrap();
    let (reader, mut writer) = UnixStream::pair().unwrap();
    let archive = tar(&[Entry::file("file", "new")]);
    std::thread::scope(|scope| {
        let importing = scope.spawn(|| store.import_tar(reader, "new:1", &ImageConfig::default(), &Silent));
        use std::io::Write;
        writer.write_all(&archive[..700]).unwrap();
        // It has begun once its directory is there.
        while count(&scratch, "tmp") == 0 {
            std::thread::yield_now();
        }
        let other = scratch.store();
        assert!(other.gc(&HashSet::new()).unwrap().busy);
        assert_eq!((count(&scratch, "tmp"), count(&scratch, "layers")), (1, 1));
        writer.write_all(&archive[700..]).unwrap();
        drop(writer);
        importing.join().unwrap().unwrap();
    });
    assert_eq!(store.gc(&HashSet::new()).unwrap().layers_removed, 1);
    assert_eq!(fs::read_to_string(store.resolve("new:1").unwrap().layers[0].join("file")).unwrap(), "new");
}

#[test]
fn leftovers_of_a_crash_are_swept_when_the_store_is_opened() {
    let scratch = Scratch::new();
    import(&scratch.store(), "x:1", "x");
    let left = scratch.path("store").join("tmp/123-0/0-layer/fs/deep");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("file"), "half").unwrap();
    fs::write(scratch.path("store").join("tmp/123-1"), "half").unwrap();
    let store = scratch.store();
    assert_eq!(count(&scratch, "tmp"), 0);
    assert!(store.resolve("x:1").is_ok());
}

#[test]
fn many_at_once_make_one_layer() {
    let scratch = Scratch::new();
    let start = Barrier::new(8);
    let store = scratch.store();
    let archive = tar(&[Entry::file("file", "same for all")]);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (scratch, start, archive) = (&scratch, &start, &archive);
            scope.spawn(move || {
                let store = scratch.store();
                start.wait();
                store.import_tar(&archive[..], &format!("x:{}", number % 4), &ImageConfig::default(), &Silent).unwrap();
            });
        }
    });
    assert_eq!((count(&scratch, "layers"), count(&scratch, "refs"), count(&scratch, "tmp")), (1, 4, 0));
    assert_eq!(fs::read_to_string(store.resolve("x:3").unwrap().layers[0].join("file")).unwrap(), "same for all");
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Two layers, the upper hiding a file of the lower, and their configuration.
fn two_layers() -> ([Vec<u8>; 2], String) {
    let lower = tar(&[Entry::dir("d"), Entry::file("d/hidden", "x"), Entry::file("d/kept", "from below")]);
    let upper = tar(&[Entry::file("d/.wh.hidden", ""), Entry::file("top", "from above")]);
    let config = format!(
        r#"{{"created":"2024-01-02T03:04:05Z","architecture":"amd64","os":"linux",
            "config":{{"Env":["PATH=/bin"],"Cmd":["/bin/sh"],"WorkingDir":"/","User":""}},
            "rootfs":{{"type":"layers","diff_ids":["sha256:{}","sha256:{}"]}}}}"#,
        sha256(&lower),
        sha256(&upper)
    );
    ([lower, upper], config)
}

fn check_two_layers(scratch: &Scratch, image: &Image, config: &str) {
    assert_eq!(image.id, format!("sha256:{}", sha256(config.as_bytes())));
    assert_eq!((image.config.cmd.as_slice(), &image.config.user), (&["/bin/sh".to_string()][..], &None));
    assert_eq!(image.created_at_ms, 1_704_164_645_000);
    let overlay = Overlay::mount(scratch, &image.layers);
    assert!(!overlay.root.join("d/hidden").exists());
    assert_eq!(fs::read_to_string(overlay.root.join("d/kept")).unwrap(), "from below");
    assert_eq!(fs::read_to_string(overlay.root.join("top")).unwrap(), "from above");
}

#[test]
fn what_docker_save_writes_is_an_image() {
    let ([lower, upper], config) = two_layers();
    let manifest = r#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["1/layer.tar","2/layer.tar"]}]"#;
    // Docker writes equal layers as links.
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let archive = tar(&[
        Entry::file("manifest.json", manifest),
        Entry::file("c.json", &config),
        Entry::file("real/layer.tar", &text(&lower)),
        Entry::symlink("1/layer.tar", "../real/layer.tar"),
        Entry::file("2/layer.tar", &text(&upper)),
    ]);
    let scratch = Scratch::new();
    let image = scratch.store().import_tar(&archive[..], "a:1", &ImageConfig::default(), &Silent).unwrap();
    check_two_layers(&scratch, &image, &config);
}

#[test]
fn an_oci_layout_is_an_image_and_a_wrong_layer_is_refused() {
    let ([lower, upper], config) = two_layers();
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", sha256(bytes));
    let described = |bytes: &[u8]| format!(r#"{{"digest":"sha256:{}","size":{}}}"#, sha256(bytes), bytes.len());
    let mut stored = Vec::new();
    flate2::read::GzEncoder::new(&upper[..], flate2::Compression::fast()).read_to_end(&mut stored).unwrap();
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{},{}]}}"#,
        described(config.as_bytes()),
        described(&lower),
        described(&stored)
    );
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, described(manifest.as_bytes()));
    let mut entries = vec![
        Entry::file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
        Entry::file("index.json", &index),
        Entry::file(&blob(manifest.as_bytes()), &manifest),
        Entry::file(&blob(config.as_bytes()), &config),
        Entry::bytes(&blob(&lower), lower.clone()),
        Entry::bytes(&blob(&stored), stored.clone()),
    ];
    let scratch = Scratch::new();
    let image = scratch.store().import_tar(&tar(&entries)[..], "a:1", &ImageConfig::default(), &Silent).unwrap();
    check_two_layers(&scratch, &image, &config);

    let over = ImageConfig { user: Some("someone".into()), ..ImageConfig::default() };
    let changed = scratch.store().import_tar(&tar(&entries)[..], "a:2", &over, &Silent).unwrap();
    assert_eq!((changed.layers.clone(), changed.config.user.as_deref()), (image.layers.clone(), Some("someone")));
    assert_eq!((&changed.config.cmd, changed.created_at_ms), (&image.config.cmd, image.created_at_ms));

    entries[4] = Entry::bytes(&blob(&lower), tar(&[Entry::file("forged", "x")]));
    let scratch = Scratch::new();
    let error = scratch.store().import_tar(&tar(&entries)[..], "a:1", &ImageConfig::default(), &Silent).unwrap_err();
    assert!(matches!(error, ImageError::Digest { .. }), "{error}");
    assert_eq!((count(&scratch, "layers"), count(&scratch, "tmp")), (0, 0));
}

#[test]
fn an_archive_cannot_make_the_import_read_host_files() {
    let manifest = r#"[{"Config":"c.json","Layers":["layer.tar"]}]"#;
    let (_, config) = two_layers();
    for hostile in [
        Entry::symlink("c.json", "/proc/self/environ"),
        Entry::fifo("c.json"),
        Entry::symlink("c.json", "../../../../etc/passwd"),
    ] {
        let archive = tar(&[Entry::file("manifest.json", manifest), hostile]);
        let scratch = Scratch::new();
        let error = scratch.store().import_tar(&archive[..], "a:1", &ImageConfig::default(), &Silent).unwrap_err();
        assert!(error.to_string().contains("c.json"), "{error}");
    }
    // The configuration wants two layers, the archive has one.
    let archive = tar(&[Entry::file("manifest.json", manifest), Entry::file("c.json", &config)]);
    let scratch = Scratch::new();
    let error = scratch.store().import_tar(&archive[..], "a:1", &ImageConfig::default(), &Silent).unwrap_err();
    assert!(error.to_string().contains("1 layers for 2 layer ids"), "{error}");
}

#[test]
fn only_root_reaches_the_files_of_images() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    import(&scratch.store(), "x:1", "x");
    assert_eq!(fs::metadata(scratch.path("store")).unwrap().permissions().mode() & 0o7777, 0o700);
}

/// A file system of its own for the store.
struct Small(PathBuf);

impl Small {
    fn new(path: PathBuf, bytes: u64) -> Self {
        fs::create_dir_all(&path).unwrap();
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        rustix::mount::mount("tmpfs", &path, "tmpfs", rustix::mount::MountFlags::empty(), options.as_c_str()).unwrap();
        Self(path)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn an_image_does_not_take_the_hosts_last_bytes() {
    let scratch = Scratch::new();
    let gzip = |plain: &[u8]| {
        let mut stored = Vec::new();
        flate2::read::GzEncoder::new(plain, flate2::Compression::fast()).read_to_end(&mut stored).unwrap();
        stored
    };
    let zeros = "0".repeat(160 << 20);
    let bomb = gzip(&tar(&[Entry::file("zeros", &zeros)]));
    {
        let _room_for_a_part = Small::new(scratch.path("store"), HOST_RESERVE_BYTES + (80 << 20));
        let store = scratch.store();
        let error = store.import_tar(&bomb[..], "bomb:1", &ImageConfig::default(), &Silent).unwrap_err();
        assert!(matches!(&error, ImageError::Exhausted { why } if why.contains("reserve")), "{error}");
        assert_eq!((count(&scratch, "tmp"), count(&scratch, "layers")), (0, 0));
        import(&store, "small:1", "fits");
    }
    let _no_room = Small::new(scratch.path("store"), HOST_RESERVE_BYTES / 2);
    let error = scratch.store().import_tar(&bomb[..], "bomb:1", &ImageConfig::default(), &Silent).unwrap_err();
    assert_eq!(error.kind(), RunnerErrorKind::Exhausted, "{error}");
}
