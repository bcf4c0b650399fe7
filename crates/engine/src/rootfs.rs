//! The root file system of a sandbox: shared read-only image layers, a private writable layer, and the few files in /etc
//! that tell it who it is. Everything is made by descriptor and stays detached; the zygote's child attaches it.
//!
//! The writable layer of a stopped sandbox is whatever its last inhabitant made of it, so nothing here follows a link in it.

use crate::stage;
use infield_sys::{beneath, caps, mount};
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

/// Directories that mounts are placed on.
const MOUNT_POINTS: [&str; 3] = ["dev", "proc", "sys"];
const HOSTNAME_BYTES_MAX: usize = 63;

#[derive(Debug, thiserror::Error)]
#[error("{path}: cannot {what}")]
pub struct RootfsError {
    path: PathBuf,
    what: &'static str,
    source: io::Error,
}

type Result<T> = std::result::Result<T, RootfsError>;

fn failed<'a>(path: &'a Path, what: &'static str) -> impl FnOnce(io::Error) -> RootfsError + 'a {
    move |source| RootfsError { path: path.to_owned(), what, source }
}

/// Who the sandbox is, for its /etc.
pub(crate) struct Identity<'a> {
    pub hostname: &'a str,
    pub address: Ipv4Addr,
    pub resolv_conf: &'a str,
}

/// A name as a hostname: letters, digits, dots and hyphens, beginning and ending with a letter or digit.
pub(crate) fn hostname(name: &str) -> String {
    let mut host: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c.to_ascii_lowercase() } else { '-' })
        .take(HOSTNAME_BYTES_MAX)
        .collect();
    host = host.trim_matches(['-', '.']).to_owned();
    if host.is_empty() { "sandbox".to_owned() } else { host }
}

/// Prepares a disk (`u` and `w` inside) for a start: writes the identity, and gives overlayfs a fresh work directory,
/// because a volatile mount marks its own as not to be used again.
pub(crate) fn prepare_disk(disk: &Path, layers: &[PathBuf], identity: &Identity<'_>, fresh: bool) -> Result<()> {
    if !fresh {
        let work = disk.join("w");
        match fs::remove_dir_all(&work) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(&work, "clear the work directory")(e)),
            _ => {}
        }
        fs::DirBuilder::new().mode(0o755).create(&work).map_err(failed(&work, "make the work directory"))?;
    }
    let upper = disk.join("u");
    let dir = File::open(&upper).map_err(failed(&upper, "open the writable layer"))?;
    for name in MOUNT_POINTS {
        // In the upper layer only when no image layer has it, or the image's own would lose its attributes.
        if !layers.iter().any(|layer| fs::symlink_metadata(layer.join(name)).is_ok_and(|m| m.is_dir())) {
            beneath::ensure_directory(dir.as_fd(), name, 0o755).map_err(failed(&upper, "make the mount points"))?;
        }
    }
    write_identity(dir.as_fd(), identity).map_err(failed(&upper, "write the sandbox's name into /etc"))
}

fn write_identity(upper: BorrowedFd<'_>, identity: &Identity<'_>) -> io::Result<()> {
    let etc = match beneath::ensure_directory(upper, "etc", 0o755) {
        Ok(etc) => etc,
        // The last inhabitant replaced /etc by something that is not a directory. Its files, its loss; but its start is
        // not to fail either: it may be the way to repair it.
        Err(e) if matches!(e.raw_os_error(), Some(ELOOP | ENOTDIR)) => return Ok(()),
        Err(e) => return Err(e),
    };
    let Identity { hostname, address, resolv_conf } = identity;
    let (hosts, hostname) = name_files(hostname, *address);
    for (name, content) in [(HOSTS, hosts.as_str()), (HOSTNAME, &hostname), ("resolv.conf", resolv_conf)] {
        match beneath::replace_file(etc.as_fd(), name, content.as_bytes(), 0o644) {
            Err(e) if matches!(e.raw_os_error(), Some(EISDIR | EPERM)) => {}
            other => other?,
        }
    }
    Ok(())
}

