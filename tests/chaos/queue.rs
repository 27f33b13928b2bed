//! What an app does with its lists: one connection hands elements over to another.

use super::app::App;
use super::link::{Link, Reply};
use super::model::{Fate, Fault};
use crate::support::wire;

impl App {
    /// One connection blocks until another gives it an element.
    pub(super) fn hand_over(&mut self) {
        if self.popper.is_none() {
            let address = self.shared.address.lock().unwrap().clone();
            self.popper = Link::to(&address).ok();
        }
        let (Some(mut link), Some(mut popper)) = (self.link.take(), self.popper.take()) else { return };
        let shard = self.draw(self.keys.len() as u64) as usize;
        let asked = self.generation(shard);
        self.asked = self.doubts();
        // In a cluster half of them go to another list of the same slot first.
        let moves = self.shared.homes.are_slots() && self.draw(2) == 0;
        let (name, queue) = &mut self.keys[shard].queue;
        queue.last += 1;
        let (name, number) = (name.clone(), queue.last);
        let list = if moves { inbox(&name) } else { name.clone() };
        let blocks = popper.send(&wire(&["BLPOP", &name, "1"]));
        let mut pushed = link.send(&wire(&["LPUSH", &list, &number.to_string()])).and_then(|()| link.reply());
        let fate = match &pushed {
            Ok(Reply::Number(_)) => {
                self.shared.done(shard);
                // Redis may undo it.
                if self.is_in_doubt(shard) { Fate::MayHaveRun } else { Fate::Done }
            }
            other => self.fate("LPUSH", Some(shard), other),
        };
        if moves && matches!(pushed, Ok(Reply::Number(_))) {
            let request = wire(&["LMOVE", &list, &name, "RIGHT", "LEFT"]);
            pushed = link.send(&request).and_then(|()| link.reply());
            match &pushed {
                Ok(Reply::Text(_)) => self.shared.done(shard),
                Ok(Reply::Nothing) if self.keys[shard].moves_late || self.is_in_doubt(shard) => {}
                Ok(Reply::Nothing) => {
                    self.shared.tell(Fault::Lost, format!("LMOVE {list}: nothing, {number} was pushed"))
                }
                other => {
                    let fate = self.fate("LMOVE", Some(shard), other);
                    self.keys[shard].moves_late |= fate == Fate::MayHaveRun;
                }
            }
        }
        if pushed.is_ok() {
            self.link = Some(link);
        }
        self.keys[shard].queue.1.pushed(number, fate, asked);
        let popped = blocks.and_then(|()| popper.reply());
        match &popped {
            Ok(Reply::Nothing) => {}
            Ok(Reply::Many(pair)) if matches!(&pair[..], [Reply::Text(list), Reply::Text(_)] if *list == name.as_bytes()) =>
            {
                let Reply::Text(element) = &pair[1] else { return };
                self.took(shard, element);
            }
            other => {
                let fate = self.fate("BLPOP", Some(shard), other);
                self.keys[shard].queue.1.missed(fate);
            }
        }
        if popped.is_ok() {
            self.popper = Some(popper);
        }
    }

    fn took(&mut self, shard: usize, element: &[u8]) {
        let is_in_doubt = self.is_in_doubt(shard);
        let (name, queue) = &mut self.keys[shard].queue;
        let number = String::from_utf8_lossy(element).parse().unwrap_or(0);
        let fault = if is_in_doubt { queue.popped_in_doubt(number) } else { queue.popped(number) };
        self.shared.told(fault, || format!("pop of {name}: {number} with {queue:?}"));
    }

    /// Pops until there is nothing left.
    pub(super) fn drain(&mut self, shard: usize) -> bool {
        let Some(mut link) = self.link.take() else { return false };
        self.asked = self.doubts();
        let name = &self.keys[shard].queue.0;
        let moves = self.shared.homes.are_slots();
        for list in [moves.then(|| inbox(name)), Some(name.clone())].into_iter().flatten() {
            let request = wire(&["LPOP", &list]);
            loop {
                match link.send(&request).and_then(|()| link.reply()) {
                    Ok(Reply::Text(element)) => self.took(shard, &element),
                    Ok(Reply::Nothing) => break,
                    other => {
                        let fate = self.fate("LPOP", Some(shard), &other);
                        self.keys[shard].queue.1.missed(fate);
                        return false;
                    }
                }
            }
        }
        self.link = Some(link);
        let generation = self.generation(shard);
        let fault = self.keys[shard].queue.1.is_empty(generation);
        self.shared.told(fault, || format!("{:?}", self.keys[shard].queue));
        true
    }
}

/// Where elements of a list come from, in its slot.
fn inbox(list: &str) -> String {
    format!("{list}:in")
}
