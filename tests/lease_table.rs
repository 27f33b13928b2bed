//! The table of leases by itself, played from seeds in virtual time: processes and workers, apps that load and die, shards
//! that tell of changes late. What it promises is checked after each step.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use hotring::chance::splitmix;
use hotring::stages::lease::{Claim, Conn, Found, Key, Lease, Order, Reader, Shared, Then, Wanted, Why, Write};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const MS: u64 = 1_000;
/// The longest that anything takes to get anywhere.
const FAR: u64 = 2 * MS;
const TICK: u64 = 10 * MS;
/// The most that a load takes, in those runs where it is to be waited for.
const LOAD: u64 = 60 * MS;

#[derive(Clone, Debug)]
enum Event {
    /// An app's read is answered by the shard, and then by its worker.
    Asks(usize),
    Executes {
        app: usize,
        key: u64,
        asked: u64,
    },
    Misses {
        app: usize,
        key: u64,
        asked: u64,
        found: bool,
    },
    /// Its app has loaded the key and writes it.
    Writes {
        app: usize,
        key: u64,
        life: u64,
    },
    Written {
        app: usize,
        key: u64,
        life: u64,
    },
    Acknowledged {
        app: usize,
        key: u64,
    },
    Read {
        process: usize,
        worker: u16,
        key: u64,
    },
    ReadDone {
        process: usize,
        worker: u16,
        key: u64,
        found: bool,
    },
    Claims {
        process: usize,
        worker: u16,
        key: u64,
        term: u64,
    },
    Claimed {
        process: usize,
        worker: u16,
        key: u64,
        claim: Claim,
    },
    Gives {
        key: u64,
    },
    Pushed {
        process: usize,
        key: u64,
        lease: bool,
    },
    Orders {
        process: usize,
        worker: u16,
    },
    Expires {
        key: u64,
        version: u64,
    },
    LeaseEnds {
        key: u64,
        version: u64,
    },
    Tick {
        process: usize,
    },
}

struct App {
    process: usize,
    conn: Conn,
    /// What it waits for, since when, and by which link.
    waits: Option<(u64, u64, u32, u64)>,
    alive: bool,
}

/// Who is expected to write a key, until when that counts.
#[derive(Clone, Copy)]
struct Holder {
    app: usize,
    until: u64,
}

struct World {
    lot: u64,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    next: u64,
    /// Apps die, do not write, or take too long.
    troubled: bool,
    wanted: Wanted,
    tables: Vec<Shared>,
    workers: u16,
    apps: Vec<App>,
    links: BTreeMap<(usize, u16, u32), usize>,
    values: BTreeMap<u64, (u64, u64)>,
    /// Since when each key has a value, without a break.
    since: BTreeMap<u64, u64>,
    leases: BTreeMap<u64, u64>,
    versions: u64,
    tracked: BTreeMap<(u64, bool), BTreeSet<usize>>,
    heard: BTreeMap<usize, u64>,
    holders: BTreeMap<u64, Holder>,
    /// When a write of each key was answered last.
    answered: BTreeMap<u64, u64>,
    /// When a read of a key was lost last, for those who wait.
    lost: BTreeMap<u64, u64>,
    loads: u64,
    values_told: u64,
    left: u64,
}

impl World {
    fn new(seed: u64, fleet: bool, troubled: bool) -> Self {
        let processes = if fleet { 3 } else { 1 };
        let workers = 1 + (seed % 3) as u16;
        let lease = if fleet { Lease::Fleet } else { Lease::Local };
        let mut world = Self {
            lot: splitmix(seed),
            now: 1_000 * MS,
            events: BTreeMap::new(),
            next: 0,
            troubled,
            wanted: Wanted { lease, ..Wanted::default() },
            tables: (0..processes).map(|_| Shared::new()).collect(),
            workers,
            apps: Vec::new(),
            links: BTreeMap::new(),
            values: BTreeMap::new(),
            since: BTreeMap::new(),
            leases: BTreeMap::new(),
            versions: 0,
            tracked: BTreeMap::new(),
            heard: BTreeMap::new(),
            holders: BTreeMap::new(),
            answered: BTreeMap::new(),
            lost: BTreeMap::new(),
            loads: 0,
            values_told: 0,
            left: 400,
        };
        for n in 0..(8 + seed % 20) as usize {
            let process = n % processes;
            let conn = Conn { worker: (n / processes) as u16 % workers, session: n as u32, generation: 1 };
            world.apps.push(App { process, conn, waits: None, alive: true });
            world.soon(50 * MS, Event::Asks(n));
        }
        (0..processes).for_each(|process| world.at(TICK, Event::Tick { process }));
        world
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.lot = splitmix(self.lot);
        self.lot % below.max(1)
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.next += 1;
        self.events.insert((self.now + delay, self.next), event);
    }

