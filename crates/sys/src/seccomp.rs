//! Installing a seccomp program. What it forbids is the caller's policy.

use crate::fd::check_long;
use std::io;

/// One instruction of classic BPF, laid out as the kernel's `sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

#[repr(C)]
struct Program {
    len: u16,
    insns: *const Insn,
}

/// Longest program the kernel takes (BPF_MAXINSNS).
pub const INSNS_MAX: usize = 4096;

/// Installs a filter on this thread and all it starts. Needs CAP_SYS_ADMIN in the caller's user namespace (or
/// no_new_privs, which would break `sudo` and is not set here). Allocates nothing.
pub fn install(program: &[Insn]) -> io::Result<()> {
    const SET_MODE_FILTER: u32 = 1;
    if program.is_empty() || program.len() > INSNS_MAX {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let fprog = Program { len: program.len() as u16, insns: program.as_ptr() };
    // SAFETY: `fprog` has the layout of `sock_fprog` and points to `len` live instructions.
    check_long(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, 0u32, &raw const fprog) }).map(|_| ())
}
