//! What the image tests share: a scratch directory that cleans up, and a writer of archives no honest tool would write.
#![allow(dead_code)]

pub mod registry;

use infield_engine::image::Store;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// A private directory with a store in it, removed at the end even when the test fails.
pub struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("infield-image-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self { dir: dir.canonicalize().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn store(&self) -> Store {
        Store::open(self.path("store")).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// One archive member, exactly as given.
#[derive(Clone, Debug)]
pub struct Entry {
    kind: u8,
    path: String,
    link: String,
    data: Vec<u8>,
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    device: (u32, u32),
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Entry {
    fn new(kind: u8, path: &str) -> Self {
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        Self {
            kind,
            path: path.into(),
            link: String::new(),
            data: Vec::new(),
            mode,
            owner: (0, 0),
            mtime: 1_600_000_000,
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    pub fn file(path: &str, data: &str) -> Self {
        Self { data: data.into(), ..Self::new(b'0', path) }
    }
    pub fn bytes(path: &str, data: Vec<u8>) -> Self {
        Self { data, ..Self::new(b'0', path) }
    }
    pub fn dir(path: &str) -> Self {
        Self::new(b'5', path)
    }
    pub fn symlink(path: &str, target: &str) -> Self {
        Self { link: target.into(), ..Self::new(b'2', path) }
    }
    pub fn hardlink(path: &str, target: &str) -> Self {
        Self { link: target.into(), ..Self::new(b'1', path) }
    }
    pub fn fifo(path: &str) -> Self {
        Self::new(b'6', path)
    }
    pub fn device(path: &str, kind: u8, major: u32, minor: u32) -> Self {
        Self { device: (major, minor), ..Self::new(kind, path) }
    }
    pub fn owned(self, uid: u64, gid: u64) -> Self {
        Self { owner: (uid, gid), ..self }
    }
    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }
    pub fn mtime(self, mtime: u64) -> Self {
        Self { mtime, ..self }
    }
    pub fn xattr(mut self, key: &str, value: &[u8]) -> Self {
        self.xattrs.push((key.into(), value.into()));
        self
    }

    /// Puts a real path in the place of a word in the link target.
    pub fn with_link(mut self, word: &str, path: &str) -> Self {
        self.link = self.link.replace(word, path);
        self
    }

    /// A bare header block with a size of its own.
    pub fn raw(kind: u8, path: &str, size: u64) -> Vec<u8> {
        Self::new(kind, path).header(size, kind, path).to_vec()
    }

    fn header(&self, size: u64, kind: u8, path: &str) -> [u8; 512] {
        let mut header = tar::Header::new_ustar();
        {
            let raw = header.as_old_mut();
            let length = path.len().min(100);
            raw.name[..length].copy_from_slice(&path.as_bytes()[..length]);
            let length = self.link.len().min(100);
            raw.linkname[..length].copy_from_slice(&self.link.as_bytes()[..length]);
            raw.linkflag = [kind];
        }
        header.set_mode(self.mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_mtime(self.mtime);
        header.set_size(size);
        header.set_device_major(self.device.0).unwrap();
        header.set_device_minor(self.device.1).unwrap();
        header.set_cksum();
        *header.as_bytes()
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut pax = Vec::new();
        for (key, value) in &self.xattrs {
            record(&mut pax, &format!("SCHILY.xattr.{key}"), value);
        }
        if self.path.len() > 100 {
            record(&mut pax, "path", self.path.as_bytes());
        }
        if self.link.len() > 100 {
            record(&mut pax, "linkpath", self.link.as_bytes());
        }
        if !pax.is_empty() {
            out.extend_from_slice(&self.header(pax.len() as u64, b'x', "PaxHeader"));
            padded(out, &pax);
        }
        out.extend_from_slice(&self.header(self.data.len() as u64, self.kind, &self.path));
        padded(out, &self.data);
    }
}

/// The whole archive, with its end mark.
pub fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    entries.iter().for_each(|entry| entry.write(&mut out));
    out.extend_from_slice(&[0; 1024]);
    out
}

fn padded(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
}

/// `<length> <key>=<value>\n`, the length counting its own digits.
fn record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The layers of an image mounted as a sandbox would see them, with a private upper directory.
pub struct Overlay {
    pub root: PathBuf,
}

impl Overlay {
    pub fn mount(scratch: &Scratch, layers: &[PathBuf]) -> Self {
        let root = scratch.path("merged");
        for dir in ["merged", "upper", "work"] {
            fs::create_dir_all(scratch.path(dir)).unwrap();
        }
        let layers: Vec<_> = layers.iter().map(|layer| layer.to_str().unwrap()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            layers.join(":"),
            scratch.path("upper").display(),
            scratch.path("work").display()
        );
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount("infield-test", &root, "overlay", rustix::mount::MountFlags::empty(), &*options).unwrap();
        Self { root }
    }

    /// Output of a shell script run inside, in its own mount namespace; panics when it fails.
    pub fn run_as(&self, user: &str, env: &[String], script: &str) -> String {
        let prepare = format!(
            "mount -t proc proc {root}/proc && mount --bind /dev {root}/dev && exec chroot --userspec={user} {root} /usr/bin/env -i HOME=/home/{user} \"$@\"",
            root = self.root.display()
        );
        let output = std::process::Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--propagation", "private", "sh", "-c", &prepare, "sh"])
            .args(env)
            .args(["/bin/sh", "-c", script])
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
        out.into_owned()
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.root, rustix::mount::UnmountFlags::DETACH);
    }
}
