//! The rules by which faults are injected: who has set what, and how long it lasts yet.
//!
//! Promises: a rule is in force on all workers when it is told that it is, and ends there by itself whatever happens here; it
//! outlives a reload, and not the process.

use super::ENDED;
use super::source::Shared;
use crate::admin::Wanted;
use crate::stages::fault::Rule;
use crate::worker::{FaultRules, Order};
use std::fmt::Write;
use std::sync::PoisonError;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Most rules at once.
const MOST: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Faults {
    last: u64,
    changes: u64,
    set: Vec<Set>,
}

#[derive(Debug, Clone)]
struct Set {
    pool: String,
    number: u16,
    rule: Rule,
    until: Instant,
}

/// What a pool's workers are to be told: which change it is, and the rules of each pool that it is about.
pub(super) type News = (u64, Vec<(u16, Vec<(Rule, u64)>)>);

impl Faults {
    fn news(&mut self, numbers: Vec<u16>, now: Instant) -> News {
        self.changes = self.changes.saturating_add(1);
        let left = |set: &Set| set.until.saturating_duration_since(now).as_micros() as u64;
        let of = |number| self.set.iter().filter(move |set| set.number == number);
        let rules = |number| (number, of(number).map(|set| (set.rule.clone(), left(set))).collect());
        (self.changes, numbers.into_iter().map(rules).collect())
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a person's rule lasts yet")]
fn now() -> Instant {
    Instant::now()
}

/// All rules, a line each.
pub(super) fn text(shared: &Shared) -> String {
    let now = now();
    let mut faults = shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
    faults.set.retain(|set| set.until > now);
    let mut told = String::new();
    for set in &faults.set {
        let left = set.until.saturating_duration_since(now).as_secs();
        let pool = set.pool.escape_debug();
        let _ = writeln!(told, "{} pool={pool} ends in {left} s", set.rule);
    }
    if told.is_empty() {
        told.push_str("no faults are injected\n");
    }
    told
}

/// Sets a rule. Returns it as it is listed, and what the workers are to be told.
pub(super) fn add(shared: &Shared, wanted: Wanted) -> Result<(String, News), String> {
    let (live, now) = (shared.live(), now());
    let number = match &wanted.pool {
        None if live.config.pools.len() == 1 => live.listed().next().map(|(number, _)| number),
        None => None,
        Some(name) => live.number(name),
    };
    let number = number.ok_or_else(|| live.config.which_pool(wanted.pool.as_deref(), ""))?;
    let pool = live.pools.get(usize::from(number)).map_or(String::new(), |pool| pool.pool.name.clone());
    let mut faults = shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
    faults.set.retain(|set| set.until > now);
    if faults.set.len() >= MOST {
        return Err(format!("there are {MOST} rules already; DELETE /faults takes them away"));
    }
    faults.last = faults.last.saturating_add(1);
    let rule = Rule { id: faults.last, ..wanted.rule };
    let told = format!("{rule} pool={} ends in {} s\n", pool.escape_debug(), wanted.term.as_secs());
    tracing::warn!(pool, rule = %rule, ttl = ?wanted.term, "faults are injected on purpose");
    faults.set.push(Set { pool, number, rule, until: now + wanted.term });
    Ok((told, faults.news(vec![number], now)))
}

/// Takes one rule away, or all.
pub(super) fn remove(shared: &Shared, id: Option<u64>) -> Result<(String, News), String> {
    let now = now();
    let mut faults = shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
    faults.set.retain(|set| set.until > now);
    let meant = |set: &Set| id.is_none_or(|id| set.rule.id == id);
    let gone: Vec<Set> = faults.set.iter().filter(|set| meant(set)).cloned().collect();
    if let (true, Some(id)) = (gone.is_empty(), id) {
        return Err(format!("there is no fault {id}"));
    }
    faults.set.retain(|set| !meant(set));
    for set in &gone {
        tracing::warn!(pool = set.pool, rule = %set.rule, "a rule for faults was taken away");
    }
    let mut numbers: Vec<u16> = gone.iter().map(|set| set.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    Ok((format!("{} taken away\n", gone.len()), faults.news(numbers, now)))
}

/// What a change does, and the orders to the workers.
pub(super) async fn change(
    told: Result<(String, News), String>,
    desks: Vec<mpsc::Sender<Order>>,
) -> Result<String, String> {
    let (told, (change, news)) = told?;
    let mut all = Vec::new();
    for (pool, rules) in news {
        for desk in &desks {
            let (done, is_done) = oneshot::channel();
            let order = Order::Faults(FaultRules { pool, change, rules: rules.clone(), done });
            desk.send(order).await.map_err(|_| ENDED)?;
            all.push(is_done);
        }
    }
    for is_done in all {
        is_done.await.map_err(|_| ENDED)?;
    }
    Ok(told)
}
