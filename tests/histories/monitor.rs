//! What shards do, as they tell it: MONITOR, in the order in which it happens.

use super::{Clock, Kind, Log};
use crate::support::FOREVER;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

/// What ends the tale.
const LAST: &str = "the end of the history";

/// Listens to several shards.
pub(crate) struct Monitors {
    addresses: Vec<String>,
    threads: Vec<JoinHandle<Vec<Log>>>,
}

trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

fn wire_to(address: &str) -> Box<dyn Wire> {
    if address.starts_with('/') {
        let socket = UnixStream::connect(address).unwrap();
        socket.set_read_timeout(Some(FOREVER)).unwrap();
        Box::new(socket)
    } else {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(FOREVER)).unwrap();
        Box::new(socket)
    }
}

impl Monitors {
    /// Writes down what these do with the keys from now on.
    pub(crate) fn start(addresses: &[String], keys: &[String], clock: Clock) -> Self {
        let numbers: HashMap<String, usize> = keys.iter().cloned().zip(0..).collect();
        let threads = addresses.iter().map(|address| {
            let mut socket = BufReader::with_capacity(1 << 16, wire_to(address));
            socket.get_mut().write_all(b"MONITOR\r\n").unwrap();
            let mut line = String::new();
            socket.read_line(&mut line).unwrap();
            assert_eq!(line, "+OK\r\n");
            let numbers = numbers.clone();
            std::thread::spawn(move || listen(socket, &numbers, clock))
        });
        Self { addresses: addresses.to_vec(), threads: threads.collect() }
    }

    /// All that was done until now, by key.
    pub(crate) fn finish(self) -> Vec<Log> {
        for address in &self.addresses {
            let mut socket = wire_to(address);
            socket.write_all(format!("*2\r\n$4\r\nECHO\r\n${}\r\n{LAST}\r\n", LAST.len()).as_bytes()).unwrap();
            let mut line = String::new();
            BufReader::new(socket).read_line(&mut line).unwrap();
        }
        let mut logs: Vec<Log> = Vec::new();
        for thread in self.threads {
            let told = thread.join().unwrap();
            logs.resize_with(told.len(), Log::default);
            for (log, told) in logs.iter_mut().zip(told) {
                if !told.entries.is_empty() || told.reads > 0 {
                    assert!(log.entries.is_empty() && log.reads == 0, "a key lives on one shard");
                    *log = told;
                }
            }
        }
        logs
    }
}

fn listen(mut socket: BufReader<Box<dyn Wire>>, keys: &HashMap<String, usize>, clock: Clock) -> Vec<Log> {
    let mut logs: Vec<Log> = keys.iter().map(|_| Log::default()).collect();
    let mut line = String::new();
    loop {
        line.clear();
        // A shard that stands still says nothing for a while.
        assert!(socket.read_line(&mut line).unwrap() > 0, "the shard has ended");
        // +1339518083.107412 [0 127.0.0.1:60866] "set" "key" "value"
        let mut pieces = line.split('"');
        let head = pieces.next().unwrap();
        let mut words = pieces.step_by(2);
        let (Some(command), Some(key)) = (words.next(), words.next()) else { continue };
        if key == LAST {
            return logs;
        }
        let Some(&number) = keys.get(key) else { continue };
        let command = command.to_ascii_lowercase();
        let Some(&(_, kind)) = Kind::ALL.iter().find(|(name, _)| *name == command) else { continue };
        let time = head[1..].split(' ').next().unwrap();
        let (seconds, micros) = time.split_once('.').unwrap();
        let at = clock.at_wall(seconds.parse::<u64>().unwrap() * 1_000_000 + micros.parse::<u64>().unwrap());
        logs[number].push(kind, words.next().unwrap_or("").as_bytes(), at);
    }
}
