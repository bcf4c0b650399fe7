//! Starting PID 1 of a sandbox: one straight line of system calls between clone and exec.
//!
//! The child shares the memory of the (single-threaded, waiting) caller, so it copies no page tables, allocates nothing and
//! reports by writing into the plan. It knows no sandbox, image or policy: a plan is descriptors, words and numbers.

use crate::seccomp::Insn;
use crate::{caps, child, process, seccomp};
use std::ffi::{CStr, CString, c_char, c_int, c_ulong, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::{fmt, ptr};

const STACK_BYTES: usize = 128 << 10;
/// Inherited descriptors are parked from here up before they get their final numbers.
const PARKING_FD: RawFd = 96;
/// Most descriptors the new program inherits beside standard input, output and error.
pub const INHERITED_FDS_MAX: usize = 16;

/// What the caller has prepared for one sandbox.
pub struct Plan<'a> {
    /// `tasks` (cgroup v1) or `cgroup.procs` (v2) files, open for writing; the child joins by writing "0".
    pub cgroups: &'a [BorrowedFd<'a>],
    pub netns: BorrowedFd<'a>,
    pub userns: BorrowedFd<'a>,
    /// Detached mounts.
    pub root: BorrowedFd<'a>,
    pub dev: BorrowedFd<'a>,
    /// An empty directory of the caller's mount namespace that becomes the root.
    pub new_root: &'a CStr,
    /// An empty read-only mount of the caller's namespace that covers masked directories.
    pub empty_dir: &'a CStr,
    /// Paths relative to the new root; they must exist (the caller knows which of them this kernel has).
    pub masked_files: &'a [CString],
    pub masked_dirs: &'a [CString],
    pub readonly: &'a [CString],
    pub hostname: &'a [u8],
    /// `inherited[0]` becomes descriptor 3, and so on.
    pub inherited: &'a [BorrowedFd<'a>],
    /// Which of them is the program; it is closed on exec.
    pub program: usize,
    pub argv0: &'a CStr,
    pub caps: u64,
    pub filter: &'a [Insn],
}

/// A started sandbox: its PID 1 as the caller's pid namespace sees it, and where the time went.
#[derive(Debug)]
pub struct Started {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// `(name, microseconds)` in order.
    pub phases: [(&'static str, u32); PHASES],
}

const PHASES: usize = 6;
const PHASE_NAMES: [&str; PHASES] = ["clone", "cgroup", "namespaces", "mounts", "lockdown", "exec"];

/// The step that failed, with the kernel's reason.
#[derive(Debug)]
pub struct StartError {
    pub step: Step,
    pub source: io::Error,
}

macro_rules! steps {
    ($($name:ident => $text:literal,)*) => {
        /// Steps of the child in their order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Step { $($name,)* }
        impl fmt::Display for Step {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}
steps! {
    Clone => "clone",
    Cgroup => "join the control groups",
    Network => "enter the network namespace",
    Proc => "make /proc",
    Sys => "make /sys",
    User => "enter the user namespace",
    Ids => "become root of the user namespace",
    Unshare => "unshare mount, uts, ipc and cgroup namespaces",
    Root => "attach the root file system",
    AttachProc => "attach /proc (does the image lack the directory?)",
    AttachDev => "attach /dev (does the image lack the directory?)",
    AttachSys => "attach /sys (does the image lack the directory?)",
    DevPts => "mount /dev/pts",
    Shm => "mount /dev/shm",
    MessageQueue => "mount /dev/mqueue",
    Mask => "mask kernel files",
    ReadOnly => "make kernel files read-only",
    Pivot => "pivot_root",
    Hostname => "set the hostname",
    Descriptors => "hand over descriptors",
    Session => "start a session",
    Bounding => "drop bounding capabilities",
    Seccomp => "install the system call filter",
    Capabilities => "drop capabilities",
    Exec => "execute the agent",
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.step)
    }
}
impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// What crosses to the child: the plan with its descriptors as numbers, and the two places it reports to.
struct Crossing<'a> {
    plan: &'a Plan<'a>,
    argv: [*const c_char; 2],
    env: [*const c_char; 1],
    marks: [u64; PHASES],
    failed: Option<(Step, c_int)>,
}

/// Starts PID 1 and returns when it runs the program. The caller must be single-threaded, real root, and in a mount
/// namespace whose mounts are private.
pub fn start(plan: &Plan<'_>) -> Result<Started, StartError> {
    if plan.inherited.len() > INHERITED_FDS_MAX || plan.program >= plan.inherited.len() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "bad number of inherited descriptors");
        return Err(StartError { step: Step::Descriptors, source });
    }
    let mut crossing = Crossing {
        plan,
        argv: [plan.argv0.as_ptr(), ptr::null()],
        env: [ptr::null()],
        marks: [0; PHASES],
        failed: None,
    };
    let begin = process::monotonic_ns();
    let (pid, pidfd) = clone_child(&mut crossing).map_err(|source| StartError { step: Step::Clone, source })?;
    let end = process::monotonic_ns();
    if let Some((step, errno)) = crossing.failed {
        // SAFETY: our own child, which has exited; a null status pointer is allowed.
        unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
        return Err(StartError { step, source: io::Error::from_raw_os_error(errno) });
    }
    let mut phases = [("", 0); PHASES];
    let mut last = begin;
    for (i, name) in PHASE_NAMES.into_iter().enumerate() {
        let mark = if i == PHASES - 1 { end } else { crossing.marks[i] };
        phases[i] = (name, (mark.saturating_sub(last) / 1000) as u32);
        last = mark;
    }
    Ok(Started { pid, pidfd, phases })
}

