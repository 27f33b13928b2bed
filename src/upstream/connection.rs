//! One connection to a shard: opened when wanted, read until it ends, opened again with growing patience.

use super::dial::{self, Gate, Name, Opened};
use super::probe::Lobby;
use super::{Config, Server};
use crate::chance::splitmix;
use crate::engine::LineId;
use crate::engine::line::Dialect;
use crate::error::{Cause, Failure};
use crate::hub::{Hub, let_others, reason, trap};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Notify;

/// Bytes read at once, and the buffer an idle connection keeps.
const BUFFER: usize = 64 * 1024;
/// Reads after which others go first.
const TURNS: u32 = 4;
/// A buffer that a long reply made larger than this is let go afterwards.
const LARGEST_IDLE: usize = 512 * 1024;

/// Where connections of a shard lead to. Replaced when the configuration changes: whoever opens one looks anew.
pub struct Target {
    /// The pool's number.
    pub number: u16,
    /// The pool's name.
    pub pool: Rc<str>,
    /// The shard.
    pub server: Server,
    /// The pool's settings.
    pub config: Rc<Config>,
    /// Whether connections begin with READONLY.
    pub readonly: bool,
    /// Whether it is to be a master, and used only if it says so.
    pub master: bool,
    /// What is known of the server's name, if it has one.
    pub name: Option<Rc<Name>>,
    /// Where its connections wait for their turn to be opened.
    pub gate: Rc<Gate>,
}

impl Target {
    /// What its connections begin with besides.
    pub(super) fn extra(&self) -> Option<&'static [u8]> {
        match (self.master, self.readonly) {
            (true, _) => Some(b"ROLE"),
            (_, true) => Some(b"READONLY"),
            _ => None,
        }
    }
}

/// What a connection is to be.
#[derive(Clone)]
pub struct Plan {
    /// Its number.
    pub line: LineId,
    /// Where it leads to.
    pub target: Rc<RefCell<Rc<Target>>>,
    /// What is to be spoken on it.
    pub dialect: Dialect,
    /// One session at a time has it for itself.
    pub own: bool,
    /// It is probed whatever the pool says, since it may wait for ever.
    pub keep: bool,
    /// Makes the waits of many sidecars differ.
    pub seed: u64,
    /// Where it waits for its shard to be well; the prober's own does not.
    pub lobby: Option<Rc<Lobby>>,
}

impl Plan {
    /// Tells the shard's prober that something has changed.
    fn knock(&self) {
        if let Some(lobby) = &self.lobby {
            lobby.knock();
        }
    }

    /// Waits until the shard is well, as its prober says.
    async fn wait(&self, hub: &Hub) {
        self.knock();
        if let Some(lobby) = &self.lobby {
            lobby.wait(|| may_open(hub, self.line)).await;
        }
    }

    /// Where it leads to now.
    pub(super) fn target(&self) -> Rc<Target> {
        Rc::clone(&self.target.borrow())
    }
}

