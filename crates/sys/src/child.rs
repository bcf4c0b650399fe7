//! Starting a program from a process with threads, quickly.
//!
//! `fork` copies the page tables of the caller, `posix_spawn` cannot join a cgroup; this is the vfork way with exactly the
//! steps a command in a sandbox needs. It does not wait, read pipes or search `PATH`: callers give the candidate paths.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Stack of the child between clone and exec; it calls nothing deep.
const CHILD_STACK_BYTES: usize = 64 << 10;
/// Highest signal number on Linux.
const SIGNAL_MAX: c_int = 64;

/// What to run and in which surroundings.
pub struct Spec<'a> {
    /// Absolute candidate paths, tried in order until one is found (how `PATH` is searched is the caller's matter).
    pub programs: &'a [CString],
    pub argv: &'a [CString],
    pub env: &'a [CString],
    /// Working directory; `None` keeps the caller's.
    pub cwd: Option<&'a CStr>,
    /// stdin, stdout, stderr. Everything else the caller has open is closed in the child.
    pub stdio: [BorrowedFd<'a>; 3],
    /// The child writes `0` to each: `tasks` (cgroup v1) or `cgroup.procs` (v2) files opened for writing.
    pub cgroups: &'a [BorrowedFd<'a>],
    /// Raised on the child's own account. Ignored when the kernel refuses: a non-dumpable caller does not own its /proc files.
    pub oom_score_adj: Option<i16>,
    pub group: Group,
}

/// Which processes the child belongs together with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// A process group of its own in the caller's session.
    New,
    /// A session of its own without a terminal.
    Session,
    /// A session of its own with stdin as the controlling terminal.
    Terminal,
}

/// Further descriptors of the child, at consecutive numbers from `first` (above stderr) on.
#[derive(Clone, Copy, Default)]
pub struct Extra<'a> {
    pub first: i32,
    pub fds: &'a [BorrowedFd<'a>],
}

/// What [`Extra`] may name.
const EXTRA_FDS_MAX: usize = 8;

/// A started child. The pidfd is readable when it has ended; it still has to be waited for.
#[derive(Debug)]
pub struct Spawned {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// The step of the child that failed, with the kernel's reason.
#[derive(Debug)]
pub struct SpawnError {
    pub step: Step,
    pub source: io::Error,
}

/// Steps of the child in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Step {
    Clone,
    Cgroup,
    Session,
    Terminal,
    Stdio,
    Cwd,
    Exec,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.step {
            Step::Clone => "cannot create a process",
            Step::Cgroup => "cannot join the control group for commands",
            Step::Session => "cannot start a session or process group",
            Step::Terminal => "cannot take the terminal",
            Step::Stdio => "cannot set up standard input and output",
            Step::Cwd => "cannot enter the working directory",
            Step::Exec => "cannot execute the program",
        })
    }
}
impl std::error::Error for SpawnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Everything the child reads, prepared before the clone so that it allocates nothing; and where it leaves its failure.
struct Plan {
    programs: *const *const c_char,
    argv: *const *const c_char,
    env: *const *const c_char,
    cwd: *const c_char,
    stdio: [RawFd; 3],
    cgroups: *const RawFd,
    cgroups_len: usize,
    oom: *const u8,
    oom_len: usize,
    group: Group,
    extra_first: c_int,
    extra: [RawFd; EXTRA_FDS_MAX],
    extra_len: usize,
    failed_step: Step,
    failed_errno: c_int,
}

/// Starts a program. Returns when it has been executed or has failed to be.
pub fn spawn(spec: &Spec<'_>) -> Result<Spawned, SpawnError> {
    spawn_with(spec, Extra::default())
}

