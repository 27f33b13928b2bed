//! How much may be asked for: limits on requests and their bytes, of a pool, of a user, of keys that begin alike.
//!
//! Promises: what is over a limit is refused at once, as a whole, and takes nothing from any other limit; a request that is
//! larger than a limit lets through at once is carried out when its bucket is full. Off is free: only sessions that a limit
//! may concern come here.
//!
//! How long a reply is is not known when it is decided. So `reply_bytes` are a debt: once more of them were given than flow in, requests
//! are refused until it is paid. What is published to subscribers is not counted.
//!
//! Each worker has its own buckets, which give its even share: nothing that a request touches is shared between threads.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits")]

use super::plan::keys_of;
use super::special::mode;
use super::window::Session;
use super::{Engine, SessionId};
use crate::acl::{DEFAULT, User};
use crate::bucket::Bucket;
use crate::command::{self, Spec};
use crate::error::{self, Cause};
use crate::metrics::LimitCounts;
use crate::resp::Request;
use crate::stages::Micros;
use std::time::Duration;

/// `burst` where nothing is said.
pub const BURST: Duration = Duration::from_secs(1);

/// Never refused: how a session says who it is, ends or resets, and what begins and ends a transaction, since half of one
/// would be worse than too many. What is within a transaction counts.
const EXEMPT: [&str; 7] = ["auth", "hello", "quit", "reset", "multi", "exec", "discard"];

/// One limit, as a pool is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Its name, in errors and metrics; no two of a pool have the same.
    pub name: String,
    /// Requests a second, or keys a second where it is about keys; at least 1.
    pub requests: Option<u64>,
    /// Bytes of requests a second, at least 1.
    pub bytes: Option<u64>,
    /// Bytes of replies a second, at least 1; not where it is about keys.
    pub reply_bytes: Option<u64>,
    /// How long it may have been quiet for what may come at once.
    pub burst: Duration,
    /// What it applies to.
    pub on: Scope,
}

/// What a limit applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All requests of the pool.
    Pool,
    /// Those of the sessions of one user.
    User(String),
    /// Those with keys that begin so, unless a longer beginning has a limit, too.
    Prefix(Vec<u8>),
}

struct Held {
    limit: Limit,
    requests: Option<Bucket>,
    bytes: Option<Bucket>,
    replies: Option<Bucket>,
    /// How often the request that is looked at counts.
    wanted: u64,
    counts: LimitCounts,
}

/// All limits of a pool, with what this worker has left of them.
#[derive(Default)]
pub(super) struct Limits {
    held: Vec<Held>,
    /// Those on keys, the longest beginning first.
    prefixes: Vec<usize>,
    /// Among how many workers they are divided.
    share: u64,
}

/// The name of a session's user.
fn user_of(session: &Session) -> &str {
    let user = session.special.as_ref().and_then(|special| special.user.as_ref());
    user.map_or(DEFAULT, |user| user.name())
}

fn bucket(rate: Option<u64>, burst: Duration) -> Option<Bucket> {
    let rate = rate?;
    let burst = u128::from(rate).saturating_mul(burst.as_millis()) / 1000;
    Some(Bucket::new(rate, u64::try_from(burst).unwrap_or(u64::MAX)))
}

impl Limits {
    /// Limits that are divided among `share` workers; those that `before` had, too, go on from where they are.
    pub(super) fn new(limits: &[Limit], share: u64, mut before: Self) -> Self {
        let share = share.max(1);
        let held: Vec<Held> = limits
            .iter()
            .map(|limit| match before.held.iter().position(|held| held.limit == *limit) {
                Some(at) if before.share == share => before.held.swap_remove(at),
                _ => Held {
                    requests: bucket(limit.requests, limit.burst),
                    bytes: bucket(limit.bytes, limit.burst),
                    replies: bucket(limit.reply_bytes, limit.burst),
                    wanted: 0,
                    counts: LimitCounts::default(),
                    limit: limit.clone(),
                },
            })
            .collect();
        let length = |at: &usize| held.get(*at).and_then(|held| held.prefix().map(<[u8]>::len));
        let mut prefixes: Vec<usize> = (0..held.len()).filter(|at| length(at).is_some()).collect();
        prefixes.sort_by_key(|at| std::cmp::Reverse(length(at)));
        Self { held, prefixes, share }
    }