const HOSTS: &str = "hosts";
const HOSTNAME: &str = "hostname";

/// The contents of /etc/hosts and /etc/hostname.
fn name_files(hostname: &str, address: Ipv4Addr) -> (String, String) {
    let hosts = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n\
         {address}\t{hostname}\n"
    );
    (hosts, format!("{hostname}\n"))
}

/// The files in /etc of a disk that carry its sandbox's name, held open so that the name can be given later. Only the files'
/// contents change then, which the mounted overlay passes through, and never the folders below it.
pub(crate) struct NameFiles {
    etc: PathBuf,
    hosts: File,
    hostname: File,
}

impl NameFiles {
    /// For a disk that was prepared and that nobody has lived on yet.
    pub(crate) fn open(disk: &Path) -> Result<Self> {
        let etc = disk.join("u/etc");
        let open = |name: &str| File::options().write(true).open(etc.join(name));
        let (hosts, hostname) = (open(HOSTS), open(HOSTNAME));
        let hosts = hosts.map_err(failed(&etc, "open the hosts file"))?;
        let hostname = hostname.map_err(failed(&etc, "open the hostname file"))?;
        Ok(Self { etc, hosts, hostname })
    }

    pub(crate) fn write(&self, name: &str, address: Ipv4Addr) -> Result<()> {
        let (hosts, hostname) = name_files(name, address);
        let replace = |file: &File, text: &str| file.set_len(0).and_then(|()| file.write_all_at(text.as_bytes(), 0));
        let written = replace(&self.hosts, &hosts).and_then(|()| replace(&self.hostname, &hostname));
        written.map_err(failed(&self.etc, "write the sandbox's name"))
    }
}

const ELOOP: i32 = 40;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;
const EPERM: i32 = 1;
const EBADF: i32 = 9;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

/// A detached mount of the whole root: `layers` (top first) below `disk`'s `u`, ids shifted by `userns`, whose id 0 is the
/// host's `first_id`.
pub(crate) fn mount(layers: &[PathBuf], disk: &Path, userns: BorrowedFd<'_>, first_id: u32) -> Result<OwnedFd> {
    let lowers = layers
        .iter()
        .map(|layer| {
            mount::clone_tree(layer, Some(userns), 0).map_err(failed(layer, "shift the ids of the image layer"))
        })
        .collect::<Result<Vec<_>>>()?;
    let private = mount::clone_tree(disk, Some(userns), 0).map_err(failed(disk, "shift the ids of the disk"))?;
    // Devices never; set-user-id programs yes (sudo), they count only inside the user namespace.
    let attributes = mount::ATTR_NODEV;
    let mounted = match by_descriptor(&lowers, &private, first_id, attributes) {
        // Kernels before 6.13 want names (and those before 6.5 have no way at all to say "descriptor"), those before 6.15
        // attached mounts.
        Err(e)
            if matches!(e.raw_os_error(), Some(EINVAL | EBADF | EOPNOTSUPP))
                || e.kind() == io::ErrorKind::InvalidInput =>
        {
            stage::overlay(stage::Parts { lowers, disk: private, first_id, attributes })
        }
        other => other,
    };
    mounted.map_err(failed(disk, "mount the layers on each other"))
}

