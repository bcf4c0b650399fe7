//! Overlays on kernels that take their layers only by name and only from mounts of the caller's namespace (before 6.15).
//!
//! One thread lives in a mount namespace with an empty root. It attaches the layers of one overlay there, makes the overlay,
//! which keeps copies of its own, and takes the layers away again: no path of the host ever shows them. Knows nothing of
//! sandboxes and images.

use infield_sys::{caps, mount, ns};
use rustix::mount::{UnmountFlags, unmount};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

/// The kernel takes no longer option than this; 88 layers have so short names.
const OPTION_BYTES_MAX: usize = 255;
/// Callers wait for each other: the thread makes one overlay after the other.
const JOBS_MAX: usize = 1;
const DISK: &str = "disk";

/// What one overlay is made of: detached mounts, their owners already shifted.
pub(crate) struct Parts {
    /// Top first.
    pub lowers: Vec<OwnedFd>,
    /// Holds `u` and `w`.
    pub disk: OwnedFd,
    /// Host id of the sandbox's root, in whose name the overlay is made.
    pub first_id: u32,
    pub attributes: u64,
}

struct Job {
    parts: Parts,
    answer: SyncSender<io::Result<OwnedFd>>,
}

static STAGE: Mutex<Option<SyncSender<Job>>> = Mutex::new(None);

/// A detached mount of the overlay. The thread is started by the first caller and lives as long as the process.
pub(crate) fn overlay(parts: Parts) -> io::Result<OwnedFd> {
    let jobs = stage()?;
    let (answer, answered) = sync_channel(1);
    let gone = || io::Error::other("the thread that mounts layers has ended");
    jobs.send(Job { parts, answer }).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

fn stage() -> io::Result<SyncSender<Job>> {
    let mut stage = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(jobs) = &*stage {
        return Ok(jobs.clone());
    }
    let (jobs, inbox) = sync_channel(JOBS_MAX);
    let (entered, has_entered) = sync_channel(1);
    std::thread::Builder::new().name("layers".to_owned()).spawn(move || {
        let ready = enter();
        let failed = ready.is_err();
        if entered.send(ready).is_ok() && !failed {
            serve(&inbox);
        }
    })?;
    has_entered.recv().map_err(|_| io::Error::other("the thread that mounts layers did not start"))??;
    *stage = Some(jobs.clone());
    Ok(jobs)
}

fn serve(inbox: &Receiver<Job>) {
    while let Ok(Job { parts, answer }) = inbox.recv() {
        // Nobody waits any more: the mount goes with the answer.
        let _ = answer.send(make(&parts));
    }
}

/// Leaves the host's mounts, for this thread alone. Nothing of the host stays busy for its sake.
fn enter() -> io::Result<()> {
    ns::unshare_mounts()?;
    mount::make_all_private()?;
    // Any existing directory serves to attach the new root before the old one goes.
    let place = Path::new("/proc");
    let context = mount::FsContext::open(c"tmpfs")?;
    context.string(c"mode", c"700")?;
    context.create()?;
    let attributes = mount::ATTR_NOSUID | mount::ATTR_NODEV | mount::ATTR_NOEXEC;
    mount::attach(context.mount(attributes)?.as_fd(), place)?;
    mount::pivot_into(place)
}

/// Places of this thread's root that are emptied when dropped.
#[derive(Default)]
struct Attached(Vec<PathBuf>);

impl Attached {
    fn add(&mut self, mount: &OwnedFd, name: &str) -> io::Result<()> {
        let place = Path::new("/").join(name);
        match fs::create_dir(&place) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        mount::attach(mount.as_fd(), &place)?;
        self.0.push(place);
        Ok(())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        for place in &self.0 {
            if let Err(error) = unmount(place, UnmountFlags::DETACH) {
                tracing::warn!(%error, "a layer stays attached in the thread that mounts layers");
            }
        }
    }
}

fn make(parts: &Parts) -> io::Result<OwnedFd> {
    let mut attached = Attached::default();
    let mut names = Vec::new();
    for (number, lower) in parts.lowers.iter().enumerate() {
        let name = number.to_string();
        attached.add(lower, &name)?;
        names.push(name);
    }
    attached.add(&parts.disk, DISK)?;
    let names = names.join(":");
    if names.len() > OPTION_BYTES_MAX {
        let text = format!("an image of {} layers needs Linux 6.15", parts.lowers.len());
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let context = mount::FsContext::open(c"overlay")?;
    // Relative to this thread's root, where it stands.
    context.string(c"lowerdir", &CString::new(names)?)?;
    context.string(c"upperdir", &CString::new(format!("{DISK}/u"))?)?;
    context.string(c"workdir", &CString::new(format!("{DISK}/w"))?)?;
    context.flag(c"volatile")?;
    caps::with_fs_ids(parts.first_id, || context.create())??;
    context.mount(parts.attributes)
}
