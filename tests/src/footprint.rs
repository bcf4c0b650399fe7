//! Everything one server could leave behind in the kernel, found by its data directory and its tag, so that servers of
//! other tests do not disturb the count.

use crate::process;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

/// Named things that exist now; empty when the server has gone without a trace.
pub fn of(data_dir: &Path, tag: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    found.extend(mounts(data_dir).into_iter().map(|m| format!("mount {m}")));
    found.extend(loops(data_dir).into_iter().map(|l| format!("loop device {l}")));
    found.extend(links(tag).into_iter().map(|l| format!("network link {l}")));
    found.extend(cgroups(tag).into_iter().map(|c| format!("cgroup {}", c.display())));
    found.extend(processes(data_dir, tag).into_iter().map(|p| format!("process {} {:?}", p.pid, p.arguments)));
    found.extend(tables(tag).into_iter().map(|t| format!("nft {t}")));
    found
}

/// Mount points below the directory, in this mount namespace.
pub fn mounts(below: &Path) -> Vec<String> {
    let below = below.to_str().unwrap();
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|at| at.starts_with(below))
        .map(str::to_owned)
        .collect()
}

/// Loop devices whose file lies (or lay) below the directory.
pub fn loops(below: &Path) -> Vec<String> {
    let below = below.to_str().unwrap();
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    devices
        .filter_map(|device| {
            let file = std::fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
            file.starts_with(below).then(|| format!("{} on {}", device.file_name().to_string_lossy(), file.trim()))
        })
        .collect()
}

/// Host ends of the server's sandboxes.
pub fn links(tag: &str) -> Vec<String> {
    let prefix = format!("if{tag}v");
    let names =
        std::fs::read_dir("/sys/class/net").unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

/// The server's cgroups in every hierarchy.
pub fn cgroups(tag: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let name = format!("infield-{tag}");
    walk(Path::new("/sys/fs/cgroup"), 4, &mut |path| {
        if path.file_name().is_some_and(|n| *n == *name) {
            found.push(path.to_owned());
        }
    });
    found
}

/// Calls `visit` for each folder down to `depth`.
fn walk(folder: &Path, depth: usize, visit: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&entry.path());
            if depth > 1 {
                walk(&entry.path(), depth - 1, visit);
            }
        }
    }
}

/// Processes that name the directory or sit in the server's cgroups, this test itself left out.
pub fn processes(data_dir: &Path, tag: &str) -> Vec<process::Seen> {
    let data_dir = data_dir.to_str().unwrap();
    let cgroup = format!("infield-{tag}/");
    let own = std::process::id() as i32;
    let mut seen = process::all();
    seen.retain(|p| {
        p.pid != own
            && !process::ended(p.pid)
            && (p.cgroups.contains(&cgroup) || p.arguments.iter().any(|a| a.contains(data_dir)))
    });
    seen
}

/// The server's packet filter tables, when the machine has nft(8) to ask with.
pub fn tables(tag: &str) -> Vec<String> {
    let Ok(output) = Command::new("nft").args(["list", "tables"]).output() else { return Vec::new() };
    let name = format!("infield_{tag}");
    process::text(&output.stdout).lines().filter(|line| line.ends_with(&name)).map(str::to_owned).collect()
}

/// The route by which a server claims its address range, which sandboxes' own routes lie below.
pub fn routes(subnet: &str) -> Vec<String> {
    let output = Command::new("ip").args(["-4", "route", "show", "root", subnet]).output().unwrap();
    process::text(&output.stdout).lines().map(|line| line.trim().to_owned()).collect()
}

/// Bytes and files below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
