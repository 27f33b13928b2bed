//! Which sentinels there are besides those that are configured.
//!
//! Promises: one is counted only if more than half of the configured ones that answer know of it, so that nobody brings
//! friends along who vote as it does; and once only, wherever it is said to be.

use super::replies::{MOST, Peer};
use crate::units::Address;

/// What a configured sentinel said of itself and of others.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Its own id, if it tells one.
    pub id: Option<String>,
    /// The others it knows of.
    pub peers: Vec<Peer>,
}

/// The sentinels beside `configured`, whose ids are `ids` as far as they were ever told; `told` is what those of them said
/// that answered. `last` is what was known before: it stays while only a minority answers.
#[must_use]
pub fn learn(configured: &[Address], ids: &[Option<String>], told: &[Told], last: &[Peer]) -> Vec<Peer> {
    if told.len() <= configured.len() / 2 {
        return last.to_vec();
    }
    let mut all: Vec<Peer> = Vec::new();
    for peer in told.iter().flat_map(|told| &told.peers) {
        let is_configured = configured.contains(&peer.address) || ids.iter().flatten().any(|id| *id == peer.id);
        let is_known = all.iter().any(|other| other.id == peer.id || other.address == peer.address);
        // A sentinel does not name itself.
        let names = |told: &&Told| told.id.as_ref() == Some(&peer.id) || told.peers.contains(peer);
        let enough = told.iter().filter(names).count() > told.len() / 2;
        if !is_configured && !is_known && enough && all.len() < MOST {
            all.push(peer.clone());
        }
    }
    // The same order whoever answers first: what is connected to is compared by it.
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Address {
        Address::Tcp { host: "10.0.0.1".into(), port }
    }

    /// One with this number, as others know it.
    fn peer(n: u16) -> Peer {
        Peer { id: format!("id-{n}"), address: at(n) }
    }

    fn told(id: u16, peers: &[u16]) -> Told {
        Told { id: Some(format!("id-{id}")), peers: peers.iter().map(|&n| peer(n)).collect() }
    }

    fn ids(all: &[u16]) -> Vec<Option<String>> {
        all.iter().map(|n| Some(format!("id-{n}"))).collect()
    }

    #[test]
    fn one_leads_to_the_others() {
        let found = learn(&[at(1)], &ids(&[1]), &[told(1, &[2, 3])], &[]);
        assert_eq!(found, [peer(2), peer(3)]);
    }

    #[test]
    fn those_that_are_configured_are_known_by_their_ids() {
        let name = Address::Tcp { host: "sentinel-1".into(), port: 26379 };
        let found = learn(&[name, at(2)], &ids(&[1, 2]), &[told(1, &[2, 3]), told(2, &[1, 3])], &[]);
        assert_eq!(found, [peer(3)]);
    }

    #[test]
    fn nobody_brings_friends() {
        let configured = [at(1), at(2), at(3)];
        let all = ids(&[1, 2, 3]);
        let liar = told(3, &[1, 2, 7, 8, 9]);
        assert!(learn(&configured, &all, &[told(1, &[2, 3]), told(2, &[1, 3]), liar.clone()], &[]).is_empty());
        assert!(learn(&configured, &all, &[told(1, &[2, 3]), liar], &[]).is_empty());
    }

    #[test]
    fn what_was_known_stays_while_few_answer() {
        let configured = [at(1), at(2), at(3)];
        let found = learn(&configured, &ids(&[1, 2, 3]), &[told(1, &[9])], &[peer(4)]);
        assert_eq!(found, [peer(4)]);
        assert_eq!(learn(&configured, &ids(&[1, 2, 3]), &[], &[peer(4)]), [peer(4)]);
    }

    #[test]
    fn there_is_a_bound() {
        let many: Vec<u16> = (100..400).collect();
        assert_eq!(learn(&[at(1)], &ids(&[1]), &[told(1, &many)], &[]).len(), MOST);
    }
}