    /// Whether a limit may concern a session of this user.
    pub(super) fn concern(&self, user: &str) -> bool {
        self.held.iter().any(|held| !matches!(&held.limit.on, Scope::User(other) if other != user))
    }

    /// Takes what a request needs of all the limits that it counts for, or of none.
    ///
    /// # Errors
    /// The number of the first limit that is reached.
    fn take<'a>(
        &mut self,
        user: &str,
        keys: impl Iterator<Item = &'a [u8]>,
        bytes: u64,
        now: Micros,
    ) -> Result<(), usize> {
        for held in &mut self.held {
            held.wanted = match &held.limit.on {
                Scope::Pool => 1,
                Scope::User(name) => u64::from(name == user),
                Scope::Prefix(_) => 0,
            };
        }
        for key in keys {
            let begins =
                |at: &&usize| self.held.get(**at).and_then(Held::prefix).is_some_and(|prefix| key.starts_with(prefix));
            if let Some(held) = self.prefixes.iter().find(begins).and_then(|&at| self.held.get_mut(at)) {
                held.wanted += 1;
            }
        }
        let share = self.share;
        let reached = self.held.iter_mut().position(|held| held.wanted > 0 && !held.has_room(bytes, share, now));
        if let Some(at) = reached {
            return Err(at);
        }
        for held in self.held.iter_mut().filter(|held| held.wanted > 0) {
            let wanted = held.wanted;
            held.requests.iter_mut().for_each(|bucket| bucket.draw(wanted.saturating_mul(share), now));
            held.bytes.iter_mut().for_each(|bucket| bucket.draw(bytes.saturating_mul(share), now));
            held.counts.requests += wanted;
            held.counts.bytes += bytes;
        }
        Ok(())
    }

    /// Takes a reply that a session was given from the limits that it counts for.
    pub(super) fn replied(&mut self, session: &Session, bytes: u64, now: Micros) {
        let share = self.share;
        for held in self.held.iter_mut().filter(|held| held.prefix().is_none()) {
            let counts = match &held.limit.on {
                Scope::User(name) => name.as_str() == user_of(session),
                Scope::Pool | Scope::Prefix(_) => true,
            };
            if counts {
                held.counts.reply_bytes += bytes;
                held.replies.iter_mut().for_each(|bucket| bucket.draw(bytes.saturating_mul(share), now));
            }
        }
    }
}

impl Held {
    fn prefix(&self) -> Option<&[u8]> {
        match &self.limit.on {
            Scope::Prefix(prefix) => Some(prefix),
            Scope::Pool | Scope::User(_) => None,
        }
    }

    /// What costs one costs as many as there are workers: each has an even share of what flows in.
    fn has_room(&mut self, bytes: u64, share: u64, now: Micros) -> bool {
        let wanted = self.wanted.saturating_mul(share);
        self.requests.as_mut().is_none_or(|bucket| bucket.wait(wanted, now) == 0)
            && self.bytes.as_mut().is_none_or(|bucket| bucket.wait(bytes.saturating_mul(share), now) == 0)
            && self.replies.as_mut().is_none_or(|bucket| bucket.wait(1, now) == 0)
    }
}

impl Engine {
    /// The pool's configuration is another one. Limits that stay the same go on from where they are.
    pub(super) fn renew_limits(&mut self, number: u16) {
        let share = self.id_step;
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        pool.limits = Limits::new(&pool.config.rate_limits, share, std::mem::take(&mut pool.limits));
        let ids: Vec<SessionId> =
            self.sessions.iter().filter(|(_, s)| s.pool == number).map(|(id, _)| id as SessionId).collect();
        ids.into_iter().for_each(|id| self.limit_session(id));
    }