/// Like [`spawn`], with more descriptors than the standard three.
pub fn spawn_with(spec: &Spec<'_>, extra: Extra<'_>) -> Result<Spawned, SpawnError> {
    let invalid = |why: &str| SpawnError {
        step: Step::Exec,
        source: io::Error::new(io::ErrorKind::InvalidInput, why.to_owned()),
    };
    if spec.programs.is_empty() || spec.argv.is_empty() {
        return Err(invalid("no program given"));
    }
    if extra.fds.len() > EXTRA_FDS_MAX || (!extra.fds.is_empty() && extra.first < 3) {
        return Err(invalid("too many extra descriptors, or at the numbers of the standard ones"));
    }
    let mut extra_fds = [-1; EXTRA_FDS_MAX];
    for (to, fd) in extra_fds.iter_mut().zip(extra.fds) {
        *to = fd.as_raw_fd();
    }
    let programs = pointers(spec.programs);
    let argv = pointers(spec.argv);
    let env = pointers(spec.env);
    let cgroups: Vec<RawFd> = spec.cgroups.iter().map(|fd| fd.as_raw_fd()).collect();
    let oom = spec.oom_score_adj.map(|v| v.to_string()).unwrap_or_default();
    let mut plan = Plan {
        programs: programs.as_ptr(),
        argv: argv.as_ptr(),
        env: env.as_ptr(),
        cwd: spec.cwd.map_or(ptr::null(), CStr::as_ptr),
        stdio: [spec.stdio[0].as_raw_fd(), spec.stdio[1].as_raw_fd(), spec.stdio[2].as_raw_fd()],
        cgroups: cgroups.as_ptr(),
        cgroups_len: cgroups.len(),
        oom: oom.as_ptr(),
        oom_len: oom.len(),
        group: spec.group,
        extra_first: extra.first,
        extra: extra_fds,
        extra_len: extra.fds.len(),
        failed_step: Step::Clone,
        failed_errno: 0,
    };
    let (pid, pidfd) = vfork(&mut plan).map_err(|source| SpawnError { step: Step::Clone, source })?;
    if plan.failed_errno != 0 {
        reap(pid);
        let source = io::Error::from_raw_os_error(plan.failed_errno);
        return Err(SpawnError { step: plan.failed_step, source });
    }
    Ok(Spawned { pid, pidfd })
}

fn pointers(words: &[CString]) -> Vec<*const c_char> {
    words.iter().map(|w| w.as_ptr()).chain([ptr::null()]).collect()
}

/// Collects a child that failed before exec. PID 1's own reaper may be quicker: then there is nothing left to collect.
fn reap(pid: i32) {
    // SAFETY: a null status pointer is allowed.
    while unsafe { libc::waitpid(pid, ptr::null_mut(), 0) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
}

/// Clones with shared memory; this thread sleeps until the child has executed or exited.
fn vfork(plan: &mut Plan) -> io::Result<(i32, OwnedFd)> {
    let mut stack = vec![0u128; CHILD_STACK_BYTES / size_of::<u128>()];
    let top = stack.as_mut_ptr_range().end;
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // Signals stay blocked around the clone: a handler of the caller must never run on memory that two processes share.
    // SAFETY: both sets are plain memory we own; an all-zero sigset_t is a valid value to be overwritten.
    let mut old: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: pointers to live local sets.
    unsafe {
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
    }
    // SAFETY: `top` is the aligned end of a live stack that only the child uses; CLONE_VFORK keeps this frame, and with it
    // `plan` and everything it points to, alive and untouched until the child has executed or exited. The child does only
    // async-signal-safe calls on its own stack.
    let pid =
        unsafe { libc::clone(run_child, top.cast(), flags, ptr::from_mut(plan).cast(), ptr::from_mut(&mut pidfd)) };
    let failure = io::Error::last_os_error();
    // SAFETY: restores the mask saved above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &old, ptr::null_mut()) };
    if pid < 0 {
        return Err(failure);
    }
    // SAFETY: CLONE_PIDFD stored a fresh descriptor that nobody else owns.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// The child, on its own stack and the caller's memory: no allocation, no lock, no panic, no return to the caller's frames.
extern "C" fn run_child(arg: *mut c_void) -> c_int {
    // SAFETY: `arg` is the `Plan` the sleeping parent lent us; see `vfork`.
    let plan = unsafe { &mut *arg.cast::<Plan>() };
    let step = child_steps(plan);
    plan.failed_step = step;
    // SAFETY: errno of this thread's TLS, shared with the sleeping parent only.
    plan.failed_errno = unsafe { *libc::__errno_location() };
    if plan.failed_errno == 0 {
        plan.failed_errno = libc::EIO;
    }
    // SAFETY: leaves without running destructors or atexit handlers of the shared memory.
    unsafe { libc::_exit(127) }
}

/// Returns only when a step failed, with errno set.
fn child_steps(plan: &mut Plan) -> Step {
    // SAFETY: every pointer in `plan` was made from live data of the sleeping parent (NULL-terminated vectors, slices with
    // their lengths); all calls are async-signal-safe and act on this process only.
    unsafe {
        for i in 0..plan.cgroups_len {
            if libc::write(*plan.cgroups.add(i), b"0".as_ptr().cast(), 1) != 1 {
                return Step::Cgroup;
            }
        }
        if plan.oom_len > 0 {
            raise_oom_score(plan);
        }
        let grouped = if plan.group == Group::New { libc::setpgid(0, 0) } else { libc::setsid() };
        if grouped < 0 {
            return Step::Session;
        }
        if !lift_extra(plan) || !place_stdio(plan.stdio) || !place_extra(plan) {
            return Step::Stdio;
        }
        if plan.group == Group::Terminal && libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
            return Step::Terminal;
        }
        if !close_others(plan) {
            return Step::Stdio;
        }
        if !plan.cwd.is_null() && libc::chdir(plan.cwd) < 0 {
            return Step::Cwd;
        }
        default_signals();
        exec_first(plan);
    }
    Step::Exec
}

/// # Safety
/// `plan` holds live pointers, see [`child_steps`].
unsafe fn raise_oom_score(plan: &Plan) {
    // SAFETY: constant path; the slice is live.
    unsafe {
        let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, plan.oom.cast(), plan.oom_len);
            libc::close(fd);
        }
    }
}

