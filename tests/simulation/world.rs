//! One run: apps, sockets, shards and the engine between them; what happens next is drawn by lot.

use super::app::{App, Habits, Pending, Wish, uncertain};
use super::chance::Chance;
use super::cluster::Cluster;
use super::net::{AppEnd, LineEnd, Net};
use super::plan::Plan;
use super::server::Conn;
use super::truth::{DATABASES, Moment, Truth};
use super::wire;
use hotring::engine::line::{Dialect, Line, Owner, State};
use hotring::engine::{Engine, Then};
use hotring::ring::slot_of;
use hotring::stages::Micros;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// One run.
pub struct World {
    pub plan: Plan,
    pub chance: Chance,
    pub engine: Engine,
    pub net: Net,
    pub truth: Truth,
    /// Of the shards, if they are one.
    pub cluster: Option<Cluster>,
    pub apps: Vec<Option<App>>,
    pub now: Micros,
    pub numbers: u64,
    pub opened: u64,
    /// The flusher is to run.
    pub rung: bool,
    /// Shards that do nothing for now.
    pub frozen: Vec<bool>,
    /// By shard: what reached it over connections that the proxy has given up.
    pub ghosts: Vec<(Conn, Vec<u8>)>,
    /// By connection: when it broke last.
    pub faults: Vec<Moment>,
    /// The shared connections, by pool, number, database and protocol.
    shared: HashMap<(u16, u32, u16, bool), u32>,
    /// Connections there have been.
    pub connects: u64,
    /// Those that ended and whose shards do not know it yet.
    pub stale: Vec<u64>,
    /// Requests that were passed on while they arrived.
    pub streams: u64,
    /// Sessions the proxy ended because their apps did not read.
    pub killed: u64,
    /// How often the shards were others from then on.
    pub reloads: u64,
    /// Tells what happens, when one seed is played again.
    pub tale: Option<VecDeque<String>>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let plan = Plan::draw(&mut chance, seed);
        let mut engine = Engine::new(1, 1);
        for pool in 0..plan.pools {
            engine.add_pool(plan.pool(pool));
        }
        let nodes = plan.pools * plan.shards;
        let apps = (0..plan.apps).map(|_| None).collect();
        let ends = (0..plan.apps).map(|_| AppEnd {
            unread: 0,
            capacity: plan.sockets,
            arrived: Vec::new(),
            full: false,
            gone: true,
            ready: false,
        });
        let net = Net {
            chance: Chance::new(seed ^ 1),
            apps: ends.collect(),
            sessions: Vec::new(),
            lines: Vec::new(),
            fresh: Vec::new(),
            direct: 0,
        };
        let mut world = Self {
            plan,
            chance,
            engine,
            net,
            truth: Truth::new(nodes),
            cluster: (plan.cluster > 0).then(|| Cluster::new(&plan)),
            apps,
            now: 1,
            numbers: 0,
            opened: 0,
            rung: false,
            frozen: vec![false; nodes],
            ghosts: (0..nodes).map(|_| (Conn::default(), Vec::new())).collect(),
            faults: Vec::new(),
            shared: HashMap::new(),
            connects: 0,
            stale: Vec::new(),
            streams: 0,
            killed: 0,
            reloads: 0,
            tale: None,
        };
        world.meet();
        world
    }

    /// Gets to know the connections that are new: another protocol's or database's, and those that sessions have for
    /// themselves.
    pub fn meet(&mut self) {
        while let Some(line) = self.engine.line(self.net.lines.len() as u32) {
            let id = self.net.lines.len();
            let node = usize::from(line.pool) * self.plan.shards + usize::from(line.shard);
            let end = LineEnd::new(node, line, self.plan.sockets);
            if line.owner == Owner::Shared {
                let stride = self.plan.shards as u32 * u32::from(self.plan.lanes);
                let place = (line.pool, line.number % stride, line.dialect.db, line.dialect.resp3);
                self.shared.insert(place, id as u32);
            }
            self.net.lines.push(end);
            self.faults.push(0);
        }
        for line in std::mem::take(&mut self.net.fresh) {
            self.net.lines[line as usize].wanted = true;
            if self.engine.is_given_up(line) {
                self.net.lines[line as usize].doomed = true;
            }
        }
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(tale) = &mut self.tale {
            if tale.len() >= 20_000 {
                tale.pop_front();
            }
            tale.push_back(format!("{:>6} {:>8}us {}", self.truth.moment, self.now, text()));
        }
    }

    /// Lets something happen. Returns whether anything did.
    pub fn step(&mut self) -> bool {
        self.truth.moment += 1;
        self.now += self.chance.below(60) as u64;
        self.meet();
        let app = self.chance.below(self.apps.len());
        let line = self.chance.below(self.net.lines.len());
        if self.plan.faults > 0 && self.chance.one_in(self.plan.faults) {
            return self.fault(line);
        }
        if self.plan.reloads > 0 && self.chance.one_in(self.plan.reloads) {
            return self.reload();
        }
        if self.plan.cluster > 0 && self.chance.one_in(self.plan.cluster) {
            return self.cluster_changes();
        }
        if self.chance.below(100) < self.plan.flushes {
            return self.flush();
        }
        match self.chance.below(86) {
            0..20 => self.app_speaks(app),
            20..38 => self.session_runs(app),
            38..54 => self.shard_works(line),
            54..70 => self.line_reads(line),
            70..76 => self.app_reads(app),
            76..81 => {
                let count = self.net.lines.len();
                (line..line + count).any(|line| self.line_opens(line % count))
            }
            81..83 => self.app_changes(app),
            83 => self.ghost_works(line),
            84 => self.thaw(line),
            _ => self.tick(),
        }
    }

    // --- apps -----------------------------------------------------------------------------------------------------

    pub fn app_speaks(&mut self, index: usize) -> bool {
        let Some(app) = &mut self.apps[index] else { return self.app_connects(index) };
        if self.net.apps[index].gone || app.finished {
            return false;
        }
        let more = !app.last_words || !app.means.is_empty();
        if app.unsent.is_empty() && app.pending.len() < self.plan.pending && more {
            let habits = Habits {
                pool: app.pool,
                password: self.plan.password,
                long: self.plan.long,
                scripts: !self.plan.eject && self.plan.cluster == 0,
                hot: self.plan.hot,
                deals: self.plan.deals,
                channels: self.plan.channels && !self.plan.eject,
                databases: self.plan.databases,
                resp3: self.plan.resp3,
            };
            for _ in 0..self.chance.cut(self.plan.burst) {
                app.speak(&mut self.chance, &habits, &mut self.numbers);
                if app.last_words && app.means.is_empty() {
                    break;
                }
            }
            for group in app.groups.drain(..) {
                let group: Rc<[u64]> = group.into();
                group.iter().for_each(|number| drop(self.truth.groups.insert(*number, Rc::clone(&group))));
            }
        }
        if app.unsent.is_empty() || app.sent.len() > self.plan.sockets {
            return false;
        }
        let n = self.chance.cut(app.unsent.len());
        app.sent.extend(app.unsent.drain(..n));
        self.net.apps[index].ready = true;
        self.note(|| format!("app {index} sends {n} bytes"));
        true
    }

    pub fn app_connects(&mut self, index: usize) -> bool {
        let pool = self.chance.below(self.plan.pools);
        let session = self.engine.open(pool as u16);
        self.opened += 1;
        let lane = (self.opened % u64::from(self.plan.lanes)) as u32;
        let slot = session as usize;
        if self.net.sessions.len() <= slot {
            self.net.sessions.resize(slot + 1, None);
        }
        assert!(self.net.sessions[slot].replace(index).is_none(), "a session number was given twice");
        let end = &mut self.net.apps[index];
        (end.unread, end.full, end.gone, end.ready) = (0, false, false, true);
        end.arrived.clear();
        self.apps[index] = Some(App::new(pool, &self.plan, session, lane, !self.plan.password));
        self.note(|| format!("app {index} connects to pool {pool}: session {session}"));
        true
    }

    /// It leaves, closes its half, or stops reading.
    pub fn app_changes(&mut self, index: usize) -> bool {
        let what = self.chance.below(20);
        let Some(app) = &mut self.apps[index] else { return false };
        let end = &mut self.net.apps[index];
        match what {
            0 | 1 => {
                end.gone = true;
                end.ready = true;
                end.full = false;
                app.unsent.clear();
                if what == 0 {
                    // Seen as an error, and nothing it sent can be read any more.
                    self.note(|| format!("app {index} resets"));
                    self.end_session(index, true);
                } else {
                    self.note(|| format!("app {index} leaves"));
                }
            }
            2 if app.unsent.is_empty() => {
                app.finished = true;
                end.ready = true;
                self.note(|| format!("app {index} will send no more"));
            }
            3..10 if self.plan.slow => app.idle = !app.idle,
            _ => return false,
        }
        true
    }

    pub fn app_reads(&mut self, index: usize) -> bool {
        let Some(app) = &self.apps[index] else { return false };
        let end = &mut self.net.apps[index];
        if end.unread == 0 || app.idle || end.gone {
            return false;
        }
        end.unread -= self.chance.cut(end.unread);
        end.ready |= end.full;
        true
    }

    /// Judges what has arrived at the apps.
    pub fn judge(&mut self) {
        for index in 0..self.apps.len() {
            let arrived = std::mem::take(&mut self.net.apps[index].arrived);
            if arrived.is_empty() {
                continue;
            }
            let app = self.apps[index].as_mut().expect("bytes for an app that is not there");
            let mut at = 0;
            while let Some((reply, length)) = wire::reply(&arrived[at..]) {
                if app.hear(&reply, &mut self.truth) {
                    at += length;
                    continue;
                }
                let overtaken = self.cluster.as_ref().map(|cluster| &cluster.overtaken);
                app.judge(&reply, &arrived[at..at + length], &mut self.truth, (&self.faults, self.now, overtaken));
                at += length;
            }
            self.net.apps[index].arrived = arrived[at..].to_vec();
        }
    }

    // --- the proxy's session, as downstream::session does it -------------------------------------------------------

    pub fn session_runs(&mut self, index: usize) -> bool {
        let end = &mut self.net.apps[index];
        if self.apps[index].is_none() || !std::mem::take(&mut end.ready) {
            return false;
        }
        for _ in 0..4 {
            let Some(app) = &mut self.apps[index] else { return true };
            let (id, end) = (app.session, &mut self.net.apps[index]);
            if self.engine.is_blocked(id) && (end.gone || end.unread < end.capacity) {
                end.full = false;
                self.engine.app_writable(id);
                self.rung |= self.engine.is_dirty();
            }
            if self.engine.is_over(id) || (app.saw_end && self.engine.ends_with_app(id)) {
                self.end_session(index, false);
                return true;
            }
            let (paused, closing) = (self.engine.is_paused(id), self.engine.is_closing(id));
            let watched = paused && self.engine.is_waiting(id) && !closing && !app.saw_end && app.tail.len() < 65_536;
            if (paused || closing) && !watched {
                return true;
            }
            if !watched && !app.tail.is_empty() && app.tail.len() >= app.need {
                let bytes = std::mem::take(&mut app.tail);
                self.submit(index, bytes);
                continue;
            }
            if app.sent.is_empty() {
                if (app.finished || end.gone) && !app.saw_end {
                    app.saw_end = true;
                    continue;
                }
                if app.saw_end {
                    let done = self.engine.finish(id);
                    self.rung |= self.engine.is_dirty();
                    if done {
                        self.end_session(index, false);
                    }
                }
                return true;
            }
            let n = self.chance.cut(app.sent.len());
            let mut bytes = std::mem::take(&mut app.tail);
            let fresh = bytes.is_empty() && !watched;
            bytes.extend(app.sent.drain(..n));
            if fresh {
                self.submit(index, bytes);
            } else {
                app.tail = bytes;
            }
        }
        self.net.apps[index].ready = true;
        true
    }

    pub fn submit(&mut self, index: usize, mut bytes: Vec<u8>) {
        let Some(app) = &mut self.apps[index] else { return };
        let id = app.session;
        let done = self.engine.submit(id, &bytes, self.now, &mut self.net);
        self.rung |= self.engine.is_dirty();
        assert!(done.consumed <= bytes.len());
        bytes.drain(..done.consumed);
        app.taken += done.consumed as u64;
        app.need = 0;
        let mut again = None;
        match done.then {
            Then::Read { need } => {
                assert!(need > bytes.len(), "the session asks for {need} bytes and has {}", bytes.len());
                app.need = need;
                app.tail = bytes;
            }
            Then::Yield => {
                assert!(!bytes.is_empty());
                again = Some(bytes);
            }
            Then::Pause => {
                app.tail = bytes;
            }
            Then::Close => {
                assert!(app.last_words, "the session was closed for nothing");
                app.taken = u64::MAX;
            }
        }
        self.note(|| format!("session {id} of app {index} took {} bytes, then {:?}", done.consumed, done.then));
        self.meet();
        self.homes(index);
        self.judge();
        if let Some(bytes) = again {
            self.submit(index, bytes);
        }
    }

    /// Notes where the requests that the engine has just taken go, and how it looks there.
    pub fn homes(&mut self, index: usize) {
        let Some(app) = &mut self.apps[index] else { return };
        let (pool, lanes) = (app.pool, u32::from(self.plan.lanes));
        let route = &self.engine.path(pool as u16).expect("a pool").route;
        let (ring, numbers) = (route.ring(), route.shards());
        let base = pool * self.plan.shards;
        let most = self.plan.own;
        let live = |node: usize| {
            let ends = self.net.lines.iter().enumerate().filter(|(_, end)| end.own && end.node == node);
            let lines = ends.filter_map(|(id, _)| self.engine.line(id as u32));
            let used = |line: &&Line| matches!(line.owner, Owner::Session(..)) || !line.waiters.is_empty();
            lines.filter(used).count()
        };
        let is_down = |line: u32| {
            let state = self.engine.line(line).expect("a line").state;
            matches!(state, State::Down(_))
        };
        while let Some(pending) = app.pending.get_mut(app.asked).filter(|p| p.start < app.taken) {
            let shards: Vec<Option<u16>> = match &pending.wish {
                Wish::Script(..) => vec![Some(numbers[0])],
                wish if self.cluster.is_some() => wish.keys().iter().map(|key| route.owner(slot_of(key))).collect(),
                wish => wish.keys().iter().map(|key| ring.shard_of(key).map(|n| numbers[usize::from(n)])).collect(),
            };
            let path = self.engine.path(pool as u16).expect("a pool");
            if !matches!(pending.wish, Wish::Script(..)) {
                let ejected = shards.iter().flatten().any(|&shard| path.health.state(shard).is_out());
                assert!(!ejected, "an ejected shard is in the ring");
            }
            pending.taken = Some(self.truth.moment);
            pending.at = self.now;
            if let Some(tale) = self.tale.as_mut().filter(|_| self.cluster.is_some()) {
                tale.push_back(format!("{:>6}   app {index} asks {pending:?}", self.truth.moment));
            }
            match pending.wish {
                Wish::Select(db) => app.dialect.db = db,
                Wish::Hello(resp3) => app.dialect.resp3 = resp3,
                Wish::Reset => app.dialect = Dialect::default(),
                _ => {}
            }
            let Dialect { db, resp3 } = app.dialect;
            let place = |shard: u16| (base + usize::from(shard)) * DATABASES + usize::from(db);
            pending.homes = shards.iter().map(|shard| shard.map(place)).collect();
            if self.cluster.is_some() {
                // What is one to apps; and it may go to any of the nodes before it is answered.
                pending.unserved = shards.contains(&None);
                pending.homes = vec![Some(0); shards.len()];
                let own = |&(&(_, number, _, other), _): &(&(u16, u32, u16, bool), &u32)| {
                    number % lanes == app.lane && other == resp3
                };
                pending.lines = self.shared.iter().filter(own).map(|(_, line)| *line).collect();
                pending.down = pending.lines.iter().any(|&line| is_down(line));
                app.asked += 1;
                continue;
            }
            let line = |shard: &u16| self.shared[&(pool as u16, u32::from(*shard) * lanes + app.lane, db, resp3)];
            pending.lines = shards.iter().flatten().map(line).collect();
            if matches!(pending.wish, Wish::Subscribe(_)) {
                let homes: Vec<usize> = shards.iter().flatten().map(|shard| base + usize::from(*shard)).collect();
                let ears = self.net.lines.iter().zip(0..).filter(|(end, _)| end.ear && homes.contains(&end.node));
                pending.lines.extend(ears.map(|(_, id)| id));
                // Whether a shard can be subscribed at is told by its first connection.
                let first = |shard: &u16| self.shared[&(pool as u16, u32::from(*shard) * lanes, 0, false)];
                pending.lines.extend(shards.iter().flatten().map(first));
            }
            // What names no key can be for any shard.
            let own = pending.wish.is_own() || pending.long;
            let own_homes = if own && shards.is_empty() { base..base + self.plan.shards } else { 0..0 };
            let mut homes = own_homes.chain(shards.iter().flatten().map(|shard| base + usize::from(*shard)));
            pending.crowded = own && homes.any(|node| live(node) >= most);
            // What is for the first shard and not for a key's sake is refused while that is ejected, too.
            let ejected = matches!(pending.wish, Wish::Script(..)) && path.health.state(numbers[0]).is_out();
            pending.down = ejected || pending.lines.iter().any(|&line| is_down(line));
            self.streams += u64::from(pending.start + pending.length > app.taken);
            app.asked += 1;
        }
    }

    pub fn end_session(&mut self, index: usize, broken: bool) {
        let Some(app) = self.apps[index].take() else { return };
        let end = &mut self.net.apps[index];
        let in_vain = app.saw_end && self.engine.ends_with_app(app.session);
        if !end.gone && !app.pending.is_empty() && !in_vain {
            // Only an app that does not read enough loses replies.
            assert!(self.plan.output <= 1 << 16, "session {} ended with {:?} open", app.session, app.pending.front());
            self.killed += 1;
        }
        let whole = end.gone || !app.pending.is_empty() || end.arrived.is_empty();
        assert!(whole, "a session ended within a reply");
        end.arrived.clear();
        end.gone = true;
        app.pending.iter().for_each(|pending: &Pending| uncertain(&pending.wish, &mut self.truth));
        app.deal.queued.iter().for_each(|(wish, _)| uncertain(wish, &mut self.truth));
        self.engine.close(app.session, broken, &mut self.net);
        self.rung |= self.engine.is_dirty();
        self.net.sessions[app.session as usize] = None;
        self.note(|| format!("session {} of app {index} ended", app.session));
    }

    /// The configuration changes: a pool has other shards from now on.
    pub fn reload(&mut self) -> bool {
        let pool = self.chance.below(self.plan.pools);
        let mut members: Vec<u16> = (0..self.plan.shards as u16).filter(|_| self.chance.one_in(2)).collect();
        if members.is_empty() {
            members.push(self.chance.below(self.plan.shards) as u16);
        }
        self.give_shards(pool, &members);
        self.reloads += 1;
        true
    }

    pub fn give_shards(&mut self, pool: usize, members: &[u16]) {
        self.truth.moment += 1;
        self.note(|| format!("pool {pool} has the shards {members:?}"));
        self.engine.reload(pool as u16, self.plan.pool_of(pool, members), self.now, &mut self.net);
        self.rung |= self.engine.is_dirty();
        self.meet();
        self.judge();
    }

    // --- flusher and ticker -----------------------------------------------------------------------------------------

    pub fn flush(&mut self) -> bool {
        if !std::mem::take(&mut self.rung) {
            return false;
        }
        self.note(|| "flush".into());
        loop {
            self.engine.flush(&mut self.net);
            let mut again = false;
            for line in 0..self.net.lines.len() {
                let end = &mut self.net.lines[line];
                if end.full && (end.closed || end.inbox.len() < end.capacity) {
                    end.full = false;
                    again = true;
                    self.engine.shard_writable(line as u32);
                }
            }
            if !again {
                break;
            }
        }
        self.judge();
        true
    }

    pub fn tick(&mut self) -> bool {
        if self.chance.one_in(4) {
            self.now += self.chance.below(5_000) as u64;
        }
        let overdue = self.engine.tick(self.now, &mut self.net);
        self.rung |= self.engine.is_dirty();
        for (line, failure) in overdue {
            assert!(self.plan.timeout.is_some());
            if self.net.lines[line as usize].own {
                self.overdue(line as usize, failure);
            } else {
                self.fails(line as usize, failure);
            }
        }
        for pool in 0..self.plan.pools as u16 {
            assert!(self.engine.own_connections(pool) <= self.plan.own * self.plan.shards);
        }
        if let Some(timeout) = self.plan.timeout {
            let lines = (0..self.engine.line_count()).filter_map(|line| self.engine.line(line));
            let lines = lines.filter(|line| !line.patient && !line.arriving);
            let oldest = lines.flat_map(|line| &line.waiters).map(|waiter| self.now as u32 - waiter.at).max();
            assert!(oldest.is_none_or(|age| u64::from(age) <= timeout), "a request waits beyond the timeout");
        }
        true
    }
}
