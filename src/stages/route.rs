//! Finds a key's home: the shard that the ring gives it, and the session's connection to that shard.

use super::{Event, Leg, Micros, Notices, Refusal, Stage, Verdict};
use crate::ring::{Distribution, KeyHash, NOBODY, Ring, Shard, Slots, slot_of};
use std::sync::Arc;

/// What the ring is built from.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The shards in the order of the config file.
    pub shards: Vec<Shard>,
    /// Their numbers in the pool, in the same order. A shard keeps its number when others come and go.
    pub numbers: Vec<u16>,
    /// How keys are hashed.
    pub hash: KeyHash,
    /// How hashes are dealt to shards.
    pub distribution: Distribution,
    /// What counts of a key.
    pub hash_tag: Option<[u8; 2]>,
    /// Keys that begin so live on that shard, whatever the ring says and whether it is ejected or not; of several beginnings
    /// the longest counts.
    pub pins: Vec<(Box<[u8]>, u16)>,
    /// The numbers of the slots' shards, where the shards are a cluster's: then these decide, and nothing of the above.
    pub slots: Option<Slots>,
}

impl Placement {
    /// The shard where a key is pinned to.
    pub(super) fn pinned(&self, key: &[u8]) -> Option<u16> {
        let fitting = self.pins.iter().filter(|(beginning, _)| key.starts_with(beginning));
        fitting.max_by_key(|(beginning, _)| beginning.len()).map(|&(_, shard)| shard)
    }

    /// The one shard where all keys live, if it is pinned or there is only one.
    #[must_use]
    pub fn only(&self) -> Option<u16> {
        if self.slots.is_some() {
            // However few its nodes are: they refuse what names several slots, and more may come at any time.
            return None;
        }
        match (self.numbers.as_slice(), self.pins.as_slice()) {
            (&[only], _) => Some(only),
            (_, [(beginning, shard)]) if beginning.is_empty() => Some(*shard),
            _ => None,
        }
    }

    /// The ring over all its shards.
    pub(super) fn whole_ring(&self) -> Ring {
        self.ring(&[])
    }

    /// The ring over the shards that are live, by their numbers.
    fn ring(&self, live: &[bool]) -> Ring {
        let live: Vec<bool> = self.numbers.iter().map(|&n| live.get(usize::from(n)).copied().unwrap_or(true)).collect();
        Ring::new(&self.shards, &live, self.hash, self.distribution, self.hash_tag)
    }

    fn name(&self, shard: u16) -> &str {
        let place = self.numbers.iter().position(|&number| number == shard);
        place.and_then(|place| self.shards.get(place)).map_or("", |shard| shard.name.as_str())
    }
}

/// The stage. Owns the ring; ejected shards leave it and come back. Where there is a gutter they stay in it, and what would go
/// to them goes to the gutter's ring.
pub struct Route {
    placement: Placement,
    ring: Ring,
    /// The servers that stand in for those that are ejected, and their ring.
    gutter: Option<(Placement, Ring)>,
    /// Shards that follow others: a replica's number, and that of the shard it follows. They are on no ring.
    replicas: Vec<(u16, u16)>,
    /// Shards where keys lived before. Those that have none any more are on no ring.
    former: Vec<u16>,
    /// By the shards' numbers; what is not there is live.
    live: Vec<bool>,
    lanes: u16,
    changes: u32,
    /// By the shards' numbers, a slot of theirs; see [`Route::slot_at`].
    firsts: Vec<Option<u16>>,
}

impl Route {
    /// Routes over all shards of `placement`, each with `lanes` connections.
    #[must_use]
    pub fn new(placement: Placement, lanes: u16) -> Self {
        let ring = placement.ring(&[]);
        let (live, replicas, firsts) = (Vec::new(), Vec::new(), firsts(placement.slots.as_ref()));
        Self { placement, ring, gutter: None, replicas, former: Vec::new(), live, lanes, changes: 0, firsts }
    }

    /// The same, with a gutter: shards that have numbers of their own, and take the keys of those that are ejected.
    #[must_use]
    pub fn with_gutter(self, gutter: Placement) -> Self {
        let ring = gutter.ring(&[]);
        Self { gutter: Some((gutter, ring)), ..self }
    }

    /// The same, with shards that have numbers of their own and follow others: a replica's number, and that of the shard it
    /// follows.
    #[must_use]
    pub fn with_replicas(self, replicas: Vec<(u16, u16)>) -> Self {
        Self { replicas, ..self }
    }

    /// The same, with shards where keys lived before; those that the placement has no more are on no ring.
    #[must_use]
    pub fn with_former(self, shards: &[u16]) -> Self {
        let former = shards.iter().copied().filter(|shard| !self.placement.numbers.contains(shard)).collect();
        Self { former, ..self }
    }

    /// Whether a shard is one of the gutter's.
    #[must_use]
    #[inline]
    pub fn is_spare(&self, shard: u16) -> bool {
        self.gutter.as_ref().is_some_and(|(gutter, _)| gutter.numbers.contains(&shard))
    }

