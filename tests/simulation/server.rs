//! What a shard does with the commands on a connection, and what it remembers for the connection.

use super::truth::{DATABASES, Moment, Timeline, Truth, unique};
use hotring::engine::line::Dialect;
use hotring::resp::write;
use hotring::stages::Micros;

/// A connection, as its shard sees it.
#[derive(Default)]
pub struct Conn {
    /// Its number among the proxy's; one behind all for none.
    pub line: usize,
    /// Distinguishes it from others of that number.
    pub serial: u64,
    pub dialect: Dialect,
    /// It may ask for what is being moved here, once.
    pub asking: bool,
    /// What waits for EXEC.
    queue: Option<Vec<Vec<Vec<u8>>>>,
    /// EXEC is to be refused.
    dirty: bool,
    watched: Vec<(usize, Vec<u8>, Moment)>,
    /// It waits for an element until then.
    pub waits: Option<Option<Micros>>,
}

/// A connection that waits for an element.
pub struct Blocked {
    pub place: usize,
    keys: Vec<Vec<u8>>,
    pub line: usize,
    pub serial: u64,
}

/// A connection that is subscribed to a channel.
#[derive(Debug)]
pub struct Heard {
    node: usize,
    channel: Vec<u8>,
    line: usize,
    pub serial: u64,
}

impl Conn {
    pub fn new(line: usize, serial: u64, dialect: Dialect) -> Self {
        Self { line, serial, dialect, ..Self::default() }
    }

    pub fn write_null_array(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.dialect.resp3 { b"_\r\n" } else { b"*-1\r\n" });
    }
}

impl Truth {
    /// A shard carries out one command and answers it.
    pub fn execute(&mut self, node: usize, conn: &mut Conn, args: &[&[u8]], now: Micros, out: &mut Vec<u8>) {
        self.moment += 1;
        let place = node * DATABASES + usize::from(conn.dialect.db);
        let name = args[0].to_ascii_uppercase();
        let own = [&b"MULTI"[..], b"EXEC", b"DISCARD", b"WATCH", b"RESET"];
        if let (Some(queue), false) = (&mut conn.queue, own.contains(&&name[..])) {
            if args.len() == 1 && name == b"GET" {
                conn.dirty = true;
                return write::error(out, b"ERR wrong number of arguments for 'get' command");
            }
            queue.push(args.iter().map(|arg| arg.to_vec()).collect());
            return write::simple(out, b"QUEUED");
        }
        match name.as_slice() {
            b"MULTI" => {
                assert!(conn.queue.replace(Vec::new()).is_none(), "MULTI within another's transaction");
                write::simple(out, b"OK");
            }
            b"EXEC" => self.exec(node, conn, out),
            b"DISCARD" => {
                conn.queue.take().expect("DISCARD without MULTI");
                conn.dirty = false;
                conn.watched.clear();
                write::simple(out, b"OK");
            }
            b"WATCH" => {
                assert!(conn.queue.is_none(), "WATCH within another's transaction");
                conn.watched.extend(args[1..].iter().map(|key| (place, key.to_vec(), self.moment)));
                write::simple(out, b"OK");
            }
            b"UNWATCH" => {
                conn.watched.clear();
                write::simple(out, b"OK");
            }
            b"BLPOP" => {
                let keys = &args[1..args.len() - 1];
                if !self.pop_any(place, keys, out) {
                    let seconds: f64 = std::str::from_utf8(args[args.len() - 1]).unwrap().parse().unwrap();
                    conn.waits = Some((seconds > 0.0).then_some(now + (seconds * 1e6) as Micros));
                    let keys = keys.iter().map(|key| key.to_vec()).collect();
                    let (line, serial) = (conn.line, conn.serial);
                    self.blocked.push(Blocked { place, keys, line, serial });
                }
            }
            b"SUBSCRIBE" | b"UNSUBSCRIBE" => {
                let mine = |heard: &Heard| heard.serial == conn.serial && heard.channel == args[1];
                self.subscribed.retain(|heard| !mine(heard));
                if name == b"SUBSCRIBE" {
                    self.unheard.insert((node, args[1].to_vec()), self.moment);
                    let (line, serial) = (conn.line, conn.serial);
                    self.subscribed.push(Heard { node, channel: args[1].to_vec(), line, serial });
                }
                write::array(out, 3);
                write::bulk(out, name.to_ascii_lowercase().as_slice());
                write::bulk(out, args[1]);
                write::integer(out, self.subscribed.iter().filter(|heard| heard.serial == conn.serial).count() as i64);
            }
            b"PUBLISH" => {
                self.note_write(place, args[2]);
                let log = self.published.entry((node, args[1].to_vec())).or_default();
                log.push((self.moment, unique(args[2]).expect("a message with its number")));
                let mut message = Vec::new();
                write::array(&mut message, 3);
                [b"message", args[1], args[2]].iter().for_each(|part| write::bulk(&mut message, part));
                let here = self.subscribed.iter().filter(|heard| heard.node == node && heard.channel == args[1]);
                self.answers.extend(here.clone().map(|heard| (heard.line, heard.serial, message.clone())));
                write::integer(out, here.count() as i64);
            }
            _ => {
                self.run(place, conn, args, out);
                self.serve(place);
            }
        }
    }

