//! Redis Cluster's redirections, followed here so that no app sees them.
//!
//! A node that does not serve a key's slot answers with who does (MOVED), with whom to ask this once (ASK), that a moving slot's
//! keys are not all in one place (TRYAGAIN), or that nobody does (CLUSTERDOWN). Whatever it answers so it has not carried out:
//! so a request that is answered so is sent again, writes too, and only then. For that the bytes of what is on its way are kept
//! by the connections of a cluster's pool, each until its reply is there (`asked`).
//!
//! **Order.** A session's requests for one key are carried out in the order in which they were asked. Those that have gone the
//! old way come back in that order and are sent on in it, on the same of the other node's connections. A later one must not
//! go the new way before them: while there may be some, the slot is in *trouble*, and a session that waits for replies does not
//! begin another request for it ([`Engine::is_in_trouble`]). A trouble ends when all that was on its way to the old node as the
//! slot moved is answered, and nothing of it waits here. Nodes that contradict each other would send earlier ones behind later
//! ones: what has been moved before waits here, in the order in which it was asked, until all that was on its way is back. (But
//! for this: what is on its way behind a request that a node refuses may be carried out before that is tried again, if the node
//! has changed its mind between the two, or if that is for several keys; as with any client of a cluster.)
//!
//! **Bounds.** A request is sent on at once [`AT_ONCE`] times, then after growing pauses, until `redirect_wait` is over since it was
//! first redirected; then its app is told. What waits is bounded by [`MOST_WAITING`] and [`MOST_BYTES`], what is kept of a connection by
//! [`MOST_KEPT`]: what is beyond is told to its app.
//!
//! A command that blocks, or is carried aside, moves to a connection of its session's own to the other node, and begins its time anew there.
//!
//! Scripts may answer with such words themselves, after they have run: of those only MOVED and ASK for their own keys' slot are followed.
//!
//! Does not: follow redirections within transactions, of requests that are passed on while they arrive, and of the proxy's own.
//! They are learned from, and told in Redis' words for them.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "counters of 64 bits, numbers of connections, which the config bounds, and sizes of what is in memory"
)]

use super::asked::Kept;
use super::hot::{Becomes, Note};
use super::line::{Line, Owner, Ticket, Waiter};
use super::merge::Gather;
use super::port::Port;
use super::{Engine, LineId, Pool};
use crate::command::{self, Class, Spec, Tag};
use crate::error::{Cause, MOVED_TRANSACTION, MOVING, PART_MOVING};
use crate::metrics::Redirected;
use crate::resp::{Request, write};
use crate::ring::{SLOTS, Slots, slot_of};
use crate::stages::Micros;
use std::collections::{BTreeMap, VecDeque};
use std::sync::LazyLock;

/// How often a request is sent on without a pause.
const AT_ONCE: u8 = 5;
/// The pause after that, and between attempts where there is nobody to be sent on to; it doubles up to [`LONGEST_PAUSE`].
const PAUSE: Micros = 10_000;
const LONGEST_PAUSE: Micros = 160_000;
/// Most requests of a pool that wait for their slots to have settled, and most of their bytes.
const MOST_WAITING: usize = 65_536;
const MOST_BYTES: usize = 64 << 20;

/// What a pool knows of its cluster beside who has which slot.
#[derive(Debug)]
pub(super) struct Cluster {
    /// For each slot which of `troubles` it is in.
    trouble_of: Vec<u16>,
    troubles: slab::Slab<Trouble>,
    /// Requests in all of them, and their bytes.
    waiting: usize,
    bytes: usize,
}

/// The name of the command that carries out a transaction, as waiters know it.
static EXEC: LazyLock<Option<Tag>> = LazyLock::new(|| command::lookup(b"exec").map(|spec| spec.tag));

/// No trouble.
const NONE: u16 = u16::MAX;

/// Slots that requests have gone the old way for, or wait for.
#[derive(Debug, Default)]
struct Trouble {
    slots: Vec<u16>,
    /// Until these connections have answered everything below these serials.
    marks: Vec<(LineId, u64)>,
    /// In the order in which they were asked, and are sent again.
    waiting: VecDeque<Waiting>,
    /// When that is.
    due: Micros,
    /// The connections that they came back on, each of which has been marked once since nothing waited.
    marked: Vec<LineId>,
}

