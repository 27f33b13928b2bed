//! What really happened: the shards' data with all of its past, and which command ran when.

use super::wire::Reply;
use hotring::resp::write;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Counts everything that happens; 0 is before all.
pub type Moment = u64;

/// A key's values, each from a moment on.
#[derive(Default)]
pub struct Timeline(Vec<(Moment, Option<Rc<[u8]>>)>);

impl Timeline {
    fn last(&self) -> Option<Rc<[u8]>> {
        self.0.last().and_then(|(_, value)| value.clone())
    }

    /// The first moment from `from` to `to` at which the value was as asked for.
    fn when(&self, from: Moment, to: Moment, fits: &dyn Fn(Option<&[u8]>) -> bool) -> Option<Moment> {
        let next = self.0.partition_point(|(start, _)| *start <= from);
        let before = next.checked_sub(1).and_then(|index| self.0[index].1.as_deref());
        if fits(before) {
            return Some(from);
        }
        let later = self.0[next..].iter().take_while(|(start, _)| *start <= to);
        later.into_iter().find(|(_, value)| fits(value.as_deref())).map(|(start, _)| *start)
    }
}

/// A command without a name of its own that ran: INCR and DEL look all the same.
struct Run {
    at: Moment,
    result: Option<i64>,
    claimed: bool,
}

/// One shard.
#[derive(Default)]
pub struct Node {
    keys: HashMap<Vec<u8>, Timeline>,
    runs: HashMap<(&'static str, Vec<u8>), Vec<Run>>,
    /// When it last answered what is no answer to its command.
    pub lied: Moment,
}

/// All shards of all pools.
pub struct Truth {
    pub moment: Moment,
    pub nodes: Vec<Node>,
    /// By the unique number in a value: when and where it was written.
    written: HashMap<u64, (Moment, usize)>,
    /// Values that apps were told had not been sent.
    never: HashSet<u64>,
    /// Commands without a name that may have run without anybody being told.
    uncertain: HashMap<(&'static str, Vec<u8>), usize>,
}

/// The unique number in a value.
pub fn unique(value: &[u8]) -> Option<u64> {
    let from = value.iter().rposition(|&b| b == b'=')? + 1;
    std::str::from_utf8(&value[from..]).ok()?.parse().ok()
}

impl Truth {
    pub fn new(nodes: usize) -> Self {
        Self {
            moment: 1,
            nodes: std::iter::repeat_with(Node::default).take(nodes).collect(),
            written: HashMap::new(),
            never: HashSet::new(),
            uncertain: HashMap::new(),
        }
    }

    /// A shard carries out one command and answers it.
    pub fn execute(&mut self, node: usize, args: &[&[u8]], out: &mut Vec<u8>) {
        self.moment += 1;
        let get = |truth: &Self, key: &[u8]| truth.nodes[node].keys.get(key).and_then(Timeline::last);
        match args[0].to_ascii_uppercase().as_slice() {
            b"GET" => bulk(out, get(self, args[1]).as_deref()),
            b"STRLEN" => write::integer(out, get(self, args[1]).map_or(0, |v| v.len() as i64)),
            b"EXISTS" => write::integer(out, args[1..].iter().filter(|key| get(self, key).is_some()).count() as i64),
            b"MGET" => {
                write::array(out, args.len() - 1);
                args[1..].iter().for_each(|key| bulk(out, get(self, key).as_deref()));
            }
            b"SET" => {
                self.write(node, args[1], args[2]);
                write::simple(out, b"OK");
            }
            b"MSET" => {
                args[1..].chunks(2).for_each(|pair| self.write(node, pair[0], pair[1]));
                write::simple(out, b"OK");
            }
            b"MSETNX" => {
                let free = args[1..].chunks(2).all(|pair| get(self, pair[0]).is_none());
                if free {
                    args[1..].chunks(2).for_each(|pair| self.write(node, pair[0], pair[1]));
                }
                write::integer(out, i64::from(free));
            }
            // A script that writes a key it does not name.
            b"EVAL" => {
                let script: Vec<&[u8]> = args[1].splitn(2, |&b| b == b'|').collect();
                self.write(node, script[0], script[1]);
                write::bulk(out, script[1]);
            }
            b"DEL" => {
                let mut sum = 0;
                for key in &args[1..] {
                    let gone = i64::from(get(self, key).is_some());
                    self.put(node, key, None);
                    self.ran(node, "DEL", key, Some(gone));
                    sum += gone;
                }
                write::integer(out, sum);
            }
            b"INCR" => {
                let old = get(self, args[1]);
                let old = old.as_deref().map_or(Some(0), |v| std::str::from_utf8(v).ok()?.parse::<i64>().ok());
                self.ran(node, "INCR", args[1], old.map(|n| n + 1));
                match old {
                    Some(n) => {
                        self.put(node, args[1], Some((n + 1).to_string().as_bytes()));
                        write::integer(out, n + 1);
                    }
                    None => write::error(out, b"ERR value is not an integer or out of range"),
                }
            }
            other => panic!("a shard got {:?}", String::from_utf8_lossy(other)),
        }
    }

