//! The shards, their connections, and what can befall both. The proxy's side is as in `upstream::connection`.

use super::cluster::Refusals;
use super::net::Link;
use super::server::Conn;
use super::wire;
use super::world::World;
use hotring::engine::line::Owner;
use hotring::error::{Cause, Failure};
use hotring::resp::write;

const LOST: Failure = Failure { cause: Cause::Lost, reason: "connection reset" };
const REFUSED: Failure = Failure { cause: Cause::Connect, reason: "connection refused" };
const GARBAGE: Failure = Failure { cause: Cause::Garbage, reason: "it sent what is no reply" };

impl World {
    /// Bytes reach the shard, and it carries out what is whole.
    pub fn shard_works(&mut self, line: usize) -> bool {
        let end = &mut self.net.lines[line];
        if end.closed || self.frozen[end.node] {
            return false;
        }
        if let Some(until) = end.conn.waits
            && (self.truth.resting || until.is_some_and(|until| self.now >= until))
        {
            end.conn.waits = None;
            let mut null = Vec::new();
            end.conn.write_null_array(&mut null);
            end.outbox.extend(null);
            let serial = end.conn.serial;
            self.truth.blocked.retain(|blocked| blocked.serial != serial);
            self.note(|| format!("line {line}: waited in vain"));
            return true;
        }
        if end.inbox.is_empty() && (end.query.is_empty() || end.conn.waits.is_some()) {
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
            if end.conn.waits.is_some() {
                break;
            }
            let Some((args, length)) = wire::request(&end.query[at..]) else { break };
            let before = replies.len();
            let asking = std::mem::take(&mut end.conn.asking);
            let refusal = self.cluster.as_mut().and_then(|c| c.refusal(end.node, asking, &args, &self.truth));
            if let Some(cluster) = &mut self.cluster {
                cluster.looked_at(&mut end.refusals, &args, refusal.is_some(), self.truth.moment + 1);
            }
            if let (Some(_), Some(tale)) = (&self.cluster, &mut self.tale) {
                let words: Vec<_> = args.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
                let told = refusal.as_deref().unwrap_or("carried out");
                tale.push_back(format!("{:>6}   line {line}, {}: {words:?} {told}", self.truth.moment, end.node));
            }
            if let Some(text) = refusal {
                self.truth.moment += 1;
                write::error(&mut replies, text.as_bytes());
            } else {
                // All nodes of a cluster have what is one to apps.
                let place = if self.cluster.is_some() { 0 } else { end.node };
                self.truth.execute(place, &mut end.conn, &args, self.now, &mut replies);
                if let Some(cluster) = &mut self.cluster {
                    cluster.ran(end.node, &args, &self.truth);
                }
            }
            if lies && replies.len() > before && !end.ear && self.chance.one_in(200) {
                self.truth.lied[end.node] = self.truth.moment;
                replies.truncate(before);
                let nonsense = [&b"+LIE\r\n"[..], b":7\r\n", b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", b"$-1\r\n"];
                replies.extend_from_slice(self.chance.pick(&nonsense));
            }
            at += length;
        }
        end.query.drain(..at);
        end.outbox.extend(&replies);
        self.note(|| format!("line {line}: the shard carried out {at} bytes"));
        self.hand_out();
        true
    }

    /// Connections that blocked are answered, or what they would have been is lost with them.
    fn hand_out(&mut self) {
        for (line, serial, answer) in std::mem::take(&mut self.truth.answers) {
            let Some(end) = self.net.lines.get_mut(line).filter(|end| end.conn.serial == serial) else { continue };
            end.conn.waits = None;
            if !end.closed {
                end.outbox.extend(&answer);
                self.note(|| format!("line {line}: an element for who waited"));
            }
        }
    }

    /// What was sent over a connection that is given up still runs.
    pub fn ghost_works(&mut self, line: usize) -> bool {
        let node = self.net.lines[line].node;
        if self.frozen[node] {
            return false;
        }
        let stale = std::mem::take(&mut self.stale);
        self.truth.blocked.retain(|blocked| !stale.contains(&blocked.serial));
        let (conn, bytes) = &mut self.ghosts[node];
        let Some((args, length)) = wire::request(bytes) else {
            return !std::mem::take(bytes).is_empty();
        };
        let asking = std::mem::take(&mut conn.asking);
        let refused = self.cluster.as_mut().and_then(|c| c.refusal(node, asking, &args, &self.truth)).is_some();
        if !refused {
            let place = if self.cluster.is_some() { 0 } else { node };
            self.truth.execute(place, conn, &args, self.now, &mut Vec::new());
            if let Some(cluster) = &mut self.cluster {
                cluster.ran(node, &args, &self.truth);
            }
        }
        bytes.drain(..length);
        self.truth.subscribed.retain(|heard| heard.serial != conn.serial);
        if conn.waits.take().is_some() {
            // It sees that nobody is there to wait.
            bytes.clear();
            let serial = conn.serial;
            self.truth.blocked.retain(|blocked| blocked.serial != serial);
        }
        self.hand_out();
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
                let conn = std::mem::take(&mut end.conn);
                self.truth.subscribed.retain(|heard| heard.serial != conn.serial);
                self.haunt(node, conn, bytes);
                self.note(|| format!("line {line}: breaks"));
            }
            3 => {
                self.frozen[node] = true;
                self.note(|| format!("shard {node} stands still"));
            }
            // It dies with all its data.
            4 if self.cluster.is_none() => {
                self.truth.moment += 1;
                self.truth.wipe(node);
                self.ghosts[node].1.clear();
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
                self.truth.lied[node] = self.truth.moment;
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
    pub fn haunt(&mut self, node: usize, mut conn: Conn, bytes: Vec<u8>) {
        if conn.waits.take().is_some() {
            // It may be handed an element before the shard sees that it is gone.
            self.stale.push(conn.serial);
        } else if self.ghosts[node].1.is_empty() && !self.chance.one_in(3) {
            self.ghosts[node] = (conn, bytes);
        }
    }

    /// A connection's task has ended, or begins anew.
    fn reset(&mut self, line: usize, link: Link) {
        let node = self.net.lines[line].node;
        let (conn, bytes) = self.net.lines[line].reset(link);
        self.truth.subscribed.retain(|heard| heard.serial != conn.serial);
        self.haunt(node, conn, bytes);
        if self.net.lines[line].own {
            self.engine.ended(line as u32);
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
        let node = end.node;
        if end.doomed {
            self.note(|| format!("line {line}: given up"));
            self.reset(line, Link::Idle);
            return true;
        }
        if end.outbox.is_empty() {
            if !end.closed {
                return false;
            }
            if self.engine.closed(id, self.now, &mut self.net) {
                self.rung |= self.engine.is_dirty();
                self.note(|| format!("line {line}: ended in peace"));
                if self.net.lines[line].own {
                    // Of the one who has it, it is the end of what the shard remembered.
                    self.truth.moment += 1;
                    self.truth.own_faults[node] = self.truth.moment;
                }
                self.reset(line, Link::Idle);
            } else {
                self.fails(line, LOST);
            }
            return true;
        }
        let mut buffer = std::mem::take(&mut end.buffer);
        buffer.extend(end.outbox.drain(..n));
        let received = self.engine.receive(id, &buffer, self.now, &mut self.net);
        self.rung |= self.engine.is_dirty();
        let inside = self.engine.line(id).expect("a line");
        self.net.lines[line].refusals.known(inside.base, inside.next_serial());
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
        self.overdue(line, failure);
        let link = if self.net.lines[line].own { Link::Idle } else { Link::Lost };
        self.reset(line, link);
        self.judge();
    }

    /// A connection is to be given up; its task is to learn it.
    pub fn overdue(&mut self, line: usize, failure: Failure) {
        self.note(|| format!("line {line}: to be given up: {failure:?}"));
        self.truth.moment += 1;
        self.faults[line] = self.truth.moment;
        let end = &mut self.net.lines[line];
        if self.engine.line(line as u32).is_some_and(|line| line.owner == Owner::Ear) {
            self.truth.ear_faults[end.node] = self.truth.moment;
        }
        if end.own {
            self.truth.own_faults[end.node] = self.truth.moment;
        }
        self.engine.fail(line as u32, failure, self.now, &mut self.net);
        self.rung |= self.engine.is_dirty();
        self.net.lines[line].doomed = self.net.lines[line].own;
    }

    pub fn line_opens(&mut self, line: usize) -> bool {
        let id = line as u32;
        let end = &mut self.net.lines[line];
        let node = end.node;
        match end.link {
            Link::Open => return false,
            Link::Idle if !end.wanted => return false,
            Link::Idle | Link::Lost => {
                end.wanted = false;
                end.link = Link::Opening;
                end.dialect = self.engine.line(id).expect("a line").dialect;
                self.engine.opening(id);
            }
            Link::Opening if self.frozen[node] || (self.plan.faults > 0 && self.chance.one_in(5)) => {
                if end.own && self.engine.is_given_up(id) {
                    self.reset(line, Link::Idle);
                } else {
                    self.fails(line, REFUSED);
                }
            }
            Link::Opening if end.own && self.engine.is_given_up(id) => self.reset(line, Link::Idle),
            Link::Opening => {
                end.link = Link::Open;
                end.doomed = false;
                self.connects += 1;
                end.conn = Conn::new(line, self.connects, end.dialect);
                let first = self.engine.line(id).expect("a line").base;
                end.refusals = Refusals::after(first);
                self.truth.moment += 1;
                self.engine.connected(id, self.now);
                self.rung |= self.engine.is_dirty();
                self.note(|| format!("line {line}: open"));
            }
        }
        true
    }
}