/// Keeps a connection for as long as the worker lives, opened when it is `wanted`.
pub async fn run(hub: Rc<Hub>, plan: Plan, wanted: Rc<Notify>) {
    let mut patience = Patience::new(plan.seed);
    let mut down = false;
    loop {
        // A connection that failed is tried again unasked: until it is back, its requests are refused.
        if !(plan.target().config.preconnect || down) || hub.engine().is_retired(plan.line) {
            wanted.notified().await;
            if hub.engine().is_retired(plan.line) {
                continue;
            }
        }
        let Target { pool, server, config, .. } = &*plan.target();
        if down && probed(&hub, plan.line) {
            hub.with(|engine, _| engine.reopening(plan.line));
        } else {
            hub.engine().opening(plan.line);
        }
        let failure = match dial::open(&hub, &plan).await {
            Ok(opened) => {
                if down {
                    tracing::info!(%pool, shard = %server.name, "connected again");
                }
                let since = hub.now();
                let end = serve(&hub, &plan, opened).await;
                patience.served(Duration::from_micros(hub.now().saturating_sub(since)));
                hub.with(|_, sockets| sockets.close_shard(plan.line));
                match end {
                    End::Failed(failure) => failure,
                    // Nothing was lost. The next request opens it again.
                    End::Closed => {
                        down = false;
                        if config.preconnect {
                            tokio::time::sleep(patience.next()).await;
                        }
                        continue;
                    }
                    // Its shard has left the pool, and is back already perhaps. Nothing was lost.
                    End::GivenUp if !hub.engine().is_down(plan.line) => {
                        down = false;
                        continue;
                    }
                    // The ticker has told everyone already.
                    End::GivenUp => {
                        tracing::warn!(%pool, shard = %server.name, address = %server.address, "timed out");
                        down = true;
                        plan.wait(&hub).await;
                        continue;
                    }
                }
            }
            Err(text) => Failure { cause: Cause::Connect, reason: text },
        };
        if !down {
            tracing::warn!(%pool, shard = %server.name, address = %server.address, reason = failure.reason, "lost");
        }
        down = true;
        let now = hub.now();
        hub.with(|engine, sockets| engine.fail(plan.line, failure, now, sockets));
        plan.knock();
        let first = patience.is_fresh();
        let wait = patience.next();
        let is_probed = probed(&hub, plan.line) && !failure.is_of_dialect();
        // Its shard may answer the prober and break every connection that is asked for more.
        if !(is_probed && first) {
            tokio::time::sleep(wait).await;
        }
        if is_probed {
            plan.wait(&hub).await;
        }
    }
}

/// Whether a connection's shard is probed.
fn probed(hub: &Hub, id: LineId) -> bool {
    let engine = hub.engine();
    engine.line(id).and_then(|line| engine.path(line.pool)).is_some_and(|path| path.health.probes())
}

/// Whether a connection may be opened, as the prober of its shard says; where there is none, it may try.
fn may_open(hub: &Hub, id: LineId) -> bool {
    let engine = hub.engine();
    let Some(line) = engine.line(id) else { return true };
    line.retired || engine.path(line.pool).is_none_or(|path| !path.health.probes() || path.health.is_well(line.shard))
}

/// Serves a connection that one session at a time has for itself: opened once, since whatever made it worth having is gone
/// with it.
pub async fn run_own(hub: Rc<Hub>, plan: Plan) {
    hub.engine().opening(plan.line);
    let failure = match dial::open(&hub, &plan).await {
        Ok(opened) => match serve(&hub, &plan, opened).await {
            End::Failed(failure) => Some(failure),
            // Nobody is left to be told.
            End::Closed | End::GivenUp => None,
        },
        Err(text) => Some(Failure { cause: Cause::Connect, reason: text }),
    };
    let now = hub.now();
    hub.with(|engine, sockets| {
        sockets.close_shard(plan.line);
        // One that was given up while it was being opened has nobody left, too.
        if let (Some(failure), true) = (failure, !engine.is_given_up(plan.line)) {
            engine.fail(plan.line, failure, now, sockets);
        }
        engine.ended(plan.line);
    });
    plan.knock();
}

/// Waits between attempts: doubling from 20 ms to 2 s, each between half and all of it, so that many sidecars that lost the
/// same shard do not come back as one.
#[derive(Debug)]
struct Patience {
    next: Duration,
    state: u64,
}

impl Patience {
    const FIRST: Duration = Duration::from_millis(20);
    const LAST: Duration = Duration::from_secs(2);

    fn new(seed: u64) -> Self {
        Self { next: Self::FIRST, state: seed }
    }

    /// Begins anew after a connection that was worth its wait. One that breaks soon, each time, is not asked for more and
    /// more: a shard that shakes hands and then fails would be called on, and written of in the log, fifty times a second.
    fn served(&mut self, time: Duration) {
        if time >= (self.next * 10).min(Self::LAST) {
            self.next = Self::FIRST;
        }
    }

