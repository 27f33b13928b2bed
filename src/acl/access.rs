//! What a command does with each of its keys, for `%R~` and `%W~`.
//!
//! Told by exceptions from a rule that errs on the safe side: a read reads its keys, everything else reads and writes
//! them. To Redis a key is read where its value comes out and written where its value changes; whether it exists, its
//! type and its length are neither. The exceptions are those of Redis 7.0; a test compares them with a real server.

use std::sync::LazyLock;

use crate::command::{Access, Spec, numbered};
use crate::resp::Request;

/// The value of the key comes out.
pub(super) const READ: u8 = 1;
/// The value of the key changes.
pub(super) const WRITE: u8 = 2;
const BOTH: u8 = READ | WRITE;

/// What a rule must allow for the first key of a command, and for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    first: u8,
    rest: u8,
}

impl Needs {
    /// For the next key.
    pub(super) fn next(&mut self) -> u8 {
        std::mem::replace(&mut self.first, self.rest)
    }
}

const EXCEPTIONS: &[(Needs, &str)] = &[
    (
        Needs { first: 0, rest: 0 },
        "exists hexists hlen hstrlen llen memory|usage object|encoding object|freq object|idletime object|refcount scard \
         sismember strlen touch type watch xlen zcard",
    ),
    (
        Needs { first: WRITE, rest: WRITE },
        "append del expire expireat geoadd hdel hmset hset hsetnx linsert lpush lpushx lrem lset ltrim mset msetnx persist \
         pexpire pexpireat pfadd psetex restore restore-asking rpush rpushx sadd setex setnx setrange srem unlink xack \
         xadd xautoclaim xclaim xdel xgroup|create xgroup|createconsumer xgroup|delconsumer xgroup|destroy \
         xgroup|setid xsetid xtrim zadd zrem zremrangebylex zremrangebyrank zremrangebyscore",
    ),
    (Needs { first: READ, rest: READ }, "pfdebug xreadgroup"),
    (Needs { first: READ, rest: WRITE }, "copy georadius georadiusbymember sort"),
    (
        Needs { first: WRITE, rest: READ },
        "bitop geosearchstore sdiffstore sinterstore sunionstore zdiffstore zinterstore zrangestore zunionstore",
    ),
    (Needs { first: BOTH, rest: WRITE }, "blmove brpoplpush lmove rename renamenx rpoplpush smove"),
    (Needs { first: BOTH, rest: READ }, "pfmerge"),
];

/// By number.
static NEEDS: LazyLock<Vec<Needs>> = LazyLock::new(|| {
    let exception = |spec: &Spec| EXCEPTIONS.iter().find(|(_, names)| names.split(' ').any(|name| name == spec.name));
    numbered().map(|spec| exception(spec).map_or_else(|| usual(spec), |(needs, _)| *needs)).collect()
});

fn usual(spec: &Spec) -> Needs {
    let each = if spec.access == Access::Read { READ } else { BOTH };
    Needs { first: each, rest: each }
}

/// What the keys of a request need.
pub(super) fn needs(spec: &Spec, request: &Request<'_>) -> Needs {
    let each = match spec.name {
        "set" if !request.args().skip(3).any(|option| option.eq_ignore_ascii_case(b"GET")) => WRITE,
        "bitfield" if only_gets(request) => READ,
        _ => return spec.number().and_then(|number| NEEDS.get(number)).copied().unwrap_or_else(|| usual(spec)),
    };
    Needs { first: each, rest: each }
}

/// Whether BITFIELD has no operation but GET. What cannot be read counts as a write.
fn only_gets(request: &Request<'_>) -> bool {
    let mut args = request.args().skip(2);
    while let Some(operation) = args.next() {
        let operands = match operation {
            get if get.eq_ignore_ascii_case(b"GET") => 2,
            overflow if overflow.eq_ignore_ascii_case(b"OVERFLOW") => 1,
            _ => return false,
        };
        if args.by_ref().take(operands).count() < operands {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_name_commands_once() {
        let mut seen = std::collections::BTreeSet::new();
        for name in EXCEPTIONS.iter().flat_map(|(_, names)| names.split(' ')) {
            assert!(numbered().any(|spec| spec.name == name), "{name} is no command");
            assert!(seen.insert(name), "{name} twice");
        }
    }
}
