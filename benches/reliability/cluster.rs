//! What apps notice behind hotring while slots of a real Redis Cluster move and its nodes fail, come and go.

use super::chaos::{ClusterStand, Counts, Fault, Mover, Plan, Sample, USUAL};
use super::{AFTER, BEFORE, HANGS, WARM};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Slots that move, and how often they do so there and back.
const SLOTS: u16 = 4000;
const TIMES: usize = 3;
/// Keys that are there and that nobody asks for, and how many keys MIGRATE takes at once.
const COLD: usize = 20_000;
const BATCH: usize = 10;
/// A row of a machine that stood still for so long is measured anew, if it is not as it should be.
const STALL: Duration = Duration::from_millis(400);
/// The pool's.
const TIMEOUT: &str = "timeout: 2s";
/// Between two failovers by command: nobody votes twice about one primary within two node timeouts, and it stands still until
/// then.
const VOTES: Duration = Duration::from_millis(2500);
/// The primary that fails, its replica, and another primary's.
const ILL: usize = 1;
const NEXT: usize = 4;
const OTHER: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Nothing,
    Reshard,
    Failover,
    Kill,
    KillSeeds,
    Freeze,
    AddAndRemove,
}

const FAULTS: [(&str, What); 7] = [
    ("none", What::Nothing),
    ("4,000 slots there and back, 3 times", What::Reshard),
    ("CLUSTER FAILOVER there and back, 3 times", What::Failover),
    ("kill -9 of a primary, back as a replica", What::Kill),
    ("kill -9 of both seeds, a primary and a replica", What::KillSeeds),
    ("SIGSTOP of a primary, SIGCONT when it is none any more", What::Freeze),
    ("a node added, 3,000 slots to it and back, removed", What::AddAndRemove),
];

/// A line of the table.
struct Row {
    counts: Counts,
    hangs: u64,
    redirects: Vec<(String, u64)>,
    /// The replica had taken over so long after its primary failed, and the last of all errors was told so long after that.
    failover: Option<(Duration, Duration)>,
    /// The longest time in which the machine gave this process no turn.
    stall: Duration,
}

/// The table, and whether all of it is as it should be.
pub(crate) fn measure(hotring: &str, only: &str) -> (String, bool) {
    let mut table = String::from(
        "| Fault | Requests | Wrong | Lost | Twice | Hangs | Undone by Redis | Redirections followed | Redis' failover took | Last error after it | Errors out of place | What apps saw |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | --- |\n",
    );
    println!("{table}");
    let mut clean = true;
    for (name, what) in FAULTS.into_iter().filter(|(name, _)| name.contains(only)) {
        let mut row = run(hotring, what);
        // What a machine that stood still itself shows is nobody's doing; a wrong reply is somebody's.
        for _ in 0..2 {
            if row.is_clean() || !row.counts.faults.is_empty() || row.stall < STALL {
                break;
            }
            eprintln!("{name}: all stood still for {:?}, once more", row.stall);
            row = run(hotring, what);
        }
        if !row.is_clean() {
            eprintln!("{name}: {:#?}", row.counts);
        }
        clean &= row.is_clean();
        let line = row.line(name);
        println!("{line}");
        table += &line;
        table.push('\n');
    }
    (table, clean)
}

fn run(hotring: &str, what: What) -> Row {
    let plan = Plan { apps: 8, rest: Duration::from_millis(1), record: true, ..USUAL };
    let mut stand = ClusterStand::of(hotring, SLOTS, COLD, TIMEOUT, plan);
    sleep(WARM + BEFORE);
    let failover = disturb(what, &mut stand);
    sleep(AFTER);
    let (redirects, stall) = (stand.redirects(), stand.stalls.longest());
    let started = stand.work.shared.began;
    let (counts, samples) = stand.work.finish();
    let failover = failover.map(|(failed, over)| {
        (over.duration_since(failed), counts.last_error.saturating_sub(over.duration_since(started)))
    });
    let slow = samples.iter().filter(|one: &&Sample| one.took > HANGS).count() as u64;
    Row { hangs: slow.max(counts.faults(Fault::Hung)), counts, redirects, failover, stall }
}

