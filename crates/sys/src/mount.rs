//! The mount interface that works on descriptors: a file system is made, configured and placed without a path of the host
//! ever being reachable in between.

use crate::fd::{c_path, check_long, own};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr;

pub const ATTR_RDONLY: u64 = 0x1;
pub const ATTR_NOSUID: u64 = 0x2;
pub const ATTR_NODEV: u64 = 0x4;
pub const ATTR_NOEXEC: u64 = 0x8;
const ATTR_IDMAP: u64 = 0x0010_0000;

const OPEN_TREE_CLONE: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_SET_FD: u32 = 5;
const FSCONFIG_CMD_CREATE: u32 = 6;

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// A detached copy of the mount at `path` (that directory as its root, without what is mounted below it).
/// With `userns`, owners on disk 0..n appear as the ids that namespace maps 0..n to.
pub fn clone_tree(path: &Path, userns: Option<BorrowedFd<'_>>, attributes: u64) -> io::Result<OwnedFd> {
    let name = c_path(path)?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32;
    // SAFETY: a live C string.
    let tree = own(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, name.as_ptr(), flags) })?;
    let mut attr = MountAttr { set: attributes, clear: 0, propagation: 0, userns: 0 };
    if let Some(userns) = userns {
        attr.set |= ATTR_IDMAP;
        attr.userns = userns.as_raw_fd() as u64;
    }
    if attr.set != 0 {
        set_attributes(&tree, &attr)?;
    }
    Ok(tree)
}

fn set_attributes(tree: &OwnedFd, attr: &MountAttr) -> io::Result<()> {
    // SAFETY: `attr` is live and of the stated size; the path is an empty constant.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })
    .map(|_| ())
}

/// A file system being configured.
pub struct FsContext(OwnedFd);

impl FsContext {
    pub fn open(kind: &CStr) -> io::Result<Self> {
        // SAFETY: a live C string.
        own(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) }).map(Self)
    }

    pub fn flag(&self, key: &CStr) -> io::Result<()> {
        self.config(FSCONFIG_SET_FLAG, key.as_ptr(), ptr::null(), 0)
    }

    pub fn string(&self, key: &CStr, value: &CStr) -> io::Result<()> {
        self.config(FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr(), 0)
    }

    pub fn fd(&self, key: &CStr, value: BorrowedFd<'_>) -> io::Result<()> {
        self.config(FSCONFIG_SET_FD, key.as_ptr(), ptr::null(), value.as_raw_fd())
    }

    /// Makes the file system. The kernel's own words about a failure are in the error.
    pub fn create(&self) -> io::Result<()> {
        self.config(FSCONFIG_CMD_CREATE, ptr::null(), ptr::null(), 0)
    }

    /// A detached mount of the file system made by [`create`](Self::create).
    pub fn mount(&self, attributes: u64) -> io::Result<OwnedFd> {
        // SAFETY: no pointers.
        own(unsafe { libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })
    }

    fn config(&self, what: u32, key: *const libc::c_char, value: *const libc::c_char, aux: i32) -> io::Result<()> {
        // SAFETY: key and value are null or live C strings, as each command wants.
        let ret = unsafe { libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), what, key, value, aux) };
        check_long(ret).map(|_| ()).map_err(|e| self.explain(e))
    }

    /// Adds what the kernel logged for this context ("e overlay: …").
    fn explain(&self, error: io::Error) -> io::Error {
        let mut text = [0u8; 256];
        // SAFETY: reads into a live buffer of the stated size.
        let got = unsafe { libc::read(self.0.as_raw_fd(), text.as_mut_ptr().cast(), text.len()) };
        if got <= 0 {
            return error;
        }
        let said = String::from_utf8_lossy(&text[..got as usize]);
        io::Error::new(error.kind(), format!("{error} ({})", said.trim()))
    }
}

/// Puts a detached mount at `path`.
pub fn attach(mount: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: live C strings.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(|_| ())
}

/// Puts a detached mount on a directory, which may itself be in a detached mount (since Linux 6.15).
pub fn attach_to(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: constant empty paths.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            place.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
    .map(|_| ())
}

/// Makes every mount of this mount namespace private, so that nothing propagates to or from another.
pub fn make_all_private() -> io::Result<()> {
    // SAFETY: constant strings and null pointers, as this form of mount wants.
    crate::fd::check(unsafe {
        libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), libc::MS_REC | libc::MS_PRIVATE, ptr::null())
    })
    .map(|_| ())
}

/// Makes `new_root` the root of this mount namespace and takes the old one away with everything in it.
pub fn pivot_into(new_root: &Path) -> io::Result<()> {
    let path = c_path(new_root)?;
    // SAFETY: live and constant C strings. "." twice stacks the old root on the new one; the umount takes it off.
    unsafe {
        crate::fd::check(libc::chdir(path.as_ptr()))?;
        check_long(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
        crate::fd::check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
        crate::fd::check(libc::chdir(c"/".as_ptr()))?;
    }
    Ok(())
}

/// A character device node below a directory.
pub fn device_node(dir: BorrowedFd<'_>, name: &CStr, major: u32, minor: u32) -> io::Result<()> {
    let mode = libc::S_IFCHR | 0o666;
    // SAFETY: live C strings; fchmodat because mknodat obeys the umask.
    unsafe {
        crate::fd::check(libc::mknodat(dir.as_raw_fd(), name.as_ptr(), mode, libc::makedev(major, minor)))?;
        crate::fd::check(libc::fchmodat(dir.as_raw_fd(), name.as_ptr(), 0o666, 0))?;
    }
    Ok(())
}

/// A directory below a directory.
pub fn directory_at(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: a live C string.
    crate::fd::check(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), mode) }).map(|_| ())
}

/// A symbolic link below a directory.
pub fn symlink_at(target: &CStr, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: live C strings.
    crate::fd::check(unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), name.as_ptr()) }).map(|_| ())
}

/// Opens a path as a place (`O_PATH`): it can be handed on and used as a starting point, not read.
pub fn open_place(dir: Option<BorrowedFd<'_>>, path: &Path) -> io::Result<OwnedFd> {
    let name: CString = c_path(path)?;
    let dir = dir.map_or(libc::AT_FDCWD, |d| d.as_raw_fd());
    // SAFETY: a live C string.
    own(unsafe { libc::openat(dir, name.as_ptr(), libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW) }.into())
}