    /// A shard loses everything.
    pub fn wipe(&mut self, node: usize) {
        let keys: Vec<Vec<u8>> = self.nodes[node].keys.keys().cloned().collect();
        keys.iter().for_each(|key| self.put(node, key, None));
    }

    fn put(&mut self, node: usize, key: &[u8], value: Option<&[u8]>) {
        let timeline = self.nodes[node].keys.entry(key.to_vec()).or_default();
        timeline.0.push((self.moment, value.map(Rc::from)));
    }

    fn write(&mut self, node: usize, key: &[u8], value: &[u8]) {
        self.put(node, key, Some(value));
        let number = unique(value).expect("every value written carries its number");
        let before = self.written.insert(number, (self.moment, node));
        assert!(before.is_none(), "write {number} ran twice");
        assert!(!self.never.contains(&number), "write {number} ran, and its app was told that nothing was sent");
    }

    fn ran(&mut self, node: usize, name: &'static str, key: &[u8], result: Option<i64>) {
        let runs = self.nodes[node].runs.entry((name, key.to_vec())).or_default();
        runs.push(Run { at: self.moment, result, claimed: false });
    }

    // --- questions ------------------------------------------------------------------------------------------------

    /// The first moment from `from` until now at which a key was as asked for.
    pub fn when(&self, node: usize, key: &[u8], from: Moment, fits: &dyn Fn(Option<&[u8]>) -> bool) -> Option<Moment> {
        match self.nodes[node].keys.get(key) {
            Some(timeline) => timeline.when(from, self.moment, fits),
            None => fits(None).then_some(from),
        }
    }

    /// When an acknowledged value was written: after it was asked for, once, at its home.
    pub fn acknowledged(&self, node: usize, value: &[u8], from: Moment) -> Moment {
        let number = unique(value).unwrap();
        let Some(&(at, place)) = self.written.get(&number) else {
            panic!("write {number} was acknowledged and never ran");
        };
        assert_eq!(place, node, "write {number} ran on another shard");
        assert!(at >= from, "write {number} ran before it was asked for");
        at
    }

    /// An app was told that a write was not sent, or did nothing.
    pub fn not_written(&mut self, value: &[u8]) {
        let number = unique(value).unwrap();
        assert!(!self.written.contains_key(&number), "write {number} ran, its app was told that it had not");
        self.never.insert(number);
    }

    /// One of the runs of a nameless command since `from` is the one that was answered.
    pub fn claim(&mut self, node: usize, name: &'static str, key: &[u8], from: Moment) {
        let runs = self.nodes[node].runs.get_mut(&(name, key.to_vec()));
        let run = runs.and_then(|runs| runs.iter_mut().find(|run| run.at >= from && !run.claimed));
        run.unwrap_or_else(|| panic!("an acknowledged {name} of {} did not run", String::from_utf8_lossy(key)))
            .claimed = true;
    }

    /// The first run since `from` with this result.
    pub fn run_with(
        &self,
        node: usize,
        name: &'static str,
        key: &[u8],
        from: Moment,
        result: Option<i64>,
    ) -> Option<Moment> {
        let runs = self.nodes[node].runs.get(&(name, key.to_vec()))?;
        runs.iter().find(|run| run.at >= from && run.result == result).map(|run| run.at)
    }

    /// A nameless command may have run, or may still.
    pub fn may_run(&mut self, name: &'static str, key: &[u8]) {
        *self.uncertain.entry((name, key.to_vec())).or_default() += 1;
    }

    /// Nothing ran more often than it was asked for.
    pub fn nothing_ran_twice(&self) {
        let mut extra: HashMap<&(&'static str, Vec<u8>), usize> = HashMap::new();
        for (what, runs) in self.nodes.iter().flat_map(|node| &node.runs) {
            *extra.entry(what).or_default() += runs.iter().filter(|run| !run.claimed).count();
        }
        for (what, count) in extra {
            let allowed = self.uncertain.get(what).copied().unwrap_or(0);
            let key = String::from_utf8_lossy(&what.1);
            assert!(count <= allowed, "{} {key} ran {count} times unacknowledged, {allowed} may have", what.0);
        }
    }
}

fn bulk(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => write::bulk(out, value),
        None => out.extend_from_slice(b"$-1\r\n"),
    }
}

/// Whether a value is what a reply says it is.
pub fn same(reply: &Reply<'_>, value: Option<&[u8]>) -> bool {
    matches!(reply, Reply::Bulk(told) if *told == value)
}
