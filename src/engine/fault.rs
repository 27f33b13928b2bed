//! Faults that are injected on purpose: errors, delays, connections that are closed.
//!
//! Promises: without a rule in a pool nothing is looked at. A session's replies keep their order, and what is held back holds up
//! nobody but its session: a request that is delayed keeps its session from being read, as one that waits for other reasons
//! does; a reply that is delayed waits beside its session's slot. What gets an error, or whose connection is closed, was not sent.
//!
//! Never met: what a session says of itself (AUTH, HELLO ...), what begins and ends transactions, and subscriptions.
//!
//! Bounded: one delayed request a session; [`MOST_HELD`] replies and [`MOST_BYTES`] of them a worker. Beyond, replies are not delayed, and that is
//! counted.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits")]

use super::line::Ticket;
use super::port::Port;
use super::special::mode;
use super::watched::Why;
use super::{Engine, SessionId};
use crate::command::{self, Fault as Wrong, Need, Spec, Treatment};
use crate::error::Cause;
use crate::metrics::Injected;
use crate::resp::{Request, write};
use crate::stages::Micros;
use crate::stages::fault::{Effect, Faults, Rule};

/// Replies held back at once, and their bytes.
const MOST_HELD: usize = 65_536;
const MOST_BYTES: usize = 16 << 20;
/// Never met by a rule.
const EXEMPT: [&str; 9] = ["auth", "hello", "quit", "reset", "client", "multi", "exec", "discard", "select"];

/// What a pool's rules are on this worker.
#[derive(Default)]
pub(super) struct Here {
    pub(super) faults: Faults,
    /// The number of the last change.
    change: u64,
    /// Rules that are over and that the log has not been told of.
    over: Vec<Rule>,
}

/// What is to become of a session's next request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Drawn {
    effect: Effect,
    /// When it begins.
    due: Micros,
}

/// A reply that is held back.
struct Held {
    pool: u16,
    ticket: Ticket,
    reply: Vec<u8>,
    due: Micros,
}

/// What is held back on a worker.
#[derive(Default)]
pub(super) struct Delayed {
    requests: Vec<(Micros, SessionId, u32)>,
    replies: Vec<Held>,
    bytes: usize,
}

impl Delayed {
    /// How much that is.
    pub(super) fn len(&self) -> usize {
        self.requests.len() + self.replies.len()
    }

    /// Takes a reply, if there is room.
    pub(super) fn hold(&mut self, pool: u16, ticket: Ticket, reply: &[u8], due: Micros) -> bool {
        let fits = self.replies.len() < MOST_HELD && self.bytes.saturating_add(reply.len()) <= MOST_BYTES;
        if fits {
            self.bytes += reply.len();
            self.replies.push(Held { pool, ticket, reply: reply.to_vec(), due });
        }
        fits
    }

    /// Whose replies are held back.
    pub(super) fn tickets(&self) -> impl Iterator<Item = Ticket> {
        self.replies.iter().map(|held| held.ticket)
    }
}

impl Engine {
    /// Gives a pool other rules, each with how long it lasts.
    ///
    /// `change` counts changes of the rules: one that is older than the last does nothing.
    pub fn set_faults(&mut self, number: u16, change: u64, rules: Vec<(Rule, Micros)>, now: Micros) {
        self.now = now;
        let Some(pool) = self.pools.get_mut(usize::from(number)).filter(|pool| pool.faults.change < change) else {
            return;
        };
        pool.faults.change = change;
        pool.faults.faults.set(rules.into_iter().map(|(rule, left)| (rule, now.saturating_add(left))).collect());
        self.mark_faulty(number);
        if self.pools.get(usize::from(number)).is_some_and(|pool| pool.faults.faults.is_empty()) {
            self.let_all_go(number);
        }
    }

    /// What is held back in a pool is due: somebody has taken its rules away.
    fn let_all_go(&mut self, number: u16) {
        let now = self.now;
        self.delayed.replies.iter_mut().filter(|held| held.pool == number).for_each(|held| held.due = now);
        for (due, id, generation) in &mut self.delayed.requests {
            let session = self.sessions.get_mut(*id as usize);
            let Some(session) = session.filter(|s| s.generation == *generation && s.pool == number) else { continue };
            *due = now;
            session.special().fault = None;
        }
    }

    /// Rules of a pool that have ended by themselves since the last time; told by one worker only.
    pub fn take_ended_faults(&mut self, number: u16) -> Vec<Rule> {
        self.pools.get_mut(usize::from(number)).map(|pool| std::mem::take(&mut pool.faults.over)).unwrap_or_default()
    }

    fn mark_faulty(&mut self, number: u16) {
        if let Some(pool) = self.pools.get_mut(usize::from(number)) {
            pool.counts.fault_rules.0 = pool.faults.faults.len() as u64;
        }
        let sessions = self.sessions.iter().filter(|(_, session)| session.pool == number);
        for id in sessions.map(|(id, _)| id as SessionId).collect::<Vec<_>>() {
            self.mark_aside(id);
        }
    }

