//! Opening a connection to a shard: its name looked up, its addresses tried in turn, the handshake, and whether it is time
//! to go elsewhere.
//!
//! Promises: at most one look-up of a name at a time, shared by all connections of the worker, and nobody waits for one
//! longer than `connect_timeout`; each address gets its share of the time that is left, so that one that swallows everything
//! does not keep the others from being tried; no more connections a second than the shard's [`Gate`] lets through. Does not
//! promise that a look-up ends: the system's may take as long as it likes, on a thread of its own.

use super::connection::{Plan, Target};
use super::handshake::{self, Progress};
use super::{Config, keep};
use crate::bucket::Bucket;
use crate::chance::splitmix;
use crate::encrypted::Encrypted;
use crate::engine::port::Taken;
use crate::error::NO_TURN;
use crate::hub::{Clock, Hub, Socket, reason, refused};
use crate::tls::Refused;
use crate::units::Address;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{pending, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// What is left for a connection at least, however long it waited for its turn.
const LEAST: Duration = Duration::from_millis(1);
/// Look-ups of the system that a worker waits for at once, each on a thread.
pub const LOOK_UPS: usize = 64;

/// What is said where the resolver has no address, whatever its reason.
const UNKNOWN_HOST: &str = "its name cannot be resolved";
/// What is said where the resolver says nothing in time.
const SLOW_RESOLVER: &str = "its name was not resolved within connect_timeout";
const SLOW: &str = "no answer within connect_timeout";

/// The addresses of a host, to come. Their ports mean nothing.
pub type Answer = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>>>>;

/// Who knows the addresses of hosts.
pub trait Resolver {
    /// Looks a host up.
    fn look_up(&self, host: &str) -> Answer;
}

/// The system's resolver: `getaddrinfo(3)`, which tells no lifetime of what it answers.
#[derive(Debug, Default)]
pub struct System;

impl Resolver for System {
    fn look_up(&self, host: &str) -> Answer {
        let host = host.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) })
    }
}

/// The names a worker has looked up.
pub struct Names {
    resolver: Box<dyn Resolver>,
    clock: Clock,
    /// Gone with the last connection that goes by the name.
    known: RefCell<HashMap<String, Weak<Name>>>,
}

/// What is known of one name.
pub struct Name {
    host: String,
    names: Rc<Names>,
    /// What was answered last, if anything was; stays when a later look-up fails.
    addresses: RefCell<Vec<SocketAddr>>,
    /// When that was, in microseconds; `None` where it is not to be trusted without asking again.
    at: Cell<Option<u64>>,
    /// Addresses that could not be connected to when they were last tried.
    failed: RefCell<Vec<IpAddr>>,
    /// A look-up is under way.
    asking: Cell<bool>,
    answered: Notify,
    /// Counts the connections, so that each begins with another address.
    turn: Cell<usize>,
}

impl Names {
    /// Nothing known yet.
    #[must_use]
    pub fn new(resolver: Box<dyn Resolver>) -> Rc<Self> {
        Rc::new(Self { resolver, clock: Clock::start(), known: RefCell::default() })
    }

    /// What is known of the name in this address; none where there is nothing to look up.
    #[must_use]
    pub fn of(self: &Rc<Self>, address: &Address) -> Option<Rc<Name>> {
        let Address::Tcp { host, .. } = address else { return None };
        if host.parse::<IpAddr>().is_ok() {
            return None;
        }
        let mut known = self.known.borrow_mut();
        if let Some(name) = known.get(host).and_then(Weak::upgrade) {
            return Some(name);
        }
        known.retain(|_, name| name.strong_count() > 0);
        let name = Rc::new(Name {
            host: host.clone(),
            names: Rc::clone(self),
            addresses: RefCell::default(),
            at: Cell::new(None),
            failed: RefCell::default(),
            asking: Cell::new(false),
            answered: Notify::new(),
            turn: Cell::new(splitmix(self.clock.now()) as usize % 1024),
        });
        known.insert(host.clone(), Rc::downgrade(&name));
        Some(name)
    }
}