    /// Whether nothing broke soon, so far.
    fn is_fresh(&self) -> bool {
        self.next == Self::FIRST
    }

    fn next(&mut self) -> Duration {
        self.state = self.state.wrapping_add(1);
        let share = (splitmix(self.state) % 1000) as u32;
        let wait = self.next / 2 + self.next / 2 * share / 1000;
        self.next = (self.next * 2).min(Self::LAST);
        wait
    }
}

/// How a connection ended.
enum End {
    /// With requests under way.
    Failed(Failure),
    /// In peace.
    Closed,
    /// By the ticker: a reply was overdue.
    GivenUp,
}

async fn serve(hub: &Hub, plan: &Plan, opened: Opened) -> End {
    let Opened { socket, at } = opened;
    let now = hub.now();
    let wanted = hub.with(|engine, sockets| {
        let wanted = !engine.is_given_up(plan.line);
        if wanted {
            sockets.open_shard(plan.line, socket);
            engine.connected(plan.line, now);
        }
        wanted
    });
    if !wanted {
        return End::GivenUp;
    }
    plan.knock();
    let mut replies = Replies { line: plan.line, buffer: vec![0; BUFFER], start: 0, end: 0 };
    let end = exchange(hub, plan, at, &mut replies).await;
    hub.engine().reply_buffer(replies.buffer.len(), BUFFER);
    end
}

/// Takes replies until the connection ends; when its name leads elsewhere, in between on another one.
async fn exchange(hub: &Hub, plan: &Plan, mut at: Option<SocketAddr>, replies: &mut Replies) -> End {
    if plan.own {
        let end = tokio::select! {
            biased;
            end = poll_fn(|cx| replies.poll(hub, cx)) => return end,
            () = dial::elsewhere(plan, at) => poll_fn(|cx| {
                // Whoever has it keeps it; the next one gets one to the new address.
                hub.with(|engine, sockets| engine.leave_if_free(plan.line, sockets));
                replies.poll(hub, cx)
            }),
        };
        return end.await;
    }
    loop {
        let next = tokio::select! {
            biased;
            end = poll_fn(|cx| replies.poll(hub, cx)) => return end,
            next = dial::successor(hub, plan, at) => next,
        };
        let ended = poll_fn(|cx| {
            if hub.with(|engine, _| engine.hold(plan.line)) {
                return Poll::Ready(None);
            }
            let polled = replies.poll(hub, cx);
            // What was read just now may have been the last reply that was owed.
            if polled.is_pending() && hub.with(|engine, _| engine.hold(plan.line)) {
                return Poll::Ready(None);
            }
            polled.map(Some)
        });
        if let Some(end) = ended.await {
            return end;
        }
        let now = hub.now();
        hub.with(|engine, sockets| {
            sockets.open_shard(plan.line, next.socket);
            engine.moved(plan.line, now);
        });
        hub.engine().reply_buffer(replies.buffer.len(), BUFFER);
        *replies = Replies { line: plan.line, buffer: vec![0; BUFFER], start: 0, end: 0 };
        at = next.at;
    }
}