fn clone_child(crossing: &mut Crossing<'_>) -> io::Result<(i32, OwnedFd)> {
    let mut stack = vec![0u128; STACK_BYTES / size_of::<u128>()];
    let top = stack.as_mut_ptr_range().end;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_NEWPID | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut pidfd: RawFd = -1;
    // SAFETY: `top` is the aligned end of a live stack for the child alone; CLONE_VFORK stops this thread, the only one of
    // the process, until the child has executed or exited, so `crossing` and all it refers to stay alive and unshared.
    let pid = unsafe {
        libc::clone(child_main, top.cast(), flags, ptr::from_mut(crossing).cast(), ptr::from_mut(&mut pidfd))
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: CLONE_PIDFD stored a fresh descriptor that nobody else owns.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

extern "C" fn child_main(arg: *mut c_void) -> c_int {
    // SAFETY: the `Crossing` the stopped parent lent us.
    let crossing = unsafe { &mut *arg.cast::<Crossing>() };
    let step = match run(crossing) {
        Ok(never) => match never {},
        Err(step) => step,
    };
    // SAFETY: errno of the TLS shared with the stopped parent only.
    let errno = unsafe { *libc::__errno_location() };
    crossing.failed = Some((step, if errno == 0 { libc::EIO } else { errno }));
    // SAFETY: leaves without running destructors of the shared memory.
    unsafe { libc::_exit(127) }
}

enum Never {}

fn ok(ret: impl Into<i64>, step: Step) -> Result<(), Step> {
    if ret.into() < 0 { Err(step) } else { Ok(()) }
}

/// The whole way from real root of the host to PID 1 of a sandbox. Order matters; each comment says why.
fn run(crossing: &mut Crossing<'_>) -> Result<Never, Step> {
    let plan = crossing.plan;
    crossing.marks[0] = process::monotonic_ns();
    join_cgroups(plan.cgroups)?;
    crossing.marks[1] = process::monotonic_ns();
    let (proc, sys) = enter_namespaces(plan)?;
    crossing.marks[2] = process::monotonic_ns();
    build_root(plan, proc, sys)?;
    leave_host_root()?;
    crossing.marks[3] = process::monotonic_ns();
    // SAFETY: the hostname slice is live.
    ok(unsafe { libc::sethostname(plan.hostname.as_ptr().cast(), plan.hostname.len()) }, Step::Hostname)?;
    hand_over_descriptors(plan)?;
    lock_down(plan)?;
    crossing.marks[4] = process::monotonic_ns();
    // SAFETY: constant and live C strings, NULL-terminated vectors. The program is a descriptor, not a path: nothing in the
    // image takes part. Returns only on failure.
    unsafe {
        let program = 3 + plan.program as c_int;
        let (argv, env) = (crossing.argv.as_ptr(), crossing.env.as_ptr());
        libc::syscall(libc::SYS_execveat, program, c"".as_ptr(), argv, env, libc::AT_EMPTY_PATH);
    }
    Err(Step::Exec)
}

/// First, so that everything that follows is accounted to the sandbox. By the child itself: a write by the parent takes
/// a system-wide lock that now and then costs 20 ms.
fn join_cgroups(files: &[BorrowedFd<'_>]) -> Result<(), Step> {
    for file in files {
        // SAFETY: one live byte.
        ok(unsafe { libc::write(file.as_raw_fd(), b"0".as_ptr().cast(), 1) } as i64, Step::Cgroup)?;
    }
    Ok(())
}

fn enter_namespaces(plan: &Plan<'_>) -> Result<(RawFd, RawFd), Step> {
    // SAFETY: no pointers but constant C strings; all act on this process only. setresuid and friends are raw because
    // libc's versions try to signal the threads of the process whose memory we borrow.
    unsafe {
        ok(libc::setns(plan.netns.as_raw_fd(), libc::CLONE_NEWNET), Step::Network)?;
        // As real root, because the pid namespace belongs to the host's user namespace: inside the sandbox's own the
        // kernel would refuse. They show the pid namespace and network namespace we are in now.
        let proc = filesystem(c"proc", ATTR_SAFE).ok_or(Step::Proc)?;
        let sys = filesystem(c"sysfs", ATTR_SAFE | crate::mount::ATTR_RDONLY).ok_or(Step::Sys)?;
        ok(libc::setns(plan.userns.as_raw_fd(), libc::CLONE_NEWUSER), Step::User)?;
        // Before unshare, or the new ipc namespace's files belong to nobody.
        ok(libc::syscall(libc::SYS_setgroups, 0usize, ptr::null::<u32>()), Step::Ids)?;
        ok(libc::syscall(libc::SYS_setresgid, 0, 0, 0), Step::Ids)?;
        ok(libc::syscall(libc::SYS_setresuid, 0, 0, 0), Step::Ids)?;
        let flags = libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWCGROUP;
        ok(libc::unshare(flags), Step::Unshare)?;
        Ok((proc, sys))
    }
}

const ATTR_SAFE: u64 = crate::mount::ATTR_NOSUID | crate::mount::ATTR_NODEV | crate::mount::ATTR_NOEXEC;
const MS_SAFE: c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;

/// A detached mount of a new kernel file system, as a bare number: the child never returns to a destructor.
///
/// # Safety
/// Only in the child.
unsafe fn filesystem(kind: &CStr, attributes: u64) -> Option<RawFd> {
    const CREATE: u32 = 6;
    const CLOEXEC: u32 = 1;
    let null = ptr::null::<c_char>();
    // SAFETY: a live C string and null pointers where the command takes none.
    unsafe {
        let context = libc::syscall(libc::SYS_fsopen, kind.as_ptr(), CLOEXEC);
        if context < 0 || libc::syscall(libc::SYS_fsconfig, context, CREATE, null, null, 0) < 0 {
            return None;
        }
        let mount = libc::syscall(libc::SYS_fsmount, context, CLOEXEC, attributes);
        (mount >= 0).then_some(mount as RawFd)
    }
}

fn build_root(plan: &Plan<'_>, proc: RawFd, sys: RawFd) -> Result<(), Step> {
    attach(plan.root.as_raw_fd(), plan.new_root, Step::Root)?;
    // SAFETY: a live C string. From here on relative paths start at the new root.
    ok(unsafe { libc::chdir(plan.new_root.as_ptr()) }, Step::Root)?;
    attach(proc, c"proc", Step::AttachProc)?;
    attach(plan.dev.as_raw_fd(), c"dev", Step::AttachDev)?;
    let pts = c"newinstance,ptmxmode=0666,mode=0620,gid=5,max=1024";
    mount(c"devpts", c"dev/pts", libc::MS_NOSUID | libc::MS_NOEXEC, Some(pts), Step::DevPts)?;
    mount(c"tmpfs", c"dev/shm", MS_SAFE, Some(c"mode=1777,size=65536k"), Step::Shm)?;
    mount(c"mqueue", c"dev/mqueue", MS_SAFE, None, Step::MessageQueue)?;
    attach(sys, c"sys", Step::AttachSys)?;
    for file in plan.masked_files {
        bind(c"dev/null", file, Step::Mask)?;
    }
    for dir in plan.masked_dirs {
        bind(plan.empty_dir, dir, Step::Mask)?;
    }
    for path in plan.readonly {
        bind(path, path, Step::ReadOnly)?;
        let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | MS_SAFE;
        // SAFETY: live C strings.
        let ret = unsafe { libc::mount(ptr::null(), path.as_ptr(), ptr::null(), flags, ptr::null()) };
        ok(ret, Step::ReadOnly)?;
    }
    Ok(())
}

/// Places a detached mount. A symbolic link where the image should have a directory is not followed: move_mount follows
/// none in the last component unless told to, and every target is one component, or below a mount of our own.
fn attach(mount: RawFd, at: &CStr, step: Step) -> Result<(), Step> {
    const F_EMPTY_PATH: u32 = 4;
    // SAFETY: constant and live C strings.
    let ret =
        unsafe { libc::syscall(libc::SYS_move_mount, mount, c"".as_ptr(), libc::AT_FDCWD, at.as_ptr(), F_EMPTY_PATH) };
    ok(ret, step)
}

fn mount(kind: &CStr, at: &CStr, flags: c_ulong, data: Option<&CStr>, step: Step) -> Result<(), Step> {
    let data = data.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: live C strings. The target lies in our own read-only /dev, which holds no hostile link.
    ok(unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, data.cast()) }, step)
}

fn bind(from: &CStr, at: &CStr, step: Step) -> Result<(), Step> {
    // SAFETY: live C strings. Both lie in kernel file systems or in mounts of our own making.
    ok(unsafe { libc::mount(from.as_ptr(), at.as_ptr(), ptr::null(), libc::MS_BIND, ptr::null()) }, step)
}

fn leave_host_root() -> Result<(), Step> {
    // SAFETY: constant C strings. The old root is stacked on the new one and taken off with everything in it; a working
    // directory outside the new root cannot remain (CVE-2024-21626).
    unsafe {
        ok(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()), Step::Pivot)?;
        ok(libc::umount2(c".".as_ptr(), libc::MNT_DETACH), Step::Pivot)?;
        ok(libc::chdir(c"/".as_ptr()), Step::Pivot)
    }
}