    fn exec(&mut self, node: usize, conn: &mut Conn, out: &mut Vec<u8>) {
        let queue = conn.queue.take().expect("EXEC without MULTI");
        let watched = std::mem::take(&mut conn.watched);
        if std::mem::take(&mut conn.dirty) {
            return write::error(out, b"EXECABORT Transaction discarded because of previous errors.");
        }
        if watched.iter().any(|(place, key, at)| self.touched(*place, key, *at, self.moment)) {
            return conn.write_null_array(out);
        }
        let written: Vec<u64> = queue.iter().flat_map(|args| &args[1..]).filter_map(|arg| unique(arg)).collect();
        if let Some(first) = written.first() {
            assert_eq!(self.groups.get(first).map(|group| &group[..]), Some(&written[..]), "a transaction of others");
        }
        self.transactions += 1;
        write::array(out, queue.len());
        for args in queue {
            self.moment += 1;
            let place = node * DATABASES + usize::from(conn.dialect.db);
            let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            if args[0].eq_ignore_ascii_case(b"BLPOP") {
                if !self.pop_any(place, &args[1..args.len() - 1], out) {
                    conn.write_null_array(out);
                }
            } else {
                self.run(place, conn, &args, out);
            }
        }
        (0..DATABASES).for_each(|db| self.serve(node * DATABASES + db));
    }

    /// Gives elements to whoever waits for them.
    fn serve(&mut self, place: usize) {
        let mut index = 0;
        while index < self.blocked.len() {
            let waits = &self.blocked[index];
            let keys: Vec<Vec<u8>> = waits.keys.clone();
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let (line, serial) = (waits.line, waits.serial);
            let mut out = Vec::new();
            if waits.place == place && self.pop_any(place, &keys, &mut out) {
                self.blocked.remove(index);
                self.handed += 1;
                self.answers.push((line, serial, out));
            } else {
                index += 1;
            }
        }
    }

    fn pop(&mut self, place: usize, key: &[u8]) -> Option<Vec<u8>> {
        let element = self.nodes[place].lists.get_mut(key)?.pop_front()?;
        let number = unique(&element).expect("every element carries its number") as i64;
        self.ran(place, "POP", key, Some(number));
        Some(element)
    }

    fn pop_any(&mut self, place: usize, keys: &[&[u8]], out: &mut Vec<u8>) -> bool {
        for key in keys {
            if let Some(element) = self.pop(place, key) {
                write::array(out, 2);
                write::bulk(out, key);
                write::bulk(out, &element);
                return true;
            }
        }
        false
    }

