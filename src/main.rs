//! `hotring`: arguments, configuration, run, exit code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    hotring::cli::main()
}