    fn soon(&mut self, most: u64, event: Event) {
        let delay = 1 + self.draw(most);
        self.at(delay, event);
    }

    fn name(key: u64) -> Vec<u8> {
        format!("k{key}").into_bytes()
    }

    fn with<T>(
        &mut self,
        process: usize,
        worker: u16,
        use_it: impl FnOnce(&mut hotring::stages::lease::Table) -> T,
    ) -> T {
        let (done, orders) = self.tables[process].with(worker, use_it);
        self.obey(process, worker, orders);
        // The bell.
        for other in 0..self.workers {
            if other != worker {
                self.soon(FAR / 4, Event::Orders { process, worker: other });
            }
        }
        done
    }

    fn obey(&mut self, process: usize, worker: u16, orders: Vec<Order>) {
        let key_of = |name: &Arc<[u8]>| std::str::from_utf8(&name[1..]).unwrap().parse::<u64>().unwrap();
        for order in orders {
            match order {
                Order::Nil { link, id, why } => self.told_nil(process, worker, (link, id), why),
                Order::Read { hash, .. } => self.soon(FAR, Event::Read { process, worker, key: hash }),
                Order::Claim { hash, term, .. } => self.soon(FAR, Event::Claims { process, worker, key: hash, term }),
                Order::Release { name } => self.soon(FAR, Event::Gives { key: key_of(&name) }),
                Order::Expired { .. } => unreachable!("nothing is kept of what has expired"),
            }
        }
    }

    /// An app is told nil: it loads, unless it is out of luck.
    fn loads(&mut self, app: usize, key: u64, holds: bool) {
        self.loads += 1;
        if holds {
            if let Some(holder) = self.holders.get(&key) {
                let alive = self.apps[holder.app].alive;
                assert!(
                    !alive || self.now >= holder.until || self.troubled,
                    "two load {key} at {}: {app} and {} until {}",
                    self.now,
                    holder.app,
                    holder.until
                );
            }
            self.holders.insert(key, Holder { app, until: self.now + 400 * MS });
        }
        let fate = if self.troubled { self.draw(10) } else { 9 };
        match fate {
            0 => self.dies(app),
            1 => self.soon(30 * MS, Event::Asks(app)),
            _ => {
                let took = 1 + self.draw(if fate == 2 { 900 * MS } else { LOAD });
                let life = if self.troubled && fate == 3 { 1 } else { 20 * MS + self.draw(300 * MS) };
                self.at(took, Event::Writes { app, key, life });
            }
        }
    }

    fn dies(&mut self, app: usize) {
        let App { process, conn, .. } = self.apps[app];
        self.apps[app].alive = false;
        self.apps[app].waits = None;
        self.links.retain(|_, of| *of != app);
        let now = self.now;
        self.with(process, conn.worker, |table| table.gone(conn, now));
        // Another one takes its place.
        let session = self.apps.len() as u32;
        self.apps.push(App { process, conn: Conn { session, ..conn }, waits: None, alive: true });
        self.soon(20 * MS, Event::Asks(session as usize));
    }

    fn told_nil(&mut self, process: usize, worker: u16, (link, id): (u32, u64), why: Why) {
        let Some(app) = self.links.remove(&(process, worker, link)) else { return };
        let (key, since, _, known) = self.apps[app].waits.take().expect("who is told has waited");
        assert_eq!(id, known);
        self.check_wait(key, since, why);
        self.loads(app, key, why == Why::Turn);
    }

    fn check_wait(&self, key: u64, since: u64, why: Why) {
        let waited = self.now - since;
        assert!(waited <= 2 * self.wanted.longest_wait + TICK + FAR, "waited {waited}");
        if why == Why::Late
            && let Some(&there) = self.since.get(&key)
        {
            // The read that any write causes has long been answered.
            let lost = self.lost.get(&key).map_or(0, |lost| lost + 20 * MS);
            assert!(
                self.now < there.max(since).max(lost) + 8 * FAR + 2 * TICK,
                "{key} is there since {there}, asked {since}, now {}",
                self.now
            );
        }
    }

