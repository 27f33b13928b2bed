//! Sorted sets, places on earth, streams.

use super::super::{Spec, key};
use super::row::*;

const SORTED_SET: Family = Family::of(category::SORTED_SET);
const GEO: Family = Family::of(category::GEO);
const STREAM: Family = Family::of(category::STREAM);
const CONTAINER: Family = Family::of(0);

pub(super) const COMMANDS: &[Spec] = &[
    SORTED_SET.write("bzmpop", -5, key::pop(2), BLOCKING).treated(BLOCKS),
    SORTED_SET.write("bzpopmax", -3, ALL_BUT_LAST, BLOCKING | FAST).treated(BLOCKS),
    SORTED_SET.write("bzpopmin", -3, ALL_BUT_LAST, BLOCKING | FAST).treated(BLOCKS),
    SORTED_SET.write("zadd", -4, ONE, DENYOOM | FAST),
    SORTED_SET.read("zcard", 2, ONE, FAST),
    SORTED_SET.read("zcount", 4, ONE, FAST),
    SORTED_SET.read("zdiff", -3, key::operation(false, "ERR at least 1 input key is needed for 'zdiff' command"), 0),
    SORTED_SET.write(
        "zdiffstore",
        -4,
        key::operation(true, "ERR at least 1 input key is needed for 'zdiffstore' command"),
        DENYOOM,
    ),
    SORTED_SET.write("zincrby", 4, ONE, DENYOOM | FAST),
    SORTED_SET.read("zinter", -3, key::operation(false, "ERR at least 1 input key is needed for 'zinter' command"), 0),
    SORTED_SET.read(
        "zintercard",
        -3,
        key::operation(false, "ERR at least 1 input key is needed for 'zintercard' command"),
        0,
    ),
    SORTED_SET.write(
        "zinterstore",
        -4,
        key::operation(true, "ERR at least 1 input key is needed for 'zinterstore' command"),
        DENYOOM,
    ),
    SORTED_SET.read("zlexcount", 4, ONE, FAST),
    SORTED_SET.write("zmpop", -4, key::pop(1), 0),
    SORTED_SET.read("zmscore", -3, ONE, FAST),
    SORTED_SET.write("zpopmax", -2, ONE, FAST),
    SORTED_SET.write("zpopmin", -2, ONE, FAST),
    SORTED_SET.read("zrandmember", -2, ONE, 0),
    SORTED_SET.read("zrange", -4, ONE, 0),
    SORTED_SET.read("zrangebylex", -4, ONE, 0),
    SORTED_SET.read("zrangebyscore", -4, ONE, 0),
    SORTED_SET.write("zrangestore", -5, TWO, DENYOOM),
    SORTED_SET.read("zrank", -3, ONE, FAST),
    SORTED_SET.write("zrem", -3, ONE, FAST),
    SORTED_SET.write("zremrangebylex", 4, ONE, 0),
    SORTED_SET.write("zremrangebyrank", 4, ONE, 0),
    SORTED_SET.write("zremrangebyscore", 4, ONE, 0),
    SORTED_SET.read("zrevrange", -4, ONE, 0),
    SORTED_SET.read("zrevrangebylex", -4, ONE, 0),
    SORTED_SET.read("zrevrangebyscore", -4, ONE, 0),
    SORTED_SET.read("zrevrank", -3, ONE, FAST),
    SORTED_SET.read("zscan", -3, ONE, 0),
    SORTED_SET.read("zscore", 3, ONE, FAST),
    SORTED_SET.read("zunion", -3, key::operation(false, "ERR at least 1 input key is needed for 'zunion' command"), 0),
    SORTED_SET.write(
        "zunionstore",
        -4,
        key::operation(true, "ERR at least 1 input key is needed for 'zunionstore' command"),
        DENYOOM,
    ),
    GEO.write("geoadd", -5, ONE, DENYOOM),
    GEO.read("geodist", -4, ONE, 0),
    GEO.read("geohash", -2, ONE, 0),
    GEO.read("geopos", -2, ONE, 0),
    GEO.write("georadius", -6, key::GEORADIUS, DENYOOM),
    GEO.read("georadius_ro", -6, ONE, 0),
    GEO.write("georadiusbymember", -5, key::GEORADIUSBYMEMBER, DENYOOM),
    GEO.read("georadiusbymember_ro", -5, ONE, 0),
    GEO.read("geosearch", -7, ONE, 0),
    GEO.write("geosearchstore", -8, TWO, DENYOOM),
    STREAM.write("xack", -4, ONE, FAST),
    STREAM.write("xackdel", -6, ONE, FAST),
    STREAM.write("xadd", -5, ONE, DENYOOM | FAST),
    STREAM.write("xautoclaim", -6, ONE, FAST),
    STREAM.write("xclaim", -6, ONE, FAST),
    STREAM.write("xdel", -3, ONE, FAST),
    STREAM.write("xdelex", -5, ONE, FAST),
    STREAM.read("xlen", 2, ONE, FAST),
    STREAM.read("xpending", -3, ONE, 0),
    STREAM.read("xrange", -4, ONE, 0),
    STREAM.read("xread", -4, key::STREAMS, BLOCKING).unless(key::NOT_BLOCKING),
    STREAM.write("xreadgroup", -7, key::GROUP_STREAMS, BLOCKING).unless(key::GROUP_NOT_BLOCKING),
    STREAM.read("xrevrange", -4, ONE, 0),
    STREAM.write("xsetid", -3, ONE, DENYOOM | FAST),
    STREAM.write("xtrim", -4, ONE, 0),
    CONTAINER.other("xgroup", -2, NONE, 0).containing(XGROUP),
    CONTAINER.other("xinfo", -2, NONE, 0).containing(XINFO),
];

const XGROUP: &[Spec] = &[
    STREAM.write("xgroup|create", -5, SECOND, DENYOOM),
    STREAM.write("xgroup|createconsumer", 5, SECOND, DENYOOM),
    STREAM.write("xgroup|delconsumer", 5, SECOND, 0),
    STREAM.write("xgroup|destroy", 4, SECOND, 0),
    STREAM.help("xgroup|help"),
    STREAM.write("xgroup|setid", -5, SECOND, 0),
];

const XINFO: &[Spec] = &[
    STREAM.read("xinfo|consumers", 4, SECOND, 0),
    STREAM.read("xinfo|groups", 3, SECOND, 0),
    STREAM.help("xinfo|help"),
    STREAM.read("xinfo|stream", -3, SECOND, 0),
];
