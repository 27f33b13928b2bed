//! What really happened: the shards' data with all of its past, and which command ran when.

use super::server::{Blocked, Heard};
use super::wire::Reply;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

/// Counts everything that happens; 0 is before all.
pub type Moment = u64;

/// A key's values, each from a moment on.
#[derive(Default)]
pub struct Timeline(Vec<(Moment, Option<Rc<[u8]>>)>);

impl Timeline {
    pub fn last(&self) -> Option<Rc<[u8]>> {
        self.0.last().and_then(|(_, value)| value.clone())
    }

    /// Whether anything was done to it behind `from` and up to `to`.
    fn touched(&self, from: Moment, to: Moment) -> bool {
        self.0.iter().any(|(at, _)| (from + 1..=to).contains(at))
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

/// What was published: when, and its number.
pub type Log = Vec<(Moment, u64)>;

/// One database of a shard.
#[derive(Default)]
pub struct Node {
    pub keys: HashMap<Vec<u8>, Timeline>,
    pub lists: HashMap<Vec<u8>, VecDeque<Vec<u8>>>,
    runs: HashMap<(&'static str, Vec<u8>), Vec<Run>>,
}

/// Databases of each shard.
pub const DATABASES: usize = 3;

/// All shards of all pools. A *node* is a shard here, a *place* a database of it: those of node n are n * DATABASES and on.
pub struct Truth {
    pub moment: Moment,
    /// By place.
    pub nodes: Vec<Node>,
    /// By node: when it last answered what is no answer to its command.
    pub lied: Vec<Moment>,
    /// By node: when a connection of a session's own broke last.
    pub own_faults: Vec<Moment>,
    /// Connections that block, in the order in which they began.
    pub blocked: Vec<Blocked>,
    /// What those are answered, and may be too late for.
    pub answers: Vec<(usize, u64, Vec<u8>)>,
    /// Who is subscribed to what.
    pub subscribed: Vec<Heard>,
    /// By node and channel: when each message was sent, and its number.
    pub published: HashMap<(usize, Vec<u8>), Log>,
    /// By node and channel: up to when a message may have been missed.
    pub unheard: HashMap<(usize, Vec<u8>), Moment>,
    /// By node: when the connection that hears what is sent broke last.
    pub ear_faults: Vec<Moment>,
    /// Messages that reached an app.
    pub told: u64,
    /// By a number: the numbers that are written in the same transaction.
    pub groups: HashMap<u64, Rc<[u64]>>,
    /// Nobody sends anything any more, so that whoever blocks is answered at once.
    pub resting: bool,
    /// Transactions that were carried out.
    pub transactions: u64,
    /// Elements that a connection got which waited for them.
    pub handed: u64,
    /// By the unique number in a value: when and where it was written.
    pub written: HashMap<u64, (Moment, usize)>,
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
            nodes: std::iter::repeat_with(Node::default).take(nodes * DATABASES).collect(),
            lied: vec![0; nodes],
            own_faults: vec![0; nodes],
            blocked: Vec::new(),
            answers: Vec::new(),
            subscribed: Vec::new(),
            published: HashMap::new(),
            unheard: HashMap::new(),
            ear_faults: vec![0; nodes],
            told: 0,
            groups: HashMap::new(),
            resting: false,
            transactions: 0,
            handed: 0,
            written: HashMap::new(),
            never: HashSet::new(),
            uncertain: HashMap::new(),
        }
    }

    /// A shard loses everything.
    pub fn wipe(&mut self, node: usize) {
        self.blocked.retain(|blocked| blocked.place / DATABASES != node);
        for place in node * DATABASES..(node + 1) * DATABASES {
            self.nodes[place].lists.clear();
            let keys: Vec<Vec<u8>> = self.nodes[place].keys.keys().cloned().collect();
            keys.iter().for_each(|key| self.put(place, key, None));
        }
    }

    pub fn put(&mut self, node: usize, key: &[u8], value: Option<&[u8]>) {
        let timeline = self.nodes[node].keys.entry(key.to_vec()).or_default();
        timeline.0.push((self.moment, value.map(Rc::from)));
    }

    pub fn write(&mut self, node: usize, key: &[u8], value: &[u8]) {
        self.put(node, key, Some(value));
        self.note_write(node, value);
    }

    pub fn note_write(&mut self, node: usize, value: &[u8]) {
        let number = unique(value).expect("every value written carries its number");
        let before = self.written.insert(number, (self.moment, node));
        assert!(before.is_none(), "write {number} ran twice");
        assert!(!self.never.contains(&number), "write {number} ran, and its app was told that nothing was sent");
    }

    pub fn ran(&mut self, node: usize, name: &'static str, key: &[u8], result: Option<i64>) {
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

    /// Whether anything was done to a key behind `from` and up to `to`.
    pub fn touched(&self, place: usize, key: &[u8], from: Moment, to: Moment) -> bool {
        self.nodes[place].keys.get(key).is_some_and(|timeline| timeline.touched(from, to))
    }

    /// When an acknowledged value was written: after it was asked for, once, at its home.
    pub fn acknowledged(&self, node: usize, value: &[u8], from: Moment) -> Moment {
        let number = unique(value).unwrap();
        let Some(&(at, place)) = self.written.get(&number) else {
            panic!("write {number} was acknowledged and never ran");
        };
        assert_eq!(place, node, "write {number} ran on another shard");
        assert!(at >= from, "write {number} ran at {at}, before {from}");
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

    /// Whoever is told of an element is the only one, and has it from a list where it was.
    pub fn claim_element(&mut self, place: usize, key: &[u8], from: Moment, number: i64) -> Option<Moment> {
        let runs = self.nodes[place].runs.get_mut(&("POP", key.to_vec()))?;
        let run = runs.iter_mut().find(|run| run.at >= from && run.result == Some(number) && !run.claimed)?;
        run.claimed = true;
        Some(run.at)
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

    /// An element of one of these lists may have been taken, or may still be.
    pub fn may_pop(&mut self, keys: &[Vec<u8>]) {
        keys.iter().for_each(|key| self.may_run("POP", key));
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

/// Whether a value is what a reply says it is.
pub fn same(reply: &Reply<'_>, value: Option<&[u8]>) -> bool {
    match reply {
        Reply::Bulk(told) => *told == value,
        Reply::Null => value.is_none(),
        _ => false,
    }
}
