//! Capability sets and file-system ids of the calling thread.

use crate::fd::check_long;
use std::io;

/// Number of the newest capability this code knows (CAP_CHECKPOINT_RESTORE); newer ones are dropped too, see [`CAP_MAX`].
pub const CAP_LAST_KNOWN: u32 = 40;
/// Capability sets are 64 bits wide on the wire.
pub const CAP_MAX: u32 = 63;
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
pub(crate) struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn get() -> io::Result<[Data; 2]> {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: header and two data words, as version 3 wants.
    check_long(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    Ok(data)
}

fn set(data: &[Data; 2]) -> io::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    // SAFETY: header and two data words, as version 3 wants.
    check_long(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(|_| ())
}

/// Sets effective and permitted to `mask`, inheritable to nothing. Allocates nothing; also used between clone and exec.
pub fn restrict(mask: u64) -> io::Result<()> {
    let word = |bits: u32| Data { effective: bits, permitted: bits, inheritable: 0 };
    set(&[word(mask as u32), word((mask >> 32) as u32)])
}

/// Takes every capability outside `keep` from the bounding set, so that no set-uid program can bring it back.
pub fn drop_bounding(keep: u64) -> io::Result<()> {
    for cap in 0..=CAP_MAX {
        if keep & (1 << cap) != 0 {
            continue;
        }
        // SAFETY: no pointers.
        let ret = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(cap), 0, 0, 0) };
        if ret < 0 {
            let error = io::Error::last_os_error();
            // The kernel numbers capabilities without gaps: the first unknown one ends the list.
            if error.raw_os_error() == Some(libc::EINVAL) && cap > 0 {
                return Ok(());
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Runs `work` with this thread's file-system ids set to `id` and all permitted capabilities effective.
///
/// Overlayfs makes its work directory with the ids of the mounter; on an idmapped upper layer id 0 of the host has no
/// counterpart and the mount would silently become read-only. The kernel takes file capabilities away when fsuid leaves 0,
/// hence the raise.
pub fn with_fs_ids<T>(id: u32, work: impl FnOnce() -> T) -> io::Result<T> {
    let before = get()?;
    set_fs_ids(id);
    let outcome = set(&raised(before)).map(|()| work());
    set_fs_ids(0);
    set(&before)?;
    outcome
}

/// Runs `work` with this thread's effective user id set to `id` and all permitted capabilities effective. For real root.
pub fn with_effective_id<T>(id: u32, work: impl FnOnce() -> T) -> io::Result<T> {
    let before = get()?;
    set_effective_id(id)?;
    let outcome = set(&raised(before)).map(|()| work());
    set_effective_id(0)?;
    set(&before)?;
    outcome
}

fn raised(mut data: [Data; 2]) -> [Data; 2] {
    for word in &mut data {
        word.effective = word.permitted;
    }
    data
}

/// Raw, because libc's version changes every thread of the process. Real and saved id stay root's, which permits the way back.
fn set_effective_id(id: u32) -> io::Result<()> {
    const UNCHANGED: u32 = u32::MAX;
    // SAFETY: no pointers; per thread.
    check_long(unsafe { libc::syscall(libc::SYS_setresuid, UNCHANGED, id, UNCHANGED) }).map(|_| ())
}

fn set_fs_ids(id: u32) {
    // SAFETY: no pointers; per thread; cannot fail for a caller with CAP_SETUID and CAP_SETGID.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, id);
        libc::syscall(libc::SYS_setfsuid, id);
    }
}