    /// Marks a session whose requests are to be counted, or no longer are.
    pub(super) fn limit_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let Some(pool) = self.pools.get(usize::from(session.pool)) else { return };
        let user = session.special.as_ref().and_then(|special| special.user.as_ref());
        if pool.limits.concern(user.map_or(DEFAULT, |user| user.name())) {
            session.mode |= mode::LIMITED;
        } else {
            session.mode &= !mode::LIMITED;
        }
    }

    /// Whether a request is within all limits that it counts for; if not, the app has been told.
    pub(super) fn is_within_limits(&mut self, id: SessionId, spec: &'static Spec, request: &Request<'_>) -> bool {
        if EXEMPT.contains(&spec.name) {
            return true;
        }
        let Some(session) = self.sessions.get(id as usize) else { return true };
        let Some(pool) = self.pools.get_mut(usize::from(session.pool)) else { return true };
        let keys = &mut self.plan.keys;
        keys.clear();
        // One whose keys cannot be told is refused for that.
        if !pool.limits.prefixes.is_empty()
            && command::keys(spec, request, &mut |index| keys.push(index as u32)).is_err()
        {
            keys.clear();
        }
        keys.sort_unstable();
        let named = keys_of(request, keys).take(keys.len());
        let (user, bytes) = (user_of(session), request.wire().len() as u64);
        let Err(at) = pool.limits.take(user, named, bytes, self.now) else { return true };
        let Some(held) = pool.limits.held.get_mut(at) else { return true };
        held.counts.refused += 1;
        let mut text = Vec::new();
        error::rate_limited(&held.limit.name, &mut text);
        // Being told so costs nothing: else whoever goes on asking would never have paid.
        if let Some(session) = self.sessions.get_mut(id as usize) {
            session.mode &= !mode::LIMITED;
        }
        self.answer_with(id, Some(Cause::RateLimited), |out| out.extend_from_slice(&text));
        self.limit_session(id);
        false
    }

    /// Shows the users of a pool whose sessions are counted, each with how many it has and may have.
    pub fn user_counts(&self, pool: u16, mut see: impl FnMut(&str, usize, Option<u32>)) {
        let Some(pool) = self.pools.get(usize::from(pool)) else { return };
        // Of one that may do everything, and any number of times, nothing is counted.
        let counted = |user: &&User| !user.is_unlimited() || user.name() != DEFAULT || user.connections().is_some();
        for user in pool.config.users.all().filter(counted) {
            see(user.name(), user.sessions(), user.connections());
        }
    }

    /// Shows what each limit of a pool has let through and refused, with its name, to be folded.
    pub fn limit_counts(&mut self, pool: u16, mut see: impl FnMut(&str, &mut LimitCounts)) {
        let limits = self.pools.get_mut(usize::from(pool)).map(|pool| &mut pool.limits);
        for held in limits.into_iter().flat_map(|limits| &mut limits.held) {
            let Limit { requests, bytes, reply_bytes, .. } = held.limit;
            held.counts.most_requests.0 = requests.unwrap_or(0);
            held.counts.most_bytes.0 = bytes.unwrap_or(0);
            held.counts.most_reply_bytes.0 = reply_bytes.unwrap_or(0);
            see(&held.limit.name, &mut held.counts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Micros = 1_000_000;

    fn limit(on: Scope, requests: Option<u64>, bytes: Option<u64>) -> Limit {
        Limit { name: format!("{on:?}"), requests, bytes, reply_bytes: None, burst: BURST, on }
    }

    fn prefix(text: &str, requests: u64) -> Limit {
        limit(Scope::Prefix(text.into()), Some(requests), None)
    }

    fn made(limits: &[Limit], share: u64) -> Limits {
        Limits::new(limits, share, Limits::default())
    }

    /// How many of so many requests with these keys, of ten bytes each, are let through.
    fn through(limits: &mut Limits, user: &str, keys: &[&str], count: usize, now: Micros) -> usize {
        let taken = |_: &usize| limits.take(user, keys.iter().map(|key| key.as_bytes()), 10, now).is_ok();
        (0..count).filter(taken).count()
    }

    #[test]
    fn a_pool_gets_its_rate() {
        let mut limits = made(&[limit(Scope::Pool, Some(100), None)], 1);
        assert_eq!(through(&mut limits, "default", &[], 500, 0), 100);
        assert_eq!(through(&mut limits, "other", &["k"], 500, SECOND / 2), 50);
        assert_eq!((0..10).map(|n| through(&mut limits, "", &[], 500, SECOND * (1 + n))).sum::<usize>(), 50 + 9 * 100);
    }

    #[test]
    fn several_workers_share_evenly_and_exactly() {
        let limits = [limit(Scope::Pool, Some(10), None)];
        let mut workers: Vec<Limits> = (0..3).map(|_| made(&limits, 3)).collect();
        let mut at = |now| workers.iter_mut().map(|limits| through(limits, "", &[], 50, now)).sum::<usize>();
        let all: usize = (0..=300).map(|tenth| at(SECOND / 10 * tenth)).sum();
        assert!((9 + 298..=10 + 300).contains(&all), "thirty seconds of ten and the burst: {all}");
    }

    #[test]
    fn bytes_count_and_one_larger_than_the_burst_passes_when_nothing_was_asked_before() {
        let mut limits = made(&[limit(Scope::Pool, None, Some(100))], 1);
        assert_eq!(through(&mut limits, "", &[], 50, 0), 10);
        let none = || std::iter::empty::<&[u8]>();
        assert!(limits.take("", none(), 1000, SECOND).is_ok());
        assert!(limits.take("", none(), 1, SECOND * 9).is_err(), "it is paid back first");
        assert!(limits.take("", none(), 1, SECOND * 11).is_ok());
    }

    #[test]
    fn a_user_is_limited_alone() {
        let mut limits = made(&[limit(Scope::User("app".into()), Some(5), None)], 1);
        assert!(limits.concern("app") && !limits.concern("default"));
        assert_eq!(through(&mut limits, "app", &["k"], 50, 0), 5);
        assert_eq!(through(&mut limits, "default", &["k"], 50, 0), 50);
    }

    #[test]
    fn the_longest_beginning_counts_and_each_key() {
        let mut limits = made(&[prefix("a:", 4), prefix("a:b:", 10)], 1);
        assert_eq!(through(&mut limits, "", &["a:b:1"], 50, 0), 10, "not for `a:`");
        assert_eq!(through(&mut limits, "", &["a:1", "a:2"], 50, 0), 2, "two keys count twice");
        assert_eq!(through(&mut limits, "", &["b"], 50, 0), 50);
        assert_eq!(through(&mut limits, "", &[], 50, 0), 50, "without keys");
    }

    #[test]
    fn what_one_limit_refuses_takes_nothing_of_another() {
        let mut limits = made(&[limit(Scope::Pool, Some(10), None), prefix("a", 1)], 1);
        let a = || [b"a".as_slice()].into_iter();
        assert_eq!(through(&mut limits, "", &["a"], 50, 0), 1);
        assert_eq!(through(&mut limits, "", &["b"], 50, 0), 9);
        assert_eq!(limits.take("", a(), 1, 0), Err(0));
        assert_eq!(limits.take("", a(), 1, SECOND / 2), Err(1), "the limit that is reached is told");
    }

    #[test]
    fn limits_that_stay_go_on_from_where_they_are() {
        let (pool, user) = (limit(Scope::Pool, Some(10), None), limit(Scope::User("u".into()), Some(1), None));
        let mut limits = made(std::slice::from_ref(&pool), 1);
        assert_eq!(through(&mut limits, "", &[], 50, 0), 10);
        let mut limits = Limits::new(&[user, pool], 1, limits);
        assert_eq!(through(&mut limits, "", &[], 50, 0), 0);
        assert_eq!(through(&mut Limits::new(&[], 1, limits), "", &[], 50, 0), 50);
    }
}
