//! The verdict on what an app is answered.

use super::app::{App, Pair, Pending, Wish, uncertain};
use super::truth::{DATABASES, Moment, Truth, same, unique};
use super::wire::{self, Reply};
use hotring::ring::slot_of;
use hotring::stages::Micros;
use std::collections::BTreeMap;

/// When each connection broke last, the time, and in a cluster when requests for a slot were overtaken last.
pub type Around<'a> = (&'a [Moment], Micros, Option<&'a BTreeMap<u16, Moment>>);

/// A transaction, as far as it was answered, and what was watched for it.
#[derive(Default)]
pub struct Deal {
    /// When it was begun to be asked for.
    since: Option<Moment>,
    /// Whether WATCH was asked for.
    watches: bool,
    /// The places and keys that were said to be watched, and when that was said.
    watched: Vec<(usize, Vec<u8>, Moment)>,
    /// What was said to be queued.
    pub queued: Vec<(Wish, Vec<Option<usize>>)>,
    /// All values that were to be written.
    values: Vec<Vec<u8>>,
    /// A command of it was refused.
    spoiled: bool,
}

impl App {
    /// Where requests run in order: in a shard's database; in a cluster for each key.
    fn order(&self, node: usize, key: &[u8]) -> (usize, Vec<u8>) {
        (node, if self.redirect_wait.is_some() { key.to_vec() } else { Vec::new() })
    }

    fn since(&self, node: usize, key: &[u8], taken: Moment) -> Moment {
        self.seen.get(&self.order(node, key)).map_or(taken, |seen| taken.max(*seen))
    }

    fn saw(&mut self, node: usize, key: &[u8], at: Moment) {
        let order = self.order(node, key);
        // What others overtook on their connection says nothing of when those were carried out.
        if self.redirect_wait.is_some() && self.loose.contains(&slot_of(key)) {
            return;
        }
        let seen = self.seen.entry(order).or_default();
        *seen = at.max(*seen);
    }

    /// Judges the reply to the oldest request.
    pub fn judge(&mut self, reply: &Reply<'_>, wire: &[u8], truth: &mut Truth, around: Around<'_>) {
        let (faults, now, overtaken) = around;
        let asked = self.pending.pop_front().expect("a reply that nobody asked for");
        let taken = asked.taken.unwrap_or_else(|| panic!("answered before it was asked: {asked:?}"));
        self.asked -= 1;
        let late = overtaken.into_iter().flatten().filter(|(_, at)| **at >= taken);
        self.loose = late.map(|(slot, _)| *slot).collect();
        let told = format!("{:?} to {:?}", String::from_utf8_lossy(wire), asked);
        if matches!(asked.wish, Wish::Watch(_) | Wish::Multi) {
            self.deal.since.get_or_insert(taken);
        }
        let since = self.deal.since.unwrap_or(taken).min(taken);
        if let Wish::Queued(wish) = &asked.wish {
            self.deal.values.extend(wish.values().into_iter().map(<[u8]>::to_vec));
        }
        if let Reply::Error(text) = reply {
            let text = String::from_utf8_lossy(text);
            if text.starts_with("ERR shard s") || text.starts_with("ERR no shard is left") {
                return self.excused(&text, &asked, since, truth, faults);
            }
            if let Some(wait) = self.redirect_wait
                && (text.starts_with("TRYAGAIN ") || text.starts_with("CLUSTERDOWN "))
            {
                let unserved = asked.unserved && text == "CLUSTERDOWN Hash slot not served";
                assert!(unserved || now - asked.at >= wait, "told too early: {told}");
                let keys = asked.wish.keys();
                let split =
                    !matches!(asked.wish, Wish::Setnx(_)) && keys.iter().any(|k| slot_of(k) != slot_of(keys[0]));
                assert!(!split || unserved || text.ends_with("may have run"), "{told}");
                return if split && !unserved {
                    uncertain(&asked.wish, truth);
                } else {
                    self.refused(&asked, truth);
                };
            }
            if text.starts_with("ERR all ") && text.ends_with("are in use; nothing was sent") {
                assert!(asked.crowded, "{told}");
                return self.refused(&asked, truth);
            }
        }
        let lied = if asked.wish.is_own() {
            // A transaction's fate may be decided by any of its replies.
            self.nodes().any(|node| truth.lied[node] >= since)
        } else {
            asked.homes.iter().flatten().any(|&place| truth.lied[place / DATABASES] >= taken)
        };
        // That something is subscribed to is never a lie: the shards lie with errors there.
        let subscribed =
            matches!(asked.wish, Wish::Subscribe(_) | Wish::Unsubscribe(_)) && !matches!(reply, Reply::Error(_));
        let of_proxy = subscribed || matches!(asked.wish, Wish::Exact(_) | Wish::Error(_));
        if lied && !of_proxy {
            return self.deceived(&asked, truth);
        }
        if let Wish::Hello(resp3) = asked.wish {
            self.speaks_resp3 = resp3;
        }
        assert!(!reply.speaks(!self.speaks_resp3), "the other protocol: {told}");
        match &asked.wish {
            Wish::Watch(_) | Wish::Unwatch | Wish::Multi | Wish::Queued(_) | Wish::Exec | Wish::Discard => {
                self.judge_deal(&asked, taken, reply, truth, &told);
            }
            wish => self.fits(wish, &asked.homes, taken, reply, truth, &told),
        }
    }

