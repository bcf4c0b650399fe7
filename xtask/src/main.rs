//! Chores of the repository, run as `cargo run -p xtask -- <chore>`.
//!
//! It reads the tree and writes generated documents; it never builds, installs or runs the product.

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let chore = std::env::args().nth(1).unwrap_or_default();
    let root = xtask::repository_root();
    let outcome = match chore.as_str() {
        "tidy" => tidy(&root),
        "compatibility" => xtask::compatibility::write(&root).map(|path| println!("wrote {}", path.display())),
        _ => {
            eprintln!("usage: cargo run -p xtask -- tidy | compatibility");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{chore}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn tidy(root: &Path) -> anyhow::Result<()> {
    let complaints = xtask::tidy::check(root)?;
    for complaint in &complaints {
        eprintln!("tidy: {complaint}");
    }
    anyhow::ensure!(complaints.is_empty(), "{} complaints", complaints.len());
    println!("tidy: nothing to complain of");
    Ok(())
}
