//! Files and functions stay short enough to be read at one sitting, and every module says why it exists.

use super::{RustFile, ratchet::Ratchet};

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
const HEADER_LINES_MAX: usize = 10;

pub fn check(files: &[RustFile], ratchet: &mut Ratchet) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        ratchet.judge(&file.path, "lines", file.text.lines().count(), FILE_LINES_MAX);
        for function in &file.facts.functions {
            let name = format!("{}::{}", file.path, function.name);
            ratchet.judge(&name, "lines", function.lines, FUNCTION_LINES_MAX);
        }
        complaints.extend(header(file));
    }
    complaints
}

/// Test modules in a file of their own belong to the module they test.
fn header(file: &RustFile) -> Option<String> {
    if file.crate_name().is_some() && file.is_test_code() {
        return None;
    }
    let lines = file.text.lines().take_while(|line| line.starts_with("//!")).count();
    match lines {
        0 => Some(format!("{}: no `//!` header; say why the module exists and what it does not know", file.path)),
        n if n > HEADER_LINES_MAX => Some(format!("{}: header of {n} lines, at most {HEADER_LINES_MAX}", file.path)),
        _ => None,
    }
}
