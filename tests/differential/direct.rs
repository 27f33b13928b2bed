//! A client that knows of clusters, as small as can be: what an app would use without hotring.
//!
//! It knows nothing of commands but a few names: where a command goes it learns from the nodes, which redirect it (MOVED), and
//! for transactions from `COMMAND GETKEYS`. So that hotring's own idea of keys is not what it is judged by.

use super::compare::{CROSS_SLOT, Reply};
use super::generate::Args;
use super::pair::Other;
use super::servers::{Connection, show};
use std::collections::HashMap;

/// A connection to each node, and what the session is in the midst of.
pub(crate) struct Direct {
    nodes: Vec<(String, Connection)>,
    /// For questions of its own.
    aside: Connection,
    /// Where keys are watched, or a transaction is open.
    bound: Option<usize>,
    multi: bool,
    /// The node of a command's first argument that was redirected, which most often is a key.
    known: HashMap<Vec<u8>, usize>,
}

impl Direct {
    pub(crate) fn to(nodes: &[String]) -> Self {
        let aside = Connection::to(&nodes[0]);
        let nodes = nodes.iter().map(|node| (node.clone(), Connection::to(node))).collect();
        Self { nodes, aside, bound: None, multi: false, known: HashMap::new() }
    }

    /// The reply to a command; `later` are those that follow it.
    fn ask_one(&mut self, args: &Args, later: &[Args]) -> Vec<u8> {
        let name = String::from_utf8_lossy(&args[0]).to_lowercase();
        let plain = args.len() == 1;
        match name.as_str() {
            "multi" if plain && !self.multi => {
                let in_it = later.iter().take_while(|args| !ends(args));
                let home = in_it.filter_map(|args| self.key_of(args)).next().map(|key| self.home(key));
                let node = self.bound.or(home).unwrap_or(0);
                (self.bound, self.multi) = (Some(node), true);
                return self.at(node, args);
            }
            "reset" if plain => {
                (self.bound, self.multi) = (None, false);
                return self.everywhere(args).remove(0);
            }
            // What is the session's is each of its connections'.
            "hello" | "auth" | "select" | "client" if !self.multi => return self.everywhere(args).remove(0),
            "unwatch" if !self.multi => {
                self.bound = None;
                return self.everywhere(args).remove(0);
            }
            "script" | "function" | "flushall" | "flushdb" | "dbsize" | "keys" | "randomkey" if !self.multi => {
                let mut replies = self.everywhere(args);
                return match name.as_str() {
                    "dbsize" if plain => sum(&replies),
                    "keys" => merged(&replies),
                    "script" => most(&replies),
                    "randomkey" => replies.into_iter().max_by_key(|reply| reply.len()).expect("there are nodes"),
                    _ => replies.remove(0),
                };
            }
            "watch" if !self.multi && self.bound.is_none() => {
                let (node, reply) = self.redirected(args);
                if reply == b"+OK\r\n" {
                    self.bound = Some(node);
                }
                return reply;
            }
            // A node would look first where the keys are.
            "watch" if self.multi && !plain => return b"-ERR WATCH inside MULTI is not allowed\r\n".to_vec(),
            _ => {}
        }
        if self.multi || matches!(name.as_str(), "exec" | "discard" | "watch") {
            let reply = self.at(self.bound.unwrap_or(0), args);
            let over = name == "discard" && reply == b"+OK\r\n" || name == "exec" && !reply.starts_with(b"-ERR ");
            if over {
                (self.bound, self.multi) = (None, false);
            }
            return reply;
        }
        let (_, reply) = self.redirected(args);
        if reply == CROSS_SLOT { self.split(&name, args).unwrap_or(reply) } else { reply }
    }

    /// Of commands that stand for one with each of their keys.
    fn split(&mut self, name: &str, args: &Args) -> Option<Vec<u8>> {
        let each = match name {
            "mget" | "del" | "unlink" | "exists" | "touch" => 1,
            "mset" if args.len() % 2 == 1 => 2,
            // Told before any key is looked at.
            "mset" => return Some(self.at(0, &vec![args[0].clone()])),
            _ => return None,
        };
        let replies: Vec<Vec<u8>> =
            args[1..].chunks(each).map(|part| self.redirected(&[&args[..1], part].concat()).1).collect();
        Some(match name {
            "mget" => merged(&replies),
            "mset" => replies[0].clone(),
            _ => sum(&replies),
        })
    }

