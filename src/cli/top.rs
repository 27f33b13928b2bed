//! `hotring top`: its options.

use super::{BAD, Outcome, SYSTEM, say};
use crate::top;
use crate::units::{Address, Millis};
use clap::Args;
use std::io::IsTerminal as _;
use std::time::Duration;

/// Asking more often tells nothing new: the process counts ten times a second.
const LEAST: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(super) struct Options {
    /// The `admin` of the process: `host:port`, or the path of a unix socket
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9380")]
    admin: Address,
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
    if options.once {
        let told = top::once(&options.admin).map_err(|why| (SYSTEM, format!("hotring: {}: {why}", options.admin)))?;
        say(&told);
        return Ok(());
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err((BAD, "this is no terminal: `hotring top --once` prints what there is".into()));
    }
    top::watch(options.admin.clone(), interval).map_err(|error| (SYSTEM, format!("hotring: {error}")))
}