/// A request that was redirected and could not be sent on.
#[derive(Debug)]
struct Waiting {
    waiter: Waiter,
    /// The connection that it came back on: its number among the pool's may change while this waits.
    from: LineId,
    slot: u16,
    wire: Vec<u8>,
    notes: Vec<(Note, Vec<u8>)>,
    order: u64,
    hops: u8,
    since: u32,
}

impl Cluster {
    fn new() -> Self {
        Self { trouble_of: vec![NONE; SLOTS], troubles: slab::Slab::new(), waiting: 0, bytes: 0 }
    }

    fn of(&self, slot: u16) -> Option<u16> {
        self.trouble_of.get(usize::from(slot)).copied().filter(|&trouble| trouble != NONE)
    }

    /// The trouble of a slot, made if there is none.
    fn trouble(&mut self, slot: u16) -> Option<&mut Trouble> {
        let number = match self.of(slot) {
            Some(number) => number,
            None => {
                // There are no more than slots.
                let number = self.troubles.insert(Trouble::default()) as u16;
                self.join(slot, number);
                number
            }
        };
        self.troubles.get_mut(usize::from(number))
    }

    fn join(&mut self, slot: u16, number: u16) {
        if let (Some(place), Some(trouble)) =
            (self.trouble_of.get_mut(usize::from(slot)), self.troubles.get_mut(usize::from(number)))
        {
            *place = number;
            trouble.slots.push(slot);
        }
    }
}

impl Pool {
    /// Gives the pool what it needs to follow redirections, if its shards are a cluster's; or takes it away.
    pub(super) fn meet_cluster(&mut self) {
        match (self.config.path.route.slots().is_some(), &self.cluster) {
            (true, None) => self.cluster = Some(Box::new(Cluster::new())),
            (false, Some(cluster)) if cluster.troubles.is_empty() => self.cluster = None,
            _ => {}
        }
    }

    /// Has the connections that it has, and shares, keep what is on its way, if its shards are a cluster's; or no longer.
    pub(super) fn keep_what_is_asked(&self, lines: &mut [Line]) {
        for &id in &self.table {
            let Some(line) = lines.get_mut(id as usize) else { continue };
            if line.asked.is_some() != self.cluster.is_some() {
                line.asked = self.cluster.is_some().then(Box::default);
            }
        }
    }

    /// The shard that a node means which tells of `endpoint`, itself being the shard `of`.
    fn node(&self, endpoint: &[u8], of: u16) -> Option<u16> {
        let named = |name: &[u8]| self.config.nodes.iter().find(|(node, _)| **node == *name).map(|&(_, shard)| shard);
        named(endpoint).or_else(|| {
            // A node that does not know by what it is reached names its own host by nothing or a question mark.
            let port = endpoint.strip_prefix(b"?").unwrap_or(endpoint).strip_prefix(b":")?;
            let own = self.config.nodes.iter().filter(|(_, shard)| *shard == of);
            own.filter_map(|(node, _)| {
                let host = node.get(..node.iter().rposition(|&byte| byte == b':')?)?;
                named(&[host, b":", port].concat())
            })
            .next()
        })
    }
}