impl Name {
    /// Its addresses, as they were answered no longer than `age` microseconds ago; asked for anew if need be. Where the
    /// resolver has none now, those it had last.
    async fn look_up(self: &Rc<Self>, age: u64) -> Vec<SocketAddr> {
        let now = self.names.clock.now();
        if self.at.get().is_none_or(|at| now.saturating_sub(at) >= age) {
            let answered = self.answered.notified();
            if !self.asking.replace(true) {
                let name = Rc::clone(self);
                tokio::task::spawn_local(async move {
                    let answer = name.names.resolver.look_up(&name.host).await;
                    name.take(answer);
                });
            }
            answered.await;
        }
        self.addresses.borrow().clone()
    }

    fn take(&self, answer: io::Result<Vec<SocketAddr>>) {
        self.asking.set(false);
        match answer {
            Ok(addresses) if !addresses.is_empty() => {
                self.at.set(Some(self.names.clock.now()));
                self.failed.borrow_mut().retain(|ip| addresses.iter().any(|address| address.ip() == *ip));
                *self.addresses.borrow_mut() = addresses;
            }
            answer => {
                self.at.set(None);
                let error = answer.err().map(|error| error.to_string()).unwrap_or_default();
                tracing::debug!(host = self.host, error, "not resolved");
            }
        }
        self.answered.notify_waiters();
    }

    /// The addresses in the order in which to try them: from a different one each time, those that failed last at the end.
    fn in_turn(&self, mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let first = turn % addresses.len().max(1);
        addresses.rotate_left(first);
        let failed = self.failed.borrow();
        addresses.sort_by_key(|address| failed.contains(&address.ip()));
        addresses
    }

    fn learn(&self, ip: IpAddr, is_well: bool) {
        let mut failed = self.failed.borrow_mut();
        failed.retain(|other| *other != ip);
        if !is_well {
            failed.push(ip);
        }
    }
}

/// Bounds how fast connections to one shard are opened: a bucket that all of a worker's connections to it share.
pub struct Gate {
    bucket: Option<RefCell<Bucket>>,
    /// Connections a second, and at once.
    rate: (Option<u32>, u32),
    /// Microseconds between two that wait.
    step: u64,
    clock: Clock,
    chance: Cell<u64>,
}

impl Gate {
    /// As the pool says. `seed` is where chance begins.
    #[must_use]
    pub fn new(config: &Config, seed: u64) -> Rc<Self> {
        let rate = config.reconnect_rate.map(u64::from);
        let bucket = rate.map(|rate| RefCell::new(Bucket::new(rate, u64::from(config.reconnect_burst))));
        let step = rate.map_or(0, |rate| 1_000_000 / rate.max(1));
        let as_told = (config.reconnect_rate, config.reconnect_burst);
        Rc::new(Self { bucket, rate: as_told, step, clock: Clock::start(), chance: Cell::new(seed) })
    }

    /// Whether it lets through what these settings say.
    #[must_use]
    pub fn is_as(&self, config: &Config) -> bool {
        self.rate == (config.reconnect_rate, config.reconnect_burst)
    }

    /// How long to wait for one's turn; `None` where that is longer than `longest`, and the turn is not taken. Those who wait
    /// wait up to a step longer, by chance: many sidecars that lost the same shard do not come back in step.
    pub(super) fn turn(&self, longest: Option<Duration>) -> Option<Duration> {
        let Some(bucket) = &self.bucket else { return Some(Duration::ZERO) };
        let longest = longest.map_or(u64::MAX, |longest| longest.as_micros() as u64);
        let wait = bucket.borrow_mut().reserve(self.clock.now(), longest)?;
        if wait == 0 {
            return Some(Duration::ZERO);
        }
        self.chance.set(self.chance.get().wrapping_add(1));
        let more = splitmix(self.chance.get()) % self.step.max(1);
        Some(Duration::from_micros((wait + more).min(longest)))
    }
}

/// An open connection whose shard has answered the handshake.
pub(super) struct Opened {
    pub(super) socket: Socket,
    /// Where it leads, if that is no unix socket.
    pub(super) at: Option<SocketAddr>,
}

