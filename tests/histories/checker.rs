//! Whether a history may be: read-your-writes, monotonic reads, bounded staleness, or linearizability, key by key.
//!
//! A key's versions are the positions in its shard's log, 0 being before any write. Each write that was acknowledged has its
//! position; each read must have one whose value it returned, not below its *floor* (what went before it) and below its *ceiling*
//! (what began after it). Of several that fit the least is taken: it asks the least of what comes later, so nothing is accused
//! that may be. Values are unique but for "absent" and small numbers after a DEL, so little escapes.
//!
//! With all apps in one [`Scope`] and reads monotonic this is linearizability, the order of writes being known: a read must
//! fit between all writes that ended before it and all that began after it, and not go back behind another read. Who pipelines
//! keeps the order of the pipeline.

use super::{Entry, History, Kind, Log, Nanos, Op, Print, Said};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::fmt;

/// Whose writes a read must have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those through the same hotring.
    Process,
    /// All.
    All,
}

/// What is promised.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) scope: Scope,
    /// Whether no read returns less than another in its scope that ended before it.
    pub(crate) monotonic: bool,
    /// How old the value of a read may be, by whomever it was overwritten.
    pub(crate) staleness: Option<Nanos>,
}

impl Rules {
    pub(crate) const STRICT: Self = Self { scope: Scope::All, monotonic: true, staleness: None };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// A value that the key never had.
    Invented,
    /// A value that was written after the read had ended, or behind it in its pipeline.
    Future,
    /// Older than a write in the scope that was answered before.
    OwnWrite,
    /// Older than what was read before.
    Backwards,
    /// Overwritten for too long.
    Stale,
    /// A write that was acknowledged and that no shard did.
    Lost,
    /// A write with an answer that it cannot have had.
    Reply,
    /// A write that was done before one that had ended when it began.
    Order,
}

#[derive(Clone)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) app: usize,
    pub(crate) op: Op,
    /// The last position that fits what was answered, if there is one, and the least that should have been.
    pub(crate) found: Option<usize>,
    pub(crate) floor: usize,
    pub(crate) ceiling: usize,
    /// Who did or saw what is at the floor.
    pub(crate) behind: Option<(usize, Op)>,
    /// What went in the same pipeline, and which versions of which keys its answers fit.
    pub(crate) pipeline: Vec<String>,
    /// How long ago what was read had been overwritten.
    pub(crate) age: Nanos,
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = |app: usize, op: &Op| {
            let (process, key, kind, said) = (op.process, op.key, op.kind, op.said);
            format!(
                "{kind:?} of key {key} by app {app} at hotring {process} from {} to {} ns: {said:?}",
                op.start, op.end
            )
        };
        write!(f, "{:?}: {}, which is version {:?}, ", self.rule, op(self.app, &self.op), self.found)?;
        write!(f, "not in {}..{}, overwritten {} ns before", self.floor, self.ceiling as isize, self.age)?;
        self.behind.iter().try_for_each(|(app, other)| write!(f, "; behind {}", op(*app, other)))?;
        write!(f, "; sent together: {}", self.pipeline.join(", "))
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) operations: u64,
    pub(crate) reads: u64,
    /// Reads that returned what had been overwritten before they began, and for how long at most.
    pub(crate) stale: u64,
    pub(crate) oldest: Nanos,
    pub(crate) counts: BTreeMap<Rule, u64>,
    /// The first of them.
    pub(crate) examples: Vec<Violation>,
}

impl Report {
    pub(crate) fn count(&self, rule: Rule) -> u64 {
        self.counts.get(&rule).copied().unwrap_or(0)
    }

    fn accuse(&mut self, violation: Violation) {
        *self.counts.entry(violation.rule).or_default() += 1;
        if self.examples.iter().filter(|one| one.rule == violation.rule).count() < 3 {
            self.examples.push(violation);
        }
    }
}

/// Judges a history.
pub(crate) fn check(history: &History, rules: &Rules) -> Report {
    let mut report = Report::default();
    for (key, log) in history.logs.iter().enumerate() {
        let mut ops: Vec<Step<'_>> = Vec::new();
        for (app, all) in history.apps.iter().enumerate() {
            let of_key = all.iter().enumerate().filter(|(_, op)| usize::from(op.key) == key);
            ops.extend(of_key.map(|(number, op)| Step { app, number, op, position: None }));
        }
        // What one app pipelined begins at once and stays in its order.
        ops.sort_by_key(|step| (step.op.start, step.app, step.number));
        Key::new(&log.entries, ops).judge(rules, history.apps.len(), &mut report);
    }
    for violation in &mut report.examples {
        let together = history.apps[violation.app].iter().filter(|op| op.start == violation.op.start);
        violation.pipeline = together.map(|op| told(history, op)).collect();
    }
    report
}

