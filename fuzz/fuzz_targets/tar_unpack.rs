//! Structured archives unpacked for real: nothing outside the layer directory changes, no device node but the whiteout
//! appears, and the layer can be removed again. Needs root and a scratch directory (`/dev/shm`).
#![no_main]

use arbitrary::Arbitrary;
use infield_fuzz::image::unpack::unpack;
use libfuzzer_sys::fuzz_target;
use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    sync::OnceLock,
};

const NAMES: [&[u8]; 16] = [
    b"a",
    b"b",
    b"a/b",
    b"a/b/c",
    b"../out",
    b"/abs",
    b"a/../b",
    b"./a",
    b"",
    b".wh.a",
    b"a/.wh.b",
    b".wh..wh..opq",
    b"a/.wh..wh..opq",
    b"dev/null",
    b"a/b/../../..",
    b"b/c",
];
const LINKS: [&[u8]; 10] =
    [b"a", b"..", b"../..", b"/", b"../outside/victim", b"b", b"/dev/shm", b"a/b", b".", b"../../../../../../etc"];

#[derive(Arbitrary, Debug)]
struct Entry {
    name: u8,
    link: u8,
    kind: u8,
    mode: u16,
    owner: u16,
    device: (u8, u8),
    data: Vec<u8>,
}

fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    field[..digits].copy_from_slice(&text.as_bytes()[text.len() - digits..]);
}

fn header(entry: &Entry, size: u64) -> [u8; 512] {
    let mut block = [0; 512];
    let (name, link) = (NAMES[entry.name as usize % NAMES.len()], LINKS[entry.link as usize % LINKS.len()]);
    block[..name.len()].copy_from_slice(name);
    octal(&mut block[100..108], u64::from(entry.mode & 0o7777));
    octal(&mut block[108..116], u64::from(entry.owner));
    octal(&mut block[116..124], u64::from(entry.owner));
    octal(&mut block[124..136], size);
    octal(&mut block[136..148], 1);
    block[156] = b"0012345567S"[entry.kind as usize % 11];
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut block[329..337], u64::from(entry.device.0));
    octal(&mut block[337..345], u64::from(entry.device.1));
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    octal(&mut block[148..155], sum);
    block
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        let is_file = matches!(b"0012345567S"[entry.kind as usize % 11], b'0' | b'7' | b'S');
        let data = if is_file { &entry.data[..entry.data.len().min(600)] } else { &[] };
        bytes.extend(header(entry, data.len() as u64));
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.extend([0; 1024]);
    bytes
}

fn scratch() -> &'static PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = PathBuf::from(format!("/dev/shm/infield-fuzz-{}", std::process::id()));
        fs::create_dir_all(dir.join("outside")).expect("scratch");
        fs::write(dir.join("outside/victim"), "host").expect("scratch");
        dir
    })
}

fn assert_harmless(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = fs::symlink_metadata(entry.path()) else { continue };
        assert!(!meta.file_type().is_block_device());
        assert!(!meta.file_type().is_char_device() || meta.rdev() == 0, "a device node");
        assert!(meta.uid() <= 65_535 && meta.gid() <= 65_535);
        if meta.is_dir() {
            assert_harmless(&entry.path());
        }
    }
}

fuzz_target!(|entries: Vec<Entry>| {
    let base = scratch();
    let layer = base.join("layer");
    fs::create_dir(&layer).expect("layer");
    let _ = unpack(&archive(&entries[..entries.len().min(24)])[..], &layer);
    assert_eq!(fs::read(base.join("outside/victim")).expect("victim"), b"host");
    let victim = fs::metadata(base.join("outside/victim")).expect("victim");
    assert_eq!((victim.nlink(), victim.mode() & 0o7777, victim.uid()), (1, 0o644, 0), "linked to from inside");
    assert_eq!(fs::read_dir(base.join("outside")).expect("outside").count(), 1);
    assert_eq!(fs::read_dir(base).expect("base").count(), 2);
    assert_harmless(&layer);
    fs::remove_dir_all(&layer).expect("a layer can be removed");
});