/// Does it to the cluster; says when a primary failed, and when Redis' own failover had ended.
fn disturb(what: What, stand: &mut ClusterStand) -> Option<(Instant, Instant)> {
    match what {
        What::Nothing => sleep(BEFORE),
        What::Reshard => {
            let mut mover = Mover::new(&stand.cluster, &[0, 1, 2]);
            for (from, to) in [(0, 1), (1, 0)].repeat(TIMES) {
                mover.move_all(stand.slots[0].clone(), (from, to), BATCH, || {});
            }
        }
        What::Failover => {
            for replica in [NEXT, ILL].repeat(TIMES) {
                stand.cluster.failover(replica);
                sleep(VOTES);
            }
        }
        What::Kill | What::KillSeeds | What::Freeze => {
            stand.begin_doubt(ILL, ILL, NEXT);
            let began = Instant::now();
            match what {
                What::Freeze => stand.cluster.freeze(ILL),
                _ => stand.cluster.kill(ILL),
            }
            if what == What::KillSeeds {
                stand.cluster.kill(OTHER);
            }
            let over = stand.failed_over(ILL, NEXT);
            stand.end_doubt(ILL, over);
            match what {
                What::Freeze => stand.cluster.thaw(ILL),
                _ => stand.cluster.restart(ILL),
            }
            if what == What::KillSeeds {
                stand.cluster.restart(OTHER);
            }
            stand.cluster.agree();
            return Some((began, over));
        }
        What::AddAndRemove => {
            let node = stand.cluster.add_node();
            let slots = stand.slots.clone();
            let mut mover = Mover::new(&stand.cluster, &[0, 1, 2, node]);
            for (shard, slots) in slots.iter().enumerate() {
                mover.move_all(slots.clone().take(1000), (shard, node), BATCH, || {});
            }
            sleep(BEFORE);
            for (shard, slots) in slots.iter().enumerate() {
                mover.move_all(slots.clone().take(1000), (node, shard), BATCH, || {});
            }
            drop(mover);
            stand.remove(node);
        }
    }
    None
}

impl Row {
    fn is_clean(&self) -> bool {
        let counts = &self.counts;
        counts.faults.is_empty() && self.hangs == 0 && counts.untimely.is_empty() && counts.closed == 0
    }

    fn line(&self, fault: &str) -> String {
        let counts = &self.counts;
        let mut errors: BTreeMap<String, u64> = BTreeMap::new();
        for (text, times) in &counts.errors {
            *errors.entry(nameless(text)).or_default() += times;
        }
        let mut errors: Vec<_> = errors.into_iter().collect();
        errors.sort_unstable_by_key(|(_, times)| std::cmp::Reverse(*times));
        let mut saw: Vec<String> = errors.iter().take(4).map(|(text, times)| format!("{times} x `{text}`")).collect();
        if errors.len() > 4 {
            saw.push(format!("{} x others", errors[4..].iter().map(|(_, times)| times).sum::<u64>()));
        }
        if saw.is_empty() {
            saw.push("nothing".to_owned());
        }
        let mut redirects = String::new();
        for (why, times) in &self.redirects {
            let _ = write!(redirects, "{}{times} {why}", if redirects.is_empty() { "" } else { ", " });
        }
        let [wrong, lost, twice] = [Fault::Wrong, Fault::Lost, Fault::Twice].map(|fault| counts.faults(fault));
        let [took, last] = match self.failover {
            Some((took, last)) => [took, last].map(|time| format!("{} ms", time.as_millis())),
            None => ["", ""].map(str::to_owned),
        };
        format!(
            "| {fault} | {} | {wrong} | {lost} | {twice} | {} | {} | {redirects} | {took} | {last} | {} | {} |",
            counts.requests,
            self.hangs,
            counts.undone,
            counts.untimely.values().sum::<u64>(),
            saw.join("; "),
        )
    }
}

/// An error's text without the address in it, which is another each time.
fn nameless(text: &str) -> String {
    let words = text.split(' ').map(|word| if word.starts_with("127.0.0.1:") { "…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}