/// Opens a connection and shakes hands, within `connect_timeout` from when it is its turn. One that sessions have for
/// themselves waits for its turn within `connect_timeout`, too; all others as long as it takes.
pub(super) async fn open(hub: &Hub, plan: &Plan) -> Result<Opened, &'static str> {
    let waits = |patience| plan.own.then_some(patience);
    let target = plan.target();
    let turn = target.gate.turn(waits(target.config.connect_timeout)).ok_or(NO_TURN)?;
    if !turn.is_zero() {
        hub.engine().delayed(plan.line);
        tokio::time::sleep(turn).await;
    }
    // It may have been replaced meanwhile.
    let target = plan.target();
    let patience = target.config.connect_timeout.saturating_sub(waits(turn).unwrap_or_default());
    dial(hub, plan, &target, patience.max(LEAST)).await
}

pub(super) async fn dial(hub: &Hub, plan: &Plan, target: &Target, patience: Duration) -> Result<Opened, &'static str> {
    let (host, port) = match &target.server.address {
        Address::Unix { path, .. } => {
            let attempt = async {
                let socket = Socket::connect_unix(path).await.map_err(|e| reason(&e))?;
                shake_hands(plan, target, socket).await.map_err(|refused| refused.text)
            };
            let socket = timeout(patience, attempt).await.unwrap_or(Err(SLOW))?;
            return Ok(Opened { socket, at: None });
        }
        Address::Tcp { host, port } => (host, *port),
    };
    let clock = Clock::start();
    let left = || patience.saturating_sub(Duration::from_micros(clock.now()));
    let addresses = match &target.name {
        Some(name) => {
            let age = target.config.dns_refresh.map_or(0, |refresh| refresh.as_micros() as u64);
            let last = name.addresses.borrow().clone();
            // What was known last is tried while the resolver hangs.
            let wait = if last.is_empty() { patience } else { patience / 2 };
            let found = timeout(wait, name.look_up(age)).await;
            let found = if last.is_empty() { found.map_err(|_| SLOW_RESOLVER)? } else { found.unwrap_or(last) };
            name.in_turn(found)
        }
        None => host.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)).into_iter().collect(),
    };
    let mut last = UNKNOWN_HOST;
    let count = addresses.len() as u32;
    for (number, mut address) in addresses.into_iter().enumerate() {
        address.set_port(port);
        let share = left() / (count - number as u32);
        let socket = timeout(share, attempt(hub, plan, target, address)).await.unwrap_or(Err(SLOW));
        if let Some(name) = &target.name {
            name.learn(address.ip(), socket.is_ok());
        }
        match socket {
            Ok(socket) => return Ok(Opened { socket, at: Some(address) }),
            Err(text) => last = text,
        }
    }
    if let Some(name) = &target.name {
        // It may have moved.
        name.at.set(None);
    }
    Err(last)
}

async fn attempt(hub: &Hub, plan: &Plan, target: &Target, address: SocketAddr) -> Result<Socket, &'static str> {
    let socket = Socket::connect_tcp(address).await.map_err(|e| reason(&e))?;
    if let Socket::Tcp(socket) = &socket {
        keep::watch_server(socket, &target.config, plan.keep).map_err(|e| reason(&e))?;
    }
    let socket = encrypt(hub, target, socket).await?;
    let shaken = shake_hands(plan, target, socket).await;
    if let (Some(_), Err(refused)) = (&target.config.tls, &shaken)
        && let Some(refused) = refused.tls
    {
        // In TLS 1.3 a server says only now what it thinks of our certificate.
        failed(hub, target, refused);
    }
    shaken.map_err(|refused| refused.text)
}