    fn changes(&mut self, key: u64, lease: bool) {
        for process in self.tracked.remove(&(key, lease)).unwrap_or_default() {
            self.tells(process, Event::Pushed { process, key, lease });
        }
    }

    /// On a tracked connection, where everything comes in the order in which it happens.
    fn tells(&mut self, process: usize, event: Event) {
        let delay = 1 + self.draw(FAR);
        let at = (self.now + delay).max(self.heard.get(&process).copied().unwrap_or(0) + 1);
        self.heard.insert(process, at);
        self.next += 1;
        self.events.insert((at, self.next), event);
    }

    fn step(&mut self) -> bool {
        let Some(((at, _), event)) = self.events.pop_first() else { return false };
        self.now = at;
        let now = at;
        match event {
            Event::Asks(app) => {
                if !self.apps[app].alive || self.apps[app].waits.is_some() {
                    return true;
                }
                if self.left == 0 {
                    return true;
                }
                self.left -= 1;
                let key = self.draw(3);
                self.soon(FAR, Event::Executes { app, key, asked: now });
            }
            Event::Executes { app, key, asked } => {
                let found = self.values.contains_key(&key);
                self.soon(FAR, Event::Misses { app, key, asked, found });
            }
            Event::Misses { app, key, asked, found } => self.misses(app, key, asked, found),
            Event::Writes { app, key, life } => {
                if self.apps[app].alive {
                    self.soon(FAR, Event::Written { app, key, life });
                }
            }
            Event::Written { app, key, life } => {
                self.versions += 1;
                let version = self.versions;
                self.values.insert(key, (version, now));
                self.since.entry(key).or_insert(now);
                self.at(life, Event::Expires { key, version });
                self.changes(key, false);
                self.soon(FAR, Event::Acknowledged { app, key });
            }
            Event::Acknowledged { app, key } => {
                let App { process, conn, .. } = self.apps[app];
                self.answered.insert(key, now);
                if self.holders.get(&key).is_some_and(|holder| holder.app == app) {
                    self.holders.remove(&key);
                }
                self.with(process, conn.worker, |table| {
                    table.written(key, Write { by: Some(conn), fills: true }, now);
                });
                self.soon(30 * MS, Event::Asks(app));
            }
            Event::Read { process, worker, key } => {
                if self.troubled && self.draw(20) == 0 {
                    self.lost.insert(key, now);
                    let answered = self.with(process, worker, |table| table.read(key, worker, Found::Lost, now));
                    assert!(answered.is_empty());
                    return true;
                }
                let found = self.values.contains_key(&key);
                let done = Event::ReadDone { process, worker, key, found };
                if self.wanted.lease == Lease::Fleet {
                    self.tracked.entry((key, false)).or_default().insert(process);
                    self.tells(process, done);
                } else {
                    self.soon(FAR, done);
                }
            }
            Event::ReadDone { process, worker, key, found } => {
                let found = if found { Found::Value } else { Found::Nil };
                for (link, id) in self.with(process, worker, |table| table.read(key, worker, found, now)) {
                    let app = self.links.remove(&(process, worker, link)).expect("who is answered waits");
                    let (_, since, _, known) = self.apps[app].waits.take().unwrap();
                    assert_eq!(id, known);
                    self.check_wait(key, since, Why::Turn);
                    self.values_told += 1;
                    self.soon(30 * MS, Event::Asks(app));
                }
            }
            Event::Claims { process, worker, key, term } => {
                let won = !self.leases.contains_key(&key);
                if won {
                    self.versions += 1;
                    let version = self.versions;
                    self.leases.insert(key, version);
                    self.changes(key, true);
                    self.at(term, Event::LeaseEnds { key, version });
                }
                let claim = match (self.values.contains_key(&key), won) {
                    (true, _) => Claim::Value,
                    (false, true) => Claim::Won,
                    (false, false) => Claim::Lost,
                };
                self.tracked.entry((key, false)).or_default().insert(process);
                self.tracked.entry((key, true)).or_default().insert(process);
                if claim == Claim::Value && won {
                    self.soon(FAR, Event::Gives { key });
                }
                self.tells(process, Event::Claimed { process, worker, key, claim });
            }
            Event::Claimed { process, worker, key, claim } => {
                let name: Arc<[u8]> = Self::name(key).into();
                self.with(process, worker, |table| table.claimed(key, &name, worker, claim, now));
            }
            Event::Gives { key } => {
                if self.leases.remove(&key).is_some() {
                    self.changes(key, true);
                }
            }
            Event::LeaseEnds { key, version } => {
                if self.leases.get(&key) == Some(&version) {
                    self.leases.remove(&key);
                    self.changes(key, true);
                }
            }
            Event::Pushed { process, key, lease } => {
                self.with(
                    process,
                    0,
                    |table| if lease { table.lease_changed(key, now) } else { table.changed(key, now) },
                );
            }
            Event::Orders { process, worker } => {
                let ((), orders) = self.tables[process].with(worker, |_| ());
                self.obey(process, worker, orders);
            }
            Event::Expires { key, version } => {
                if self.values.get(&key).is_some_and(|(known, _)| *known == version) {
                    self.values.remove(&key);
                    self.since.remove(&key);
                    self.changes(key, false);
                }
            }
            Event::Tick { process } => {
                self.with(process, 0, |table| table.tick(now));
                if self.left > 0 || self.apps.iter().any(|app| app.waits.is_some()) || now < self.quiet() {
                    self.at(TICK, Event::Tick { process });
                }
            }
        }
        true
    }

