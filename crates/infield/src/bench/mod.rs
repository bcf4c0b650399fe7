//! `infield bench tti`.

use crate::cli::TtiArgs;
use std::process::ExitCode;

pub fn main(_args: &TtiArgs) -> ExitCode {
    ExitCode::FAILURE
}