/// An operation, and the last versions of keys that its answer fits.
fn told(history: &History, op: &Op) -> String {
    let fits = |(key, log): (usize, &Log)| {
        let has = |entry: &Entry| entry.at < op.end && Said::Value(entry.state) == op.said;
        let version = log.entries.iter().rposition(has)? + 1;
        Some(format!("{version} of {key}"))
    };
    let versions: Vec<String> = history.logs.iter().enumerate().filter_map(fits).collect();
    format!("{:?} {} -> {:?} (version {})", op.kind, op.key, op.said, versions.join(" or "))
}

struct Step<'a> {
    app: usize,
    number: usize,
    op: &'a Op,
    position: Option<usize>,
}

struct Key<'a> {
    log: &'a [Entry],
    steps: Vec<Step<'a>>,
    /// Positions by the value they leave.
    having: HashMap<Print, Vec<usize>>,
    /// Positions of writes with this answer, and of those that are like no other.
    answering: HashMap<(Kind, Said), Vec<usize>>,
    unique: HashMap<(Kind, Print), usize>,
    /// By position, when the value it left was overwritten.
    over: Vec<Nanos>,
}

/// The greatest position among what has ended, as time goes on.
#[derive(Default)]
struct Floor {
    pending: BinaryHeap<Reverse<(Nanos, Seen)>>,
    least: Seen,
}

/// A position, and the step that was there.
type Seen = (usize, usize);

impl Floor {
    fn at(&mut self, start: Nanos) -> Seen {
        while let Some(Reverse((_, seen))) = self.pending.peek().copied().filter(|Reverse((end, _))| *end < start) {
            self.pending.pop();
            self.least = self.least.max(seen);
        }
        self.least
    }

    fn ends(&mut self, end: Nanos, seen: Seen) {
        self.pending.push(Reverse((end, seen)));
    }
}

/// The first of ascending positions from `floor` on.
fn first(of: Option<&Vec<usize>>, floor: usize) -> Option<usize> {
    let of = of?;
    of.get(of.partition_point(|&position| position < floor)).copied()
}

impl<'a> Key<'a> {
    fn new(log: &'a [Entry], steps: Vec<Step<'a>>) -> Self {
        let mut key = Self {
            log,
            steps,
            having: HashMap::from([(Print::ABSENT, vec![0])]),
            answering: HashMap::new(),
            unique: HashMap::new(),
            over: vec![Nanos::MAX; log.len() + 1],
        };
        for (position, entry) in (1..).zip(log) {
            key.having.entry(entry.state).or_default().push(position);
            key.answering.entry((entry.kind, entry.said)).or_default().push(position);
            if entry.kind.is_unique() {
                key.unique.insert((entry.kind, entry.argument), position);
            }
        }
        for position in (0..log.len()).rev() {
            let is_same = log[position].state == key.state(position);
            key.over[position] = if is_same { key.over[position + 1] } else { log[position].at };
        }
        key
    }

    fn state(&self, position: usize) -> Print {
        position.checked_sub(1).map_or(Print::ABSENT, |index| self.log[index].state)
    }