/// Moves the three descriptors to 0, 1, 2 in whatever order they come; the copies do not close on exec.
///
/// # Safety
/// Only to be called in a child with its own descriptor table.
unsafe fn place_stdio(mut from: [RawFd; 3]) -> bool {
    // SAFETY: plain descriptor calls on this process's own table.
    unsafe {
        for fd in &mut from {
            if *fd < 3 {
                *fd = libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, 3);
                if *fd < 0 {
                    return false;
                }
            }
        }
        for (to, fd) in from.into_iter().enumerate() {
            if libc::dup2(fd, to as c_int) < 0 {
                return false;
            }
        }
    }
    true
}

/// Copies the extra descriptors above all numbers that are about to be filled.
///
/// # Safety
/// Only to be called in a child with its own descriptor table.
unsafe fn lift_extra(plan: &mut Plan) -> bool {
    let above = plan.extra_first + EXTRA_FDS_MAX as c_int;
    for fd in plan.extra.iter_mut().take(plan.extra_len) {
        // SAFETY: a plain descriptor call on this process's own table.
        *fd = unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, above) };
        if *fd < 0 {
            return false;
        }
    }
    true
}

/// Puts the lifted descriptors where they belong. What stdio was made of may lie there; it is not needed any more.
///
/// # Safety
/// As for [`lift_extra`], after it.
unsafe fn place_extra(plan: &Plan) -> bool {
    for at in 0..plan.extra_len {
        // SAFETY: a plain descriptor call on this process's own table.
        if unsafe { libc::dup2(plan.extra[at], plan.extra_first + at as c_int) } < 0 {
            return false;
        }
    }
    true
}

/// Closes everything but stdio and the extra descriptors.
///
/// # Safety
/// As for [`lift_extra`].
unsafe fn close_others(plan: &Plan) -> bool {
    let close = |from: u32, to: u32| {
        // SAFETY: a plain descriptor call on this process's own table.
        from > to || unsafe { libc::syscall(libc::SYS_close_range, from, to, 0u32) } >= 0
    };
    if plan.extra_len == 0 {
        return close(3, u32::MAX);
    }
    let first = plan.extra_first as u32;
    close(3, first - 1) && close(first + plan.extra_len as u32, u32::MAX)
}

/// Gives every signal its default action and unblocks all: a program expects SIGPIPE and SIGCHLD untouched.
///
/// # Safety
/// Only to be called in a child with its own signal handlers (no CLONE_SIGHAND).
pub(crate) unsafe fn default_signals() {
    // The raw call, because libc's refuses the two signals it keeps for itself (32, 33), which may be inherited as ignored.
    // SAFETY: an all-zero kernel sigaction (four words) is SIG_DFL with an empty mask; 8 is the kernel's mask size. Numbers
    // that cannot be changed fail harmlessly.
    unsafe {
        let default = [0u64; 4];
        for signal in 1..=SIGNAL_MAX {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null_mut::<u64>(), 8usize);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
    }
}

