//! Asks a shard whether it is well, on a connection that is for nothing else.
//!
//! One for each shard and worker. While replies come nobody is asked; while the shard is down nobody else knocks: the
//! connections that wait for it stand at its [`Lobby`] and are opened when it answers. When to ask is the health stage's
//! business ([`crate::stages::Health::probe_at`]), and so is what follows from the answer.
//!
//! Promises: a shard that nobody has used is not asked. A connection that was closed while it was at rest tells nothing, a
//! new one does. Does not promise that a shard which answers PING carries out anything else.

use super::connection::Plan;
use super::dial;
use super::handshake::{self, Progress};
use crate::contain::contained;
use crate::engine::port::Taken;
use crate::error::{Cause, Failure};
use crate::hub::{Hub, Socket};
use crate::resp::write;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// What is said of a shard that takes a PING and does not answer.
const NO_ANSWER: &str = "no answer within probe_timeout";

/// How often whoever waits looks for itself: the configuration may have changed meanwhile.
const LOOK: Duration = Duration::from_secs(2);

/// Where a shard's connections wait for it to be well.
#[derive(Debug, Default)]
pub struct Lobby {
    /// Something about the shard has changed: its prober looks when it is due.
    knock: Notify,
    /// The shard is well.
    opened: Notify,
}

impl Lobby {
    /// The lobby of a shard, with its prober, which lives as long as the worker. `plan` is what its connection is to be; its
    /// line is not used.
    #[must_use]
    pub fn new(hub: &Rc<Hub>, pool: u16, shard: u16, plan: Plan) -> Rc<Self> {
        let lobby = Rc::new(Self::default());
        let prober = Prober { hub: Rc::clone(hub), lobby: Rc::clone(&lobby), pool, shard, plan, socket: None };
        tokio::task::spawn_local(prober.keep());
        lobby
    }

    /// Tells the prober that a connection was opened, or has failed, or that it is to look at its settings.
    pub fn knock(&self) {
        self.knock.notify_one();
    }

    /// Waits until it may be gone through; that may be so already.
    pub(super) async fn wait(&self, is_open: impl Fn() -> bool) {
        loop {
            // Made before it is looked, so that nothing is missed in between.
            let opened = self.opened.notified();
            if is_open() {
                return;
            }
            // Time out or not: it is looked again.
            let _ = timeout(LOOK, opened).await;
        }
    }
}

struct Prober {
    hub: Rc<Hub>,
    lobby: Rc<Lobby>,
    pool: u16,
    shard: u16,
    plan: Plan,
    socket: Option<Socket>,
}

impl Prober {
    /// Goes on after a panic: the shard's connections wait for it.
    async fn keep(mut self) {
        while let Err(message) = contained(self.run()).await {
            self.hub.panicked("the prober of a shard", &message);
            self.socket = None;
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn run(&mut self) {
        loop {
            let due = self.hub.engine().probe_at(self.pool, self.shard);
            let wait = due.map(|due| Duration::from_micros(due.saturating_sub(self.hub.now())));
            match wait {
                None => {
                    self.socket = None;
                    self.lobby.knock.notified().await;
                }
                Some(Duration::ZERO) => self.probe().await,
                Some(wait) => {
                    // Time out or not: it is looked again.
                    let _ = timeout(wait, self.lobby.knock.notified()).await;
                }
            }
        }
    }

    async fn probe(&mut self) {
        let now = self.hub.now();
        let skips = self.hub.engine().path_mut(self.pool).is_none_or(|path| path.health.skips_probe(self.shard, now));
        if skips {
            return;
        }
        let missed = self.ask().await.err().map(|reason| Failure { cause: Cause::ShardDown, reason });
        if missed.is_some() {
            self.socket = None;
        }
        let now = self.hub.now();
        self.hub.with(|engine, sockets| engine.probed(self.pool, self.shard, missed, now, sockets));
        if missed.is_none() {
            self.lobby.opened.notify_waiters();
        }
    }

    /// Asks on the connection there is, or on a new one, whose handshake ends with a PING.
    async fn ask(&mut self) -> Result<(), &'static str> {
        let target = self.plan.target();
        if let Some(mut socket) = self.socket.take() {
            match timeout(target.config.probe_within(), ping(&mut socket)).await {
                Err(_) => return Err(NO_ANSWER),
                Ok(Some(Progress::Refused(reason))) => return Err(reason),
                Ok(Some(_)) => {
                    self.socket = Some(socket);
                    return Ok(());
                }
                // It was closed meanwhile.
                Ok(None) => {}
            }
        }
        // Waiting for a turn tells nothing of the shard.
        tokio::time::sleep(target.gate.turn(None).unwrap_or_default()).await;
        let opening = dial::dial(&self.hub, &self.plan, &target, target.config.connect_timeout);
        let opened = timeout(target.config.probe_within(), opening).await.unwrap_or(Err(NO_ANSWER))?;
        self.socket = Some(opened.socket);
        Ok(())
    }
}

/// Whether the shard says that it serves; nothing when the connection has ended.
async fn ping(socket: &mut Socket) -> Option<Progress> {
    let mut request = Vec::new();
    write::request(&mut request, &[b"PING"]);
    if socket.offer(&request) != Taken::Some(request.len()) {
        return None;
    }
    let mut reply = vec![0; handshake::LONGEST];
    let mut have = 0;
    loop {
        let read = poll_fn(|cx| socket.poll_read(cx, reply.get_mut(have..).unwrap_or_default())).await;
        match read {
            Ok(count) if count > 0 => have = have.saturating_add(count),
            _ => return None,
        }
        match handshake::read(reply.get(..have).unwrap_or_default(), 1) {
            Progress::More => {}
            told => return Some(told),
        }
    }
}
