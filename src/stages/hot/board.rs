//! Where the workers of a pool write which keys are hot, for people: HOTRING HOTKEYS, `/hotkeys`, and the gauges.
//!
//! Each worker replaces its own page when it closes a window, four times a second; nothing of it is on a request's way.

use super::Means;
use super::detector::Level;
use crate::stages::Micros;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Keys on a worker's page.
pub(super) const MOST: usize = 32;

/// A key that is hot or warm. Rates are per second, over about the last second; those of one worker or, merged, of all.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The key.
    pub key: Box<[u8]>,
    /// Its shard's number.
    pub shard: u16,
    /// Requests for it.
    pub requests: f64,
    /// Bytes of replies that came for it.
    pub bytes: f64,
    /// Reads.
    pub reads: f64,
    /// Writes.
    pub writes: f64,
    /// Reads that did not go to its shard.
    pub saved: f64,
    /// Its share of the pool's requests, from 0 to 1, surely and at most.
    pub share: (f64, f64),
    /// Its share of the bytes.
    pub share_of_bytes: f64,
    /// How much it matters.
    pub level: Level,
    /// What its reads are served by.
    pub means: Means,
    /// Whether that is only what would be done.
    pub observed: bool,
    /// Why it is not more.
    pub why: &'static str,
    /// For how long it is hot or warm.
    pub age: Micros,
}

/// What a worker, or all of them, sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Hot and warm keys; the hottest first.
    pub rows: Vec<Row>,
    /// How many keys are hot or warm; more than are told of, perhaps. Of several workers the most.
    pub keys: usize,
    /// Requests a second, those for keys that are not told of with them.
    pub requests: f64,
    /// Bytes of replies a second.
    pub bytes: f64,
    /// Requests that each shard was sent a second, in about ten seconds, by its number.
    pub loads: Vec<f64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Board {
    pages: Mutex<Vec<Page>>,
}

impl Board {
    /// Replaces a worker's page.
    pub fn put(&self, worker: usize, page: Page) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.len() <= worker {
            pages.resize_with(worker.saturating_add(1), Page::default);
        }
        if let Some(place) = pages.get_mut(worker) {
            *place = page;
        }
    }

    /// What all workers see together, the hottest keys first.
    #[must_use]
    pub fn all(&self) -> Page {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (requests, bytes) = (pages.iter().map(|p| p.requests).sum(), pages.iter().map(|p| p.bytes).sum::<f64>());
        let mut whole = Page { requests, bytes, ..Page::default() };
        let mut rows: HashMap<Box<[u8]>, Row> = HashMap::new();
        for page in pages {
            whole.keys = whole.keys.max(page.keys);
            if whole.loads.len() < page.loads.len() {
                whole.loads.resize(page.loads.len(), 0.0);
            }
            whole.loads.iter_mut().zip(&page.loads).for_each(|(sum, load)| *sum += load);
            // A worker's share counts as much as the worker does.
            let part = |own: f64, all: f64| if all > 0.0 { own / all } else { 0.0 };
            let (weight, weight_of_bytes) = (part(page.requests, whole.requests), part(page.bytes, whole.bytes));
            for mut row in page.rows {
                row.share = (row.share.0 * weight, row.share.1 * weight);
                row.share_of_bytes *= weight_of_bytes;
                rows.entry(row.key.clone()).and_modify(|known| known.add(&row)).or_insert(row);
            }
        }
        whole.rows = rows.into_values().collect();
        whole.keys = whole.keys.max(whole.rows.len());
        whole.sort();
        whole
    }
}

impl Page {
    /// The hottest first.
    pub fn sort(&mut self) {
        let rank = |row: &Row| row.share.0.max(row.share_of_bytes);
        self.rows.sort_by(|a, b| rank(b).total_cmp(&rank(a)).then_with(|| a.key.cmp(&b.key)));
    }

    /// The largest share of the requests or bytes that a key surely has; 0 where none is hot or warm.
    #[must_use]
    pub fn largest_share(&self) -> f64 {
        self.rows.iter().map(|row| row.share.0.max(row.share_of_bytes)).fold(0.0, f64::max)
    }

    /// How much more the busiest of these shards is sent than they are on average; 1 where nothing is.
    #[must_use]
    pub fn imbalance(&self, shards: &[u16]) -> f64 {
        let loads: Vec<f64> =
            shards.iter().map(|&shard| self.loads.get(usize::from(shard)).copied().unwrap_or(0.0)).collect();
        let sum: f64 = loads.iter().sum();
        // A handful of requests says nothing of how shards are used.
        if sum < 10.0 {
            return 1.0;
        }
        loads.iter().copied().fold(0.0, f64::max) * loads.len() as f64 / sum
    }
}

/// A key, so that it can be shown whatever is in it.
#[must_use]
pub fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).chars().flat_map(char::escape_debug).collect()
}

impl Row {
    /// The same key, as another worker sees it.
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.reads += other.reads;
        self.writes += other.writes;
        self.saved += other.saved;
        self.share = (self.share.0 + other.share.0, self.share.1 + other.share.1);
        self.share_of_bytes += other.share_of_bytes;
        self.age = self.age.max(other.age);
        if (other.level, other.means != Means::Home) > (self.level, self.means != Means::Home) {
            (self.level, self.means, self.why) = (other.level, other.means, other.why);
        }
        self.observed &= other.observed;
    }

    /// The key, so that it can be shown whatever is in it: as text, with what is not escaped.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(&self.key)
    }

    /// What its reads are served by, in words.
    #[must_use]
    pub fn served_by(&self) -> String {
        let means = match self.means {
            Means::Home => "shard".to_owned(),
            Means::Near => "memory".to_owned(),
            Means::Replicas => "replicas".to_owned(),
            Means::Copies(of) => format!("copies on {of} shards"),
        };
        if self.observed { format!("shard (observed: {means})") } else { means }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, requests: f64, share: f64) -> Row {
        Row {
            key: key.as_bytes().into(),
            shard: 0,
            requests,
            bytes: 0.0,
            reads: requests,
            writes: 0.0,
            saved: 0.0,
            share: (share, share),
            share_of_bytes: 0.0,
            level: Level::Hot,
            means: Means::Home,
            observed: false,
            why: "",
            age: 2,
        }
    }

    #[test]
    fn workers_are_added_up_by_how_much_they_do() {
        let board = Board::default();
        board.put(
            1,
            Page { rows: vec![row("a", 50.0, 0.5)], keys: 1, requests: 100.0, bytes: 0.0, loads: vec![10.0, 30.0] },
        );
        let near = Row { means: Means::Near, age: 5, ..row("a", 30.0, 0.1) };
        let rows = vec![near, row("b\n\u{ff}", 240.0, 0.8)];
        board.put(0, Page { rows, keys: 2, requests: 300.0, bytes: 0.0, loads: vec![50.0] });
        let all = board.all();
        assert_eq!(all.rows.iter().map(Row::shown).collect::<Vec<_>>(), ["b\\nÿ", "a"]);
        let a = &all.rows[1];
        assert_eq!((a.requests, a.means, a.age, a.served_by().as_str()), (80.0, Means::Near, 5, "memory"));
        assert!((a.share.0 - 0.2).abs() < 1e-9 && (all.largest_share() - 0.6).abs() < 1e-9);
        assert!((all.imbalance(&[0, 1]) - 60.0 / 45.0).abs() < 1e-9);
        assert_eq!(Page::default().imbalance(&[0, 1]), 1.0);
    }
}