    /// The shards of its pool.
    fn nodes(&self) -> impl Iterator<Item = usize> + use<> {
        let base = self.pool * self.shards;
        base..base + self.shards
    }

    /// A shard has lied meanwhile: nothing can be said.
    fn deceived(&mut self, asked: &Pending, truth: &mut Truth) {
        uncertain(&asked.wish, truth);
        match &asked.wish {
            Wish::Watch(_) => self.deal.watches = true,
            Wish::Queued(wish) => self.deal.queued.push(((**wish).clone(), asked.homes.clone())),
            Wish::Exec | Wish::Discard => {
                let deal = std::mem::take(&mut self.deal);
                deal.queued.iter().for_each(|(wish, _)| uncertain(wish, truth));
            }
            _ => {}
        }
    }

    /// Nothing was sent.
    fn refused(&mut self, asked: &Pending, truth: &mut Truth) {
        match &asked.wish {
            Wish::Queued(_) => self.deal.spoiled = true,
            Wish::Exec | Wish::Discard => self.called_off(truth),
            wish => wish.values().iter().for_each(|value| truth.not_written(value)),
        }
    }

    /// A transaction was not carried out.
    fn called_off(&mut self, truth: &mut Truth) {
        let deal = std::mem::take(&mut self.deal);
        deal.values.iter().for_each(|value| truth.not_written(value));
    }

    fn judge_deal(&mut self, asked: &Pending, taken: Moment, reply: &Reply<'_>, truth: &mut Truth, told: &str) {
        let broke = |app: &Self, truth: &Truth| {
            let since = app.deal.since.unwrap_or(taken);
            app.nodes().any(|node| truth.own_faults[node] >= since)
        };
        let crosses = matches!(reply, Reply::Error(text) if text.starts_with(b"CROSSSLOT "));
        match &asked.wish {
            Wish::Watch(keys) => {
                if crosses {
                    let places = self.deal.watched.iter().map(|(place, _, _)| Some(*place));
                    let all: Vec<_> = places.chain(asked.homes.iter().copied()).collect();
                    let apart = all.iter().any(|place| *place != all[0]);
                    assert!(apart || self.deal.watches, "{told}");
                    return;
                }
                assert_eq!(*reply, Reply::Simple(b"OK"), "{told}");
                self.deal.watches = true;
                let places = asked.homes.iter().map(|home| home.expect("watched, and there was no shard"));
                self.deal.watched.extend(places.zip(keys).map(|(place, key)| (place, key.clone(), truth.moment)));
            }
            Wish::Unwatch => {
                assert_eq!(*reply, Reply::Simple(b"OK"), "{told}");
                self.deal = Deal::default();
            }
            Wish::Multi => assert_eq!(*reply, Reply::Simple(b"OK"), "{told}"),
            Wish::Queued(wish) => match reply {
                Reply::Simple(b"QUEUED") => {
                    assert!(!matches!(**wish, Wish::Error(_)), "{told}");
                    self.deal.queued.push(((**wish).clone(), asked.homes.clone()));
                }
                Reply::Error(text) => {
                    let fits = match &**wish {
                        Wish::Error(start) => text.starts_with(start.as_bytes()),
                        _ => false,
                    };
                    assert!(fits || crosses || (text.starts_with(b"EXECABORT ") && broke(self, truth)), "{told}");
                    self.deal.spoiled = true;
                }
                _ => panic!("{told}"),
            },
            Wish::Discard => {
                assert_eq!(*reply, Reply::Simple(b"OK"), "{told}");
                self.called_off(truth);
            }
            _ => match reply {
                Reply::Array(items) => self.carried_out(taken, items, truth, told),
                Reply::Error(text) if text.starts_with(b"EXECABORT ") => {
                    assert!(self.deal.spoiled || broke(self, truth), "a transaction was refused for nothing: {told}");
                    self.called_off(truth);
                }
                Reply::NullArray | Reply::Null => {
                    let since = self.deal.since.unwrap_or(taken);
                    let touched =
                        |(place, key, _): &(usize, Vec<u8>, Moment)| truth.touched(*place, key, since, truth.moment);
                    let changed = self.deal.watched.iter().any(touched);
                    assert!(self.deal.watches && (changed || broke(self, truth)), "nothing changed: {told}");
                    self.called_off(truth);
                }
                _ => panic!("{told}"),
            },
        }
    }