/// Tries the candidates; errno of the most telling failure (a found but forbidden file beats a missing one) remains.
///
/// # Safety
/// `plan` holds live NULL-terminated vectors.
unsafe fn exec_first(plan: &Plan) {
    let mut telling = libc::ENOENT;
    // SAFETY: see above; `execve` returns only on failure.
    unsafe {
        let mut at = plan.programs;
        while !(*at).is_null() {
            libc::execve(*at, plan.argv, plan.env);
            match *libc::__errno_location() {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => telling = libc::EACCES,
                other => {
                    telling = other;
                    break;
                }
            }
            at = at.add(1);
        }
        *libc::__errno_location() = telling;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    fn words(list: &[&str]) -> Vec<CString> {
        list.iter().map(|w| CString::new(*w).unwrap()).collect()
    }

    fn run(programs: &[&str], argv: &[&str], cwd: Option<&CStr>) -> Result<(String, i32), SpawnError> {
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let (programs, argv, env) = (words(programs), words(argv), words(&["A=b"]));
        let spec = Spec {
            programs: &programs,
            argv: &argv,
            env: &env,
            cwd,
            stdio: [null.as_fd(), writer.as_fd(), writer.as_fd()],
            cgroups: &[],
            oom_score_adj: Some(500),
            group: Group::New,
        };
        let child = spawn(&spec)?;
        drop(writer);
        let mut out = String::new();
        reader.read_to_string(&mut out).unwrap();
        let mut status = 0;
        // SAFETY: a live status word.
        assert_eq!(unsafe { libc::waitpid(child.pid, &mut status, 0) }, child.pid);
        Ok((out, libc::WEXITSTATUS(status)))
    }

    #[test]
    fn child_gets_its_surroundings() {
        let script = "echo $A; pwd; ls /proc/self/fd | tr '\\n' ' '; cat /proc/self/oom_score_adj; \
                      test $(ps -o pgid= -p $$) -eq $$ && echo own-group; grep SigIgn /proc/self/status; exit 7";
        let (out, code) = run(&["/nonexistent/sh", "/bin/sh"], &["sh", "-c", script], Some(c"/tmp")).unwrap();
        assert_eq!(code, 7);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[..3], ["b", "/tmp", "0 1 2 3 500"]);
        assert_eq!(lines[3], "own-group");
        assert_eq!(lines[4], "SigIgn:\t0000000000000000");
    }

    #[test]
    fn extra_descriptors_stand_at_their_numbers() {
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let (programs, env) = (words(&["/bin/sh"]), words(&["A=b"]));
        let argv = words(&["sh", "-c", "echo a >&6; echo b >&7; ls /proc/self/fd; ps -o sid= -p $$; echo $$"]);
        let spec = Spec {
            programs: &programs,
            argv: &argv,
            env: &env,
            cwd: None,
            stdio: [null.as_fd(), writer.as_fd(), writer.as_fd()],
            cgroups: &[],
            oom_score_adj: None,
            group: Group::Session,
        };
        let fds = [writer.as_fd(), writer.as_fd()];
        let child = spawn_with(&spec, Extra { first: 6, fds: &fds }).unwrap();
        drop(writer);
        let mut out = String::new();
        reader.read_to_string(&mut out).unwrap();
        // SAFETY: a null status pointer is allowed.
        assert_eq!(unsafe { libc::waitpid(child.pid, ptr::null_mut(), 0) }, child.pid);
        let lines: Vec<&str> = out.split_whitespace().collect();
        assert_eq!(lines[..8], ["a", "b", "0", "1", "2", "3", "6", "7"]);
        assert_eq!(lines[8], lines[9], "a session of its own");
    }

    #[test]
    fn failures_name_the_step() {
        let failed = run(&["/nonexistent/a", "/etc/passwd"], &["a"], None).unwrap_err();
        assert_eq!((failed.step, failed.source.raw_os_error()), (Step::Exec, Some(libc::EACCES)));
        let failed = run(&["/nonexistent/a"], &["a"], None).unwrap_err();
        assert_eq!((failed.step, failed.source.raw_os_error()), (Step::Exec, Some(libc::ENOENT)));
        let failed = run(&["/bin/true"], &["true"], Some(c"/nonexistent")).unwrap_err();
        assert_eq!(failed.step, Step::Cwd);
    }
}
