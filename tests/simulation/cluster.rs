//! A cluster whose nodes own slots: who carries out what, and what befalls that.
//!
//! A key's value moves with it, so there is one truth for all nodes (the first one's place), and never more than one node that
//! carries out what is about a key. Nodes learn who owns a slot at moments of their own: until then they send on to whom they
//! believe to. A node that refuses a request and carries out one behind it, which was sent before anybody could know, is
//! noted ([`Cluster::overtaken`]): no client that pipelines can keep the order then.

use super::chance::Chance;
use super::net::{LineEnd, Link};
use super::plan::Plan;
use super::truth::{Moment, Timeline, Truth};
use super::world::World;
use hotring::ring::{NOBODY, SLOTS, Slots, slot_of};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The nodes, and whom each believes to own what.
pub struct Cluster {
    nodes: usize,
    slots: BTreeMap<u16, Slot>,
    /// Who serves the slots that were nobody's of these when nobody had asked for them yet.
    heirs: Vec<usize>,
    /// Nodes that say that the cluster is down.
    down: Vec<bool>,
    /// What was told of all slots, to be told again when it is no longer so.
    told: Vec<Slots>,
    /// The last node is not known to the proxy.
    pub hidden: bool,
    /// By slot: when a request was carried out last though one that was sent before it on the same connection had been refused,
    /// and that could not be known.
    pub overtaken: BTreeMap<u16, Moment>,
    /// How often each thing happened.
    pub seen: BTreeMap<&'static str, u64>,
}

struct Slot {
    owner: usize,
    /// By node: who owns it.
    views: Vec<usize>,
    moving: Option<Moving>,
}

/// A slot between two nodes.
struct Moving {
    from: usize,
    to: usize,
    /// Keys that the source still has.
    here: BTreeSet<Vec<u8>>,
}

/// What a connection has refused, as far as the proxy may not know.
#[derive(Debug, Default)]
pub struct Refusals {
    /// The serial of the first flight, and how many were looked at.
    first: u64,
    count: u64,
    /// The slot, the refused flight's serial, and the first serial that was decided on when it was known.
    refused: Vec<(u16, u64, Option<u64>)>,
}

impl Refusals {
    /// On a connection that is new.
    pub fn after(first: u64) -> Self {
        Self { first, ..Self::default() }
    }

    /// The proxy has read all replies below `base`, and has made flights below `next`.
    pub fn known(&mut self, base: u64, next: u64) {
        for (_, serial, known) in &mut self.refused {
            if *serial < base {
                known.get_or_insert(next);
            }
        }
        let count = self.first + self.count;
        self.refused.retain(|(_, _, known)| known.is_none_or(|known| known > count));
    }
}

