//! End to end: a short run of `benches/side_by_side.py` with the hotring of this build, against twemproxy and no proxy.
//!
//! `cargo bench --bench proxy` measures for about twenty seconds; whatever stands behind a `--` goes to the script:
//! `cargo bench --bench proxy -- --pin --rounds 5 --readme`.

#![allow(clippy::print_stderr, reason = "a benchmark talks to who started it")]

use std::process::{Command, ExitCode, Stdio};

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` starts benchmarks without it: there is nothing to measure then.
    let Some(place) = arguments.iter().position(|argument| argument == "--bench") else { return ExitCode::SUCCESS };
    arguments.remove(place);

    let needed = [
        ("python3", "--version", "python3"),
        ("redis-server", "--version", "redis-server"),
        ("redis-benchmark", "--version", "redis-tools"),
    ];
    let missing: Vec<&str> =
        needed.iter().filter(|(name, flag, _)| !runs(name, flag)).map(|(_, _, package)| *package).collect();
    if !missing.is_empty() {
        eprintln!("nothing measured, not installed: {} (Debian: apt-get install ...)", missing.join(", "));
        return ExitCode::SUCCESS;
    }
    if arguments.is_empty() {
        arguments = ["--rounds", "2", "--seconds", "0.3"].map(str::to_owned).to_vec();
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/side_by_side.py");
    let hotring = env!("CARGO_BIN_EXE_hotring");
    match Command::new("python3").args([script, "--hotring", hotring]).args(arguments).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("python3: {error}");
            ExitCode::FAILURE
        }
    }
}

fn runs(program: &str, flag: &str) -> bool {
    let status = Command::new(program).arg(flag).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
