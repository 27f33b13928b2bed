//! The commands the node has: name, arity and function of each, and what becomes of those it does not have.

use super::connection::Connection;
use super::reply::{Refusal, Replies};
use super::store::Store;
use super::{bits, counters, expiry, hashes, keys, scan, server, strings, transaction};
use crate::resp::Request;

/// One command being executed.
pub(super) struct Call<'a> {
    /// The command's name in lower case, as errors quote it.
    pub(super) name: &'static str,
    /// The command and its arguments, as many as the arity demands.
    pub(super) args: &'a [&'a [u8]],
    /// The node's keys.
    pub(super) store: &'a mut Store,
    /// Who asks.
    pub(super) connection: &'a mut Connection,
    /// Where the reply goes. What a refused command has appended is taken back.
    pub(super) out: &'a mut Replies,
}

/// What a command's function returns: its reply has been appended, or it is refused. One that refuses has changed nothing.
pub(super) type Outcome = Result<(), Refusal>;

struct Command {
    name: &'static str,
    /// How many arguments, the name included; negative for at least so many.
    arity: isize,
    run: fn(&mut Call<'_>) -> Outcome,
}

const fn command(name: &'static str, arity: isize, run: fn(&mut Call<'_>) -> Outcome) -> Command {
    Command { name, arity, run }
}

/// In alphabetical order.
static COMMANDS: &[Command] = &[
    command("append", 3, strings::append),
    command("bitcount", -2, bits::bitcount),
    command("copy", -3, keys::copy),
    command("dbsize", 1, keys::dbsize),
    command("decr", 2, counters::decr),
    command("decrby", 3, counters::decrby),
    command("del", -2, keys::del),
    command("discard", 1, transaction::discard),
    command("echo", 2, server::echo),
    command("exec", 1, transaction::exec),
    command("exists", -2, keys::exists),
    command("expire", -3, expiry::expire),
    command("expireat", -3, expiry::expireat),
    command("expiretime", 2, expiry::expiretime),
    command("flushall", -1, keys::flush),
    command("flushdb", -1, keys::flush),
    command("get", 2, strings::get),
    command("getbit", 3, bits::getbit),
    command("getdel", 2, strings::getdel),
    command("getex", -2, strings::getex),
    command("getrange", 4, strings::getrange),
    command("getset", 3, strings::getset),
    command("hdel", -3, hashes::hdel),
    command("hexists", 3, hashes::hexists),
    command("hget", 3, hashes::hget),
    command("hgetall", 2, hashes::hgetall),
    command("hincrby", 4, counters::hincrby),
    command("hincrbyfloat", 4, counters::hincrbyfloat),
    command("hkeys", 2, hashes::hkeys),
    command("hlen", 2, hashes::hlen),
    command("hmget", -3, hashes::hmget),
    command("hmset", -4, hashes::hmset),
    command("hrandfield", -2, hashes::hrandfield),
    command("hscan", -3, scan::hscan),
    command("hset", -4, hashes::hset),
    command("hsetnx", 4, hashes::hsetnx),
    command("hstrlen", 3, hashes::hstrlen),
    command("hvals", 2, hashes::hvals),
    command("incr", 2, counters::incr),
    command("incrby", 3, counters::incrby),
    command("incrbyfloat", 3, counters::incrbyfloat),
    command("info", -1, server::info),
    command("keys", 2, scan::keys),
    command("lastsave", 1, server::lastsave),
    command("mget", -2, strings::mget),
    command("mset", -3, strings::mset),
    command("msetnx", -3, strings::msetnx),
    command("multi", 1, transaction::multi),
    command("object", -2, keys::object),
    command("persist", 2, expiry::persist),
    command("pexpire", -3, expiry::pexpire),
    command("pexpireat", -3, expiry::pexpireat),
    command("pexpiretime", 2, expiry::pexpiretime),
    command("ping", -1, server::ping),
    command("psetex", 4, strings::psetex),
    command("pttl", 2, expiry::pttl),
    command("randomkey", 1, scan::randomkey),
    command("rename", 3, keys::rename),
    command("renamenx", 3, keys::renamenx),
    command("scan", -2, scan::scan),
    command("select", 2, server::select),
    command("set", -3, strings::set),
    command("setbit", 4, bits::setbit),
    command("setex", 4, strings::setex),
    command("setnx", 3, strings::setnx),
    command("setrange", 4, strings::setrange),
    command("strlen", 2, strings::strlen),
    command("substr", 4, strings::getrange),
    command("time", 1, server::time),
    command("touch", -2, keys::touch),
    command("ttl", 2, expiry::ttl),
    command("type", 2, keys::kind),
    command("unlink", -2, keys::del),
    command("unwatch", 1, transaction::unwatch),
    command("watch", -2, transaction::watch),
];

