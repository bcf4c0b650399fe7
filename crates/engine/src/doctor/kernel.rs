//! Kernel, privileges, namespaces, control groups, limits.

use super::{Check, chain, fail, ok, warn};
use crate::{
    cgroup::{self, Hierarchies},
    disk::find_tool,
};
use infield_sys::{memfd, trial};
use rustix::process::{Resource, getrlimit};
use std::{
    fs::{self, File},
    os::fd::{AsFd, AsRawFd},
    process::{Command, Stdio},
};

const KERNEL_MIN: (u32, u32) = (5, 19);
/// Capability numbers the engine works with.
const CAPABILITIES: [(u32, &str); 11] = [
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (5, "CAP_KILL"),
    (6, "CAP_SETGID"),
    (7, "CAP_SETUID"),
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (18, "CAP_SYS_CHROOT"),
    (19, "CAP_SYS_PTRACE"),
    (21, "CAP_SYS_ADMIN"),
    (27, "CAP_MKNOD"),
];
/// Each sandbox takes at least two process numbers, one descriptor and one namespace of each kind.
const PIDS_GOOD: u64 = 100_000;
const OPEN_FILES_GOOD: u64 = 65_536;
const NAMESPACES_GOOD: u64 = 4_096;

pub fn check() -> Vec<Check> {
    let mut checks = vec![kernel(), privileges()];
    checks.extend(namespaces());
    checks.extend([seccomp(), memory_executable(), control_groups(), process_numbers(), open_files()]);
    checks.extend(namespace_limits());
    checks
}

fn kernel() -> Check {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let found = format!("Linux {release}");
    if version < KERNEL_MIN {
        return fail("kernel", found, format!("use a kernel of at least {}.{}", KERNEL_MIN.0, KERNEL_MIN.1));
    }
    ok("kernel", found)
}

fn privileges() -> Check {
    let uid = rustix::process::geteuid();
    if !uid.is_root() {
        return fail("root", format!("running as user {}", uid.as_raw()), "run as root: sudo infield doctor");
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:")).map(str::trim);
    let effective = effective.and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
    let missing: Vec<_> = CAPABILITIES.iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|(_, n)| *n).collect();
    if missing.is_empty() {
        return ok("root", "running as root");
    }
    fail(
        "root",
        format!("root without {}", missing.join(", ")),
        "run on the host itself, not in a container; in a systemd unit remove CapabilityBoundingSet",
    )
}

fn namespaces() -> Vec<Check> {
    [
        ("user namespaces", trial::USER_NAMESPACE, "user"),
        ("mount namespaces", trial::MOUNT_NAMESPACE, "mnt"),
        ("pid namespaces", trial::PID_NAMESPACE, "pid"),
        ("network namespaces", trial::NETWORK_NAMESPACE, "net"),
        ("uts namespaces", trial::UTS_NAMESPACE, "uts"),
        ("ipc namespaces", trial::IPC_NAMESPACE, "ipc"),
        ("cgroup namespaces", trial::CGROUP_NAMESPACE, "cgroup"),
    ]
    .map(|(name, flag, short)| match trial::namespaces(flag) {
        Ok(()) => ok(name, "can be made"),
        // The kernel makes none for who lives in a chroot, and the filters of containers forbid it.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            fail(name, format!("cannot be made: {e}"), "run on the host itself, not in a chroot or a container")
        }
        Err(e) => fail(
            name,
            format!("cannot be made: {e}"),
            format!("sysctl -w user.max_{short}_namespaces={NAMESPACES_GOOD}, or a kernel that has them"),
        ),
    })
    .into()
}

fn seccomp() -> Check {
    match fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) if actions.contains("errno") => ok("seccomp", "filters are available"),
        _ => fail("seccomp", "no system call filters", "use a kernel built with CONFIG_SECCOMP_FILTER"),
    }
}

/// The agent is started from sealed memory, so that no file on disk can be swapped under it.
fn memory_executable() -> Check {
    const NAME: &str = "memory executables";
    let remedy = "sysctl -w vm.memfd_noexec=0";
    let tried =
        find_tool("true").ok_or_else(|| std::io::Error::other("no program `true` to try with")).and_then(|tool| {
            let file = memfd::sealed_executable(c"infield-doctor", &fs::read(tool)?)?;
            // The number is this process's; the child looks the file up through us.
            let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_fd().as_raw_fd());
            Command::new(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()
        });
    match tried {
        Ok(status) if status.success() => ok(NAME, "run"),
        Ok(status) => fail(NAME, format!("a program in memory ended with {status}"), remedy),
        Err(e) => fail(NAME, format!("a program in memory does not start: {e}"), remedy),
    }
}

fn control_groups() -> Check {
    const NAME: &str = "control groups";
    match Hierarchies::detect() {
        Ok(found) if cgroup::swap_in_use() && !cgroup::counts_swap(&found) => fail(
            NAME,
            "this host swaps, and its kernel does not count the swap of a control group",
            "boot with swapaccount=1, or turn swap off (swapoff -a)",
        ),
        Ok(Hierarchies::V2(root)) => ok(NAME, format!("version 2 at {}", root.display())),
        Ok(Hierarchies::V1 { memory, .. }) => {
            let unified = fs::read_to_string("/proc/self/mountinfo").is_ok_and(|t| t.contains(" - cgroup2 "));
            let kind = if unified { "version 1 (hybrid)" } else { "version 1" };
            ok(NAME, format!("{kind}, memory at {}", memory.display()))
        }
        Err(e) => {
            fail(NAME, chain(&e), "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 at /sys/fs/cgroup")
        }
    }
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn process_numbers() -> Check {
    const NAME: &str = "process numbers";
    match number("/proc/sys/kernel/pid_max") {
        Some(most) if most < PIDS_GOOD => {
            warn(NAME, format!("at most {most} on the whole host"), "sysctl -w kernel.pid_max=4194304")
        }
        Some(most) => ok(NAME, format!("up to {most}")),
        None => warn(NAME, "kernel.pid_max cannot be read", "mount /proc"),
    }
}

fn open_files() -> Check {
    const NAME: &str = "open files";
    match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < OPEN_FILES_GOOD => warn(
            NAME,
            format!("at most {most}; each running sandbox needs some"),
            format!("ulimit -Hn {OPEN_FILES_GOOD}, or LimitNOFILE={OPEN_FILES_GOOD} in the systemd unit"),
        ),
        Some(most) => ok(NAME, format!("up to {most}")),
        None => ok(NAME, "no limit"),
    }
}

fn namespace_limits() -> Vec<Check> {
    let path = |kind| format!("/proc/sys/user/max_{kind}_namespaces");
    let least = ["user", "mnt", "pid", "net", "uts", "ipc", "cgroup"].map(|kind| (number(&path(kind)), kind));
    let small: Vec<_> = least.iter().filter(|(most, _)| most.is_some_and(|m| m < NAMESPACES_GOOD)).collect();
    const NAME: &str = "namespace limits";
    match (small.first(), File::open(path("user"))) {
        (_, Err(e)) => vec![warn(NAME, format!("{}: {e}", path("user")), "mount /proc")],
        (Some((most, kind)), _) => vec![warn(
            NAME,
            format!("at most {} {kind} namespaces: so many sandboxes", most.unwrap_or(0)),
            format!("sysctl -w user.max_{kind}_namespaces=65536"),
        )],
        (None, _) => vec![ok(NAME, "room for thousands of sandboxes")],
    }
}
