//! Overlays, idmapped mounts, disks, free space, image tools.

use super::{Check, DoctorConfig, chain, fail, ok, warn};
use crate::{
    disk::{HOST_RESERVE_BYTES, find_tool, free_bytes, kernel_has},
    rootfs,
};
use infield_sys::{
    mount::{FsContext, clone_tree, open_place},
    ns,
};
use rustix::fs::StatVfsMountFlags;
use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// Below this a server soon runs out.
const FREE_BYTES_GOOD: u64 = 20 << 30;
/// Ids the trial maps; the first range sandboxes use.
const FIRST_ID: u32 = 1 << 20;
const IDS: u32 = 65_536;
const IDMAPPED: &str = "idmapped mounts";

pub fn check(config: &DoctorConfig) -> Vec<Check> {
    let place = existing(&config.data_dir);
    let mut checks = vec![images(&existing(&config.image_dir))];
    match Scratch::new(&place) {
        Ok(scratch) => checks.extend([overlay(&scratch.0), layer_options(&scratch.0)]),
        Err(e) => checks.push(unwritable("overlay", &place, &e, "--data-dir")),
    }
    checks.extend([disks(), free_space(&place), image_tool()]);
    checks
}

/// Layers are mounted with shifted owners from where they lie.
fn images(place: &Path) -> Check {
    match Scratch::new(place) {
        Ok(scratch) => idmapped(&scratch.0),
        Err(e) => unwritable(IDMAPPED, place, &e, "--image-dir or --data-dir"),
    }
}

fn unwritable(name: &'static str, place: &Path, error: &io::Error, flag: &str) -> Check {
    fail(name, format!("cannot write below {}: {error}", place.display()), format!("choose another folder with {flag}"))
}

/// The nearest folder that is there already.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// A folder that goes when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(place: &Path) -> io::Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let scratch = Self(place.join(format!(".infield-doctor-{}-{serial}", std::process::id())));
        for part in ["lower", "u", "w"] {
            fs::create_dir_all(scratch.0.join(part))?;
        }
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // only empty folders of ours
    }
}

fn idmapped(scratch: &Path) -> Check {
    match user_namespace().and_then(|user| clone_tree(&scratch.join("lower"), Some(user.as_fd()), 0)) {
        Ok(_) => ok(IDMAPPED, format!("work below {}", place_of(scratch))),
        Err(e) => fail(
            IDMAPPED,
            format!("refused below {}: {e}", place_of(scratch)),
            "put the image store on ext4, xfs or btrfs with --image-dir, or all with --data-dir",
        ),
    }
}

fn place_of(scratch: &Path) -> std::path::Display<'_> {
    scratch.parent().unwrap_or(scratch).display()
}

fn user_namespace() -> io::Result<OwnedFd> {
    File::open("/proc").and_then(|proc| ns::make_pair(proc.as_fd(), FIRST_ID, IDS)).map(|pair| pair.user)
}

/// Whether a sandbox's root can be mounted below this folder; the server asks before it says that it is ready.
pub(crate) fn root_mounts(place: &Path) -> Result<(), String> {
    let scratch = Scratch::new(place).map_err(|e| format!("cannot write below {}: {e}", place.display()))?;
    // On a thread of its own: a thread that changed its ids no longer hears when its process's parent dies, and the caller
    // may be the one that has to.
    let tried = std::thread::scope(|scope| scope.spawn(|| try_overlay(&scratch.0)).join());
    tried.unwrap_or_else(|_| Err("the trial broke off".to_owned()))
}

/// A root file system as sandboxes get it. The kernel may mount one it cannot write to, so that is looked at too.
fn try_overlay(scratch: &Path) -> Result<(), String> {
    let user = user_namespace().map_err(|e| e.to_string())?;
    let root = rootfs::mount(&[scratch.join("lower")], scratch, user.as_fd(), FIRST_ID).map_err(|e| chain(&e))?;
    let found = rustix::fs::fstatvfs(&root).map_err(|e| e.to_string())?;
    if found.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err("the kernel mounts it read-only".to_owned());
    }
    Ok(())
}

fn overlay(scratch: &Path) -> Check {
    const NAME: &str = "overlay";
    if !kernel_has("overlay") {
        return fail(NAME, "this kernel has no overlayfs", "modprobe overlay, or a kernel with CONFIG_OVERLAY_FS");
    }
    match try_overlay(scratch) {
        Ok(()) => ok(NAME, "a sandbox's root can be mounted"),
        Err(text) => fail(
            NAME,
            format!("a sandbox's root cannot be mounted on {}: {text}", place_of(scratch)),
            "put the data directory on ext4, xfs or btrfs with --data-dir (not on an overlay, as inside a container)",
        ),
    }
}

/// How layers are handed to the kernel; both ways work.
fn layer_options(scratch: &Path) -> Check {
    const NAME: &str = "overlay layers";
    // A place, as the real ones are: older kernels take the option and refuse such a descriptor.
    let by_descriptor = open_place(None, &scratch.join("lower"))
        .and_then(|lower| FsContext::open(c"overlay").and_then(|context| context.fd(c"lowerdir+", lower.as_fd())));
    ok(NAME, if by_descriptor.is_ok() { "by descriptor" } else { "by name, one sandbox at a time (Linux before 6.13)" })
}

fn disks() -> Check {
    const NAME: &str = "disks";
    if !Path::new("/dev/loop-control").exists() {
        return fail(NAME, "no loop devices (/dev/loop-control)", "modprobe loop");
    }
    let btrfs_tool = find_tool("mkfs.btrfs").is_some();
    if btrfs_tool && kernel_has("btrfs") {
        return ok(NAME, "btrfs in one file: microseconds per sandbox, instant copies");
    }
    let (lacks, remedy) = if btrfs_tool {
        ("the kernel has no btrfs", "install the kernel's extra modules (Ubuntu: linux-modules-extra-$(uname -r))")
    } else {
        ("mkfs.btrfs is missing", "apt install btrfs-progs (or your distribution's package)")
    };
    if find_tool("mkfs.ext4").is_some() && kernel_has("ext4") {
        return warn(
            NAME,
            format!("{lacks}: ext4 images are used, milliseconds per sandbox, and forks are whole copies"),
            remedy,
        );
    }
    fail(NAME, format!("{lacks}, and mkfs.ext4 is missing too"), remedy)
}

fn free_space(place: &Path) -> Check {
    const NAME: &str = "free disk space";
    match free_bytes(place) {
        Ok(free) => {
            let found = format!("{} GiB in {}", free >> 30, place.display());
            let remedy = "free some space, or choose another folder with --data-dir";
            match free {
                f if f < HOST_RESERVE_BYTES => fail(NAME, found, remedy),
                f if f < FREE_BYTES_GOOD => warn(NAME, found, remedy),
                _ => ok(NAME, found),
            }
        }
        Err(e) => fail(NAME, chain(&e), "choose another folder with --data-dir"),
    }
}

fn image_tool() -> Check {
    const NAME: &str = "default image";
    match find_tool("mmdebstrap") {
        Some(path) => ok(NAME, format!("can be made with {}", path.display())),
        None => warn(
            NAME,
            "mmdebstrap is missing: the default image cannot be made here",
            "apt install mmdebstrap, or import an image: infield image pull",
        ),
    }
}