/// What Redis 7.0 has and the node does not, in alphabetical order.
#[rustfmt::skip]
static ABSENT: &[&str] = &[
    "acl", "asking", "auth", "bgrewriteaof", "bgsave", "bitfield", "bitfield_ro", "bitop", "bitpos", "blmove", "blmpop",
    "blpop", "brpop", "brpoplpush", "bzmpop", "bzpopmax", "bzpopmin", "client", "cluster", "command", "config", "debug",
    "dump", "eval", "eval_ro", "evalsha", "evalsha_ro", "failover", "fcall", "fcall_ro", "function", "geoadd",
    "geodist", "geohash", "geopos", "georadius", "georadius_ro", "georadiusbymember", "georadiusbymember_ro",
    "geosearch", "geosearchstore", "hello", "latency", "lcs", "lindex", "linsert", "llen", "lmove", "lmpop", "lolwut",
    "lpop", "lpos", "lpush", "lpushx", "lrange", "lrem", "lset", "ltrim", "memory", "migrate", "module", "monitor",
    "move", "pfadd", "pfcount", "pfdebug", "pfmerge", "pfselftest", "psubscribe", "psync", "publish", "pubsub",
    "punsubscribe", "quit", "readonly", "readwrite", "replconf", "replicaof", "reset", "restore", "restore-asking",
    "role", "rpop", "rpoplpush", "rpush", "rpushx", "sadd", "save", "scard", "script", "sdiff", "sdiffstore",
    "shutdown", "sinter", "sintercard", "sinterstore", "sismember", "slaveof", "slowlog", "smembers", "smismember",
    "smove", "sort", "sort_ro", "spop", "spublish", "srandmember", "srem", "sscan", "ssubscribe", "subscribe", "sunion",
    "sunionstore", "sunsubscribe", "swapdb", "sync", "unsubscribe", "wait", "xack", "xadd", "xautoclaim", "xclaim",
    "xdel", "xgroup", "xinfo", "xlen", "xpending", "xrange", "xread", "xreadgroup", "xrevrange", "xsetid", "xtrim",
    "zadd", "zcard", "zcount", "zdiff", "zdiffstore", "zincrby", "zinter", "zintercard", "zinterstore", "zlexcount",
    "zmpop", "zmscore", "zpopmax", "zpopmin", "zrandmember", "zrange", "zrangebylex", "zrangebyscore", "zrangestore",
    "zrank", "zrem", "zremrangebylex", "zremrangebyrank", "zremrangebyscore", "zrevrange", "zrevrangebylex",
    "zrevrangebyscore", "zrevrank", "zscan", "zscore", "zunion", "zunionstore",
];

/// Executes one request, or queues it if a transaction is open, and appends its reply to `out`.
pub(super) fn execute(store: &mut Store, connection: &mut Connection, request: &Request<'_>, out: &mut Replies) {
    let start = out.bytes.len();
    let args: Vec<&[u8]> = request.args().collect();
    let outcome = match find(&args) {
        Ok(command) if connection.queues(command.name) => connection.queue(request.wire(), out),
        Ok(command) => (command.run)(&mut Call { name: command.name, args: &args, store, connection, out }),
        Err(refusal) => {
            connection.spoil();
            // A malformed EXEC ends the transaction all the same.
            Err(if args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"exec")) {
                connection.leave();
                transaction::malformed()
            } else {
                refusal
            })
        }
    };
    if let Err(refusal) = outcome {
        out.bytes.truncate(start);
        refusal.write(out);
    }
    store.settle();
}

/// The refusal of a command, or of a part of one, that is Redis' but not the node's.
pub(super) fn absent(what: &str) -> Refusal {
    format!(
        "ERR the embedded node does not have '{what}': it keeps strings, counters and hashes in database 0 only. \
         Name real servers in 'servers:' to use it"
    )
    .into()
}

/// The command that is asked for, with as many arguments as it demands.
fn find(args: &[&[u8]]) -> Result<&'static Command, Refusal> {
    let name = args.first().map(|name| name.to_ascii_lowercase()).unwrap_or_default();
    let Ok(position) = COMMANDS.binary_search_by(|command| command.name.as_bytes().cmp(&name)) else {
        return Err(match ABSENT.binary_search_by(|absent| absent.as_bytes().cmp(&name)) {
            Ok(position) => absent(ABSENT[position]),
            Err(_) => unknown(args),
        });
    };
    let command = &COMMANDS[position];
    let fits = match usize::try_from(command.arity) {
        Ok(exactly) => args.len() == exactly,
        Err(_) => args.len() >= command.arity.unsigned_abs(),
    };
    if !fits {
        return Err(Refusal::arity(command.name));
    }
    if command.name == "object" {
        keys::object_part(args)?;
    }
    Ok(command)
}

/// Redis quotes up to 128 bytes of the name and about as many of the arguments, each up to its first zero byte.
fn unknown(args: &[&[u8]]) -> Refusal {
    const QUOTED: usize = 128;
    let quote = |text: &[u8], limit: usize| {
        let end = text.iter().take(limit).position(|&byte| byte == 0).unwrap_or(text.len().min(limit));
        text[..end].to_vec()
    };
    let mut quoted = Vec::new();
    for arg in &args[1..] {
        if quoted.len() >= QUOTED {
            break;
        }
        let part = quote(arg, QUOTED - quoted.len());
        quoted.push(b'\'');
        quoted.extend(part);
        quoted.extend(b"' ");
    }
    let mut text = b"ERR unknown command '".to_vec();
    text.extend(quote(args[0], QUOTED));
    text.extend(b"', with args beginning with: ");
    text.extend(quoted);
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_can_be_searched() {
        assert!(COMMANDS.is_sorted_by(|one, next| one.name < next.name));
        assert!(ABSENT.is_sorted_by(|one, next| one < next));
        assert!(COMMANDS.iter().all(|command| !ABSENT.contains(&command.name)));
    }
}