    fn judge(mut self, rules: &Rules, apps: usize, report: &mut Report) {
        report.operations += self.steps.len() as u64;
        self.place_writes(apps, report);
        let ceilings = self.ceilings(apps);
        let processes = self.steps.iter().map(|step| usize::from(step.op.process) + 1).max().unwrap_or(0);
        let scopes = if rules.scope == Scope::All { 1 } else { processes };
        let mut writes: Vec<Floor> = (0..scopes).map(|_| Floor::default()).collect();
        let mut reads: Vec<Floor> = (0..scopes).map(|_| Floor::default()).collect();
        let mut own = vec![(Seen::default(), Seen::default()); apps];
        for (index, step) in self.steps.iter().enumerate() {
            let scope = if scopes == 1 { 0 } else { usize::from(step.op.process) };
            if step.op.kind != Kind::Get {
                if let Some(position) = step.position {
                    writes[scope].ends(step.op.end, (position, index));
                    own[step.app].0 = own[step.app].0.max((position, index));
                }
                continue;
            }
            let Said::Value(value) = step.op.said else { continue };
            report.reads += 1;
            let written = writes[scope].at(step.op.start).max(own[step.app].0);
            let mut seen = written;
            if rules.monotonic {
                seen = seen.max(reads[scope].at(step.op.start)).max(own[step.app].1);
            }
            let (written, floor, ceiling) = (written.0, seen.0, ceilings[index]);
            let having = self.having.get(&value);
            let fits = first(having, floor).filter(|position| *position < ceiling);
            let found = having.and_then(|of| of[..of.partition_point(|position| *position < ceiling)].last()).copied();
            let age = found.map_or(0, |position| step.op.start.saturating_sub(self.over[position]));
            let too_old = rules.staleness.is_some_and(|most| age > most);
            report.stale += u64::from(age > 0);
            report.oldest = report.oldest.max(age);
            let rule = match (fits, found) {
                (Some(_), _) if too_old => Rule::Stale,
                (Some(position), _) => {
                    if rules.monotonic {
                        reads[scope].ends(step.op.end, (position, index));
                        own[step.app].1 = own[step.app].1.max((position, index));
                    }
                    continue;
                }
                (None, Some(position)) if position < written => Rule::OwnWrite,
                (None, Some(_)) => Rule::Backwards,
                (None, None) if having.is_some() => Rule::Future,
                (None, None) => Rule::Invented,
            };
            let behind = self.steps.get(seen.1).filter(|_| floor > 0).map(|step| (step.app, *step.op));
            report.accuse(Violation {
                rule,
                app: step.app,
                op: *step.op,
                found,
                floor,
                ceiling,
                behind,
                pipeline: Vec::new(),
                age,
            });
        }
    }

    /// Gives each write that was answered its position. Writes always reach the shard, so they keep the order of all.
    fn place_writes(&mut self, apps: usize, report: &mut Report) {
        let mut ended = Floor::default();
        let mut own = vec![0; apps];
        for step in &mut self.steps {
            let op = step.op;
            if op.kind == Kind::Get {
                continue;
            }
            let floor = ended.at(op.start).0.max(own[step.app]);
            let is_answered = !matches!(op.said, Said::Nothing | Said::Error);
            let fits = if op.kind.is_unique() {
                self.unique.get(&(op.kind, op.argument)).copied()
            } else if is_answered {
                first(self.answering.get(&(op.kind, op.said)), floor + 1)
            } else {
                None
            };
            let rule = match fits {
                None if !is_answered => continue,
                None if op.kind.is_unique() => Some(Rule::Lost),
                None => Some(Rule::Reply),
                Some(position) if position <= floor => Some(Rule::Order),
                Some(position) if is_answered && self.log[position - 1].said != op.said => Some(Rule::Reply),
                Some(_) => None,
            };
            if let Some(rule) = rule {
                let (app, op, ceiling) = (step.app, *op, usize::MAX);
                report.accuse(Violation {
                    rule,
                    app,
                    op,
                    found: fits,
                    floor,
                    ceiling,
                    behind: None,
                    pipeline: Vec::new(),
                    age: 0,
                });
            }
            step.position = fits;
            if let (Some(position), true) = (fits, is_answered) {
                ended.ends(op.end, (position, 0));
                own[step.app] = position.max(own[step.app]);
            }
        }
    }