    /// The numbers of all shards, those of the gutter, the replicas and those that keys have left last.
    pub fn numbers(&self) -> impl Iterator<Item = u16> {
        let spares = self.gutter.iter().flat_map(|(gutter, _)| &gutter.numbers);
        let replicas = self.replicas.iter().map(|(replica, _)| replica);
        self.placement.numbers.iter().chain(spares).chain(replicas).chain(&self.former).copied()
    }

    /// Whether a shard follows another.
    #[must_use]
    pub fn is_replica(&self, shard: u16) -> bool {
        self.replicas.iter().any(|&(replica, _)| replica == shard)
    }

    /// Draws the rings anew.
    fn draw(&mut self) {
        match &mut self.gutter {
            Some((gutter, ring)) => {
                // Its own ring has all shards: those that are ejected are stood in for.
                self.ring = self.placement.ring(&[]);
                *ring = gutter.ring(&self.live);
            }
            None => self.ring = self.placement.ring(&self.live),
        }
        self.changes = self.changes.wrapping_add(1);
    }

    /// Who stands in for a key's home; nobody while it is well, or none of the gutter is.
    fn stands_in(&self, leg: &Leg<'_>, home: u16) -> Option<u16> {
        let (gutter, ring) = self.gutter.as_ref()?;
        if self.live.get(usize::from(home)).copied().unwrap_or(true) {
            return None;
        }
        let place = ring.shard_at(ring.position(leg.key), leg.number)?;
        gutter.numbers.get(usize::from(place)).copied()
    }

    /// Takes another's place in a pool that is configured anew, and in which these shards' keys go elsewhere.
    pub fn inherit(&mut self, before: &Self, out: &[u16]) {
        let known = out.iter().max().map_or(0, |&last| usize::from(last).saturating_add(1));
        self.live = vec![true; known];
        for &shard in out {
            if let Some(live) = self.live.get_mut(usize::from(shard)) {
                *live = false;
            }
        }
        self.changes = before.changes;
        self.draw();
    }

    /// The shards' numbers, in the order of the config file.
    #[must_use]
    pub fn shards(&self) -> &[u16] {
        &self.placement.numbers
    }

    /// The ring as it is now.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    fn set(&mut self, shard: u16, live: bool) {
        let index = usize::from(shard);
        if self.live.len() <= index {
            self.live.resize(index + 1, true);
        }
        if self.live.get(index) != Some(&live) {
            if let Some(place) = self.live.get_mut(index) {
                *place = live;
            }
            self.draw();
        }
    }
}

impl Route {
    /// Whose a key is on the ring, by number.
    #[inline]
    fn on_ring(&self, leg: &Leg<'_>) -> Option<u16> {
        let place = self.ring.shard_at(self.ring.position(leg.key), leg.number)?;
        self.placement.numbers.get(usize::from(place)).copied()
    }

    /// The slot of a key; `None` where the shards are no cluster's.
    #[must_use]
    #[inline]
    pub fn slot(&self, key: &[u8]) -> Option<u16> {
        self.placement.slots.as_ref().map(|_| slot_of(key))
    }

    /// The numbers of the slots' shards, where they are a cluster's.
    #[must_use]
    pub fn slots(&self) -> Option<&Slots> {
        self.placement.slots.as_ref()
    }

    /// Whose a slot is.
    #[must_use]
    pub fn owner(&self, slot: u16) -> Option<u16> {
        let slots = self.placement.slots.as_ref()?;
        slots.get(usize::from(slot)).copied().filter(|&shard| shard != NOBODY)
    }

    /// A slot of a shard's, the same in all processes that see the same cluster.
    #[must_use]
    pub fn slot_at(&self, shard: u16) -> Option<u16> {
        self.firsts.get(usize::from(shard)).copied().flatten()
    }

    /// The shards' numbers in an order to visit them in: a cluster's by their slots, so that who takes another's place has its
    /// turn, too.
    #[must_use]
    pub fn in_turn(&self) -> Vec<u16> {
        let mut shards = self.placement.numbers.clone();
        if self.placement.slots.is_some() {
            shards.sort_by_key(|&shard| self.slot_at(shard).unwrap_or(NOBODY));
        }
        shards
    }

    /// One slot is another shard's now.
    pub fn give(&mut self, slot: u16, shard: u16) {
        if let Some(slots) = &mut self.placement.slots
            && let Some(owner) = Arc::make_mut(slots).get_mut(usize::from(slot))
            && *owner != shard
        {
            let before = std::mem::replace(owner, shard);
            self.changes = self.changes.wrapping_add(1);
            // Seldom: slot by slot this would be much for a whole shard.
            if self.slot_at(before) == Some(slot) || self.slot_at(shard).is_none_or(|first| slot < first) {
                self.firsts = firsts(self.placement.slots.as_ref());
            }
        }
    }

    /// All slots are these shards' now.
    pub fn give_all(&mut self, slots: Slots) {
        self.placement.slots = Some(slots);
        self.changes = self.changes.wrapping_add(1);
        self.firsts = firsts(self.placement.slots.as_ref());
    }

