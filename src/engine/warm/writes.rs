//! Writes of keys that have moved: the former home forgets them first.
//!
//! The write stays in its session's hands until then: it is looked at again when it may begin, as what waits for its session's
//! other replies. So it does not matter what kind of write it is.

use super::{GONE, MARK, PATIENCE, mark_of};
use crate::command::{self, Access, Fault, Spec, flag};
use crate::engine::hot::Errand;
use crate::engine::port::Port;
use crate::engine::special::mode;
use crate::engine::{Engine, SessionId};
use crate::resp::Request;
use crate::stages::Micros;

/// A key that has moved.
#[derive(Clone, Debug)]
struct Moved {
    name: Vec<u8>,
    former: u16,
    home: u16,
}

/// A write that waits for its former homes.
pub(in crate::engine) struct Forgetting {
    number: u64,
    pool: u16,
    session: SessionId,
    generation: u32,
    keys: Vec<Moved>,
    /// Shards that have not answered yet, and whether they are asked as former homes.
    pending: Vec<(u16, bool)>,
    /// Former homes that could not be told.
    lost: Vec<u16>,
    /// Homes where no mark could be set.
    unmarked: Vec<u16>,
    /// What could not be done the first time is done another way.
    again: bool,
    since: Micros,
}

impl Engine {
    /// Whether a request may begin as far as former homes are concerned. If not, its session is not read until they have
    /// forgotten its keys, and it comes again.
    #[cold]
    pub(in crate::engine) fn is_forgotten(
        &mut self,
        id: SessionId,
        named: Result<&'static Spec, &Fault>,
        request: &Request<'_>,
        port: &mut impl Port,
    ) -> bool {
        let (Ok(spec), Some(session)) = (named, self.sessions.get_mut(id as usize)) else { return true };
        if let Some((link, number, changes)) = session.special.as_mut().and_then(|special| special.forgets) {
            if self.warm.writes.get(link as usize).is_some_and(|write| write.number == number) {
                // Whoever has woken it did so for another reason.
                session.paused = true;
                session.mode |= mode::WAITING;
                return false;
            }
            session.special().forgets = None;
            // If it was configured anew meanwhile, its keys may have lived, and live, elsewhere.
            if changes == self.changes {
                return true;
            }
        }
        let elsewhere = session.base != 0 && session.db() != 0;
        if spec.access != Access::Write || spec.flags & flag::PUBSUB != 0 || !session.authenticated || elsewhere {
            return true;
        }
        let user = session.special.as_ref().and_then(|special| special.user.as_ref());
        let (number, generation) = (session.pool, session.generation);
        // Of names with a prefix that is known already.
        let denied = match user {
            Some(_) if session.is_tenant() => self.tenant.is_against(),
            user => user.is_some_and(|user| user.check(spec, request).is_err()),
        };
        if denied {
            // It is told so.
            return true;
        }
        let Some(pool) = self.pools.get(usize::from(number)) else { return true };
        let Some(here) = &pool.warm else { return true };
        if pool.config.guard.as_ref().is_some_and(|guard| guard.check(spec, request).is_err()) {
            // It is told so, too.
            return true;
        }
        if matches!(spec.name, "flushall" | "flushdb") {
            here.warmth.end();
            return true;
        }
        let mut keys: Vec<Moved> = Vec::new();
        // One whose keys cannot be told is refused for that.
        let _ = command::keys(spec, request, &mut |index| {
            let name = request.arg(index).unwrap_or_default();
            if let Some((former, home)) = pool.moved(name) {
                keys.push(Moved { name: name.to_vec(), former, home });
            }
        });
        if keys.is_empty() {
            return true;
        }
        let number_of_it = self.warm.number();
        let write = Forgetting {
            number: number_of_it,
            pool: number,
            session: id,
            generation,
            keys,
            pending: Vec::new(),
            lost: Vec::new(),
            unmarked: Vec::new(),
            again: false,
            since: self.now,
        };
        let link = self.warm.writes.insert(write) as u32;
        self.forget(link);
        if self.warm.writes.get(link as usize).is_some_and(|write| write.pending.is_empty()) {
            self.is_told(link, port);
        }
        if !self.warm.writes.contains(link as usize) {
            return true;
        }
        let Some(session) = self.sessions.get_mut(id as usize) else { return true };
        session.special().forgets = Some((link, number_of_it, self.changes));
        session.paused = true;
        session.mode |= mode::WAITING;
        false
    }

    /// Tells former homes to forget keys, and sets their marks.
    fn forget(&mut self, link: u32) {
        let Some(write) = self.warm.writes.get(link as usize) else { return };
        let (number, pool, keys) = (write.number, write.pool, write.keys.clone());
        let mut homes: Vec<u16> = keys.iter().map(|key| key.home).collect();
        let mut formers: Vec<u16> = keys.iter().map(|key| key.former).collect();
        for list in [&mut homes, &mut formers] {
            list.sort_unstable();
            list.dedup();
        }
        let (mut pending, mut lost, mut unmarked) = (Vec::new(), Vec::new(), Vec::new());
        for former in formers {
            let names = keys.iter().filter(|key| key.former == former).map(|key| key.name.as_slice());
            let words: Vec<&[u8]> = [&b"UNLINK"[..]].into_iter().chain(names).collect();
            let on = self.line_to_ask(pool, former);
            match on.and_then(|on| self.run_errand_soon(on, &[&words], Errand::Forget(link, number, former, true))) {
                Some(_) => pending.push((former, true)),
                None => lost.push(former),
            }
        }
        for home in homes {
            let marks = keys.iter().filter(|key| key.home == home).map(|key| mark_of(&key.name));
            let marks: Vec<Vec<u8>> = marks.collect();
            if self.set_marks(link, number, (pool, home), &marks, MARK) {
                pending.push((home, false));
            } else {
                unmarked.push(home);
            }
        }
        if let Some(write) = self.warm.writes.get_mut(link as usize) {
            (write.pending, write.lost, write.unmarked) = (pending, lost, unmarked);
        }
        if let Some(pool) = self.pools.get_mut(usize::from(pool)) {
            pool.counts.warm_forgotten = pool.counts.warm_forgotten.saturating_add(keys.len() as u64);
        }
    }

