//! `infield teardown`: gives back what a stopped server still holds in the kernel, so that its data folder can be removed.

use crate::{
    cli::TeardownArgs,
    paths::Paths,
    serve,
    wire::{self, Engine},
};
use anyhow::{Context, Result, bail};
use infield_api::runner::Runner;
use rustix::mount::{UnmountFlags, unmount};
use std::path::{Path, PathBuf};

pub fn main(args: &TeardownArgs) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("infield teardown needs root; run it with sudo");
    }
    let paths = Paths::new(&args.host.data.data_dir);
    // Written by the first runner: without it nothing was ever made.
    if !paths.data.join("instance").exists() {
        println!("{} holds no server", paths.data.display());
        return Ok(());
    }
    let _lock = serve::lock(&paths)?;
    let config = wire::engine(&args.host, None)?;
    let zygotes = infield_engine::zygote::spawn(1)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let removed = runtime.block_on(async {
        let (engine, _) = Engine::open(config, zygotes)?;
        let removed = remove_all(&engine, args.force).await;
        engine.close();
        removed
    })?;
    drop(runtime);
    for mount in mounts_below(&paths.data)? {
        unmount(&mount, UnmountFlags::empty()).with_context(|| format!("cannot unmount {}", mount.display()))?;
    }
    println!("removed {removed} sandboxes and everything in the kernel; the files in {} stay", paths.data.display());
    Ok(())
}

async fn remove_all(engine: &Engine, force: bool) -> Result<usize> {
    let sandboxes = engine.list().await?;
    if !sandboxes.is_empty() && !force {
        bail!(
            "{} sandboxes are left; delete them first, or use --force to delete them with their files",
            sandboxes.len()
        );
    }
    for sandbox in &sandboxes {
        engine.destroy(sandbox.id).await?;
    }
    Ok(sandboxes.len())
}

/// Innermost first.
fn mounts_below(data: &Path) -> Result<Vec<PathBuf>> {
    let data = data.canonicalize().with_context(|| format!("cannot open {}", data.display()))?;
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    Ok(mount_points(&table).into_iter().rev().filter(|at| at.starts_with(&data)).collect())
}

fn mount_points(mountinfo: &str) -> Vec<PathBuf> {
    let fields = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    fields.map(|path| PathBuf::from(path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_spaces() {
        let table = "36 35 98:0 / /a\\040b rw - ext4 x rw\n37 36 0:1 / /a\\040b/pool rw - btrfs y rw\n";
        assert_eq!(mount_points(table), [PathBuf::from("/a b"), PathBuf::from("/a b/pool")]);
    }
}