/// Reads a shard's replies into the engine.
struct Replies {
    line: LineId,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Replies {
    fn poll(&mut self, hub: &Hub, cx: &mut Context<'_>) -> Poll<End> {
        if hub.with(|_, sockets| sockets.is_doomed(self.line, cx)) {
            return Poll::Ready(End::GivenUp);
        }
        for _ in 0..TURNS {
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            let read = hub.sockets().poll_read_shard(self.line, cx, room);
            let failure = match read {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => Failure { cause: Cause::Lost, reason: "closed by the server" },
                Poll::Ready(Ok(count)) => {
                    self.end += count;
                    match self.take(hub) {
                        Ok(()) => continue,
                        Err(failure) => failure,
                    }
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                Poll::Ready(Err(error)) => Failure { cause: Cause::Lost, reason: reason(&error) },
            };
            let now = hub.now();
            let quiet =
                failure.cause == Cause::Lost && hub.with(|engine, sockets| engine.closed(self.line, now, sockets));
            return Poll::Ready(if quiet { End::Closed } else { End::Failed(failure) });
        }
        let_others(cx);
        Poll::Pending
    }

    /// Hands all whole replies to the engine, and makes room for the rest of an incomplete one.
    fn take(&mut self, hub: &Hub) -> Result<(), Failure> {
        let bytes = self.buffer.get(self.start..self.end).unwrap_or_default();
        let now = hub.now();
        let received = hub.with(|engine, sockets| {
            let received = engine.receive(self.line, bytes, now, sockets);
            trap("connection", bytes);
            received
        });
        let (consumed, need) = match received {
            Ok(done) => done,
            Err(error) => {
                if let Some(error) = error {
                    tracing::warn!(%error, "a shard broke the protocol");
                }
                return Err(Failure { cause: Cause::Garbage, reason: "it sent what is no reply" });
            }
        };
        self.start += consumed;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > LARGEST_IDLE {
                hub.engine().reply_buffer(self.buffer.len(), BUFFER);
                self.buffer = vec![0; BUFFER];
            }
        } else if self.start + need > self.buffer.len() || self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            // Grows as bytes arrive and not ahead of them, whatever length was announced.
            let wanted = need.max(BUFFER).min((2 * self.end).max(LARGEST_IDLE));
            if wanted > self.buffer.len() {
                hub.engine().reply_buffer(self.buffer.len(), wanted);
                self.buffer.resize(wanted, 0);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::upstream::Servers;

    /// A pool's settings, as a config file that says nothing makes them.
    pub(crate) fn config() -> Config {
        Config {
            servers: Servers::Static(Vec::new()),
            topology: Default::default(),
            timeout: None,
            connect_timeout: crate::upstream::CONNECT_TIMEOUT,
            server_connections: 1,
            preconnect: false,
            auto_eject_hosts: false,
            server_retry_timeout: crate::upstream::SERVER_RETRY_TIMEOUT,
            server_failure_limit: 2,
            when_ejected: None,
            gutter_ttl: crate::upstream::GUTTER_TTL,
            warm_from: None,
            warm_for: crate::upstream::config::WARM_FOR,
            warm_rate: crate::upstream::config::WARM_RATE,
            probe_interval: None,
            probe_timeout: None,
            info_interval: None,
            tcpkeepalive: false,
            tcp_user_timeout: None,
            dns_refresh: Some(crate::upstream::DNS_REFRESH),
            reconnect_rate: Some(crate::upstream::RECONNECT_RATE),
            reconnect_burst: 8,
            tls: None,
            user: None,
            password: None,
            db: 0,
            databases: crate::upstream::DATABASES,
            resp3: true,
            dedicated_connections: crate::upstream::DEDICATED_CONNECTIONS,
            slow_commands: Vec::new(),
            max_outbox: crate::upstream::MAX_OUTBOX,
            replicas: Vec::new(),
            zones: Vec::new(),
            readonly: false,
        }
    }

    #[test]
    fn patience_grows_to_its_end_and_differs() {
        let (mut one, mut other) = (Patience::new(1), Patience::new(2));
        let waits: Vec<Duration> = (0..12).map(|_| one.next()).collect();
        assert!(waits[0] <= Patience::FIRST && waits[11] <= Patience::LAST && waits[11] >= Patience::LAST / 2);
        assert!((0..12).any(|i| other.next() != waits[i]));
        one.served(Patience::FIRST);
        assert!(one.next() >= Patience::LAST / 2, "a connection that broke at once changes nothing");
        one.served(Patience::LAST);
        assert!(one.next() <= Patience::FIRST);
    }
}