/// Standard streams become the sandbox's own /dev/null; the wanted descriptors get their numbers; all others go.
fn hand_over_descriptors(plan: &Plan<'_>) -> Result<(), Step> {
    let mut parked = [-1; INHERITED_FDS_MAX];
    let step = Step::Descriptors;
    // SAFETY: descriptor calls on this process's own table; a constant C string.
    unsafe {
        for (slot, fd) in parked.iter_mut().zip(plan.inherited) {
            *slot = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, PARKING_FD);
            ok(*slot, step)?;
        }
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC | libc::O_NOFOLLOW);
        ok(null, step)?;
        let null = libc::fcntl(null, libc::F_DUPFD_CLOEXEC, PARKING_FD);
        ok(null, step)?;
        for standard in 0..3 {
            ok(libc::dup2(null, standard), step)?;
        }
        for (i, fd) in parked.iter().take(plan.inherited.len()).enumerate() {
            ok(libc::dup2(*fd, 3 + i as c_int), step)?;
        }
        let program = 3 + plan.program as c_int;
        ok(libc::fcntl(program, libc::F_SETFD, libc::FD_CLOEXEC), step)?;
        let first_closed = 3 + plan.inherited.len() as u32;
        ok(libc::syscall(libc::SYS_close_range, first_closed, u32::MAX, 0u32), step)
    }
}

fn lock_down(plan: &Plan<'_>) -> Result<(), Step> {
    // SAFETY: no pointers; own process only.
    unsafe {
        ok(libc::setsid(), Step::Session)?;
        libc::umask(0o022);
        child::default_signals();
    }
    // The filter needs CAP_SYS_ADMIN in the user namespace (no_new_privs would break sudo), so it comes before the
    // capabilities go; what follows it (capset, execveat) it allows.
    caps::drop_bounding(plan.caps).map_err(|_| Step::Bounding)?;
    seccomp::install(plan.filter).map_err(|_| Step::Seccomp)?;
    caps::restrict(plan.caps).map_err(|_| Step::Capabilities)
}
