//! The bytes of what is on its way on a connection to a node of a cluster, each flight's until its reply is there: so that it can
//! be sent again elsewhere if the node redirects it (`redirect`).

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits, and sizes of what is in memory")]

use std::collections::VecDeque;

/// Most bytes that a connection keeps of what is on its way: what is sent beyond is not sent again.
const MOST_KEPT: usize = 32 << 20;
/// So much may have been answered before the room it took is used again.
const SLACK: usize = 64 << 10;

/// The bytes of what is on its way on a connection, so that it can be sent again elsewhere.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Those before `from` are of flights that are answered.
    bytes: Vec<u8>,
    from: usize,
    flights: VecDeque<Kept>,
    /// How many of them were redirected before.
    redirected: usize,
}

/// What is known of a flight whose bytes are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    pub(super) serial: u64,
    pub(super) length: u32,
    /// Its place among all that was asked.
    pub(super) order: u64,
    /// How often it was redirected before, and when first.
    pub(super) hops: u8,
    pub(super) since: u32,
}

impl Asked {
    /// Keeps a flight, whose serial is above all before it.
    #[inline]
    pub(super) fn keep(&mut self, serial: u64, wire: &[u8], order: u64) {
        self.keep_again(wire, Kept { serial, length: 0, order, hops: 0, since: 0 });
    }

    pub(super) fn keep_again(&mut self, wire: &[u8], kept: Kept) {
        if self.bytes.len() - self.from + wire.len() > MOST_KEPT {
            return;
        }
        if self.flights.is_empty() {
            self.bytes.clear();
            self.from = 0;
        } else if self.from >= SLACK && self.from >= self.bytes.len() / 2 {
            self.bytes.drain(..self.from);
            self.from = 0;
        }
        self.bytes.extend_from_slice(wire);
        self.flights.push_back(Kept { length: wire.len() as u32, ..kept });
        self.redirected += usize::from(kept.hops > 0);
    }

    /// Whether some of it was redirected: it may be for slots that are others'.
    pub(super) fn has_redirected(&self) -> bool {
        self.redirected > 0
    }

    /// A flight is answered.
    #[inline]
    pub(super) fn forget(&mut self, serial: u64) {
        while let Some(kept) = self.flights.front().filter(|kept| kept.serial <= serial) {
            self.from += kept.length as usize;
            self.redirected -= usize::from(kept.hops > 0);
            self.flights.pop_front();
        }
        if self.flights.is_empty() && self.bytes.capacity() > 4 * SLACK {
            (self.bytes, self.from) = (Vec::new(), 0);
        }
    }

    /// A flight is answered; its bytes, if they were kept.
    pub(super) fn take(&mut self, serial: u64) -> Option<(Vec<u8>, Kept)> {
        if let Some(before) = serial.checked_sub(1) {
            self.forget(before);
        }
        let kept = self.flights.front().copied().filter(|kept| kept.serial == serial)?;
        let wire = self.bytes.get(self.from..self.from + kept.length as usize)?.to_vec();
        self.forget(serial);
        Some((wire, kept))
    }

    /// The connection is lost, with all that was on its way.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_is_kept_until_it_is_answered() {
        let mut asked = Asked::default();
        for serial in 0..10_000u64 {
            asked.keep(serial, format!("request {serial}").as_bytes(), serial);
            if serial >= 100 {
                let answered = serial - 100;
                if answered % 7 == 0 {
                    assert_eq!(asked.take(answered).unwrap().0, format!("request {answered}").as_bytes());
                } else {
                    asked.forget(answered);
                }
            }
        }
        assert!(asked.take(5).is_none(), "it is answered");
        assert!(asked.bytes.len() < 4 * SLACK, "{}", asked.bytes.len());
        assert_eq!(asked.take(9_999).unwrap().0, b"request 9999");
        assert!(asked.flights.is_empty());
    }

    #[test]
    fn what_a_connection_keeps_is_bounded() {
        let (mut asked, long) = (Asked::default(), vec![b'x'; MOST_KEPT / 4]);
        (0..8).for_each(|serial| asked.keep(serial, &long, serial));
        assert!(asked.bytes.len() <= MOST_KEPT);
        assert!(asked.take(3).is_some() && asked.take(4).is_none());
    }
}
