//! The btrfs requests that disks need: subvolumes, snapshots, quotas. Knows descriptors and numbers, no paths of ours.

use crate::fd::check;
use std::{
    ffi::OsStr,
    io,
    mem::size_of,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
};

const MAGIC: libc::c_ulong = 0x94;
const WRITE: libc::c_ulong = 1;
const READ: libc::c_ulong = 2;

const fn request<T>(direction: libc::c_ulong, number: libc::c_ulong) -> libc::c_ulong {
    (direction << 30) | ((size_of::<T>() as libc::c_ulong) << 16) | (MAGIC << 8) | number
}

/// A subvolume's directory has this inode number, always.
const FIRST_FREE_OBJECT: u64 = 256;
/// Numbers of subvolumes begin here; they are never used twice.
pub const FIRST_SUBVOLUME: u64 = 256;
const QUOTA_ENABLE: u64 = 1;
const QUOTA_ENABLE_SIMPLE: u64 = 4;
const LIMIT_MAX_REFERENCED: u64 = 1;
/// Clears a limit.
const NO_LIMIT: u64 = u64::MAX;

#[repr(C)]
struct VolArgs {
    fd: i64,
    name: [u8; 4088],
}

#[repr(C)]
struct VolArgsV2 {
    fd: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

#[repr(C)]
struct QuotaCtl {
    command: u64,
    status: u64,
}

#[repr(C)]
struct QgroupLimit {
    qgroup: u64,
    flags: u64,
    max_referenced: u64,
    max_exclusive: u64,
    reserved_referenced: u64,
    reserved_exclusive: u64,
}

#[repr(C)]
struct QgroupCreate {
    create: u64,
    qgroup: u64,
}

#[repr(C)]
struct InodeLookup {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

#[repr(C)]
struct FsInfo {
    max_id: u64,
    devices: u64,
    id: [u8; 16],
    rest: [u8; 992],
}

const _: () = assert!(
    size_of::<VolArgs>() == 4096
        && size_of::<VolArgsV2>() == 4096
        && size_of::<QgroupLimit>() == 48
        && size_of::<InodeLookup>() == 4096
        && size_of::<FsInfo>() == 1024
);

fn call<T>(fd: BorrowedFd<'_>, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: every caller in this file pairs the request with the structure whose size the request number carries; the
    // kernel reads or writes exactly that and keeps no pointer.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request as _, std::ptr::from_mut(argument)) }).map(drop)
}

fn put_name(target: &mut [u8], name: &OsStr) -> io::Result<()> {
    let bytes = name.as_bytes();
    let wrong = bytes.is_empty() || bytes.len() >= target.len().min(256) || bytes.contains(&0) || bytes.contains(&b'/');
    if wrong {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a name for a subvolume"));
    }
    target[..bytes.len()].copy_from_slice(bytes);
    Ok(())
}

/// Makes an empty subvolume inside the directory `parent`.
pub fn create_subvolume(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let mut args = VolArgs { fd: 0, name: [0; 4088] };
    put_name(&mut args.name, name)?;
    call(parent, request::<VolArgs>(WRITE, 14), &mut args)
}

/// Deletes a subvolume and everything in it. Its space comes back in the background.
pub fn delete_subvolume(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let mut args = VolArgs { fd: 0, name: [0; 4088] };
    put_name(&mut args.name, name)?;
    call(parent, request::<VolArgs>(WRITE, 15), &mut args)
}

/// Makes a writable copy of the subvolume `source` inside `parent`; both share their blocks until one writes.
pub fn snapshot(source: BorrowedFd<'_>, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let mut args =
        VolArgsV2 { fd: i64::from(source.as_raw_fd()), transaction: 0, flags: 0, unused: [0; 4], name: [0; 4040] };
    put_name(&mut args.name, name)?;
    call(parent, request::<VolArgsV2>(WRITE, 23), &mut args)
}

/// Turns quotas on: simple ones where the kernel has them (6.7), else full ones. Harmless when they are on.
pub fn enable_quota(filesystem: BorrowedFd<'_>) -> io::Result<()> {
    let enable = |command| {
        let mut args = QuotaCtl { command, status: 0 };
        match call(filesystem, request::<QuotaCtl>(READ | WRITE, 40), &mut args) {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other,
        }
    };
    enable(QUOTA_ENABLE_SIMPLE).or_else(|_| enable(QUOTA_ENABLE))
}

/// The number of the subvolume an open file or directory belongs to.
pub fn subvolume_id(inside: BorrowedFd<'_>) -> io::Result<u64> {
    let mut args = InodeLookup { tree: 0, object: FIRST_FREE_OBJECT, name: [0; 4080] };
    call(inside, request::<InodeLookup>(READ | WRITE, 18), &mut args)?;
    Ok(args.tree)
}

/// Limits what a subvolume may hold; `None` lifts the limit.
pub fn limit(filesystem: BorrowedFd<'_>, subvolume: u64, bytes: Option<u64>) -> io::Result<()> {
    let mut args = QgroupLimit {
        qgroup: subvolume,
        flags: LIMIT_MAX_REFERENCED,
        max_referenced: bytes.unwrap_or(NO_LIMIT),
        max_exclusive: 0,
        reserved_referenced: 0,
        reserved_exclusive: 0,
    };
    call(filesystem, request::<QgroupLimit>(READ, 43), &mut args)
}

/// Forgets the accounting of a subvolume that is gone; kernels before 6.11 keep it. `EBUSY` while its space is in use.
pub fn forget_qgroup(filesystem: BorrowedFd<'_>, subvolume: u64) -> io::Result<()> {
    let mut args = QgroupCreate { create: 0, qgroup: subvolume };
    call(filesystem, request::<QgroupCreate>(WRITE, 42), &mut args)
}

/// The filesystem's UUID as `/sys/fs/btrfs` spells it.
pub fn filesystem_id(inside: BorrowedFd<'_>) -> io::Result<String> {
    let mut args = FsInfo { max_id: 0, devices: 0, id: [0; 16], rest: [0; 992] };
    call(inside, request::<FsInfo>(READ, 31), &mut args)?;
    let hex: String = args.id.iter().map(|b| format!("{b:02x}")).collect();
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}