/// What a node answers in place of carrying out a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word<'a> {
    Moved(u16, &'a [u8]),
    Ask(u16, &'a [u8]),
    TryAgain,
    ClusterDown,
}

impl<'a> Word<'a> {
    fn read(reply: &'a [u8]) -> Option<Self> {
        let text = reply.strip_prefix(b"-")?;
        let text = text.strip_suffix(b"\r\n").unwrap_or(text);
        let mut words = text.split(|&byte| byte == b' ');
        let word = words.next()?;
        if !matches!(word, b"MOVED" | b"ASK") {
            return match word {
                b"TRYAGAIN" => Some(Self::TryAgain),
                b"CLUSTERDOWN" => Some(Self::ClusterDown),
                _ => None,
            };
        }
        let slot: u16 = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
        let node = words.next()?;
        let is_slot = usize::from(slot) < SLOTS;
        is_slot.then_some(if word == b"MOVED" { Self::Moved(slot, node) } else { Self::Ask(slot, node) })
    }

    fn why(self) -> Redirected {
        match self {
            Self::Moved(..) => Redirected::Moved,
            Self::Ask(..) => Redirected::Ask,
            Self::TryAgain => Redirected::TryAgain,
            Self::ClusterDown => Redirected::ClusterDown,
        }
    }
}

/// What becomes of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// It is one as any other.
    Stays,
    /// Its request is sent again.
    Taken,
    /// This is told in its place.
    Becomes(&'static str),
}

/// The slot of a request's first key.
fn slot_in(wire: &[u8]) -> Option<u16> {
    let request = Request::parse(wire)?;
    let spec = command::identify(&request).ok()?;
    let mut first = None;
    command::keys(spec, &request, &mut |index| {
        first.get_or_insert(index);
    })
    .ok()?;
    Some(slot_of(request.arg(first?)?))
}

/// Whether a script has surely not run that is answered so. It may say anything by itself, and has run then; but a node that does
/// not have its keys' slot says so before, of that very slot.
fn is_nodes_own(word: Word<'_>, wire: Option<&[u8]>) -> bool {
    match word {
        Word::Moved(slot, _) | Word::Ask(slot, _) => wire.and_then(slot_in) == Some(slot),
        Word::TryAgain | Word::ClusterDown => false,
    }
}

/// Whether something that was on its way is not answered yet.
fn is_on_its_way(lines: &[Line], &(id, serial): &(LineId, u64)) -> bool {
    lines.get(id as usize).is_some_and(|line| line.base < serial)
}

fn pause(hops: u8) -> Micros {
    (PAUSE << u32::from(hops.saturating_sub(AT_ONCE)).min(8)).min(LONGEST_PAUSE)
}

impl Engine {
    /// Whether the cluster of a pool is to be asked anew which node has which slot, since something told here says that it has
    /// changed, or may have. Asked once, it is said once.
    pub fn take_wish(&mut self, pool: u16) -> bool {
        let pool = self.pools.get_mut(usize::from(pool));
        pool.is_some_and(|pool| {
            let down = |&shard: &u16| pool.config.path.health.is_down(shard);
            let down = pool.config.follows && pool.config.path.route.shards().iter().any(down);
            std::mem::take(&mut pool.wish) || down
        })
    }

    /// Something says that the pool's servers are others, or others' slots, than is known.
    pub(super) fn wish(&mut self, pool: u16) {
        if let Some(pool) = self.pools.get_mut(usize::from(pool)).filter(|pool| pool.config.follows) {
            pool.wish = true;
        }
    }

    /// Slots have other nodes. What is on its way is redirected by those that have them no more.
    pub fn set_slots(&mut self, number: u16, slots: Slots, now: Micros, port: &mut impl Port) {
        self.now = now;
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let Some(before) = pool.config.path.route.slots().cloned() else { return };
        pool.config.path.route.give_all(slots);
        self.slots_changed(number, &before, port);
    }

    /// The same when it has been done.
    pub(super) fn slots_changed(&mut self, number: u16, before: &Slots, port: &mut impl Port) {
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let Some(slots) = pool.config.path.route.slots().cloned() else { return };
        let mut gone: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
        for (slot, (was, is)) in (0..).zip(before.iter().zip(slots.iter())) {
            if was != is {
                gone.entry(*was).or_default().push(slot);
            }
        }
        for (shard, slots) in gone {
            self.disturb(number, &slots, shard, port);
        }
        self.send_again(number, None, true, port);
        self.follow_homes(port);
    }

    /// Slots were a shard's until now: as long as something is on its way to it, it may be for them.
    fn disturb(&mut self, number: u16, slots: &[u16], shard: u16, port: &mut impl Port) {
        // Reads that wait behind others are to leave on the connection of those.
        self.send_all_shared(number, port);
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let Some(cluster) = &mut pool.cluster else { return };
        let mut marks = Vec::new();
        for &id in &pool.table {
            let Some(line) = self.lines.get(id as usize).filter(|line| !line.waiters.is_empty()) else { continue };
            if line.shard == shard || line.asked.as_ref().is_some_and(|asked| asked.has_redirected()) {
                marks.push((id, line.next_serial()));
            }
        }
        let waits = |slot: &u16| cluster.of(*slot).is_some();
        if marks.is_empty() && !slots.iter().any(waits) {
            return;
        }
        let before = cluster.troubles.len();
        let mut new = None;
        for &slot in slots {
            match cluster.of(slot) {
                Some(known) => {
                    if let Some(trouble) = cluster.troubles.get_mut(usize::from(known)) {
                        // One connection is waited for once, however often its node takes back what it has said.
                        trouble.marks.retain(|(id, _)| !marks.iter().any(|(new, _)| new == id));
                        trouble.marks.extend_from_slice(&marks);
                    }
                }
                None if marks.is_empty() => {}
                None => {
                    let number = *new.get_or_insert_with(|| {
                        let marks = marks.clone();
                        cluster.troubles.insert(Trouble { marks, ..Trouble::default() }) as u16
                    });
                    cluster.join(slot, number);
                }
            }
        }
        self.troubles += cluster.troubles.len() - before;
    }

    /// What a lost connection had is on its way on the next one: a slot is in trouble as long as that is.
    pub(super) fn still_on_its_way(&mut self, id: LineId) {
        let Some(line) = self.lines.get(id as usize).filter(|_| self.troubles > 0) else { return };
        let (pool, next) = (self.pools.get_mut(usize::from(line.pool)), line.next_serial());
        let cluster = pool.and_then(|pool| pool.cluster.as_mut());
        for (_, trouble) in cluster.into_iter().flat_map(|cluster| &mut cluster.troubles) {
            trouble.marks.iter_mut().filter(|mark| mark.0 == id).for_each(|mark| mark.1 = next);
        }
    }

    /// Whether a request of a session that waits for replies has to wait with it: what it asked before may be going the old
    /// way to where one of its keys lived.
    #[cold]
    pub(super) fn is_in_trouble(&self, pool: u16, spec: &'static Spec, request: &Request<'_>) -> bool {
        let Some(cluster) = self.pools.get(usize::from(pool)).and_then(|pool| pool.cluster.as_ref()) else {
            return false;
        };
        let mut found = false;
        let keys = command::keys(spec, request, &mut |index| {
            found |= request.arg(index).is_some_and(|key| cluster.of(slot_of(key)).is_some());
        });
        !cluster.troubles.is_empty() && (found || keys.is_err())
    }

    /// A reply on a connection of a cluster: whether the node redirects, and what becomes of that.
    #[cold]
    pub(super) fn redirected(
        &mut self,
        (id, serial): (LineId, u64),
        waiter: &Waiter,
        reply: &[u8],
        port: &mut impl Port,
    ) -> Reply {
        let Some(line) = self.lines.get_mut(id as usize) else { return Reply::Stays };
        let (number, shard, owner) = (line.pool, line.shard, line.owner);
        let word = Word::read(reply);
        let kept = match &mut line.asked {
            Some(asked) => asked.take(serial).filter(|_| word.is_some()),
            None => None,
        };
        let Some(word) = word else {
            if reply.starts_with(b"-READONLY") {
                self.wish(number);
            }
            return Reply::Stays;
        };
        if waiter.tag.class() == Class::Script && !is_nodes_own(word, kept.as_ref().map(|(wire, _)| wire.as_slice())) {
            return Reply::Stays;
        }
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return Reply::Stays };
        if pool.cluster.is_none() {
            return Reply::Stays;
        }
        pool.counts.redirects[word.why()] += 1;
        pool.wish = true;
        let node = match word {
            Word::Moved(_, node) | Word::Ask(_, node) => pool.node(node, shard),
            Word::TryAgain | Word::ClusterDown => None,
        };
        let follows = pool.config.path.route.is_replica(shard);
        self.learn(number, shard, word, node, port);
        // Of a split request another part may have run, whatever becomes of this one.
        let split =
            waiter.part < Waiter::FIRST_SPECIAL && self.gathers.get(waiter.link as usize).is_some_and(Gather::is_split);
        let stays = match word {
            _ if split => Reply::Becomes(PART_MOVING),
            Word::Moved(..) | Word::Ask(..) => Reply::Becomes(MOVING),
            Word::TryAgain | Word::ClusterDown => Reply::Stays,
        };
        match owner {
            // A replica was not asked as the node that has the slot: who has it is asked then.
            Owner::Shared if waiter.part == Waiter::SPREAD && follows => {
                return Reply::Stays;
            }
            // Its key's own shard may be well.
            Owner::Shared if waiter.part == Waiter::COPY && node.is_none() => return Reply::Stays,
            Owner::Shared if waiter.part != Waiter::ERRAND => {}
            Owner::Session(..) if Some(waiter.tag) == *EXEC => return Reply::Becomes(MOVED_TRANSACTION),
            Owner::Session(..) => {
                let whole = matches!(waiter.part, Waiter::WHOLE | Waiter::UNTIMED | Waiter::ATTEMPT);
                let to = node.filter(|_| whole && kept.as_ref().is_some_and(|(_, kept)| kept.hops < AT_ONCE));
                if let (Some(on), Some((wire, kept))) = (to.and_then(|to| self.move_own(id, to, port)), kept) {
                    let notes = self.notes_of(id, serial);
                    let (order, hops, since) = (kept.order, kept.hops.saturating_add(1), self.now as u32);
                    let request = Waiting { waiter: *waiter, from: id, slot: 0, wire, notes, order, hops, since };
                    self.send_again_on(on, request, matches!(word, Word::Ask(..)), port);
                    return Reply::Taken;
                }
                return self.given_up(number, stays);
            }
            // The proxy's own requests fail, as upon any error.
            _ => return Reply::Stays,
        }
        let Some((wire, kept)) = kept else { return self.given_up(number, stays) };
        let slot = match word {
            Word::Moved(slot, _) | Word::Ask(slot, _) => slot,
            Word::TryAgain | Word::ClusterDown => match slot_in(&wire) {
                Some(slot) => slot,
                // It is about no key.
                None => return Reply::Stays,
            },
        };
        let since = if kept.hops == 0 { self.now as u32 } else { kept.since };
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return Reply::Stays };
        let late = u64::from((self.now as u32).wrapping_sub(since)) >= pool.config.redirect_wait;
        let Some(cluster) = &pool.cluster else { return Reply::Stays };
        let queued = cluster.of(slot).and_then(|trouble| cluster.troubles.get(usize::from(trouble)));
        let queued = queued.is_some_and(|trouble| !trouble.waiting.is_empty());
        let full = cluster.waiting >= MOST_WAITING || cluster.bytes + wire.len() > MOST_BYTES;
        // What was moved before and is again may have been overtaken on the way.
        let straight = kept.hops == 0 || matches!(word, Word::Ask(..));
        let at_once = !queued && kept.hops < AT_ONCE && straight && node.is_some();
        if (full || late) && !at_once {
            return self.given_up(number, stays);
        }
        let notes = self.notes_of(id, serial);
        let hops = kept.hops.saturating_add(1);
        let order = kept.order;
        let request = Waiting { waiter: *waiter, from: id, slot, wire, notes, order, hops, since };
        match node.filter(|_| at_once) {
            Some(node) => self.send_on(number, request, node, matches!(word, Word::Ask(..)), port),
            None => {
                self.wait_for_slot(number, request, node.is_some());
                self.send_again(number, Some(slot), false, port);
            }
        }
        Reply::Taken
    }

    /// What is learned from a node that says where a slot has moved to.
    pub(super) fn learn_from(&mut self, number: u16, shard: u16, reply: &[u8], port: &mut impl Port) {
        let Some(pool) = self.pools.get(usize::from(number)).filter(|pool| pool.cluster.is_some()) else { return };
        if let Some(word @ Word::Moved(_, node)) = Word::read(reply) {
            let node = pool.node(node, shard);
            self.learn(number, shard, word, node, port);
        }
    }

    fn learn(&mut self, number: u16, shard: u16, word: Word<'_>, node: Option<u16>, port: &mut impl Port) {
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let route = &mut pool.config.path.route;
        if let (Word::Moved(slot, _), Some(node)) = (word, node)
            && node != shard
            && route.owner(slot) != Some(node)
            && route.shards().contains(&node)
            // A replica names whom it follows.
            && !route.is_replica(shard)
        {
            route.give(slot, node);
            self.disturb(number, &[slot], shard, port);
        }
    }

    /// A request is not sent again.
    fn given_up(&mut self, number: u16, told: Reply) -> Reply {
        if let (Some(pool), Reply::Becomes(_)) = (self.pools.get_mut(usize::from(number)), &told) {
            pool.counts.errors[Cause::Moving] += 1;
        }
        told
    }

    /// What was noted of a flight that goes on elsewhere.
    fn notes_of(&mut self, id: LineId, serial: u64) -> Vec<(Note, Vec<u8>)> {
        let mut notes = Vec::new();
        while let Some(line) = self.lines.get_mut(id as usize)
            && let Some(note) = line.notes.next(serial)
        {
            let (shard, place) = (line.shard, line.number);
            let name =
                if let Note::Miss(_, _, length) = note { line.notes.take_name(length).collect() } else { Vec::new() };
            let number = line.pool;
            let Some(pool) = self.pools.get_mut(usize::from(number)) else { break };
            match note {
                // Who waits behind it goes as it went.
                Note::Shared(shared) => {
                    if pool.config.path.merging.landed(shared, place, serial) {
                        self.landed.push((number, shared));
                    }
                }
                Note::Timed(_) => pool.config.path.hot.choice.lost(shard),
                // It is no longer told by its connection which of several comes last.
                Note::Put(hash, put) => pool.config.path.hot.end_put(hash, put, false),
                note => notes.push((note, name)),
            }
        }
        notes
    }

    /// Sends a request that was redirected to a shard.
    fn send_on(&mut self, number: u16, request: Waiting, shard: u16, asking: bool, port: &mut impl Port) {
        let Some(pool) = self.pools.get(usize::from(number)) else { return };
        let Some(from) = self.lines.get(request.from as usize).map(|line| line.number) else { return };
        let (stride, lanes) = (pool.stride().max(1), u32::from(pool.config.lanes.max(1)));
        let on = pool.line(from / stride * stride + u32::from(shard) * lanes + from % lanes);
        self.send_again_on(on, request, asking, port);
    }

    fn send_again_on(&mut self, on: LineId, request: Waiting, asking: bool, port: &mut impl Port) {
        let Some(line) = self.lines.get(on as usize) else { return };
        let timeout = self.pools.get(usize::from(line.pool)).and_then(|pool| pool.config.timeout);
        let Waiting { mut waiter, wire, notes, order, hops, since, .. } = request;
        // What it has waited for elsewhere must not make a timeout of this connection's, where the front has waited longest.
        let waited = |at: u32| (self.now as u32).wrapping_sub(at);
        if timeout.is_some_and(|timeout| u64::from(waited(waiter.at)) > timeout / 2) {
            waiter.at = self.now as u32;
        }
        if let Some(last) = self.lines.get(on as usize).and_then(|line| line.waiters.back())
            && waited(last.at) < waited(waiter.at)
        {
            waiter.at = last.at;
        }
        let session = waiter.ticket.session;
        if asking {
            let asker = Waiter {
                ticket: Ticket { slot: 0, ..waiter.ticket },
                at: waiter.at,
                link: Waiter::NOBODY,
                part: Waiter::NOBODYS,
                tag: Tag::nameless(Class::Local),
            };
            let mut ask = Vec::new();
            write::request(&mut ask, &[b"ASKING"]);
            let Some(line) = self.lines.get_mut(on as usize) else { return };
            self.in_flight += 1;
            line.expect(asker);
            self.append(on, session, &ask, port);
        }
        let Some(line) = self.lines.get_mut(on as usize) else { return };
        self.in_flight += 1;
        let serial = line.expect(waiter);
        for (note, name) in notes {
            line.notes.put(serial, note, &name);
        }
        if let Some(asked) = &mut line.asked {
            asked.keep_again(&wire, Kept { serial, length: 0, order, hops, since });
        }
        self.append(on, session, &wire, port);
    }

    /// Keeps a request until its slot has settled, or for a while.
    fn wait_for_slot(&mut self, number: u16, request: Waiting, moved: bool) {
        let now = self.now;
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let Some(cluster) = &mut pool.cluster else { return };
        pool.counts.redirects_waiting += 1;
        pool.counts.redirects_waiting_bytes += request.wire.len() as u64;
        cluster.waiting += 1;
        cluster.bytes += request.wire.len();
        let before = cluster.troubles.len();
        let on = request.from;
        let next = self.lines.get(on as usize).map_or(0, Line::next_serial);
        // Whoever knows where to is sent there as soon as nothing is on its way.
        let due = if moved && request.hops <= AT_ONCE { now } else { now + pause(request.hops) };
        if let Some(trouble) = cluster.trouble(request.slot) {
            if trouble.waiting.is_empty() {
                trouble.due = due;
                trouble.marked.clear();
            }
            // What was on its way behind it may come back, too, and has its place behind it. Once: what is asked from now on by
            // others must not keep it waiting.
            if !trouble.marked.contains(&on) {
                trouble.marked.push(on);
                trouble.marks.push((on, next));
            }
            let place = trouble.waiting.partition_point(|other| other.order <= request.order);
            trouble.waiting.insert(place, request);
        }
        self.troubles += cluster.troubles.len() - before;
    }

    /// Requests that wait for their slots, of all pools.
    pub(super) fn waiting_for_slots(&self) -> usize {
        if self.troubles == 0 {
            return 0;
        }
        self.pools.iter().filter_map(|pool| pool.cluster.as_ref()).map(|cluster| cluster.waiting).sum()
    }

    /// Upkeep: what has waited for long enough is sent again, and troubles that are over end.
    pub(super) fn look_after_slots(&mut self, port: &mut impl Port) {
        if self.troubles == 0 {
            return;
        }
        for number in 0..self.pools.len() as u16 {
            self.settle_slots(number);
            self.send_again(number, None, false, port);
            self.settle_slots(number);
        }
    }

    /// Sends again what waits for its slot, or for any; all of it, or what is due.
    fn send_again(&mut self, number: u16, slot: Option<u16>, all: bool, port: &mut impl Port) {
        let now = self.now;
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let Some(cluster) = &mut pool.cluster else { return };
        let (lines, wait) = (&self.lines, pool.config.redirect_wait);
        // Whose slots decide nothing any more has no node to be asked: where its key lives is to be looked up anew.
        let has_slots = pool.config.path.route.slots().is_some();
        let (mut due, mut over) = (Vec::new(), Vec::new());
        let mut look = |trouble: &mut Trouble| {
            if trouble.waiting.is_empty() {
                return;
            }
            trouble.marks.retain(|mark| is_on_its_way(lines, mark));
            if !has_slots {
                over.extend(trouble.waiting.drain(..));
            } else if trouble.marks.is_empty() && (all || trouble.due <= now) {
                due.extend(trouble.waiting.drain(..));
            } else if !trouble.marks.is_empty() {
                let late = |request: &mut Waiting| u64::from((now as u32).wrapping_sub(request.since)) >= wait;
                let first =
                    trouble.waiting.iter_mut().position(|request| !late(request)).unwrap_or(trouble.waiting.len());
                over.extend(trouble.waiting.drain(..first));
            }
        };
        match slot {
            // There may be thousands of others.
            Some(slot) => {
                let trouble = cluster.of(slot).and_then(|own| cluster.troubles.get_mut(usize::from(own)));
                trouble.into_iter().for_each(look);
            }
            None => cluster.troubles.iter_mut().for_each(|(_, trouble)| look(trouble)),
        }
        over.into_iter().for_each(|request| self.told_in_vain(number, request, port));
        for request in due {
            self.waits_no_more(number, &request);
            let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
            // A slot that is nobody's may be somebody's by now: any node knows.
            let route = &pool.config.path.route;
            let back = self.lines.get(request.from as usize).map_or(0, |line| line.shard);
            let shard = route.owner(request.slot).or_else(|| route.shards().first().copied()).unwrap_or(back);
            self.send_on(number, request, shard, false, port);
        }
    }

    fn waits_no_more(&mut self, number: u16, request: &Waiting) {
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        pool.counts.redirects_waiting -= 1;
        pool.counts.redirects_waiting_bytes -= request.wire.len() as u64;
        if let Some(cluster) = &mut pool.cluster {
            cluster.waiting = cluster.waiting.saturating_sub(1);
            cluster.bytes = cluster.bytes.saturating_sub(request.wire.len());
        }
    }

    /// A request has waited for long enough, and what is on its way elsewhere still keeps it from being sent.
    fn told_in_vain(&mut self, number: u16, request: Waiting, port: &mut impl Port) {
        self.waits_no_more(number, &request);
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        pool.counts.errors[Cause::Moving] += 1;
        let on = request.from;
        let Some(line) = self.lines.get_mut(on as usize) else { return };
        // What was noted of it is looked at by itself.
        let others = std::mem::take(&mut line.notes);
        request.notes.iter().for_each(|(note, name)| line.notes.put(0, *note, name));
        let mut waiter = request.waiter;
        if waiter.part == Waiter::SHARED {
            waiter = self.lead_of(&waiter);
        }
        let split =
            waiter.part < Waiter::FIRST_SPECIAL && self.gathers.get(waiter.link as usize).is_some_and(Gather::is_split);
        let mut reply = Vec::new();
        write::error(&mut reply, if split { PART_MOVING } else { MOVING }.as_bytes());
        let becomes = self.noted((on, 0), waiter.ticket, Some(&reply), 0);
        if let Some(line) = self.lines.get_mut(on as usize) {
            line.notes = others;
        }
        match becomes {
            Becomes::Withheld(held) => self.withhold(held, on, number, waiter, &reply),
            _ => self.land(on, number, &waiter, &reply, port),
        }
    }

    /// Ends the troubles in which nothing waits, and nothing is on its way any more.
    fn settle_slots(&mut self, number: u16) {
        let Some(pool) = self.pools.get_mut(usize::from(number)) else { return };
        let Some(cluster) = &mut pool.cluster else { return };
        let Cluster { troubles, trouble_of, .. } = &mut **cluster;
        let before = troubles.len();
        let lines = &self.lines;
        troubles.retain(|_, trouble| {
            trouble.marks.retain(|mark| is_on_its_way(lines, mark));
            let over = trouble.marks.is_empty() && trouble.waiting.is_empty();
            if over {
                for &slot in &trouble.slots {
                    if let Some(place) = trouble_of.get_mut(usize::from(slot)) {
                        *place = NONE;
                    }
                }
            }
            !over
        });
        self.troubles -= before - troubles.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_are_told_from_other_errors() {
        assert_eq!(Word::read(b"-MOVED 3999 127.0.0.1:6381\r\n"), Some(Word::Moved(3999, b"127.0.0.1:6381")));
        assert_eq!(Word::read(b"-ASK 16383 ::1:6381\r\n"), Some(Word::Ask(16383, b"::1:6381")));
        assert_eq!(Word::read(b"-TRYAGAIN Multiple keys request\r\n"), Some(Word::TryAgain));
        assert_eq!(Word::read(b"-CLUSTERDOWN The cluster is down\r\n"), Some(Word::ClusterDown));
        for other in [
            &b"-MOVED 16384 a:1\r\n"[..],
            b"-MOVED x a:1\r\n",
            b"-MOVED 1\r\n",
            b"-MOVED\r\n",
            b"-ERR no\r\n",
            b"+OK\r\n",
            b"-\r\n",
        ] {
            assert_eq!(Word::read(other), None, "{}", String::from_utf8_lossy(other));
        }
    }
}
