//! The end of a run: everything comes to rest, and nothing is left.

use super::net::Link;
use super::world::World;
use hotring::engine::SessionId;
use hotring::error::Cause;
use hotring::metrics::{Full, Label};

impl World {
    /// No more faults, no more requests: everything comes to rest, and nothing is left.
    pub fn rest(&mut self) {
        if self.plan.reloads > 0 {
            // All shards are back, or whoever waits for one waits for nothing.
            let all: Vec<u16> = (0..self.plan.shards as u16).collect();
            (0..self.plan.pools).for_each(|pool| self.give_shards(pool, &all));
        }
        (self.plan.faults, self.plan.reloads) = (0, 0);
        self.cluster_settles();
        self.plan.cluster = 0;
        self.truth.resting = true;
        self.frozen.fill(false);
        for app in self.apps.iter_mut().flatten() {
            app.idle = false;
            app.last_words = true;
        }
        self.plan.sockets = 1 << 20;
        self.net.lines.iter_mut().for_each(|end| end.capacity = 1 << 20);
        self.net.apps.iter_mut().for_each(|end| end.capacity = 1 << 20);
        self.settle();
        let mut patience = 1_000;
        while self.engine.holdings().troubles > 0 {
            // Whoever waits for a slot is sent again before long.
            self.now += 1_000;
            let overdue = self.engine.tick(self.now, &mut self.net);
            assert!(overdue.is_empty(), "{overdue:?}");
            self.rung = true;
            self.settle();
            patience -= 1;
            assert!(patience > 0, "a trouble does not end\n{}", self.state());
        }
        while self.engine.holdings().waits > 0 {
            // Whoever waits for a key that nobody writes waits for its time.
            self.now += 100;
            assert!(self.engine.tick(self.now, &mut self.net).is_empty());
            self.rung = true;
            self.settle();
        }
        for (index, app) in self.apps.iter().enumerate() {
            let Some(app) = app else { continue };
            assert!(app.pending.is_empty(), "app {index} still waits for {:?}\n{}", app.pending.front(), self.state());
        }
        self.apps.iter().flatten().for_each(|app| app.heard_all(&self.truth));
        assert_eq!(self.engine.in_flight(), 0);
        let held = self.engine.holdings();
        assert_eq!((held.gathers, held.attempts, held.joined), (0, 0, 0), "{held:?}");
        assert!(held.spare <= 256 && held.spare_bytes <= 256 << 16, "{held:?}");
        for index in 0..self.apps.len() {
            if let Some(app) = &mut self.apps[index] {
                app.finished = true;
                self.net.apps[index].ready = true;
            }
        }
        self.settle();
        assert!(self.apps.iter().all(Option::is_none), "a session does not end\n{}", self.state());
        assert_eq!(self.engine.session_count(), 0);
        let held = self.engine.holdings();
        assert_eq!(held.blocked, 0, "{held:?}");
        // What sessions had for themselves is nobody's any more, and closed before long.
        self.now += 11_000_000;
        assert!(self.engine.tick(self.now, &mut self.net).is_empty());
        self.rung = true;
        self.settle();
        let subscribed = &self.truth.subscribed;
        assert!(subscribed.is_empty(), "what nobody hears is still subscribed: {subscribed:?}");
        for (line, end) in self.net.lines.iter().enumerate().filter(|(_, end)| end.own) {
            assert_eq!((end.link, end.wanted), (Link::Idle, false), "line {line} is kept\n{}", self.state());
        }
        assert_eq!(self.engine.in_flight(), 0);
        let mut kills = 0;
        for pool in 0..self.plan.pools as u16 {
            let path = self.engine.path(pool).expect("a pool");
            assert_eq!(self.engine.own_connections(pool), 0, "{}", self.state());
            assert_eq!(path.coalesce.waiting(), 0, "reads that can be joined are left");
            assert_eq!(path.merging.out(), 0, "reads that can be waited behind are left");
            let well = (0..self.plan.shards as u16)
                .all(|shard| !path.health.state(shard).is_out() && !path.health.is_down(shard));
            let shares = path.route.ring().shares();
            assert!(
                well && (self.cluster.is_some() || shares.iter().all(|share| *share > 0.0)),
                "a shard does not come back\n{}",
                self.state()
            );
            let counts = self.engine.pool_counts(pool).expect("a pool");
            assert_eq!(counts.client_connections.get(), 0);
            assert_eq!(counts.client_output_bytes.get(), 0);
            assert_eq!(counts.requests_pending.get(), 0);
            assert_eq!(counts.merge_waiting.get(), 0);
            assert_eq!((counts.redirects_waiting.get(), counts.redirects_waiting_bytes.get()), (0, 0));
            kills += counts.client_output_limit_kills;
        }
        assert!(self.killed <= kills, "{} sessions lost replies, {kills} had to", self.killed);
        for line in 0..self.net.lines.len() as u32 {
            let counts = self.engine.line_mut(line).expect("a line").measure();
            assert_eq!((counts.in_queue.get(), counts.in_queue_bytes.get(), counts.out_queue.get()), (0, 0, 0));
        }
        while (0..self.net.lines.len()).any(|line| self.ghost_works(line)) {}
        self.truth.nothing_ran_twice();
    }

