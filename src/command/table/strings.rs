//! Strings, bitmaps, HyperLogLogs.

use super::super::{Keys, Merge, Spec, Why};
use super::row::*;

const STRING: Family = Family::of(category::STRING);
const BITMAP: Family = Family::of(category::BITMAP);
const HYPERLOGLOG: Family = Family::of(category::HYPERLOGLOG);

pub(super) const COMMANDS: &[Spec] = &[
    STRING.write("append", 3, ONE, DENYOOM | FAST),
    STRING.write("decr", 2, ONE, DENYOOM | FAST),
    STRING.write("decrby", 3, ONE, DENYOOM | FAST),
    STRING.write("delex", -2, ONE, FAST),
    STRING.write("delifeq", 3, ONE, FAST),
    STRING.read("digest", 2, ONE, FAST),
    STRING.read("get", 2, ONE, FAST),
    STRING.write("getdel", 2, ONE, FAST),
    STRING.write("getex", -2, ONE, FAST),
    STRING.read("getrange", 4, ONE, 0),
    STRING.write("getset", 3, ONE, DENYOOM | FAST),
    STRING.write("incr", 2, ONE, DENYOOM | FAST),
    STRING.write("incrby", 3, ONE, DENYOOM | FAST),
    STRING.write("incrbyfloat", 3, ONE, DENYOOM | FAST),
    STRING.read("lcs", -3, TWO, 0),
    STRING.read("mget", -2, ALL, FAST).split(Merge::Array),
    STRING.write("mset", -3, PAIRS, DENYOOM).split(Merge::AllOk),
    STRING.write("msetnx", -3, PAIRS, DENYOOM),
    STRING.write("psetex", 4, ONE, DENYOOM),
    STRING.write("set", -3, ONE, DENYOOM),
    STRING.write("setex", 4, ONE, DENYOOM),
    STRING.write("setnx", 3, ONE, DENYOOM | FAST),
    STRING.write("setrange", 4, ONE, DENYOOM),
    STRING.read("strlen", 2, ONE, FAST),
    STRING.read("substr", 4, ONE, 0),
    BITMAP.read("bitcount", -2, ONE, 0),
    BITMAP.write("bitfield", -2, ONE, DENYOOM),
    BITMAP.read("bitfield_ro", -2, ONE, FAST),
    BITMAP.write("bitop", -4, Keys::Range { first: 2, last: -1, step: 1 }, DENYOOM),
    BITMAP.read("bitpos", -3, ONE, 0),
    BITMAP.read("getbit", 3, ONE, FAST),
    BITMAP.write("setbit", 4, ONE, DENYOOM),
    HYPERLOGLOG.write("pfadd", -2, ONE, DENYOOM | FAST),
    HYPERLOGLOG.read("pfcount", -2, ALL, 0),
    HYPERLOGLOG.write("pfdebug", 3, SECOND, DENYOOM | ADMIN).refused(Why::Admin),
    HYPERLOGLOG.write("pfmerge", -2, ALL, DENYOOM),
    HYPERLOGLOG.other("pfselftest", 1, NONE, ADMIN).refused(Why::Admin),
];
