//! Builds the in-sandbox agent as a small static program and hands its path to `include_bytes!`.
//!
//! A nested cargo with its own target folder, so that it neither waits for this one nor shares its flags. INFIELD_AGENT_BIN
//! names a ready-made agent instead.

use std::{
    env,
    error::Error,
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=INFIELD_AGENT_BIN");
    let agent = match env::var_os("INFIELD_AGENT_BIN") {
        Some(ready) => {
            let ready = PathBuf::from(ready).canonicalize()?;
            println!("cargo::rerun-if-changed={}", ready.display());
            ready
        }
        None => build()?,
    };
    println!("cargo::rustc-env=INFIELD_AGENT={}", agent.display());
    Ok(())
}

fn build() -> Result<PathBuf, Box<dyn Error>> {
    let workspace = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    for watched in ["crates/agent", "crates/sys", "crates/api", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(watched).display());
    }
    let target = match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86_64" => "x86_64-unknown-linux-gnu",
        "aarch64" => "aarch64-unknown-linux-gnu",
        other => return Err(format!("there is no agent for {other} yet; x86_64 and aarch64 are supported").into()),
    };
    let folder = workspace.join("target/agent");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--package", "infield-agent", "--profile", "agent", "--target", target, "--locked"]);
    cargo.arg("--target-dir").arg(&folder).current_dir(&workspace);
    // Not what clippy or a caller's flags would make of it: always the same static program.
    for ours in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "RUSTC_WRAPPER", "CARGO_BUILD_RUSTFLAGS"] {
        cargo.env_remove(ours);
    }
    // Static, so that it needs nothing from an image; at a fixed address, because relocating costs time at each start.
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static");
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_FEATURE_") || name.to_string_lossy().starts_with("CARGO_CFG_") {
            cargo.env_remove(name);
        }
    }
    let status = cargo.status().map_err(|e| format!("cannot run cargo for the agent: {e}"))?;
    if !status.success() {
        return Err("the agent could not be built; its errors stand above".into());
    }
    // Gone when the folder is, so that the agent is built again. Not the agent itself: it is younger than the start of this
    // program, and everything would be built once more by the next build.
    let mark = folder.join("made");
    File::create(&mark)?.set_modified(SystemTime::UNIX_EPOCH)?;
    println!("cargo::rerun-if-changed={}", mark.display());
    Ok(folder.join(target).join("agent/infield-agent"))
}
