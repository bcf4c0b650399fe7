//! The zygote's own life: shed everything, then answer one request after the other until the runner is gone.

use super::message::{MESSAGE_BYTES_MAX, Reply, Request, Start, Started};
use crate::seccomp;
use infield_sys::seccomp::Insn;
use infield_sys::{caps, mount, ns, pid1, process, socket};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Docker's default capabilities, by their kernel numbers. They count only inside the sandbox's user namespace.
const CAPS: u64 = cap(0) // CHOWN
    | cap(1) // DAC_OVERRIDE
    | cap(3) // FOWNER
    | cap(4) // FSETID
    | cap(5) // KILL
    | cap(6) // SETGID
    | cap(7) // SETUID
    | cap(8) // SETPCAP
    | cap(10) // NET_BIND_SERVICE
    | cap(13) // NET_RAW
    | cap(18) // SYS_CHROOT
    | cap(27) // MKNOD
    | cap(29) // AUDIT_WRITE
    | cap(31); // SETFCAP

const fn cap(number: u32) -> u64 {
    1 << number
}

/// Kernel files that say too much about the host or reach beyond it: Docker's default lists, and where the kernel names the
/// files behind loop devices and the host's file systems (all of sys/fs: its parts come with their modules, later than this).
const MASKED: [&str; 14] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/block",
    "sys/devices/virtual/powercap",
    "sys/firmware",
    "sys/fs",
];
const READ_ONLY: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];

/// A core file limit of one byte writes none, and is the value at which the kernel does not start a core dump program on the
/// host either (0 would: such programs get the dump whatever the limit).
const CORE_BYTES: u64 = 1;
const OPEN_FILES_SOFT: u64 = 65_536;
const OPEN_FILES_HARD: u64 = 1_048_576;
/// Sandboxes are the first to go when the host runs out of memory. Written by root it is also the least value a sandbox
/// can give itself.
const OOM_SCORE_ADJ: &str = "200";

const NEW_ROOT: &CStr = c"/new";
const EMPTY: &CStr = c"/empty";
const DEV: &str = "/dev";
const EINVAL: i32 = 22;

/// Serves the runner on standard input until it closes. The exit status is for people who start it by hand.
pub fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("infield zygote: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

struct Zygote {
    proc: OwnedFd,
    filter: Vec<Insn>,
    masked_files: Vec<CString>,
    masked_dirs: Vec<CString>,
    readonly: Vec<CString>,
}

fn run() -> io::Result<()> {
    let runner = io::stdin().as_fd().try_clone_to_owned()?;
    process::set_name(c"infield-zygote");
    process::ignore_child_signals();
    process::new_session_keyring()?;
    process::set_limit(process::Limit::CoreBytes, CORE_BYTES, CORE_BYTES)?;
    process::set_limit(process::Limit::OpenFiles, OPEN_FILES_SOFT, OPEN_FILES_HARD)?;
    std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ)?;
    let zygote = Zygote::prepare()?;
    enter_minimal_mounts()?;
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let (got, fds) = match socket::receive(runner.as_fd(), &mut buffer) {
            // The runner is gone; reset = it left an answer unread.
            Ok((0, _)) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            received => received?,
        };
        let (reply, fd) = match serde_json::from_slice(&buffer[..got]) {
            Ok(request) => zygote.answer(request, &fds),
            Err(error) => (failed("understand the request", &io::Error::from(error)), Vec::new()),
        };
        let fd: Vec<BorrowedFd<'_>> = fd.iter().map(AsFd::as_fd).collect();
        socket::send(runner.as_fd(), &serde_json::to_vec(&reply)?, &fd)?;
    }
}

