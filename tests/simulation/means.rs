//! What an app says in several steps: transactions; and what may block.

use super::app::{App, Habits, Wish, key};
use super::chance::Chance;
use super::truth::unique;

/// A value as no other.
pub fn value(chance: &mut Chance, habits: &Habits, number: &mut u64, key: &[u8]) -> Vec<u8> {
    *number += 1;
    let padding = match chance.below(40) {
        0 if habits.long => 16_300 + chance.below(30_000),
        1..4 => chance.below(600),
        _ => 0,
    };
    let mut value = [key, b":"].concat();
    value.resize(value.len() + padding, b'x');
    value.extend_from_slice(format!("={number}").as_bytes());
    value
}

impl App {
    fn then(&mut self, args: &[&[u8]], wish: Wish) {
        self.means.push_back((args.iter().map(|arg| arg.to_vec()).collect(), wish));
    }

    /// Means to say something of several steps, or something that may block.
    pub fn mean(&mut self, chance: &mut Chance, habits: &Habits, number: &mut u64) {
        let list = |chance: &mut Chance| format!("{}l{}", habits.pool, chance.below(3)).into_bytes();
        match chance.below(10) {
            0..3 => {
                let key = list(chance);
                let value = value(chance, habits, number, &key);
                self.say(&[b"RPUSH", &key, &value], Wish::Push(key.clone(), value.clone()));
            }
            3 => {
                let key = list(chance);
                self.say(&[b"LPOP", &key], Wish::Pop(vec![key.clone()]));
            }
            4 | 5 => {
                let count = if chance.one_in(4) { 2 } else { 1 };
                let keys: Vec<Vec<u8>> = (0..count).map(|_| list(chance)).collect();
                let mut args: Vec<&[u8]> = vec![b"BLPOP"];
                args.extend(keys.iter().map(Vec::as_slice));
                args.push(chance.pick(&[&b"0"[..], b"0.001", b"0.02", b"0.5"]));
                self.say(&args, Wish::Pop(keys.clone()));
            }
            _ => self.transact(chance, habits, number),
        }
    }

    fn transact(&mut self, chance: &mut Chance, habits: &Habits, number: &mut u64) {
        let tag = chance.pick(&["t", "u"]);
        let tagged = |chance: &mut Chance| match chance.below(12) {
            0 => key(chance, habits),
            _ => format!("{}{{{tag}}}{}", habits.pool, chance.pick(&["a", "b"])).into_bytes(),
        };
        if chance.one_in(2) {
            let watched = tagged(chance);
            self.then(&[b"WATCH", &watched], Wish::Watch(vec![watched.clone()]));
            if chance.one_in(3) {
                let (a, b) = (tagged(chance), tagged(chance));
                self.then(&[b"WATCH", &a, &b], Wish::Watch(vec![a.clone(), b.clone()]));
            }
            if chance.one_in(2) {
                self.then(&[b"GET", &watched], Wish::Get(watched.clone()));
            }
            if chance.one_in(6) {
                let db = chance.below(usize::from(habits.databases)) as u16;
                self.then(&[b"SELECT", db.to_string().as_bytes()], Wish::Select(db));
            }
            if chance.one_in(6) && habits.resp3 {
                let resp3 = chance.one_in(2);
                self.then(&[b"HELLO", if resp3 { b"3" } else { b"2" }], Wish::Hello(resp3));
            }
            if chance.one_in(6) {
                let key = tagged(chance);
                let value = value(chance, habits, number, &key);
                self.then(&[b"SET", &key, &value], Wish::Set(vec![(key.clone(), value.clone())]));
            }
            if chance.one_in(8) {
                self.then(&[b"BLPOP", &watched, b"0.001"], Wish::Pop(vec![watched.clone()]));
            }
            if chance.one_in(8) {
                self.then(&[b"UNWATCH"], Wish::Unwatch);
            }
        }
        self.then(&[b"MULTI"], Wish::Multi);
        let mut group = Vec::new();
        for _ in 0..chance.below(5) {
            let key = tagged(chance);
            let mut queue = |app: &mut Self, args: &[&[u8]], wish: Wish| {
                group.extend(wish.values().into_iter().filter_map(unique));
                app.then(args, Wish::Queued(Box::new(wish)));
            };
            match chance.below(14) {
                0..3 => queue(self, &[b"GET", &key], Wish::Get(key.clone())),
                3..7 => {
                    let value = value(chance, habits, number, &key);
                    queue(self, &[b"SET", &key, &value], Wish::Set(vec![(key.clone(), value.clone())]));
                }
                7 => queue(self, &[b"INCR", &key], Wish::Incr(key.clone())),
                8 => queue(self, &[b"DEL", &key], Wish::Del(vec![key.clone()])),
                9 => queue(self, &[b"PING"], Wish::Exact(b"+PONG\r\n".to_vec())),
                10 => {
                    let other = tagged(chance);
                    let (a, b) = (value(chance, habits, number, &key), value(chance, habits, number, &other));
                    let pairs = vec![(key.clone(), a.clone()), (other.clone(), b.clone())];
                    queue(self, &[b"MSET", &key, &a, &other, &b], Wish::Set(pairs));
                }
                11 => {
                    let list = format!("{}l{{{tag}}}", habits.pool).into_bytes();
                    let value = value(chance, habits, number, &list);
                    queue(self, &[b"RPUSH", &list, &value], Wish::Push(list.clone(), value.clone()));
                }
                12 => {
                    let list = format!("{}l{{{tag}}}", habits.pool).into_bytes();
                    queue(self, &[b"BLPOP", &list, b"0"], Wish::Pop(vec![list.clone()]));
                }
                _ => queue(self, &[b"GET"], Wish::Error("ERR wrong number of arguments for 'get' command")),
            }
        }
        self.groups.push(group);
        match chance.below(10) {
            0 => self.then(&[b"DISCARD"], Wish::Discard),
            1 if !habits.password => self.then(&[b"RESET"], Wish::Reset),
            _ => self.then(&[b"EXEC"], Wish::Exec),
        }
    }
}
