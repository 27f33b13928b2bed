//! Apps that read and write a few keys as fast as they are answered, and remember all of it.

use super::{Clock, Kind, Nanos, Op, Print, Said};
use crate::chaos::{Link, Reply};
use crate::support::wire;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number as good as chance.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// From 0 to 1.
    pub(crate) fn part(&mut self) -> f64 {
        self.next() as f64 / (1u64 << 53) as f64
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Apps at each hotring.
    pub(crate) apps: usize,
    /// Operations of all of them.
    pub(crate) operations: u64,
    pub(crate) seed: u64,
}

/// How many of a thousand operations write, by the key's number and round again: some are hot for long, others hardly.
const WRITES: [u64; 4] = [3, 10, 30, 120];

/// Works at these hotrings, and at the shards of the keys directly as if that were one more, until all is done; gives what each app
/// did.
pub(crate) fn run(hotrings: &[String], direct: &[String], keys: &[String], clock: Clock, plan: &Plan) -> Vec<Vec<Op>> {
    let next = AtomicU64::new(1);
    let left = AtomicU64::new(plan.operations);
    let mut apps = Vec::new();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (process, address) in hotrings.iter().enumerate() {
            for app in 0..plan.apps {
                let mut app = App {
                    link: Link::to(address).unwrap(),
                    address: address.clone(),
                    process: process as u16,
                    chance: Chance::of(plan.seed ^ ((process * plan.apps + app + 1) as u64) << 32),
                    next: &next,
                    done: Vec::new(),
                    clock,
                };
                let left = &left;
                threads.push(scope.spawn(move || {
                    while left.load(Ordering::Relaxed) > 0 {
                        let count = app.turn(keys);
                        let _ = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                            Some(left.saturating_sub(count as u64))
                        });
                    }
                    app.done
                }));
            }
        }
        // Who writes past all hotrings, now and then.
        let (next, left) = (&next, &left);
        let last = scope.spawn(move || {
            let mut links: Vec<Link> = direct.iter().map(|address| Link::to(address).unwrap()).collect();
            let (mut chance, mut done) = (Chance::of(plan.seed ^ 77), Vec::new());
            while left.load(Ordering::Relaxed) > 0 && !links.is_empty() {
                let key = chance.below(keys.len() as u64) as usize;
                let id = next.fetch_add(1, Ordering::Relaxed);
                let value = format!("{id}0000");
                let start = clock.now();
                links[key].send(&wire(&["SET", &keys[key], &value])).unwrap();
                let said = said(Kind::Set, links[key].reply().ok());
                let argument = Print::of(value.as_bytes());
                let (key, process) = (key as u16, hotrings.len() as u16);
                done.push(Op { process, key, kind: Kind::Set, argument, start, end: clock.now(), said });
                // About a hundred in a second.
                std::thread::park_timeout(std::time::Duration::from_millis(10));
            }
            done
        });
        apps.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
        apps.push(last.join().unwrap());
    });
    apps
}

struct App<'a> {
    link: Link,
    address: String,
    process: u16,
    chance: Chance,
    next: &'a AtomicU64,
    done: Vec<Op>,
    clock: Clock,
}

impl App<'_> {
    /// One operation, or several in a pipeline.
    fn turn(&mut self, keys: &[String]) -> usize {
        let count = if self.chance.below(3) == 0 { 2 + self.chance.below(11) as usize } else { 1 };
        let from = self.done.len();
        let mut bytes = Vec::new();
        let mut key = self.chance.below(keys.len() as u64) as usize;
        for _ in 0..count {
            if self.chance.below(2) == 0 {
                key = self.chance.below(keys.len() as u64) as usize;
            }
            let writes = self.chance.below(1000) < WRITES[key % WRITES.len()];
            let kind = if writes { Kind::ALL[1 + self.chance.below(5) as usize].1 } else { Kind::Get };
            let argument = match kind {
                Kind::Set => format!("{}0000", self.next.fetch_add(1, Ordering::Relaxed)),
                Kind::Append => format!(".{}", self.next.fetch_add(1, Ordering::Relaxed)),
                _ => String::new(),
            };
            let name = Kind::ALL.iter().find(|(_, one)| *one == kind).unwrap().0;
            let words = [name, &keys[key], &argument];
            bytes.extend(wire(&words[..if argument.is_empty() { 2 } else { 3 }]));
            let argument = Print::of(argument.as_bytes());
            let (process, key) = (self.process, key as u16);
            self.done.push(Op { process, key, kind, argument, start: 0, end: Nanos::MAX, said: Said::Nothing });
        }
        let start = self.clock.now();
        self.done[from..].iter_mut().for_each(|op| op.start = start);
        let mut is_well = self.link.send(&bytes).is_ok();
        for op in &mut self.done[from..] {
            let reply = if is_well { self.link.reply().ok() } else { None };
            is_well = reply.is_some();
            op.said = said(op.kind, reply);
            if is_well {
                op.end = self.clock.now();
            }
        }
        while !is_well {
            // As long as it does not listen there is nothing to do.
            match Link::to(&self.address) {
                Ok(link) => (self.link, is_well) = (link, true),
                Err(_) => std::thread::yield_now(),
            }
        }
        count
    }
}

fn said(kind: Kind, reply: Option<Reply>) -> Said {
    match (kind, reply) {
        (_, None) => Said::Nothing,
        (_, Some(Reply::Error(_))) => Said::Error,
        (Kind::Set, Some(Reply::Line(_))) => Said::Ok,
        (Kind::Incr | Kind::Del | Kind::Append, Some(Reply::Number(number))) => Said::Number(number),
        (Kind::Get | Kind::GetDel, Some(Reply::Text(value))) => Said::Value(Print::of(&value)),
        (Kind::Get | Kind::GetDel, Some(Reply::Nothing)) => Said::Value(Print::ABSENT),
        (kind, Some(reply)) => panic!("{kind:?}: {reply:?}"),
    }
}