impl Zygote {
    /// Everything that needs the host's file systems, before they are left.
    fn prepare() -> io::Result<Self> {
        let arch = seccomp::Arch::native()
            .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "no system call filter for this processor"))?;
        let words = |wanted: &[&str], keep: &dyn Fn(&Path) -> bool| -> io::Result<Vec<CString>> {
            let present = wanted.iter().filter(|path| keep(&Path::new("/").join(path)));
            present.map(|path| CString::new(*path).map_err(io::Error::from)).collect()
        };
        Ok(Self {
            proc: mount::open_place(None, Path::new("/proc"))?,
            filter: seccomp::program(arch).map_err(io::Error::other)?,
            masked_files: words(&MASKED, &|path| path.exists() && !path.is_dir())?,
            masked_dirs: words(&MASKED, &Path::is_dir)?,
            readonly: words(&READ_ONLY, &Path::exists)?,
        })
    }

    fn answer(&self, request: Request, fds: &[OwnedFd]) -> (Reply, Vec<OwnedFd>) {
        match request {
            Request::Pair { first, count } => match ns::make_pair(self.proc.as_fd(), first, count) {
                Ok(pair) => (Reply::Pair, vec![pair.user, pair.net]),
                Err(error) => (failed("make a user and network namespace", &error), Vec::new()),
            },
            Request::Start { start, cgroups } => match self.start(&start, cgroups, fds) {
                Ok((started, pidfd)) => (Reply::Started(started), vec![pidfd]),
                Err(reply) => (reply, Vec::new()),
            },
        }
    }

    fn start(&self, start: &Start, cgroups: usize, fds: &[OwnedFd]) -> Result<(Started, OwnedFd), Reply> {
        let begin = process::monotonic_ns();
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let too_few = || failed("understand the request", &io::Error::other("descriptors are missing"));
        let [netns, userns, root, rest @ ..] = fds.as_slice() else { return Err(too_few()) };
        let (cgroups, inherited) = rest.split_at_checked(cgroups).ok_or_else(too_few)?;
        let attributes = mount::ATTR_RDONLY | mount::ATTR_NOSUID | mount::ATTR_NOEXEC;
        let dev = match mount::clone_tree(Path::new(DEV), Some(*userns), attributes) {
            // Linux before 6.3 does not shift the owners of a tmpfs: nobody owns the devices, anybody may use them.
            Err(error) if error.raw_os_error() == Some(EINVAL) => mount::clone_tree(Path::new(DEV), None, attributes),
            other => other,
        };
        let dev = dev.map_err(|error| failed("copy the template of /dev", &error))?;
        let plan = pid1::Plan {
            cgroups,
            netns: *netns,
            userns: *userns,
            root: *root,
            dev: dev.as_fd(),
            new_root: NEW_ROOT,
            empty_dir: EMPTY,
            masked_files: &self.masked_files,
            masked_dirs: &self.masked_dirs,
            readonly: &self.readonly,
            hostname: start.hostname.as_bytes(),
            inherited,
            program: start.program,
            argv0: c"infield-agent",
            caps: CAPS,
            filter: &self.filter,
        };
        let template_us = ((process::monotonic_ns() - begin) / 1000) as u32;
        let started = pid1::start(&plan).map_err(|error| failed(&error.step.to_string(), &error.source))?;
        let phases = [("dev", template_us)].into_iter().chain(started.phases);
        let phases = phases.map(|(name, us)| (name.to_owned(), us)).collect();
        Ok((Started { pid: started.pid, phases }, started.pidfd))
    }
}

fn failed(step: &str, error: &io::Error) -> Reply {
    Reply::Failed { step: step.to_owned(), errno: error.raw_os_error().unwrap_or(0), message: error.to_string() }
}

/// Leaves the host's mounts for a root with three empty places: where a sandbox's root is attached, what covers masked
/// directories, and the template of /dev. Every sandbox copies this mount table, so it is as small as can be.
fn enter_minimal_mounts() -> io::Result<()> {
    ns::unshare_mounts()?;
    mount::make_all_private()?;
    // Any existing directory serves to attach the new root before the old one goes.
    let stage = Path::new("/proc");
    let root = tmpfs()?;
    mount::attach(root.mount(mount::ATTR_NOSUID | mount::ATTR_NODEV | mount::ATTR_NOEXEC)?.as_fd(), stage)?;
    for dir in ["new", "empty", "dev"] {
        std::fs::create_dir(stage.join(dir))?;
    }
    let covered = mount::ATTR_RDONLY | mount::ATTR_NOSUID | mount::ATTR_NODEV | mount::ATTR_NOEXEC;
    mount::attach(tmpfs()?.mount(covered)?.as_fd(), &stage.join("empty"))?;
    mount::attach(tmpfs()?.mount(mount::ATTR_NOSUID | mount::ATTR_NOEXEC)?.as_fd(), &stage.join("dev"))?;
    fill_dev(mount::open_place(None, &stage.join("dev"))?.as_fd())?;
    mount::pivot_into(stage)
}

fn tmpfs() -> io::Result<mount::FsContext> {
    let context = mount::FsContext::open(c"tmpfs")?;
    context.string(c"mode", c"755")?;
    context.string(c"size", c"64k")?;
    context.create()?;
    Ok(context)
}

/// The devices every program expects, and nothing that reaches the host.
fn fill_dev(dev: BorrowedFd<'_>) -> io::Result<()> {
    let nodes =
        [(c"null", 1, 3), (c"zero", 1, 5), (c"full", 1, 7), (c"random", 1, 8), (c"urandom", 1, 9), (c"tty", 5, 0)];
    for (name, major, minor) in nodes {
        mount::device_node(dev, name, major, minor)?;
    }
    let links = [
        (c"/proc/self/fd", c"fd"),
        (c"/proc/self/fd/0", c"stdin"),
        (c"/proc/self/fd/1", c"stdout"),
        (c"/proc/self/fd/2", c"stderr"),
        (c"pts/ptmx", c"ptmx"),
    ];
    for (target, name) in links {
        mount::symlink_at(target, dev, name)?;
    }
    for name in [c"pts", c"shm", c"mqueue"] {
        mount::directory_at(dev, name, 0o755)?;
    }
    Ok(())
}

const _: () = assert!(CAPS >> (caps::CAP_LAST_KNOWN + 1) == 0);