fn by_descriptor(lowers: &[OwnedFd], disk: &OwnedFd, first_id: u32, attributes: u64) -> io::Result<OwnedFd> {
    let place = |name: &str| mount::open_place(Some(disk.as_fd()), Path::new(name));
    let (upper, work) = (place("u")?, place("w")?);
    let context = mount::FsContext::open(c"overlay")?;
    lowers.iter().try_for_each(|lower| context.fd(c"lowerdir+", lower.as_fd()))?;
    context.fd(c"upperdir", upper.as_fd())?;
    context.fd(c"workdir", work.as_fd())?;
    // Nothing is synced to disk on the sandbox's word: a crash of the host may lose its last seconds.
    context.flag(c"volatile")?;
    caps::with_fs_ids(first_id, || context.create())??;
    context.mount(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_name_becomes_a_hostname(name in ".*") {
            let host = hostname(&name);
            prop_assert!(!host.is_empty() && host.len() <= HOSTNAME_BYTES_MAX);
            prop_assert!(host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.'));
            prop_assert!(host.starts_with(|c: char| c.is_ascii_alphanumeric()));
            prop_assert!(host.ends_with(|c: char| c.is_ascii_alphanumeric()));
        }
    }

    /// What older kernels need works on this one, too: both ways give the same root, and the layers' places are free again.
    #[test]
    fn layers_by_name_and_by_descriptor_give_the_same_root() {
        const FIRST_ID: u32 = 1 << 20;
        let base = std::env::temp_dir().join(format!("infield-stage-{}", std::process::id()));
        for dir in ["one/etc", "two", "disk/u", "disk/w"] {
            fs::create_dir_all(base.join(dir)).unwrap();
        }
        fs::write(base.join("one/file"), "upper").unwrap();
        fs::write(base.join("two/file"), "lower").unwrap();
        let user = infield_sys::ns::make_pair(File::open("/proc").unwrap().as_fd(), FIRST_ID, 65_536).unwrap().user;
        let clone = |name: &str| mount::clone_tree(&base.join(name), Some(user.as_fd()), 0).unwrap();
        let look = |root: &OwnedFd| {
            let inside = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(root)));
            let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(inside.join("etc")).unwrap());
            (fs::read_to_string(inside.join("file")).unwrap(), owner)
        };
        let expected = ("upper".to_owned(), FIRST_ID);
        for _ in 0..2 {
            let parts = stage::Parts {
                lowers: vec![clone("one"), clone("two")],
                disk: clone("disk"),
                first_id: FIRST_ID,
                attributes: mount::ATTR_NODEV,
            };
            assert_eq!(look(&stage::overlay(parts).unwrap()), expected);
            fs::remove_dir_all(base.join("disk/w")).unwrap();
            fs::create_dir(base.join("disk/w")).unwrap();
        }
        let root = mount(&[base.join("one"), base.join("two")], &base.join("disk"), user.as_fd(), FIRST_ID).unwrap();
        assert_eq!(look(&root), expected);
        drop(root);
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn hostile_upper_layers_reach_nothing_outside() {
        let base = std::env::temp_dir().join(format!("infield-rootfs-{}", std::process::id()));
        let (disk, outside) = (base.join("disk"), base.join("outside"));
        for dir in ["u/etc", "w/work/incompat/volatile"] {
            fs::create_dir_all(disk.join(dir)).unwrap();
        }
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("victim"), "host").unwrap();
        std::os::unix::fs::symlink(outside.join("victim"), disk.join("u/etc/hosts")).unwrap();
        std::os::unix::fs::symlink(&outside, disk.join("w/work/link")).unwrap();
        fs::create_dir(disk.join("u/etc/hostname")).unwrap();
        let identity = Identity { hostname: "h", address: Ipv4Addr::LOCALHOST, resolv_conf: "nameserver 192.0.2.1\n" };
        prepare_disk(&disk, &[], &identity, false).unwrap();
        assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "host");
        assert!(fs::read_to_string(disk.join("u/etc/hosts")).unwrap().contains("\th\n"));
        assert!(!disk.join("w/work").exists() && disk.join("u/proc").is_dir());

        fs::remove_dir_all(disk.join("u/etc")).unwrap();
        std::os::unix::fs::symlink(&outside, disk.join("u/etc")).unwrap();
        prepare_disk(&disk, &[], &identity, false).unwrap();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        fs::remove_dir_all(base).unwrap();
    }
}
