//! The shards, their connections, and what can befall both. The proxy's side is as in `upstream::connection`.

use super::net::Link;
use super::wire;
use super::world::World;
use hotring::error::{Cause, Failure};

const LOST: Failure = Failure { cause: Cause::Lost, reason: "connection reset" };
const REFUSED: Failure = Failure { cause: Cause::Connect, reason: "connection refused" };
const GARBAGE: Failure = Failure { cause: Cause::Garbage, reason: "it sent what is no reply" };

impl World {
    /// Bytes reach the shard, and it carries out what is whole.
    pub fn shard_works(&mut self, line: usize) -> bool {
        let end = &mut self.net.lines[line];
        if end.closed || self.frozen[end.node] || (end.inbox.is_empty() && end.query.is_empty()) {
            return false;
        }
        if !end.inbox.is_empty() {
            let n = self.chance.cut(end.inbox.len());
            end.query.extend(end.inbox.drain(..n));
            self.rung |= end.full;
        }
        let most = self.chance.pick(&[1, 4, 1000]);
        let lies = self.plan.lies && self.plan.faults > 0;
        let (mut at, mut replies) = (0, Vec::new());
        for _ in 0..most {
            let Some((args, length)) = wire::request(&end.query[at..]) else { break };
            let before = replies.len();
            self.truth.execute(end.node, &args, &mut replies);
            if lies && self.chance.one_in(200) {
                self.truth.nodes[end.node].lied = self.truth.moment;
                replies.truncate(before);
                let nonsense = [&b"+LIE\r\n"[..], b":7\r\n", b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", b"$-1\r\n"];
                replies.extend_from_slice(self.chance.pick(&nonsense));
            }
            at += length;
        }
        end.query.drain(..at);
        end.outbox.extend(&replies);
        self.note(|| format!("line {line}: the shard carried out {at} bytes"));
        true
    }

    /// What was sent over a connection that is given up still runs.
    pub fn ghost_works(&mut self, line: usize) -> bool {
        let node = self.net.lines[line].node;
        if self.frozen[node] {
            return false;
        }
        let Some((args, length)) = wire::request(&self.ghosts[node]) else {
            return !std::mem::take(&mut self.ghosts[node]).is_empty();
        };
        self.truth.execute(node, &args, &mut Vec::new());
        self.ghosts[node].drain(..length);
        true
    }

    pub fn thaw(&mut self, line: usize) -> bool {
        std::mem::take(&mut self.frozen[self.net.lines[line].node])
    }

    pub fn fault(&mut self, line: usize) -> bool {
        let end = &mut self.net.lines[line];
        let node = end.node;
        match self.chance.below(if self.plan.lies { 8 } else { 5 }) {
            // It closes an idle connection.
            0 if end.link == Link::Open && end.inbox.is_empty() && end.query.is_empty() => {
                end.closed = true;
                end.refuses = self.chance.one_in(2);
                self.note(|| format!("line {line}: closed by the shard"));
            }
            // The connection breaks, the shard has received some of what was under way.
            1 | 2 if end.link == Link::Open => {
                end.closed = true;
                end.refuses = self.chance.one_in(2);
                let lost = self.chance.below(end.inbox.len() + 1);
                end.inbox.truncate(lost);
                let kept = self.chance.below(end.outbox.len() + 1);
                end.outbox.truncate(kept);
                end.query.append(&mut end.inbox);
                let bytes = std::mem::take(&mut end.query);
                self.haunt(node, bytes);
                self.note(|| format!("line {line}: breaks"));
            }
            3 => {
                self.frozen[node] = true;
                self.note(|| format!("shard {node} stands still"));
            }
            // It dies with all its data.
            4 => {
                self.truth.moment += 1;
                self.truth.wipe(node);
                self.ghosts[node].clear();
                for end in self.net.lines.iter_mut().filter(|end| end.node == node && end.link == Link::Open) {
                    end.closed = true;
                    end.refuses = true;
                    end.inbox.clear();
                    end.query.clear();
                }
                self.note(|| format!("shard {node} starts anew"));
            }
            5 if end.link == Link::Open && !end.closed => {
                end.outbox.extend(self.chance.pick(&[&b"hello\r\n"[..], b"$-2\r\n", b"*x\r\n", b"$1\r\nabc"]));
                self.note(|| format!("line {line}: the shard sends garbage"));
            }
            // Unasked.
            6 if end.link == Link::Open
                && end.outbox.is_empty()
                && self.engine.line(line as u32).is_some_and(|l| l.base >= l.left) =>
            {
                end.outbox.extend(b"+OK\r\n");
                let all = end.outbox.len();
                self.note(|| format!("line {line}: the shard answers unasked"));
                // All of it at once, or a request would come between for which it could pass as an answer.
                return self.line_reads_some(line, all);
            }
            // An answer before the request is whole, then the end: what Redis does with what it takes for malformed.
            7 if end.link == Link::Open && !end.closed && end.outbox.is_empty() && !end.query.is_empty() => {
                if wire::request(&end.query).is_some() {
                    return false;
                }
                self.truth.nodes[node].lied = self.truth.moment;
                end.outbox.extend(b"-ERR Protocol error: unknown\r\n");
                end.closed = true;
                end.refuses = true;
                end.query.clear();
                end.inbox.clear();
                self.note(|| format!("line {line}: the shard answers early and closes"));
            }
            _ => return false,
        }
        true
    }

    /// Bytes that reached a shard which has lost its connection may still be carried out, later.
    pub fn haunt(&mut self, node: usize, bytes: Vec<u8>) {
        if self.ghosts[node].is_empty() && !self.chance.one_in(3) {
            self.ghosts[node] = bytes;
        }
    }

    // --- the proxy's side ---

    pub fn line_reads(&mut self, line: usize) -> bool {
        let waiting = self.net.lines[line].outbox.len();
        let n = if waiting == 0 { 0 } else { self.chance.cut(waiting) };
        self.line_reads_some(line, n)
    }

    pub fn line_reads_some(&mut self, line: usize, n: usize) -> bool {
        let id = line as u32;
        let end = &mut self.net.lines[line];
        if end.link != Link::Open {
            return false;
        }
        if end.outbox.is_empty() {
            if !end.closed {
                return false;
            }
            if self.engine.closed(id, self.now, &mut self.net) {
                self.rung |= self.engine.is_dirty();
                self.note(|| format!("line {line}: ended in peace"));
                self.net.lines[line].reset(Link::Idle);
            } else {
                self.fails(line, LOST);
            }
            return true;
        }
        let mut buffer = std::mem::take(&mut end.buffer);
        buffer.extend(end.outbox.drain(..n));
        let received = self.engine.receive(id, &buffer, self.now, &mut self.net);
        self.rung |= self.engine.is_dirty();
        self.note(|| format!("line {line}: {n} bytes read: {received:?}"));
        match received {
            Ok((consumed, need)) => {
                buffer.drain(..consumed);
                assert!(need > buffer.len(), "the connection asks for {need} bytes and has {}", buffer.len());
                self.net.lines[line].buffer = buffer;
                self.judge();
            }
            Err(_) => {
                self.judge();
                assert!(self.plan.lies, "a truthful shard was called a liar");
                self.fails(line, GARBAGE);
            }
        }
        true
    }

    pub fn fails(&mut self, line: usize, failure: Failure) {
        self.note(|| format!("line {line}: fails: {failure:?}"));
        self.truth.moment += 1;
        self.faults[line] = self.truth.moment;
        self.engine.fail(line as u32, failure, self.now, &mut self.net);
        self.rung |= self.engine.is_dirty();
        let bytes = self.net.lines[line].reset(Link::Lost);
        let node = self.net.lines[line].node;
        self.haunt(node, bytes);
        self.judge();
    }

    pub fn line_opens(&mut self, line: usize) -> bool {
        let node = self.net.lines[line].node;
        let end = &mut self.net.lines[line];
        match end.link {
            Link::Open => return false,
            Link::Idle if !end.wanted => return false,
            Link::Idle | Link::Lost => {
                end.wanted = false;
                end.link = Link::Opening;
                self.engine.opening(line as u32);
            }
            Link::Opening if self.frozen[node] || (self.plan.faults > 0 && self.chance.one_in(5)) => {
                self.fails(line, REFUSED);
            }
            Link::Opening => {
                end.link = Link::Open;
                self.truth.moment += 1;
                self.engine.connected(line as u32, self.now);
                self.rung |= self.engine.is_dirty();
                self.note(|| format!("line {line}: open"));
            }
        }
        true
    }
}