    fn set_marks(&mut self, link: u32, number: u64, (pool, home): (u16, u16), marks: &[Vec<u8>], span: &[u8]) -> bool {
        let words: Vec<[&[u8]; 5]> = marks.iter().map(|mark| [&b"SET"[..], mark, GONE, b"PX", span]).collect();
        let commands: Vec<&[&[u8]]> = words.iter().map(<[&[u8]; 5]>::as_slice).collect();
        let errand = Errand::Forget(link, number, home, false);
        self.line_to_ask(pool, home).and_then(|on| self.run_errand_soon(on, &commands, errand)).is_some()
    }

    /// A shard has answered what it was told, or never will.
    pub(in crate::engine) fn has_forgotten(
        &mut self,
        (link, number): (u32, u64),
        (shard, former): (u16, bool),
        replies: &[Vec<u8>],
        port: &mut impl Port,
    ) {
        let Some(write) = self.warm.writes.get_mut(link as usize).filter(|write| write.number == number) else {
            return;
        };
        write.pending.retain(|&pending| pending != (shard, former));
        if replies.is_empty() || replies.iter().any(|reply| reply.first() == Some(&b'-')) {
            let list = if former { &mut write.lost } else { &mut write.unmarked };
            list.push(shard);
        }
        if write.pending.is_empty() {
            self.is_told(link, port);
        }
    }

    /// All shards have answered: the write may begin, unless something is to be done another way.
    fn is_told(&mut self, link: u32, port: &mut impl Port) {
        let Some(write) = self.warm.writes.get_mut(link as usize) else { return };
        let (lost, unmarked) = (std::mem::take(&mut write.lost), std::mem::take(&mut write.unmarked));
        let (number, pool, again) = (write.number, write.pool, std::mem::replace(&mut write.again, true));
        let keys = write.keys.clone();
        let now = self.now;
        if let Some(pool) = self.pools.get_mut(usize::from(pool))
            && !lost.is_empty()
        {
            pool.counts.warm_distrusts = pool.counts.warm_distrusts.saturating_add(lost.len() as u64);
            if let Some(here) = &pool.warm {
                lost.iter().for_each(|&former| here.warmth.distrust(former));
            }
        }
        if !(again || lost.is_empty() && unmarked.is_empty()) {
            let left =
                self.pools.get(usize::from(pool)).and_then(|pool| pool.warm.as_ref()).and_then(|here| here.until);
            // A second longer than anybody asks.
            let span =
                left.map_or(0, |until| until.saturating_sub(now)).div_ceil(1000).saturating_add(1000).to_string();
            let mut pending = Vec::new();
            let mut homes: Vec<u16> = keys.iter().map(|key| key.home).collect();
            homes.sort_unstable();
            homes.dedup();
            for home in homes {
                let to_mark = keys.iter().filter(|key| key.home == home && lost.contains(&key.former));
                let marks: Vec<Vec<u8>> = to_mark.map(|key| mark_of(&key.name)).collect();
                if !marks.is_empty() && self.set_marks(link, number, (pool, home), &marks, span.as_bytes()) {
                    pending.push((home, false));
                } else if marks.is_empty() && unmarked.contains(&home) {
                    // It may be out of memory. The former home has forgotten the key: whoever is about to copy it must not, and nobody
                    // will be from now on.
                    let marks: Vec<Vec<u8>> =
                        keys.iter().filter(|key| key.home == home).map(|key| mark_of(&key.name)).collect();
                    let words: Vec<&[u8]> =
                        [&b"UNLINK"[..]].into_iter().chain(marks.iter().map(Vec::as_slice)).collect();
                    let errand = Errand::Forget(link, number, home, false);
                    let on = self.line_to_ask(pool, home);
                    if on.and_then(|on| self.run_errand_soon(on, &[&words], errand)).is_some() {
                        pending.push((home, false));
                    }
                }
            }
            if !pending.is_empty() {
                if let Some(write) = self.warm.writes.get_mut(link as usize) {
                    (write.pending, write.since) = (pending, now);
                }
                return;
            }
        }
        let Some(write) = self.warm.writes.try_remove(link as usize) else { return };
        let session = self.sessions.get_mut(write.session as usize).filter(|s| s.generation == write.generation);
        let Some(session) = session else { return };
        if !session.parked {
            session.paused = false;
        }
        session.mode &= !mode::WAITING;
        self.wake(write.session, port);
    }

    /// Upkeep: shards that do not answer in time count as lost.
    pub(super) fn give_up_writes(&mut self, port: &mut impl Port) {
        let now = self.now;
        let late = self.warm.writes.iter().filter(|(_, write)| now.saturating_sub(write.since) >= PATIENCE);
        for link in late.map(|(link, _)| link as u32).collect::<Vec<_>>() {
            if let Some(write) = self.warm.writes.get_mut(link as usize) {
                for (shard, former) in std::mem::take(&mut write.pending) {
                    let list = if former { &mut write.lost } else { &mut write.unmarked };
                    list.push(shard);
                }
            }
            self.is_told(link, port);
        }
    }
}
