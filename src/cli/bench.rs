//! `hotring bench`: its options.

use super::{BAD, Outcome, SYSTEM, raise_descriptor_limit, say};
use crate::bench::{self, Auth, Bench, Load, Side, Until, Workload};
use crate::units::{Address, Millis, Size};
use clap::{Args, ValueEnum, value_parser};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// More than this is not written to a server unless asked for: it may be a cache that makes room by forgetting others' keys.
const MUCH: u64 = 256 << 20;

#[derive(Args)]
pub(super) struct Options {
    /// A server: `host:port`, or the path of a unix socket
    #[arg(long, value_name = "ADDR")]
    direct: Option<Address>,
    /// A proxy before it; without one, a hotring in this process: before the server, or before embedded nodes
    #[arg(long, value_name = "ADDR")]
    proxy: Option<Address>,
    /// A file with the server's password, or with a user, a blank and the password
    #[arg(long, value_name = "FILE")]
    direct_auth: Option<PathBuf>,
    /// The same for the proxy
    #[arg(long, value_name = "FILE")]
    proxy_auth: Option<PathBuf>,
    /// What is asked
    #[arg(long, value_enum, default_value_t = Asked::Get)]
    workload: Asked,
    /// Connections
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = value_parser!(u16).range(1..=10_000))]
    clients: u16,
    /// Threads that ask
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Requests that a connection sends at once
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = value_parser!(u16).range(1..=1_000))]
    pipeline: u16,
    /// Bytes of a value
    #[arg(long, value_name = "SIZE", default_value = "64")]
    size: Size,
    /// Different keys, which are asked for evenly
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = value_parser!(u32).range(1..=10_000_000))]
    keys: u32,
    /// So often each side is measured
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// How long a side is measured in a round
    #[arg(long, value_name = "TIME", default_value = "2s", conflicts_with = "requests")]
    time: Millis,
    /// How many requests a side is asked in a round, instead of a time
    #[arg(long, value_name = "COUNT", value_parser = value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// Also ask servers on other machines for all they can do, and write more than 256 MiB
    #[arg(long)]
    yes: bool,
    /// Print nothing but what came of it, as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Asked {
    /// GET
    Get,
    /// SET
    Set,
    /// Nine GET to one SET
    Mixed,
    /// MGET of ten keys
    Mget,
}

pub(super) fn bench(options: &Options) -> Outcome {
    let side = |address: &Option<Address>, auth: &Option<PathBuf>| -> Result<Option<Side>, (u8, String)> {
        let Some(address) = address else {
            let unused = auth.as_ref().map(|path| format!("{}: there is no side that it is for", path.display()));
            return unused.map_or(Ok(None), |text| Err((BAD, text)));
        };
        let auth = auth.as_deref().map(password).transpose()?;
        Ok(Some(Side::from(address).with_auth(auth)))
    };
    let (direct, proxy) = (side(&options.direct, &options.direct_auth)?, side(&options.proxy, &options.proxy_auth)?);
    if !options.yes {
        allowed(options, direct.iter().chain(&proxy))?;
    }
    let size = u32::try_from(options.size.bytes()).ok().filter(|&size| size <= 512 << 20);
    let size = size.ok_or_else(|| (BAD, "--size: at most 512mb, as Redis has it".to_owned()))?;
    let time = Duration::from(options.time);
    let until = match options.requests {
        Some(count) => Until::Requests(count),
        None if time.is_zero() => return Err((BAD, "--time must not be 0".into())),
        None => Until::Time(time),
    };
    let workload = match options.workload {
        Asked::Get => Workload::Get,
        Asked::Set => Workload::Set,
        Asked::Mixed => Workload::Mixed,
        Asked::Mget => Workload::Mget,
    };
    let &Options { clients, threads, pipeline, keys, rounds, .. } = options;
    let load = Load { clients, threads, pipeline, size, keys, workload, until };
    raise_descriptor_limit();
    let (mut stdout, mut nowhere) = (io::stdout(), io::sink());
    let out: &mut dyn io::Write = if options.json { &mut nowhere } else { &mut stdout };
    let report = match bench::run(Bench { direct, proxy, load, rounds }, out) {
        // Nobody reads it any more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        done => done.map_err(|error| (SYSTEM, format!("hotring: {error}")))?,
    };
    say(&if options.json { format!("{:#}\n", report.json()) } else { format!("\n{}", report.table()) });
    Ok(())
}

/// What is not done unless asked for twice.
fn allowed<'a>(options: &Options, sides: impl Iterator<Item = &'a Side>) -> Outcome {
    for side in sides {
        if !side.is_local() {
            let text = format!(
                "{} is on another machine, and would be asked for all it can do: say --yes if nobody else needs it meanwhile",
                side.at()
            );
            return Err((BAD, text));
        }
    }
    let bytes = u64::from(options.keys).saturating_mul(options.size.bytes());
    if bytes > MUCH {
        let text = format!(
            "{} MiB would be written to each side; a server that has a limit might forget other keys for it: say --yes, or fewer --keys",
            bytes >> 20
        );
        return Err((BAD, text));
    }
    Ok(())
}

fn password(path: &Path) -> Result<Auth, (u8, String)> {
    let text = std::fs::read_to_string(path).map_err(|e| (BAD, format!("{}: cannot be read: {e}", path.display())))?;
    Auth::read(&text).ok_or_else(|| (BAD, format!("{}: its first line has no password", path.display())))
}
