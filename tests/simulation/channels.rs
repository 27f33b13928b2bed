//! What apps publish and hear.

use super::app::{App, Habits, Wish};
use super::chance::Chance;
use super::truth::{Moment, Truth, unique};
use super::wire::Reply;

impl App {
    /// Publishes, or begins or ceases to listen. Who listens, in RESP2, can do nothing else.
    pub fn talk(&mut self, chance: &mut Chance, habits: &Habits, number: &mut u64) {
        let channel = format!("{}h{}", habits.pool, chance.below(3)).into_bytes();
        match chance.below(6) {
            0 | 1 if self.hears.is_empty() || chance.one_in(2) => {
                self.hears.insert(channel.clone());
                self.say(&[b"SUBSCRIBE", &channel], Wish::Subscribe(channel.clone()));
            }
            0 | 1 => {
                self.hears.remove(&channel);
                self.say(&[b"UNSUBSCRIBE", &channel], Wish::Unsubscribe(channel.clone()));
            }
            _ if self.hears.is_empty() => {
                let message = super::means::value(chance, habits, number, &channel);
                self.say(&[b"PUBLISH", &channel, &message], Wish::Publish(channel.clone(), message.clone()));
            }
            _ => self.say(&[b"PING"], Wish::Any),
        }
    }

    /// Takes a message, if that is what this is: one of a channel it was told it hears, and none twice or out of turn.
    pub fn hear(&mut self, reply: &Reply<'_>, truth: &mut Truth) -> bool {
        let (Reply::Array(parts) | Reply::Push(parts)) = reply else { return false };
        let [Reply::Bulk(Some(b"message")), Reply::Bulk(Some(channel)), Reply::Bulk(Some(message))] = parts[..] else {
            return false;
        };
        assert_eq!(matches!(reply, Reply::Push(_)), self.speaks_resp3, "a message of the other protocol");
        let name = String::from_utf8_lossy(channel);
        let Some((node, since, behind)) = self.listens.get_mut(channel) else {
            panic!("a message of {name}, which was not listened to");
        };
        let log = &truth.published[&(*node, channel.to_vec())];
        let number = unique(message).expect("a message with its number");
        let ahead = log[*behind..].iter().position(|(_, other)| *other == number);
        let at = *behind + ahead.unwrap_or_else(|| panic!("message {number} of {name} came twice or out of turn"));
        let missed = &log[*behind..at];
        excused(missed, *node, channel, *since, truth);
        *behind = at + 1;
        truth.told += 1;
        true
    }

    /// All that was published has come, but for what a fault excuses.
    pub fn heard_all(&self, truth: &Truth) {
        for (channel, (node, since, behind)) in &self.listens {
            let log = truth.published.get(&(*node, channel.clone())).map_or(&[][..], Vec::as_slice);
            excused(&log[*behind..], *node, channel, *since, truth);
        }
    }

    /// It was told that it listens from now on, or does no more.
    pub fn listens(&mut self, channel: &[u8], at: Option<usize>, truth: &Truth) {
        match at {
            Some(node) if !self.listens.contains_key(channel) => {
                self.listens.insert(channel.to_vec(), (node, truth.moment, 0));
            }
            Some(_) => {}
            None => drop(self.listens.remove(channel)),
        }
    }
}

/// What was missed was published before it was told that it listens, or around a fault.
fn excused(missed: &[(Moment, u64)], node: usize, channel: &[u8], since: Moment, truth: &Truth) {
    let again = truth.unheard.get(&(node, channel.to_vec())).copied().unwrap_or(0);
    let fault = truth.ear_faults[node].max(again);
    for (at, number) in missed {
        let name = String::from_utf8_lossy(channel);
        assert!(
            *at <= since || *at <= fault,
            "message {number} of {name} at {at} was missed, listened to since {since}"
        );
    }
}
