//! `infield setup`: check the machine, make the API's user, install what is missing, build the default image.

use crate::{cli::SetupArgs, doctor, image::size, paths, wire};
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use infield_engine::{
    image::{Progress, Unit},
    setup::{SetupOptions, build_base_image},
};
use std::{
    io::{BufRead, IsTerminal, Write},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

pub fn main(args: &SetupArgs) -> Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        bail!("infield setup needs root; run it with sudo");
    }
    let install = install_tools(args.yes)?;
    create_user()?;
    if doctor::print(&args.host, args.listen, false)? {
        println!("this machine lacks something that sandboxes need; mend it as said above and run setup again");
        return Ok(ExitCode::FAILURE);
    }
    let started = Instant::now();
    let mut options = SetupOptions { install_tools: install, force: args.rebuild, ..SetupOptions::default() };
    if let Some(mirror) = &args.mirror {
        options.mirror = mirror.clone();
        options.security_mirror = None;
    }
    let store = wire::images(&args.host)?;
    let bar = Bar::new();
    let image = build_base_image(&store, &options, &bar).context("cannot build the default image")?;
    drop(bar);
    println!(
        "image {} is ready: {}, {:.0} s\nnext: infield serve",
        options.reference,
        size(image.size_bytes),
        started.elapsed().as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

/// Debian programs used at set-up and their packages.
const TOOLS: [(&str, &str); 2] = [("mmdebstrap", "mmdebstrap"), ("mkfs.btrfs", "btrfs-progs")];

/// Says what is missing and installs it when told to. Answers whether more may be installed.
fn install_tools(yes: bool) -> Result<bool> {
    let missing: Vec<&str> = TOOLS.iter().filter(|(tool, _)| !on_path(tool)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(yes);
    }
    let line = format!("apt-get install --yes --no-install-recommends {}", missing.join(" "));
    println!("needed for the default image and not here: {}\n  {line}", missing.join(", "));
    if !yes && !agreed()? {
        bail!("not installed; run the line above yourself, or run setup with --yes");
    }
    apt(&["update", "--quiet=2"])?;
    apt(&[&["install", "--yes", "--quiet=2", "--no-install-recommends"], missing.as_slice()].concat())?;
    Ok(true)
}

fn agreed() -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    print!("install now? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn apt(args: &[&str]) -> Result<()> {
    let status = Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive").status();
    let status = status.context("cannot run apt-get; install the packages with your distribution's tool")?;
    if !status.success() {
        bail!("apt-get {} failed ({status})", args.join(" "));
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(known).any(|folder| folder.join(program).is_file())
}

/// The user that the API runs as; without it a fixed number is used, so failing here is not the end.
fn create_user() -> Result<()> {
    let name = paths::USER_NAME;
    if std::fs::read_to_string("/etc/passwd")?.lines().any(|line| line.starts_with(&format!("{name}:"))) {
        return Ok(());
    }
    let args =
        ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"];
    match Command::new("useradd").args(args).arg(name).status() {
        Ok(status) if status.success() => println!("made the system user {name}"),
        _ => println!("cannot make the user {name}; the API will run as number {}", paths::FALLBACK_ID),
    }
    Ok(())
}

/// A progress bar for work on images; plain lines where standard error is not a terminal.
pub struct Bar {
    bar: ProgressBar,
    terminal: bool,
}

impl Bar {
    pub fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, terminal: std::io::stderr().is_terminal() }
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("=> "));
        }
    }
}

impl Progress for Bar {
    fn phase(&self, name: &str) {
        self.bar.unset_length();
        self.bar.set_position(0);
        self.style("{spinner:.cyan} {prefix} {wide_msg:.dim} {elapsed:.dim}");
        self.bar.set_prefix(name.to_owned());
        self.bar.set_message("");
        if !self.terminal {
            eprintln!("{name}");
        }
    }

    fn total(&self, amount: u64, unit: Unit) {
        self.bar.set_length(amount);
        self.style(match unit {
            Unit::Bytes => "{prefix} [{bar:30.cyan}] {bytes}/{total_bytes} {bytes_per_sec} {eta:.dim}",
            Unit::Steps => "{prefix} [{bar:30.cyan}] {pos}/{len} {wide_msg:.dim}",
        });
    }

    fn advance(&self, amount: u64) {
        self.bar.inc(amount);
    }

    fn detail(&self, line: &str) {
        self.bar.set_message(line.to_owned());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