/// Begins TLS, where it is spoken.
async fn encrypt(hub: &Hub, target: &Target, socket: Socket) -> Result<Socket, &'static str> {
    let (socket, tls, host) = match (socket, &target.config.tls, &target.server.address) {
        (Socket::Tcp(socket), Some(tls), Address::Tcp { host, .. }) => (socket, tls, host),
        (socket, ..) => return Ok(socket),
    };
    let mut shaking = Shaking { hub, target, over: false };
    let shaken = async {
        let mut socket = Encrypted::to_server(socket, tls, host)?;
        socket.shake_hands().await?;
        Ok(socket)
    };
    let shaken: io::Result<Encrypted> = shaken.await;
    shaking.over = true;
    match shaken {
        Ok(socket) => {
            if let Some(counts) = hub.engine().pool_counts(target.number) {
                counts.server_tls_handshakes += 1;
            }
            Ok(Socket::Tls(Box::new(socket)))
        }
        Err(error) => {
            failed(hub, target, refused(&error).unwrap_or(Refused::CLOSED));
            Err(reason(&error))
        }
    }
}

fn failed(hub: &Hub, target: &Target, refused: Refused) {
    if let Some(counts) = hub.engine().pool_counts(target.number) {
        counts.server_tls_failures[refused.why] += 1;
    }
}

/// A handshake that is given up is one that took too long.
struct Shaking<'a> {
    hub: &'a Hub,
    target: &'a Target,
    over: bool,
}

impl Drop for Shaking<'_> {
    fn drop(&mut self) {
        if !self.over {
            failed(self.hub, self.target, Refused::SLOW);
        }
    }
}

/// Why what is said first did not go well.
struct Unshaken {
    text: &'static str,
    tls: Option<Refused>,
}

impl From<&'static str> for Unshaken {
    fn from(text: &'static str) -> Self {
        Self { text, tls: None }
    }
}

async fn shake_hands(plan: &Plan, target: &Target, mut socket: Socket) -> Result<Socket, Unshaken> {
    let (requests, count) = handshake::requests(&target.config, plan.dialect, target.extra());
    // A new socket takes these few bytes at once.
    if socket.offer(&requests) != Taken::Some(requests.len()) {
        return Err("the handshake could not be sent".into());
    }
    let mut replies = vec![0; handshake::LONGEST];
    let mut have = 0;
    loop {
        let read = poll_fn(|cx| socket.poll_read(cx, replies.get_mut(have..).unwrap_or_default())).await;
        match read {
            Ok(0) => return Err("closed during the handshake".into()),
            Ok(n) => have += n,
            Err(error) => return Err(Unshaken { text: reason(&error), tls: refused(&error) }),
        }
        match handshake::read(replies.get(..have).unwrap_or_default(), count) {
            Progress::More => {}
            Progress::Done => return Ok(socket),
            Progress::Refused(text) => return Err(text.into()),
        }
    }
}

/// Returns when the name of the shard no longer leads to the address in use; never where there is no name or nobody is to
/// ask. Where the resolver fails, nothing has moved.
pub(super) async fn elsewhere(plan: &Plan, at: Option<SocketAddr>) {
    let Some(at) = at else { return pending().await };
    let mut state = plan.seed;
    loop {
        let target = plan.target();
        let (Some(name), Some(refresh)) = (&target.name, target.config.dns_refresh) else { return pending().await };
        // Not all sidecars at the same time.
        state = splitmix(state);
        tokio::time::sleep(refresh + refresh * (state % 256) as u32 / 1024).await;
        let addresses = name.look_up(refresh.as_micros() as u64).await;
        if name.at.get().is_some() && !addresses.iter().any(|address| address.ip() == at.ip()) {
            tracing::info!(pool = %target.pool, shard = %target.server.name, from = %at.ip(), "its name leads elsewhere");
            return;
        }
    }
}

/// Returns an open connection to where the shard's name leads now, when that is no longer the address in use. Where it cannot
/// be opened the old one goes on, and is asked about again after `dns_refresh`.
pub(super) async fn successor(hub: &Hub, plan: &Plan, at: Option<SocketAddr>) -> Opened {
    loop {
        elsewhere(plan, at).await;
        match open(hub, plan).await {
            Ok(opened) => return opened,
            Err(reason) => {
                let target = plan.target();
                tracing::warn!(pool = %target.pool, shard = %target.server.name, reason, "cannot move to where its name leads");
            }
        }
    }
}