/// The keys of what the nodes are asked.
fn keys<'a>(args: &'a [&'a [u8]]) -> Vec<&'a [u8]> {
    match args[0].to_ascii_uppercase().as_slice() {
        b"MGET" | b"EXISTS" | b"DEL" => args[1..].to_vec(),
        b"MSET" | b"MSETNX" => args[1..].iter().step_by(2).copied().collect(),
        b"PING" | b"SELECT" | b"HELLO" | b"ASKING" => Vec::new(),
        _ => vec![args[1]],
    }
}

fn there(truth: &Truth, place: usize, key: &[u8]) -> bool {
    truth.nodes[place].keys.get(key).and_then(Timeline::last).is_some()
}

impl Cluster {
    pub fn new(plan: &Plan) -> Self {
        Self {
            nodes: plan.shards,
            slots: BTreeMap::new(),
            heirs: (0..plan.shards).collect(),
            down: vec![false; plan.shards],
            told: Vec::new(),
            hidden: plan.hidden,
            overtaken: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    /// What nodes call themselves.
    pub fn names(nodes: usize) -> Vec<(Box<[u8]>, u16)> {
        (0..nodes).map(|node| (format!("n{node}:7000").into_bytes().into(), node as u16)).collect()
    }

    /// Who has which slot at the very first.
    pub fn first(nodes: usize) -> Slots {
        Arc::new((0..SLOTS).map(|slot| (slot % nodes) as u16).collect())
    }

    fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn slot(&mut self, slot: u16) -> &mut Slot {
        let owner = self.heirs[usize::from(slot) % self.nodes];
        let views = vec![owner; self.nodes];
        self.slots.entry(slot).or_insert(Slot { owner, views, moving: None })
    }

    /// What a node says in place of carrying out a request; nothing if it does.
    pub fn refusal(&mut self, node: usize, asking: bool, args: &[&[u8]], truth: &Truth) -> Option<String> {
        let keys = keys(args);
        let number = slot_of(keys.first()?);
        assert!(keys.iter().all(|key| slot_of(key) == number), "a node was asked for keys of several slots");
        if self.down[node] {
            self.count("CLUSTERDOWN");
            return Some("CLUSTERDOWN The cluster is down".into());
        }
        let slot = self.slot(number);
        let (mut missing, mut found) = (0, 0);
        let told = match &slot.moving {
            Some(moving) if moving.from == node && slot.views[node] == node => {
                for key in &keys {
                    let here = moving.here.contains(*key) && there(truth, 0, key);
                    *if here { &mut found } else { &mut missing } += 1;
                }
                match (found, missing) {
                    (_, 0) => None,
                    (0, _) => Some(format!("ASK {number} n{}:7000", moving.to)),
                    _ => Some("TRYAGAIN Multiple keys request during rehashing of slot".into()),
                }
            }
            Some(moving) if moving.to == node && slot.views[node] != node && asking => {
                let absent = |key: &&[u8]| moving.here.contains(*key) || !there(truth, 0, key);
                (keys.len() > 1 && keys.iter().any(absent))
                    .then(|| "TRYAGAIN Multiple keys request during rehashing of slot".into())
            }
            _ if slot.views[node] == node => {
                assert!(slot.moving.is_some() || slot.owner == node, "two nodes own slot {number}");
                None
            }
            _ => Some(format!("MOVED {number} n{}:7000", slot.views[node])),
        };
        if let Some(word) = told.as_ref().and_then(|text| text.split(' ').next()) {
            let word = ["MOVED", "ASK", "TRYAGAIN"].into_iter().find(|known| *known == word);
            self.count(word.unwrap_or("CLUSTERDOWN"));
        }
        told
    }

    /// A node has carried out a request: what it deletes it has no more.
    pub fn ran(&mut self, node: usize, args: &[&[u8]], truth: &Truth) {
        for key in keys(args) {
            if let Some(moving) = &mut self.slot(slot_of(key)).moving
                && moving.from == node
                && !there(truth, 0, key)
            {
                moving.here.remove(key);
            }
        }
    }

    /// Notes what became of the next request on a connection.
    pub fn looked_at(&mut self, refusals: &mut Refusals, args: &[&[u8]], refused: bool, now: Moment) {
        let serial = refusals.first + refusals.count;
        refusals.count += 1;
        let Some(slot) = keys(args).first().map(|key| slot_of(key)) else { return };
        if refused {
            refusals.refused.push((slot, serial, None));
        } else if refusals.refused.iter().any(|&(of, _, known)| of == slot && known.is_none_or(|known| known > serial))
        {
            self.overtaken.insert(slot, now);
            self.count("requests that overtook others on their connection");
        }
    }

    /// What a node, or who knows it all, tells of all slots.
    fn news(&self, from: Option<usize>) -> Slots {
        let mut slots: Vec<u16> = (0..SLOTS).map(|slot| self.heirs[slot % self.nodes] as u16).collect();
        for (number, slot) in &self.slots {
            slots[usize::from(*number)] = from.map_or(slot.owner, |node| slot.views[node]) as u16;
        }
        if self.hidden {
            let last = self.nodes as u16 - 1;
            slots.iter_mut().filter(|slot| **slot == last).for_each(|slot| *slot = NOBODY);
        }
        Arc::new(slots)
    }

    /// All that is under way is done, and everybody knows.
    fn settle(&mut self) {
        self.down.fill(false);
        for slot in self.slots.values_mut() {
            if let Some(moving) = slot.moving.take() {
                slot.owner = moving.to;
            }
            slot.views.fill(slot.owner);
        }
    }

    /// A slot begins to move, a key of one moves, or its nodes learn that it has.
    fn migrate(&mut self, chance: &mut Chance, truth: &Truth) -> Option<String> {
        let numbers: Vec<u16> = self.slots.keys().copied().collect();
        // Most of it befalls the few slots that most are asked for.
        let busy: Vec<u16> = numbers.iter().copied().filter(|slot| self.slots[slot].moving.is_some()).collect();
        let number = if busy.is_empty() || chance.one_in(6) {
            *numbers.get(chance.below(numbers.len().max(1)))?
        } else {
            chance.pick(&busy)
        };
        let nodes = self.nodes;
        let slot = self.slots.get_mut(&number)?;
        let Some(moving) = &mut slot.moving else {
            let to = chance.below(nodes);
            if to == slot.owner || slot.views[slot.owner] != slot.owner || slot.views[to] == to {
                return None;
            }
            let of_slot = |key: &&Vec<u8>| slot_of(key) == number && there(truth, 0, key);
            let here = truth.nodes[0].keys.keys().filter(of_slot).cloned().collect();
            slot.moving = Some(Moving { from: slot.owner, to, here });
            return Some(format!("slot {number} begins to move from {} to {to}", slot.owner));
        };
        if !moving.here.is_empty() {
            let key = moving.here.iter().nth(chance.below(moving.here.len()))?.clone();
            moving.here.remove(&key);
            return Some(format!("key {} moves", String::from_utf8_lossy(&key)));
        }
        let (from, to) = (moving.from, moving.to);
        let learner = chance.pick(&[from, to]);
        if slot.views[learner] == to {
            return None;
        }
        slot.views[learner] = to;
        if slot.views[from] == to && slot.views[to] == to {
            (slot.owner, slot.moving) = (to, None);
        }
        Some(format!("{learner} learns that {to} has slot {number}"))
    }

    /// A node that is behind learns of a slot.
    fn learn(&mut self, chance: &mut Chance) -> Option<String> {
        let mut late = Vec::new();
        for (number, slot) in self.slots.iter().filter(|(_, slot)| slot.moving.is_none()) {
            late.extend((0..self.nodes).filter(|&node| slot.views[node] != slot.owner).map(|node| (*number, node)));
        }
        let &(number, node) = late.get(chance.below(late.len().max(1)))?;
        let slot = self.slots.get_mut(&number)?;
        slot.views[node] = slot.owner;
        Some(format!("{node} learns that {} has slot {number}", slot.owner))
    }

    /// A node's slots become another's. Returns the node.
    fn fail_over(&mut self, chance: &mut Chance) -> Option<usize> {
        let (from, to) = (chance.below(self.nodes), chance.below(self.nodes));
        let involved = |slot: &Slot| {
            slot.moving.as_ref().is_some_and(|moving| [moving.from, moving.to].contains(&from))
                || (slot.owner == from && slot.views[from] != from)
        };
        if from == to || self.slots.values().any(involved) {
            return None;
        }
        self.heirs.iter_mut().filter(|heir| **heir == from).for_each(|heir| *heir = to);
        let late = chance.one_in(3);
        for slot in self.slots.values_mut().filter(|slot| slot.owner == from) {
            slot.owner = to;
            slot.views[from] = to;
            if !late {
                slot.views[to] = to;
            }
        }
        Some(from)
    }
}

impl World {
    /// Something befalls the cluster.
    pub fn cluster_changes(&mut self) -> bool {
        let Some(mut cluster) = self.cluster.take() else { return false };
        self.truth.moment += 1;
        let happened = self.befall(&mut cluster);
        self.cluster = Some(cluster);
        happened
    }

    fn befall(&mut self, cluster: &mut Cluster) -> bool {
        let text = match self.chance.below(40) {
            0..16 => cluster.migrate(&mut self.chance, &self.truth),
            16..21 => cluster.learn(&mut self.chance),
            21 => {
                let node = self.chance.below(cluster.nodes);
                cluster.down[node] = true;
                Some(format!("{node} says that the cluster is down"))
            }
            22..25 => {
                let was = cluster.down.contains(&true);
                cluster.down.fill(false);
                was.then(|| "the cluster is up".into())
            }
            25 => {
                let failed = cluster.fail_over(&mut self.chance);
                if let Some(node) = failed.filter(|_| self.chance.one_in(2)) {
                    self.break_lines(node);
                }
                failed.map(|node| format!("another has the slots of {node}"))
            }
            26 if cluster.hidden && self.chance.one_in(3) => {
                self.show(cluster);
                Some("all nodes are known".into())
            }
            26..31 => {
                let stale = self.chance.below(4);
                let node = self.chance.below(cluster.nodes);
                let news = match stale {
                    0 => cluster.news(Some(node)),
                    1 if !cluster.told.is_empty() => cluster.told[self.chance.below(cluster.told.len())].clone(),
                    2 if !self.engine.take_wish(0) => return false,
                    _ => cluster.news(None),
                };
                if cluster.told.len() < 4 {
                    cluster.told.push(news.clone());
                }
                self.engine.set_slots(0, news, self.now, &mut self.net);
                self.rung |= self.engine.is_dirty();
                Some(format!("the proxy is told of all slots ({stale}, {node})"))
            }
            _ => return self.tick(),
        };
        if let Some(text) = &text {
            self.note(|| text.clone());
        }
        self.meet();
        self.judge();
        text.is_some()
    }

    /// A node's process ends; another one has its data.
    fn break_lines(&mut self, node: usize) {
        let ends = self.net.lines.iter_mut();
        for end in ends.filter(|end: &&mut LineEnd| end.node == node && end.link == Link::Open) {
            end.closed = true;
            end.refuses = true;
            end.inbox.clear();
            end.query.clear();
        }
        self.ghosts[node].1.clear();
        self.frozen[node] = false;
    }

    /// The proxy comes to know all nodes.
    fn show(&mut self, cluster: &mut Cluster) {
        if std::mem::take(&mut cluster.hidden) {
            let all: Vec<u16> = (0..self.plan.shards as u16).collect();
            let news = cluster.news(None);
            self.engine.reload(0, self.plan.pool_with(0, &all, Some(news)), self.now, &mut self.net);
            self.rung |= self.engine.is_dirty();
        }
    }

    /// Everything about the cluster is as it will stay, and the proxy knows.
    pub fn cluster_settles(&mut self) {
        let Some(mut cluster) = self.cluster.take() else { return };
        self.truth.moment += 1;
        cluster.settle();
        self.show(&mut cluster);
        self.engine.set_slots(0, cluster.news(None), self.now, &mut self.net);
        self.rung |= self.engine.is_dirty();
        self.cluster = Some(cluster);
        self.meet();
        self.judge();
    }
}
