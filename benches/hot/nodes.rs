//! E2f: who carries the load of a cluster when one key is half of it.

use crate::Options;
use crate::balance::{Row, measure};
use crate::chaos::Process;
use crate::histories::Chance;
use crate::load::name;
use crate::stand::{Did, Mode, Proxy, Witness, spread};
use crate::support::{Cluster, Scratch, over_cluster, wire};
use std::fmt::Write as _;

const PRIMARIES: usize = 6;
/// Requests a second of all apps together.
const RATE: f64 = 6_000.0;

/// Measures all; gives a table.
pub(crate) fn run(options: &Options) -> String {
    let (count, keys) = if options.quick { (2, 10_000) } else { (6, 100_000) };
    let cluster = Cluster::start(PRIMARIES, PRIMARIES);
    let modes = ["off", "copies", "replicas", "near"].map(Mode::Reads);
    let mut witness = Witness::at(cluster.alive().map(|node| cluster.client(node)).collect());
    let mut filled = false;
    let mut rows = Vec::new();
    for mode in options.of(&modes) {
        let dir = Scratch::new();
        let all = proxies(mode, count, &cluster, &dir, options);
        let addresses: Vec<String> = all.iter().map(Proxy::address).collect();
        if !filled {
            fill(&addresses[0], keys);
            filled = true;
        }
        let mut chance = Chance::of(42);
        let draw = || {
            let hot = chance.part() < 0.5;
            name(if hot { 0 } else { (chance.part() * keys as f64) as usize })
        };
        let row = measure(mode, (&all, &mut witness), options.rate.unwrap_or(RATE), options.time, draw);
        eprintln!("{}: {:?}", mode.name(), row.did.iter().map(|did| did.gets).collect::<Vec<_>>());
        rows.push(row);
    }
    table(&rows, count, keys)
}

/// So many of them before the cluster.
fn proxies(mode: Mode, count: usize, cluster: &Cluster, dir: &Scratch, options: &Options) -> Vec<Proxy> {
    let Mode::Reads(reads) = mode else { return Vec::new() };
    let hot = format!("hot_keys: {{reads: {reads}}}");
    let mut lines = vec!["^log: {level: off}", "^workers: 1"];
    if reads != "off" {
        lines.push(&hot);
    }
    let text =
        over_cluster(&[cluster.address(0), cluster.address(1)], &lines).replace("admin: off", "admin: 127.0.0.1:0");
    let config = dir.write(&format!("{reads}.yaml"), &text);
    (0..count).map(|_| Proxy::Ours(Process::of(&options.hotring, &config))).collect()
}

/// Sets keys of 100 bytes through a proxy.
fn fill(address: &str, keys: usize) {
    let mut client = crate::support::Client::connect(address);
    let value = "x".repeat(100);
    for first in (0..keys).step_by(500) {
        let last = keys.min(first + 500);
        let all: Vec<u8> = (first..last).flat_map(|key| wire(&["SET", &name(key), &value])).collect();
        client.send(&all);
        client.exactly(b"+OK\r\n".len() * (last - first));
    }
}

fn table(rows: &[Row], count: usize, keys: usize) -> String {
    let mut text = format!(
        "A cluster of {PRIMARIES} primaries with a replica each, {count} proxies of one worker, {keys} keys of 100 bytes, GET only: half \
         of them for one key, the others for any. Calls as the nodes count them. \"Of plain\" is the GETs of the busiest node, whichever \
         it is, relative to the mean of the primaries with `reads: off`, for as many requests.\n\n\
         | | Requests/s | Errors | GETs at primaries | at replicas | primaries: max / mean | busiest node, of plain | from memory | \
         the hot key, p50 | p99 |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    );
    let share = |row: &Row, gets: f64| gets / row.done.requests as f64;
    let plain = rows.iter().find(|row| row.mode == Mode::Reads("off"));
    let mean = plain.map(|row| share(row, spread(row.did[..PRIMARIES].iter().map(|did| did.gets)).1));
    for row in rows {
        let (primaries, replicas) = row.did.split_at(PRIMARIES);
        let (_, _, quotient) = spread(primaries.iter().map(|did| did.gets));
        let (busiest, _, _) = spread(row.did.iter().map(|did| did.gets));
        let sum = |all: &[Did]| all.iter().map(|did| did.gets).sum::<u64>();
        let _ = writeln!(
            text,
            "| {} | {:.0} | {} | {} | {} | {quotient:.2} | {:.2} | {:.1} % | {:.2?} | {:.2?} |",
            row.mode.name(),
            row.done.rate(),
            row.done.errors,
            sum(primaries),
            sum(replicas),
            mean.map_or(0.0, |mean| share(row, busiest) / mean),
            100.0 * row.near / row.done.requests as f64,
            row.hot[0],
            row.hot[1],
        );
    }
    text
}