    /// For each step the least position of a write that began after it had ended, or that its app sent after it.
    fn ceilings(&self, apps: usize) -> Vec<usize> {
        let certain = |step: &Step<'_>| step.position.filter(|_| step.op.kind.is_unique());
        // Steps are in the order of their starts.
        let mut least = vec![usize::MAX; self.steps.len() + 1];
        for (index, step) in self.steps.iter().enumerate().rev() {
            least[index] = least[index + 1].min(certain(step).unwrap_or(usize::MAX));
        }
        let mut own = vec![usize::MAX; apps];
        let mut all = vec![usize::MAX; self.steps.len()];
        for (index, step) in self.steps.iter().enumerate().rev() {
            let after = self.steps.partition_point(|other| other.op.start <= step.op.end);
            all[index] = least[after].min(own[step.app]);
            own[step.app] = own[step.app].min(certain(step).unwrap_or(usize::MAX));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: Rules = Rules { scope: Scope::Process, monotonic: true, staleness: Some(1000) };
    const COPIES: Rules = Rules { scope: Scope::Process, monotonic: false, staleness: Some(1000) };

    /// A history of one key, with what its shard did at which time, and what apps did from when to when.
    struct Told(History);

    fn shard(did: &[(Nanos, Kind, &str)]) -> Told {
        let mut log = Log::default();
        did.iter().for_each(|&(at, kind, argument)| log.push(kind, argument.as_bytes(), at));
        Told(History { apps: Vec::new(), logs: vec![log] })
    }

    impl Told {
        /// An app at a hotring.
        fn app(mut self, process: u16, did: &[(Nanos, Nanos, Kind, &str, Said)]) -> Self {
            let op = |&(start, end, kind, argument, said): &(Nanos, Nanos, Kind, &str, Said)| Op {
                process,
                key: 0,
                kind,
                argument: Print::of(argument.as_bytes()),
                start,
                end,
                said,
            };
            self.0.apps.push(did.iter().map(op).collect());
            self
        }

        fn breaks(&self, rules: &Rules) -> Vec<Rule> {
            check(&self.0, rules).counts.into_keys().collect()
        }
    }

    fn set(start: Nanos, end: Nanos, value: &str) -> (Nanos, Nanos, Kind, &str, Said) {
        (start, end, Kind::Set, value, Said::Ok)
    }

    fn get<'a>(start: Nanos, end: Nanos, value: &str) -> (Nanos, Nanos, Kind, &'a str, Said) {
        let print = if value.is_empty() { Print::ABSENT } else { Print::of(value.as_bytes()) };
        (start, end, Kind::Get, "", Said::Value(print))
    }

    #[test]
    fn what_may_be_is_not_accused() {
        let told = shard(&[(10, Kind::Set, "1"), (30, Kind::Incr, ""), (50, Kind::Del, ""), (70, Kind::Append, "x")])
            .app(0, &[get(0, 5, ""), set(6, 15, "1"), get(16, 40, "1"), get(41, 60, "")])
            .app(0, &[get(7, 14, ""), (25, 35, Kind::Incr, "", Said::Number(2)), get(36, 39, "2")])
            .app(1, &[(45, 55, Kind::Del, "", Said::Number(1)), (65, 75, Kind::Append, "x", Said::Number(1))]);
        for rules in [&Rules::STRICT, &NEAR, &COPIES] {
            assert_eq!(told.breaks(rules), [], "{rules:?}");
        }
    }

    #[test]
    fn a_read_that_misses_a_write_of_its_hotring() {
        let told = shard(&[(10, Kind::Set, "1"), (30, Kind::Set, "2")])
            .app(0, &[set(5, 15, "1"), set(25, 35, "2")])
            .app(0, &[get(36, 40, "1")]);
        assert_eq!(told.breaks(&NEAR), [Rule::OwnWrite]);
        assert_eq!(told.breaks(&COPIES), [Rule::OwnWrite]);
        assert_eq!(told.breaks(&Rules::STRICT), [Rule::OwnWrite]);
        // While the write is on its way, both may be read.
        let told = shard(&[(10, Kind::Set, "1"), (30, Kind::Set, "2")])
            .app(0, &[set(5, 15, "1"), set(25, 35, "2")])
            .app(0, &[get(35, 40, "1")]);
        assert_eq!(told.breaks(&Rules::STRICT), []);
    }

    #[test]
    fn a_read_that_misses_a_write_of_another_hotring() {
        let told = shard(&[(10, Kind::Set, "1"), (30, Kind::Set, "2")])
            .app(0, &[set(5, 15, "1"), set(25, 35, "2")])
            .app(1, &[get(36, 40, "1")]);
        assert_eq!(told.breaks(&Rules::STRICT), [Rule::OwnWrite]);
        assert_eq!(told.breaks(&NEAR), []);
    }

    #[test]
    fn a_delete_that_is_not_seen() {
        let told = shard(&[(10, Kind::Set, "1"), (30, Kind::Del, "")])
            .app(0, &[set(5, 15, "1"), (25, 35, Kind::Del, "", Said::Number(1)), get(36, 40, "1")]);
        assert_eq!(told.breaks(&COPIES), [Rule::OwnWrite]);
    }

    #[test]
    fn a_read_that_goes_back() {
        let told = shard(&[(10, Kind::Set, "1"), (30, Kind::Set, "2")])
            .app(9, &[set(5, 15, "1"), set(25, 50, "2")])
            .app(0, &[get(31, 34, "2")])
            .app(0, &[get(35, 40, "1")]);
        assert_eq!(told.breaks(&NEAR), [Rule::Backwards]);
        assert_eq!(told.breaks(&Rules::STRICT), [Rule::Backwards]);
        assert_eq!(told.breaks(&COPIES), []);
        // Through two hotrings only those who promise linearizability break it.
        let told = shard(&[(10, Kind::Set, "1"), (30, Kind::Set, "2")])
            .app(9, &[set(5, 15, "1"), set(25, 50, "2")])
            .app(0, &[get(31, 34, "2")])
            .app(1, &[get(35, 40, "1")]);
        assert_eq!(told.breaks(&NEAR), []);
        assert_eq!(told.breaks(&Rules::STRICT), [Rule::Backwards]);
    }

    #[test]
    fn a_value_that_was_overwritten_too_long_ago() {
        let told = |at| {
            shard(&[(10, Kind::Set, "1"), (30, Kind::Set, "2")])
                .app(1, &[set(5, 15, "1"), set(25, 35, "2")])
                .app(0, &[get(at, at + 10, "1")])
        };
        assert_eq!(told(1030).breaks(&NEAR), []);
        assert_eq!(told(1031).breaks(&NEAR), [Rule::Stale]);
        assert_eq!(told(1031).breaks(&COPIES), [Rule::Stale]);
        assert_eq!(check(&told(1031).0, &NEAR).oldest, 1001);
    }

    #[test]
    fn a_value_from_nowhere_or_from_the_future() {
        let log = [(10, Kind::Set, "1")];
        assert_eq!(shard(&log).app(0, &[get(20, 30, "7")]).breaks(&COPIES), [Rule::Invented]);
        let early = shard(&log).app(0, &[get(1, 3, "1")]).app(0, &[set(5, 15, "1")]);
        assert_eq!(early.breaks(&COPIES), [Rule::Future]);
    }

    #[test]
    fn a_pipeline_out_of_its_order() {
        let log = [(10, Kind::Set, "1"), (30, Kind::Set, "2")];
        let told = shard(&log).app(0, &[set(5, 15, "1"), get(20, 40, "2"), set(20, 41, "2")]);
        assert_eq!(told.breaks(&COPIES), [Rule::Future]);
        let told = shard(&log).app(0, &[set(5, 15, "1"), set(20, 40, "2"), get(20, 41, "1")]);
        assert_eq!(told.breaks(&COPIES), [Rule::OwnWrite]);
        let told = shard(&log).app(0, &[set(5, 15, "1"), set(20, 40, "2"), get(20, 41, "2")]);
        assert_eq!(told.breaks(&Rules::STRICT), []);
    }

    #[test]
    fn writes_that_are_lost_answered_wrongly_or_reordered() {
        let log = [(10, Kind::Set, "1"), (30, Kind::Set, "2")];
        assert_eq!(shard(&log).app(0, &[set(5, 15, "3")]).breaks(&COPIES), [Rule::Lost]);
        let told = shard(&log).app(0, &[(20, 40, Kind::Incr, "", Said::Number(9))]);
        assert_eq!(told.breaks(&COPIES), [Rule::Reply]);
        let told = shard(&log).app(0, &[set(5, 15, "2")]).app(1, &[set(16, 40, "1")]);
        assert_eq!(told.breaks(&COPIES), [Rule::Order]);
        // Nobody knows whether a write without an answer was done.
        let told = shard(&log).app(0, &[(5, Nanos::MAX, Kind::Set, "3", Said::Nothing)]);
        assert_eq!(told.breaks(&Rules::STRICT), []);
    }

    #[test]
    fn of_several_that_fit_none_is_accused() {
        // Absent, there, absent again: who reads nothing may have come late.
        let told = shard(&[(10, Kind::Set, "1"), (30, Kind::Del, "")])
            .app(0, &[set(5, 15, "1"), get(16, 20, "1"), get(29, 33, "")])
            .app(1, &[(25, 35, Kind::Del, "", Said::Number(1))]);
        assert_eq!(told.breaks(&Rules::STRICT), []);
    }
}
