//! Harmless tries of what a kernel allows, for diagnosis: nothing they make outlives the call.

use crate::fd::check;
use std::{ffi::c_void, io, mem::size_of, os::raw::c_int, ptr};

const STACK_BYTES: usize = 32 << 10;

pub const MOUNT_NAMESPACE: c_int = libc::CLONE_NEWNS;
pub const PID_NAMESPACE: c_int = libc::CLONE_NEWPID;
pub const NETWORK_NAMESPACE: c_int = libc::CLONE_NEWNET;
pub const UTS_NAMESPACE: c_int = libc::CLONE_NEWUTS;
pub const IPC_NAMESPACE: c_int = libc::CLONE_NEWIPC;
pub const CGROUP_NAMESPACE: c_int = libc::CLONE_NEWCGROUP;
pub const USER_NAMESPACE: c_int = libc::CLONE_NEWUSER;

/// Starts a process with these new namespaces that ends at once.
pub fn namespaces(flags: c_int) -> io::Result<()> {
    extern "C" fn end(_: *mut c_void) -> c_int {
        // SAFETY: no pointers; ends this process without running anything of the parent's.
        unsafe { libc::_exit(0) }
    }
    let mut stack = vec![0u128; STACK_BYTES / size_of::<u128>()];
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: `top` is the aligned end of a stack that outlives the child, because CLONE_VFORK holds this thread until the
    // child has ended; the child touches nothing but that stack.
    let pid = check(unsafe {
        libc::clone(end, top.cast(), flags | libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, ptr::null_mut())
    })?;
    // SAFETY: waits for our own child; a null status is allowed.
    while unsafe { libc::waitpid(pid, ptr::null_mut(), 0) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    Ok(())
}