    /// Sends a command to a node, and on to whom it names.
    fn redirected(&mut self, args: &Args) -> (usize, Vec<u8>) {
        let first = args.get(1).cloned().unwrap_or_default();
        let mut node = self.known.get(&first).copied().unwrap_or(0);
        for _ in 0..5 {
            let reply = self.at(node, args);
            if !reply.starts_with(b"-MOVED ") {
                return (node, reply);
            }
            node = self.named_by(&reply);
            self.known.insert(first.clone(), node);
        }
        panic!("redirected for ever: {}", show(args));
    }

    fn named_by(&self, moved: &[u8]) -> usize {
        let text = String::from_utf8_lossy(moved);
        let address = text.trim_end().rsplit(' ').next().expect("an address");
        self.nodes.iter().position(|(node, _)| node == address).expect("one of the nodes")
    }

    /// The first key of a command, as a node says.
    fn key_of(&mut self, args: &Args) -> Option<Vec<u8>> {
        if args[0].eq_ignore_ascii_case(b"spublish") {
            // A channel has a slot, too, but is no key.
            return args.get(1).cloned();
        }
        let asked = [vec![b"COMMAND".to_vec(), b"GETKEYS".to_vec()], args.clone()].concat();
        match Reply::parse(&self.aside.ask(&asked)) {
            Reply::Array(keys) => match keys.into_iter().next() {
                Some(Reply::Bulk(key)) => Some(key),
                _ => None,
            },
            _ => None,
        }
    }

    fn home(&mut self, key: Vec<u8>) -> usize {
        let reply = self.aside.ask(&[b"TYPE".to_vec(), key]);
        if reply.starts_with(b"-MOVED ") { self.named_by(&reply) } else { 0 }
    }

    fn at(&mut self, node: usize, args: &Args) -> Vec<u8> {
        self.nodes[node].1.ask(args)
    }

    fn everywhere(&mut self, args: &Args) -> Vec<Vec<u8>> {
        self.nodes.iter_mut().map(|(_, node)| node.ask(args)).collect()
    }
}

impl Other for Direct {
    fn ask_all(&mut self, commands: &[Args]) -> Vec<Vec<u8>> {
        (0..commands.len()).map(|at| self.ask_one(&commands[at], &commands[at + 1..])).collect()
    }
}

/// Whether a command ends a transaction.
fn ends(args: &Args) -> bool {
    let is = |name: &str| args[0].eq_ignore_ascii_case(name.as_bytes());
    // Whatever stands behind EXEC.
    is("exec") || args.len() == 1 && (is("discard") || is("reset"))
}

/// The sum of numbers; an error, if there is one.
fn sum(replies: &[Vec<u8>]) -> Vec<u8> {
    let mut all = 0;
    for reply in replies {
        let Reply::Integer(number) = Reply::parse(reply) else { return reply.clone() };
        all += number;
    }
    format!(":{all}\r\n").into_bytes()
}

/// Of each number in arrays the greatest; the first reply, if it is no such array.
fn most(replies: &[Vec<u8>]) -> Vec<u8> {
    let arrays: Option<Vec<Vec<Reply>>> = replies
        .iter()
        .map(|reply| if let Reply::Array(elements) = Reply::parse(reply) { Some(elements) } else { None })
        .collect();
    let Some(arrays) = arrays else { return replies[0].clone() };
    let greatest = |at: usize| arrays.iter().filter_map(|array| array.get(at)).max();
    let numbers = (0..arrays[0].len()).filter_map(|at| match greatest(at) {
        Some(Reply::Integer(number)) => Some(format!(":{number}\r\n")),
        _ => None,
    });
    format!("*{}\r\n{}", arrays[0].len(), numbers.collect::<String>()).into_bytes()
}

/// One array of all elements; the first reply, if one is none.
fn merged(replies: &[Vec<u8>]) -> Vec<u8> {
    let (mut count, mut elements) = (0, Vec::new());
    for reply in replies {
        let Some(rest) = reply.strip_prefix(b"*") else { return replies[0].clone() };
        let end = rest.windows(2).position(|pair| pair == b"\r\n").expect("a line");
        count += String::from_utf8_lossy(&rest[..end]).parse::<usize>().expect("a count");
        elements.extend(&rest[end + 2..]);
    }
    [format!("*{count}\r\n").into_bytes(), elements].concat()
}
