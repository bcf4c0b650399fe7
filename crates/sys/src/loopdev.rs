//! Loop devices: a file as a block device, configured in one step, released by the kernel when its last user goes.
//! Knows descriptors and numbers; does not know which files these are.

use crate::fd::check;
use std::{
    fs::{self, File, OpenOptions},
    io,
    mem::size_of,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

const LOOP_CONTROL: &str = "/dev/loop-control";
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_SET_CAPACITY: libc::c_ulong = 0x4C07;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
/// Sectors of this size let the kernel bypass the page cache of the backing file.
const SECTOR_BYTES: u32 = 4096;
/// Others take free devices at the same time.
const ATTACH_TRIES_MAX: u32 = 64;

#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo64>() == 232 && size_of::<LoopConfig>() == 304);

const EMPTY_INFO: LoopInfo64 = LoopInfo64 {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// An attached device. It stays attached while this or a mount of it is open.
#[derive(Debug)]
pub struct LoopDevice {
    pub path: PathBuf,
    _open: OwnedFd,
}

/// Attaches a file to a free device, with direct I/O where the file's filesystem has it, released by its last user.
///
/// Never attach a file that [`attached`] finds: two devices on one file destroy each other's data.
pub fn attach(file: &Path) -> io::Result<LoopDevice> {
    let backing = OpenOptions::new().read(true).write(true).open(file)?;
    let control = OpenOptions::new().read(true).write(true).open(LOOP_CONTROL)?;
    let mut config = LoopConfig {
        fd: backing.as_raw_fd() as u32,
        block_size: SECTOR_BYTES,
        info: LoopInfo64 { flags: LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO, ..EMPTY_INFO },
        reserved: [0; 8],
    };
    let name = file.as_os_str().as_encoded_bytes();
    let kept = name.len().min(config.info.file_name.len() - 1);
    config.info.file_name[..kept].copy_from_slice(&name[..kept]);
    for _ in 0..ATTACH_TRIES_MAX {
        // SAFETY: this request takes no argument.
        let number = check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) })?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new().read(true).write(true).open(&path)?;
        // SAFETY: `config` is the structure this request reads; the kernel keeps no pointer to it.
        match check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &config) }) {
            Ok(_) => return Ok(LoopDevice { path, _open: device.into() }),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
            // Filesystems without direct I/O (tmpfs on older kernels) refuse the flag instead of ignoring it.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) && config.info.flags & LO_FLAGS_DIRECT_IO != 0 => {
                config.info.flags &= !LO_FLAGS_DIRECT_IO;
            }
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

/// The device a file is attached to, recognised by device and inode number, whatever path it was attached by.
pub fn attached(file: &Path) -> io::Result<Option<LoopDevice>> {
    let wanted = match fs::metadata(file) {
        Ok(found) => (found.dev(), found.ino()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    for entry in fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|n| n.starts_with("loop")) else { continue };
        if !Path::new("/sys/block").join(name).join("loop").is_dir() {
            continue; // detached
        }
        let path = Path::new("/dev").join(name);
        let Ok(device) = OpenOptions::new().read(true).write(true).open(&path) else { continue };
        if matches!(status(&device), Ok(info) if (info.device, info.inode) == wanted) {
            return Ok(Some(LoopDevice { path, _open: device.into() }));
        }
    }
    Ok(None)
}

fn status(device: &File) -> io::Result<LoopInfo64> {
    let mut info = EMPTY_INFO;
    // SAFETY: the kernel writes one structure of exactly this layout.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, &mut info) })?;
    Ok(info)
}

impl LoopDevice {
    /// Tells the kernel that the backing file has another size now.
    pub fn refresh_capacity(&self) -> io::Result<()> {
        // SAFETY: this request takes no argument.
        check(unsafe { libc::ioctl(self._open.as_raw_fd(), LOOP_SET_CAPACITY as _, 0) }).map(drop)
    }
}

/// Grows a mounted ext4 filesystem to `blocks` blocks; `root` is any directory of it.
pub fn grow_ext4(root: &File, blocks: u64) -> io::Result<()> {
    const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;
    // SAFETY: this request reads one u64.
    check(unsafe { libc::ioctl(root.as_raw_fd(), EXT4_IOC_RESIZE_FS as _, &blocks) }).map(drop)
}
