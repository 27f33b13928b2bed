//! `hotring top`: its options.

use super::{BAD, Outcome, SYSTEM, say};
use crate::top;
use crate::units::{Address, Millis, Secret};
use clap::Args;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Asking more often tells nothing new: the process counts ten times a second.
const LEAST: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(super) struct Options {
    /// The `admin` of the process: `host:port`, or the path of a unix socket
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9380")]
    admin: Address,
    /// File with the token that it wants of who reads (`admin_token_for: all`)
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How often it is asked
    #[arg(long, value_name = "TIME", default_value = "1s")]
    interval: Millis,
    /// Print all of it once as text, and exit
    #[arg(long)]
    once: bool,
}

pub(super) fn top(options: &Options) -> Outcome {
    let interval = Duration::from(options.interval);
    if interval < LEAST {
        return Err((BAD, "--interval must be at least 100ms".into()));
    }
    let token = options.token_file.as_deref().map(token).transpose()?;
    if options.once {
        let told = top::once(&options.admin, token.as_ref())
            .map_err(|why| (SYSTEM, format!("hotring: {}: {why}", options.admin)))?;
        say(&told);
        return Ok(());
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err((BAD, "this is no terminal: `hotring top --once` prints what there is".into()));
    }
    top::watch(options.admin.clone(), token, interval).map_err(|error| (SYSTEM, format!("hotring: {error}")))
}

/// What stands in a file, as `admin_token_file` reads it.
fn token(file: &Path) -> Result<Secret, (u8, String)> {
    let text = std::fs::read_to_string(file).map_err(|error| (BAD, format!("{}: {error}", file.display())))?;
    let token = text.trim_end_matches(['\r', '\n']);
    // Others could not stand in a header.
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err((BAD, format!("{}: expected a token of ASCII characters without blanks", file.display())));
    }
    Ok(Secret::new(token))
}