    /// EXEC's replies.
    fn carried_out(&mut self, taken: Moment, items: &[Reply<'_>], truth: &mut Truth, told: &str) {
        let deal = std::mem::take(&mut self.deal);
        assert!(!deal.spoiled, "a refused command was left out: {told}");
        assert_eq!(items.len(), deal.queued.len(), "{told}");
        let mut ran = taken;
        for (index, (wish, _)) in deal.queued.iter().enumerate() {
            let number = wish.values().first().and_then(|value| unique(value));
            if let Some((at, _)) = number.and_then(|number| truth.written.get(&number)) {
                ran = at - index as Moment - 1;
            }
        }
        for (place, key, from) in &deal.watched {
            let key_text = String::from_utf8_lossy(key);
            assert!(!truth.touched(*place, key, *from, ran), "{key_text} changed between {from} and {ran}: {told}");
        }
        for ((wish, homes), item) in deal.queued.iter().zip(items) {
            self.fits(wish, homes, taken, item, truth, told);
        }
    }

    /// Whether a reply is one to this wish.
    fn fits(
        &mut self,
        wish: &Wish,
        homes: &[Option<usize>],
        taken: Moment,
        reply: &Reply<'_>,
        truth: &mut Truth,
        told: &str,
    ) {
        let home = |index: usize| homes[index].expect("answered, and there was no shard");
        match wish {
            Wish::Any => {}
            Wish::Exact(bytes) => assert_eq!(wire::reply(bytes).unwrap().0, *reply, "{told}"),
            Wish::Error(start) => {
                assert!(matches!(reply, Reply::Error(text) if text.starts_with(start.as_bytes())), "{told}");
            }
            Wish::Get(key) => {
                let fits = |value: Option<&[u8]>| same(reply, value);
                self.read(home(0), key, taken, truth, &fits, told);
            }
            Wish::Length(key) => {
                let fits = |value: Option<&[u8]>| *reply == Reply::Integer(value.map_or(0, <[u8]>::len) as i64);
                self.read(home(0), key, taken, truth, &fits, told);
            }
            Wish::Mget(keys) => {
                let Reply::Array(items) = reply else { panic!("{told}") };
                assert_eq!(items.len(), keys.len(), "{told}");
                for (index, (key, item)) in keys.iter().zip(items).enumerate() {
                    self.read(home(index), key, taken, truth, &|value| same(item, value), told);
                }
            }
            Wish::Exists(keys) => {
                let Reply::Integer(sum) = reply else { panic!("{told}") };
                let could = |there: bool| {
                    let each = keys.iter().enumerate().map(|(index, key)| {
                        let since = self.since(home(index), key, taken);
                        truth.when(home(index), key, since, &|value| value.is_some() == there).is_some()
                    });
                    each.filter(|could| *could).count() as i64
                };
                assert!((keys.len() as i64 - could(false)..=could(true)).contains(sum), "{told}");
            }
            Wish::Set(pairs) => {
                assert_eq!(*reply, Reply::Simple(b"OK"), "{told}");
                self.wrote(pairs, homes, taken, truth);
            }
            Wish::Setnx(pairs) => match reply {
                Reply::Integer(1) => self.wrote(pairs, homes, taken, truth),
                Reply::Integer(0) => {
                    pairs.iter().for_each(|(_, value)| truth.not_written(value));
                    let taken_key = pairs.iter().enumerate().any(|(index, (key, _))| {
                        truth.when(home(index), key, taken, &|value| value.is_some()).is_some()
                    });
                    assert!(taken_key, "{told}");
                }
                Reply::Error(b"CROSSSLOT Keys in request don't hash to the same slot") => {
                    let slots = |index: usize| self.redirect_wait.map(|_| slot_of(&pairs[index].0));
                    let apart = |index: usize| home(index) != home(0) || slots(index) != slots(0);
                    assert!((1..pairs.len()).any(apart), "{told}");
                    pairs.iter().for_each(|(_, value)| truth.not_written(value));
                }
                _ => panic!("{told}"),
            },
            Wish::Script(key, value) => {
                assert!(same(reply, Some(value)), "{told}");
                self.wrote(&[(key.clone(), value.clone())], homes, taken, truth);
            }
            Wish::Incr(key) => {
                let result = match reply {
                    Reply::Integer(n) => Some(*n),
                    Reply::Error(b"ERR value is not an integer or out of range") => None,
                    _ => panic!("{told}"),
                };
                let since = self.since(home(0), key, taken);
                let Some(at) = truth.run_with(home(0), "INCR", key, since, result) else { panic!("{told}") };
                truth.claim(home(0), "INCR", key, since);
                self.saw(home(0), key, at);
            }
            Wish::Del(keys) => {
                let Reply::Integer(sum) = reply else { panic!("{told}") };
                let (mut least, mut most) = (0, 0);
                for (index, key) in keys.iter().enumerate() {
                    let node = home(index);
                    let since = self.since(node, key, taken);
                    truth.claim(node, "DEL", key, since);
                    let none = truth.run_with(node, "DEL", key, since, Some(0));
                    let one = truth.run_with(node, "DEL", key, since, Some(1));
                    least += i64::from(none.is_none());
                    most += i64::from(one.is_some());
                    let first = none.into_iter().chain(one).min().unwrap_or(since);
                    self.saw(node, key, first);
                }
                assert!((least..=most).contains(sum), "{told}");
            }
            Wish::Push(key, value) => {
                assert!(matches!(reply, Reply::Integer(1..)), "{told}");
                self.wrote(&[(key.clone(), value.clone())], homes, taken, truth);
            }
            Wish::Pop(keys) => {
                let (key, element) = match reply {
                    Reply::Array(items) => match items.as_slice() {
                        [Reply::Bulk(Some(key)), Reply::Bulk(Some(element))] => (*key, *element),
                        _ => panic!("{told}"),
                    },
                    Reply::Bulk(Some(element)) => (keys[0].as_slice(), *element),
                    Reply::Bulk(None) | Reply::NullArray | Reply::Null => return,
                    Reply::Error(text) => {
                        let apart = (1..keys.len()).any(|index| homes[index] != homes[0]);
                        assert!(text.starts_with(b"CROSSSLOT ") && (apart || self.deal.watches), "{told}");
                        return;
                    }
                    _ => panic!("{told}"),
                };
                let index = keys.iter().position(|asked| asked == key).unwrap_or_else(|| panic!("{told}"));
                let number = unique(element).expect("an element with its number") as i64;
                let at = truth.claim_element(home(index), key, taken, number);
                self.saw(home(index), key, at.unwrap_or_else(|| panic!("an element that nobody took, or two: {told}")));
            }
            Wish::Publish(channel, value) => {
                assert!(matches!(reply, Reply::Integer(0..)), "{told}");
                self.wrote(&[(channel.clone(), value.clone())], homes, taken, truth);
            }
            Wish::Subscribe(channel) | Wish::Unsubscribe(channel) => {
                let on = matches!(wish, Wish::Subscribe(_));
                let (Reply::Array(parts) | Reply::Push(parts)) = reply else { panic!("{told}") };
                let word = if on { &b"subscribe"[..] } else { b"unsubscribe" };
                assert_eq!(parts[..2], [Reply::Bulk(Some(word)), Reply::Bulk(Some(channel))], "{told}");
                self.listens(channel, on.then(|| home(0) / DATABASES), truth);
            }
            Wish::Select(_) => assert_eq!(*reply, Reply::Simple(b"OK"), "{told}"),
            Wish::Reset => {
                assert_eq!(*reply, Reply::Simple(b"RESET"), "{told}");
                self.speaks_resp3 = false;
                self.called_off(truth);
            }
            Wish::Hello(resp3) => {
                let (Reply::Array(items) | Reply::Map(items)) = reply else { panic!("{told}") };
                let at = items.iter().position(|item| *item == Reply::Bulk(Some(b"proto"))).expect("a protocol");
                assert_eq!(items[at + 1], Reply::Integer(if *resp3 { 3 } else { 2 }), "{told}");
                assert_eq!(matches!(reply, Reply::Map(_)), *resp3, "{told}");
            }
            wish => panic!("{wish:?}: {told}"),
        }
    }

    fn read(
        &mut self,
        node: usize,
        key: &[u8],
        taken: Moment,
        truth: &Truth,
        fits: &dyn Fn(Option<&[u8]>) -> bool,
        told: &str,
    ) {
        let since = self.since(node, key, taken);
        match truth.when(node, key, since, fits) {
            Some(at) => self.saw(node, key, at),
            // Who waits while servers are ejected, or return, is told by the one where the key lives by then.
            None if self.moves
                && self.nodes().any(|other| {
                    let place = other * DATABASES + node % DATABASES;
                    truth.when(place, key, self.since(place, key, taken), fits).is_some()
                }) => {}
            None => {
                panic!("{} was never so since {since} (now {}): {told}", String::from_utf8_lossy(key), truth.moment)
            }
        }
    }

    fn wrote(&mut self, pairs: &[Pair], homes: &[Option<usize>], taken: Moment, truth: &Truth) {
        for ((key, value), home) in pairs.iter().zip(homes) {
            let node = home.expect("written, and there was no shard");
            let from = if self.redirect_wait.is_some() { self.since(node, key, taken) } else { taken };
            let at = truth.acknowledged(node, value, from);
            self.saw(node, key, at);
        }
    }

    /// An error of the proxy's: there was a fault, and it says the truth about what was sent.
    fn excused(&mut self, text: &str, asked: &Pending, since: Moment, truth: &mut Truth, faults: &[Moment]) {
        let taken = asked.taken.unwrap_or(since);
        if text.starts_with("ERR no shard") {
            assert!(asked.homes.contains(&None), "{text}: {asked:?}");
        } else {
            let own = asked.wish.is_own() || asked.long || self.deal.watches;
            let broke = asked.lines.iter().any(|&line| faults[line as usize] >= taken)
                || (own && self.nodes().any(|node| truth.own_faults[node] >= taken));
            assert!(broke || asked.down, "an error without a fault: {text}: {asked:?}");
        }
        let unsent = text.ends_with("nothing was sent");
        assert!(unsent || text.ends_with("the command may have run"), "{text}");
        match &asked.wish {
            // It may have been watched, and be lost.
            Wish::Watch(_) => self.deal.watches = true,
            Wish::Unwatch => self.deal = Deal::default(),
            Wish::Exec if !unsent => {
                let deal = std::mem::take(&mut self.deal);
                deal.queued.iter().for_each(|(wish, _)| uncertain(wish, truth));
            }
            Wish::Discard => self.called_off(truth),
            _ if unsent => self.refused(asked, truth),
            wish => {
                // With an EXEC behind it, what is said of neither being queued may have run.
                self.deal.spoiled |= matches!(wish, Wish::Queued(_));
                uncertain(wish, truth);
            }
        }
    }
}