    /// Where a key lives now, stand-ins included.
    #[must_use]
    pub fn home(&self, key: &[u8]) -> Option<u16> {
        let mut leg = Leg::new(crate::command::lookup(b"get")?, key, b"");
        (self.decide(&mut leg, 0) == Verdict::Next).then_some(leg.shard)
    }

    /// So many shards at most where copies of a key may be, its home first: those that follow on the ring. Nobody but the
    /// home itself where keys have no place, and where it stands in for another.
    #[must_use]
    pub fn around(&self, key: &[u8], home: u16, count: usize) -> Vec<u16> {
        let mut shards = vec![home];
        if self.placement.slots.is_some() {
            // As many processes as there are should choose the same ones: those behind the home in the order of their numbers.
            let all = self.placement.numbers.iter().copied();
            let (behind, before): (Vec<u16>, Vec<u16>) =
                all.filter(|&shard| shard != home).partition(|&shard| shard > home);
            shards.extend(behind.into_iter().chain(before));
            shards.truncate(count.max(1));
            return shards;
        }
        if self.is_spare(home) || self.placement.distribution == Distribution::Random {
            return shards;
        }
        // The home may be none of those on the ring: a key can be pinned to it.
        let mut places = vec![0; count.min(self.placement.numbers.len())];
        let found = self.ring.neighbours(self.ring.position(key), &mut places);
        let numbers = places.iter().take(found).filter_map(|&place| self.placement.numbers.get(usize::from(place)));
        shards.extend(numbers.copied().filter(|&shard| shard != home));
        shards.truncate(count.max(1));
        shards
    }

    /// How often the ring has changed; wraps.
    #[must_use]
    pub fn changes(&self) -> u32 {
        self.changes
    }

    /// See [`Placement::only`].
    #[must_use]
    pub fn only(&self) -> Option<u16> {
        self.placement.only()
    }
}

/// For each shard its first slot.
fn firsts(slots: Option<&Slots>) -> Vec<Option<u16>> {
    let mut firsts = Vec::new();
    for (slot, &shard) in
        (0..).zip(slots.into_iter().flat_map(|slots| slots.iter())).filter(|(_, shard)| **shard != NOBODY)
    {
        if firsts.len() <= usize::from(shard) {
            firsts.resize(usize::from(shard) + 1, None);
        }
        if let Some(first) = firsts.get_mut(usize::from(shard)) {
            first.get_or_insert(slot);
        }
    }
    firsts
}

impl Stage for Route {
    #[inline]
    fn decide(&self, leg: &mut Leg<'_>, _now: Micros) -> Verdict {
        if let Some(slots) = &self.placement.slots {
            return match slots.get(usize::from(slot_of(leg.key))) {
                Some(&shard) if shard != NOBODY => {
                    leg.shard = shard;
                    leg.line = leg.base + u32::from(shard) * u32::from(self.lanes) + u32::from(leg.lane);
                    Verdict::Next
                }
                _ => Verdict::Refuse(Refusal::NoSlot),
            };
        }
        let home = if self.placement.pins.is_empty() { None } else { self.placement.pinned(leg.key) };
        match home.or_else(|| self.on_ring(leg)) {
            Some(home) => {
                let shard = if self.gutter.is_some() { self.stands_in(leg, home).unwrap_or(home) } else { home };
                leg.shard = shard;
                leg.line = leg.base + u32::from(shard) * u32::from(self.lanes) + u32::from(leg.lane);
                Verdict::Next
            }
            None => Verdict::Refuse(Refusal::NoShard),
        }
    }

    fn observe(&mut self, event: &Event<'_>, _now: Micros, _notices: &mut Notices) {
        match event {
            // A replica is on no ring, and nothing moves for its sake.
            Event::Ejected(shard) | Event::Restored(shard)
                if self.is_replica(*shard) || self.former.contains(shard) => {}
            Event::Ejected(shard) => self.set(*shard, false),
            Event::Restored(shard) => self.set(*shard, true),
            _ => {}
        }
    }

    fn explain(&self, leg: &Leg<'_>, verdict: Verdict, _now: Micros) -> String {
        if verdict != Verdict::Next {
            return verdict.to_string();
        }
        if let Some(slot) = self.slot(leg.key) {
            return format!("slot {slot}, home is {}", self.placement.name(leg.shard));
        }
        let hashed = self.ring.tagged(leg.key);
        let of = if hashed.len() == leg.key.len() { "the key's hash" } else { "the hash of its hash tag" };
        if let Some((gutter, _)) = self.gutter.as_ref().filter(|_| self.is_spare(leg.shard)) {
            return format!("home is ejected, {} stands in", gutter.name(leg.shard));
        }
        let name = self.placement.name(leg.shard);
        if self.placement.pinned(leg.key).is_some() {
            return format!("pinned to {name}");
        }
        format!("position {:#010x} ({of}), home is {name}", self.ring.position(leg.key))
    }
}