    /// What needs no memory of the connection but its database and protocol.
    fn run(&mut self, place: usize, conn: &mut Conn, args: &[&[u8]], out: &mut Vec<u8>) {
        let resp3 = conn.dialect.resp3;
        let get = |truth: &Self, key: &[u8]| truth.nodes[place].keys.get(key).and_then(Timeline::last);
        match args[0].to_ascii_uppercase().as_slice() {
            b"PING" => write::simple(out, b"PONG"),
            b"ASKING" => {
                conn.asking = true;
                write::simple(out, b"OK");
            }
            b"SELECT" => {
                conn.dialect.db = std::str::from_utf8(args[1]).unwrap().parse().unwrap();
                assert!(usize::from(conn.dialect.db) < DATABASES);
                write::simple(out, b"OK");
            }
            b"HELLO" => {
                conn.dialect.resp3 = args[1] == b"3";
                out.extend_from_slice(if conn.dialect.resp3 { b"%0\r\n" } else { b"*0\r\n" });
            }
            b"GET" => bulk(out, get(self, args[1]).as_deref(), resp3),
            b"STRLEN" => write::integer(out, get(self, args[1]).map_or(0, |v| v.len() as i64)),
            b"EXISTS" => write::integer(out, args[1..].iter().filter(|key| get(self, key).is_some()).count() as i64),
            b"MGET" => {
                write::array(out, args.len() - 1);
                args[1..].iter().for_each(|key| bulk(out, get(self, key).as_deref(), resp3));
            }
            b"SET" => {
                self.write(place, args[1], args[2]);
                write::simple(out, b"OK");
            }
            b"MSET" => {
                args[1..].chunks(2).for_each(|pair| self.write(place, pair[0], pair[1]));
                write::simple(out, b"OK");
            }
            b"MSETNX" => {
                let free = args[1..].chunks(2).all(|pair| get(self, pair[0]).is_none());
                if free {
                    args[1..].chunks(2).for_each(|pair| self.write(place, pair[0], pair[1]));
                }
                write::integer(out, i64::from(free));
            }
            // A script that writes a key it does not name.
            b"EVAL" => {
                let script: Vec<&[u8]> = args[1].splitn(2, |&b| b == b'|').collect();
                self.write(place, script[0], script[1]);
                write::bulk(out, script[1]);
            }
            b"DEL" => {
                let mut sum = 0;
                for key in &args[1..] {
                    let gone = i64::from(get(self, key).is_some());
                    self.put(place, key, None);
                    self.ran(place, "DEL", key, Some(gone));
                    sum += gone;
                }
                write::integer(out, sum);
            }
            b"INCR" => {
                let old = get(self, args[1]);
                let old = old.as_deref().map_or(Some(0), |v| std::str::from_utf8(v).ok()?.parse::<i64>().ok());
                self.ran(place, "INCR", args[1], old.map(|n| n + 1));
                match old {
                    Some(n) => {
                        self.put(place, args[1], Some((n + 1).to_string().as_bytes()));
                        write::integer(out, n + 1);
                    }
                    None => write::error(out, b"ERR value is not an integer or out of range"),
                }
            }
            b"RPUSH" => {
                self.note_write(place, args[2]);
                let list = self.nodes[place].lists.entry(args[1].to_vec()).or_default();
                list.push_back(args[2].to_vec());
                write::integer(out, list.len() as i64);
            }
            b"LPOP" => {
                let element = self.pop(place, args[1]);
                bulk(out, element.as_deref(), resp3);
            }
            other => panic!("a shard got {:?}", String::from_utf8_lossy(other)),
        }
    }
}

fn bulk(out: &mut Vec<u8>, value: Option<&[u8]>, resp3: bool) {
    match value {
        Some(value) => write::bulk(out, value),
        None => out.extend_from_slice(if resp3 { b"_\r\n" } else { b"$-1\r\n" }),
    }
}