    /// What this run came across, to see that the worlds are as varied as they are meant to be.
    pub fn seen(&mut self) -> Vec<(&'static str, u64)> {
        let mut seen = vec![
            ("steps", self.truth.moment),
            ("long replies sent at once", self.net.direct),
            ("requests passed on while they arrive", self.streams),
            ("messages", self.truth.told),
            ("changes of the shards", self.reloads),
            ("transactions", self.truth.transactions),
            ("elements for who waited", self.truth.handed),
        ];
        seen.extend(self.cluster.iter().flat_map(|cluster| &cluster.seen).map(|(what, count)| (*what, *count)));
        for pool in 0..self.plan.pools as u16 {
            let path = self.engine.path(pool).expect("a pool");
            let ejections = (0..self.plan.shards as u16).map(|shard| path.health.ejections(shard)).sum();
            let counts = self.engine.pool_counts(pool).expect("a pool");
            seen.extend([
                ("ejections", ejections),
                ("joined requests", counts.joined_requests),
                ("reads that waited behind an equal one", counts.merge_waits),
                ("parts of split requests", counts.fragments),
                ("replies to nobody", counts.orphans),
                ("errors of shards", counts.shard_errors),
                ("apps that read too little", counts.client_output_limit_kills),
            ]);
            seen.extend(Full::ALL.iter().map(|full| (full.as_str(), counts.client_pauses[*full])));
            seen.extend(Cause::ALL.iter().map(|cause| (cause.as_str(), counts.errors[*cause])));
        }
        for line in 0..self.net.lines.len() as u32 {
            let counts = &self.engine.line(line).expect("a line").counts;
            seen.extend([("connections", counts.server_connects), ("connections ended in peace", counts.server_eof)]);
        }
        seen
    }

    fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..20_000 {
            self.truth.moment += 1;
            self.meet();
            let mut moved = false;
            for index in 0..self.apps.len() {
                if self.apps[index].is_some() {
                    moved |= self.app_speaks(index) | self.app_reads(index) | self.session_runs(index);
                }
            }
            moved |= self.flush();
            for line in 0..self.net.lines.len() {
                moved |= self.line_opens(line) | self.shard_works(line) | self.line_reads(line);
            }
            quiet = if moved { 0 } else { quiet + 1 };
            if quiet > 2 {
                return;
            }
        }
        panic!("it does not come to rest\n{}", self.state());
    }

    /// What there is to see, for whoever looks for the fault.
    pub fn state(&self) -> String {
        let mut text = format!("{:?}\n", self.plan);
        for (index, app) in self.apps.iter().enumerate() {
            let Some(app) = app else { continue };
            let id: SessionId = app.session;
            text += &format!(
                "app {index}: session {id} {} pending, {} taken, {} unsent, {} sent, tail {} needs {}, ready {}, paused {}, blocked {}\n",
                app.pending.len(),
                app.asked,
                app.unsent.len(),
                app.sent.len(),
                app.tail.len(),
                app.need,
                self.net.apps[index].ready,
                self.engine.is_paused(id),
                self.engine.is_blocked(id),
            );
        }
        for (line, end) in self.net.lines.iter().enumerate() {
            let inside = self.engine.line(line as u32).expect("a line");
            text += &format!(
                "line {line}: {:?} {:?} wanted {}, {} waiters, {} queued, {} in, {} out, full {}, closed {}\n",
                end.link,
                inside.state,
                end.wanted,
                inside.waiters.len(),
                inside.queued(),
                end.inbox.len() + end.query.len(),
                end.outbox.len(),
                end.full,
                end.closed
            );
        }
        text
    }
}
