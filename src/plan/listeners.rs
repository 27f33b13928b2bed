//! What apps see of a change: addresses that stay and lead to another pool, or to keys of another prefix.
//!
//! Promises: an address is the same where a reload would keep its listener (`Address::is_same_place`, never port 0). Does not promise to know
//! where a host name leads, nor that `0.0.0.0` covers other addresses.

use super::{Sides, draw};
use crate::live::{Live, LivePool};
use crate::units::{Address, Millis};
use crate::upstream::config::WarmFrom;
use crate::upstream::{self, Servers};
use std::fmt::Write;

/// Addresses that lead from one pool to another, or to one of another prefix.
pub(super) struct Led<'a> {
    addresses: Vec<&'a Address>,
    pub(super) sides: Sides<'a>,
    /// Whether the pool to which they led is still there, and the sessions that it has.
    stays: bool,
}

/// How much is elsewhere for the apps.
enum Elsewhere {
    /// A share of the keys, in percent.
    Share(f64),
    /// All of them, since they are called otherwise.
    Names,
    /// It cannot be told, for this reason.
    NotKnown(&'static str),
}

/// What is to be told of the addresses, without the servers: some lines, or nothing.
#[must_use]
pub fn warnings(before: &Live, after: &Live) -> String {
    let mut all = led(before, after);
    if !all.is_empty() {
        draw(|key| all.iter_mut().for_each(|led| led.sides.look(key)));
    }
    let mut told = String::new();
    all.iter().for_each(|led| led.tell(false, false, &mut told));
    super::routes::tell(before, after, &mut told);
    told
}

/// All addresses of which something is to be told, those of the same two pools together.
pub(super) fn led<'a>(before: &'a Live, after: &'a Live) -> Vec<Led<'a>> {
    let mut all: Vec<Led<'a>> = Vec::new();
    for (_, new) in after.listed() {
        for (address, _) in new.pool.downstream.listeners() {
            if matches!(address, Address::Tcp { port: 0, .. }) {
                continue;
            }
            let leads =
                |old: &LivePool| old.pool.downstream.listeners().any(|(before, _)| before.is_same_place(address));
            let Some((_, old)) = before.listed().find(|(_, old)| leads(old)) else { continue };
            if old.pool.name == new.pool.name && old.pool.downstream.prefix == new.pool.downstream.prefix {
                continue;
            }
            let same = |led: &&mut Led<'_>| led.leads_to(new) && led.sides.before.pool.pool.name == old.pool.name;
            match all.iter_mut().find(same) {
                Some(led) => led.addresses.push(address),
                None => {
                    let stays = after.number(&old.pool.name).is_some();
                    all.push(Led { addresses: vec![address], sides: Sides::new(old, new), stays });
                }
            }
        }
    }
    all
}

impl Led<'_> {
    /// Whether it is this pool to which they lead.
    pub(super) fn leads_to(&self, pool: &LivePool) -> bool {
        self.sides.after.pool.pool.name == pool.pool.name
    }

    fn elsewhere(&self) -> Elsewhere {
        let (before, after) = (self.sides.before.pool, self.sides.after.pool);
        if before.pool.downstream.prefix != after.pool.downstream.prefix {
            return Elsewhere::Names;
        }
        let (old, new) = (&before.pool.upstream, &after.pool.upstream);
        let asked = |pool: &upstream::Config| pool.topology.asked().is_some();
        if asked(old) && (&old.topology, old.db, &before.pool.ring) == (&new.topology, new.db, &after.pool.ring) {
            // The same ones are asked, and will say the same.
            return Elsewhere::Share(0.0);
        }
        if before.is_unknown() || after.is_unknown() {
            return Elsewhere::NotKnown("where they live is asked of servers, see `topology`");
        }
        if !self.sides.before.has_homes() || !self.sides.after.has_homes() {
            return Elsewhere::NotKnown("with `distribution: random` keys have no home");
        }
        Elsewhere::Share(self.sides.share(self.sides.moved()))
    }

    /// `whole` tells from which server to which, too.
    pub(super) fn tell(&self, given: bool, whole: bool, told: &mut String) {
        let (before, after) = (self.sides.before.pool, self.sides.after.pool);
        let (old, new) = (&before.pool.name, &after.pool.name);
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let addresses = addresses.join(", ");
        let another = if self.sides.is_one_pool() {
            format!("{addresses} (pool {new})")
        } else {
            let lead = if self.addresses.len() == 1 { "leads" } else { "lead" };
            format!("{addresses} {lead} to pool {new} in place of {old}")
        };
        let keys = if given { "keys" } else { "the keyspace" };
        let elsewhere = self.elsewhere();
        let _ = match &elsewhere {
            Elsewhere::Share(0.0) => {
                writeln!(told, "{another}: for apps that connect there nothing moves")
            }
            Elsewhere::Share(share) => writeln!(
                told,
                "warning: {another}: for apps that connect there {share:.1} % of {keys} {} at another server",
                if given { "are" } else { "is" }
            ),
            Elsewhere::Names => writeln!(
                told,
                "warning: {another}: keys have {} on the servers and had {}: apps that connect there find none of their keys",
                quoted(&after.pool.downstream.prefix),
                quoted(&before.pool.downstream.prefix)
            ),
            Elsewhere::NotKnown(why) => writeln!(
                told,
                "warning: {another}: for apps that connect there any part of {keys} may be at another server; how much is not known, {why}"
            ),
        };
        if let (Elsewhere::Share(share), true) = (&elsewhere, whole)
            && *share > 0.0
        {
            self.sides.tell_moves(given, told);
        }
        if self.sides.is_one_pool() || matches!(elsewhere, Elsewhere::Share(0.0)) {
            return;
        }
        if self.stays {
            let _ = writeln!(told, "  sessions that are open stay with pool {old} until they end");
        }
        if !matches!(elsewhere, Elsewhere::Names) {
            let _ = writeln!(told, "  {}", self.covered());
        }
    }

    /// Whether reads find what is elsewhere now where it was.
    fn covered(&self) -> String {
        let (before, after) = (self.sides.before.pool, self.sides.after.pool);
        let upstream = &after.pool.upstream;
        let embedded =
            [before, after].iter().any(|pool| matches!(pool.pool.upstream.servers, Servers::Embedded { .. }));
        match &upstream.warm_from {
            _ if embedded => "not covered: an embedded node knows the keys of its own pool only".to_owned(),
            Some(WarmFrom::Pool(pool)) if *pool == before.pool.name => format!(
                "`warm_from: {pool}` looks for keys in that pool for {}, for GET and MGET of strings; up to {} a second",
                Millis::from(upstream.warm_for),
                upstream.warm_rate
            ),
            _ => format!(
                "not covered: `warm_from: {0}` in pool {1}, with a pool {0} of the servers of before, would look for them there",
                before.pool.name, after.pool.name
            ),
        }
    }
}

fn quoted(prefix: &str) -> String {
    if prefix.is_empty() { "no prefix".to_owned() } else { format!("the prefix `{prefix}`") }
}