    /// When all terms and what is remembered are over, for sure.
    fn quiet(&self) -> u64 {
        60_000 * MS
    }

    fn misses(&mut self, app: usize, key: u64, asked: u64, found: bool) {
        let now = self.now;
        let App { process, conn, alive, .. } = self.apps[app];
        if !alive {
            return;
        }
        if found {
            if self.tables[process].may_have(key) {
                self.with(process, conn.worker, |table| table.seen(key, asked, now));
            }
            return self.soon(30 * MS, Event::Asks(app));
        }
        let (name, wanted) = (Self::name(key), self.wanted.clone());
        let link = app as u32;
        let reader = Reader { conn, link, asked, may_wait: true, takes_expired: false };
        let ask = |table: &mut hotring::stages::lease::Table| {
            table.miss(Key { hash: key, name: &name, wanted: &wanted, rule: 0 }, reader, now)
        };
        let (missed, orders) = self.tables[process].with(conn.worker, ask);
        match missed.then {
            Then::Wait(id) => {
                self.apps[app].waits = Some((key, now, link, id));
                self.links.insert((process, conn.worker, link), app);
            }
            then => {
                let answered = self.answered.get(&key).is_some_and(|at| *at >= asked);
                let there = self.since.get(&key).is_some_and(|since| self.answered.get(&key) >= Some(since));
                // What another process wrote is not known here.
                if then == Then::Holds && answered && self.tables.len() == 1 {
                    assert!(!there, "{app} loads {key}, which was written since it asked");
                }
                self.loads(app, key, then == Then::Holds);
            }
        }
        self.obey(process, conn.worker, orders);
        for worker in 0..self.workers {
            self.soon(FAR / 4, Event::Orders { process, worker });
        }
    }

    fn play(mut self) -> (u64, u64) {
        while self.step() {}
        assert!(self.apps.iter().all(|app| app.waits.is_none()), "somebody waits for ever");
        for table in &self.tables {
            let (left, _) = table.with(0, |table| (table.waiting(), table.entries()));
            assert_eq!(left, (0, 0));
        }
        (self.loads, self.values_told)
    }
}

#[test]
fn all_goes_well_where_nobody_dies() {
    let (mut loads, mut told) = (0, 0);
    for seed in 0..60 {
        let world = World::new(seed, false, false).play();
        (loads, told) = (loads + world.0, told + world.1);
    }
    assert!(told > 2 * loads / 3, "{loads} loads, {told} waited");
}

#[test]
fn the_same_in_a_fleet() {
    let (mut loads, mut told) = (0, 0);
    for seed in 0..60 {
        let world = World::new(seed, true, false).play();
        (loads, told) = (loads + world.0, told + world.1);
    }
    assert!(told > 2 * loads / 3, "{loads} loads, {told} waited");
}

#[test]
fn nobody_waits_for_ever_whatever_happens() {
    for seed in 0..160 {
        World::new(seed, seed % 2 == 0, true).play();
    }
}