    /// Draws what is to become of a session's next request. Returns whether it may begin; if not, the session is not read until it
    /// may, and it comes again.
    #[cold]
    pub(super) fn is_free_of_faults(
        &mut self,
        id: SessionId,
        named: Result<&'static Spec, &Wrong>,
        request: &Request<'_>,
    ) -> bool {
        let now = self.now;
        let (Ok(spec), Some(session)) = (named, self.sessions.get_mut(id as usize)) else { return true };
        let Some(pool) = self.pools.get_mut(usize::from(session.pool)) else { return true };
        if let Some(drawn) = session.special.as_ref().and_then(|special| special.fault.as_ref()) {
            if drawn.due <= now {
                return true;
            }
            // Whoever has woken it did so for another reason.
            session.paused = true;
            session.mode |= mode::WAITING;
            return false;
        }
        // A command, of whichever subcommand.
        let name = spec.name.split('|').next().unwrap_or_default();
        let is_exempt = EXEMPT.contains(&name) || matches!(spec.treatment, Treatment::Own(Need::Subscription));
        if pool.faults.faults.is_empty() || !session.authenticated || is_exempt {
            return true;
        }
        let mut keys: Vec<&[u8]> = Vec::new();
        if pool.faults.faults.ask_for_keys() {
            // One whose keys cannot be told is refused for that.
            let _ = command::each_key(spec, request, &mut |_, key| keys.push(key));
        }
        let Some(effect) = pool.faults.faults.choose(name, &keys, pool.config.seed, now) else { return true };
        let wait = if let Effect::DelayRequest(span) = effect { span } else { 0 };
        if wait > 0 {
            pool.counts.faults[Injected::Delay] += 1;
            self.delayed.requests.push((now + wait, id, session.generation));
            session.paused = true;
            session.mode |= mode::WAITING;
        }
        session.special().fault = Some(Box::new(Drawn { effect, due: now + wait }));
        wait == 0
    }

    /// What was drawn for a session's request, which begins now. If that is refused for another reason it meets no other request.
    #[cold]
    pub(super) fn take_drawn(&mut self, id: SessionId) -> Option<Box<Drawn>> {
        self.sessions.get_mut(id as usize)?.special.as_mut()?.fault.take()
    }

    /// Does what was drawn for a session's request. Returns whether it was dealt with.
    #[cold]
    pub(super) fn inject(&mut self, id: SessionId, drawn: Drawn, port: &mut impl Port) -> bool {
        let Some(session) = self.sessions.get_mut(id as usize) else { return true };
        let Some(pool) = self.pools.get_mut(usize::from(session.pool)) else { return false };
        match drawn.effect {
            Effect::DelayRequest(_) => false,
            Effect::DelayReply(span) => {
                let slot = session.next_slot();
                self.watched.watch(session, id, slot, Why::Delay(span));
                false
            }
            Effect::Error(text) => {
                pool.counts.faults[Injected::Error] += 1;
                self.answer_with(id, Some(Cause::Injected), |out| write::error(out, text.as_bytes()));
                // As what is refused otherwise.
                self.spoil(id, port);
                true
            }
            Effect::Drop => {
                pool.counts.faults[Injected::Drop] += 1;
                // It has no slot, which alone would be answered or be forgotten with its session.
                pool.prefixes.forget(id, std::iter::once(session.next_slot()));
                self.end_session(id);
                true
            }
        }
    }

    /// Holds a reply back, or gives it at once where there is no room. What its session is told of names is looked for first: that
    /// of a transaction's commands has to be known by its EXEC's reply, which is held back by itself.
    #[cold]
    pub(super) fn hold_back(
        &mut self,
        number: u16,
        ticket: Ticket,
        reply: &[u8],
        span: Micros,
        port: Option<&mut dyn Port>,
    ) {
        let Some(session) = self.sessions.get(ticket.session as usize) else { return };
        let (killed, marked) = (session.killed, session.is_marked());
        let view = if marked { self.view_of(ticket.session, ticket.slot, reply) } else { None };
        let told = view.as_deref().unwrap_or(reply);
        let held = !killed && self.delayed.hold(number, ticket, told, self.now.saturating_add(span));
        if let Some(pool) = self.pools.get_mut(usize::from(number)) {
            pool.counts.faults[if held { Injected::Delay } else { Injected::Undelayed }] += 1;
            pool.counts.faults_delayed += u64::from(held);
        }
        if !held {
            self.complete_as::<true>(number, ticket, told, port);
        }
        view.into_iter().for_each(|view| self.spare.put(view));
    }

    /// Upkeep: what was held back for long enough, and rules that are over.
    pub(super) fn look_after_faults(&mut self, port: &mut impl Port) {
        let now = self.now;
        for number in 0..self.pools.len() as u16 {
            let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
            let over = pool.faults.faults.end(now);
            if !over.is_empty() {
                if pool.config.leases.worker() == 0 {
                    pool.faults.over.extend(over);
                }
                self.mark_faulty(number);
            }
        }
        if self.delayed.len() == 0 {
            return;
        }
        let mut due = Vec::new();
        self.delayed.requests.retain(|&(at, id, generation)| {
            if at <= now {
                due.push((id, generation));
            }
            at > now
        });
        for (id, generation) in due {
            let session = self.sessions.get_mut(id as usize).filter(|session| session.generation == generation);
            let Some(session) = session else { continue };
            if !session.parked {
                session.paused = false;
            }
            session.mode &= !mode::WAITING;
            let trunk = self.trunk_of(id);
            if let Some(watch) = self.watches.get_mut(trunk as usize) {
                // It was not idle until now.
                watch.seen(now);
            }
            self.wake(id, port);
        }
        let (due, rest) = std::mem::take(&mut self.delayed.replies).into_iter().partition(|held| held.due <= now);
        self.delayed.replies = rest;
        let due: Vec<Held> = due;
        for Held { pool, ticket, reply, .. } in due {
            self.delayed.bytes = self.delayed.bytes.saturating_sub(reply.len());
            if let Some(pool) = self.pools.get_mut(usize::from(pool)) {
                pool.counts.faults_delayed -= 1;
            }
            self.complete_as::<true>(pool, ticket, &reply, Some(port));
        }
    }
}
