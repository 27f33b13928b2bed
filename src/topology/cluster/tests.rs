//! Recorded replies, and what becomes of them when they are broken.

use super::replies::{Found, info, shards, slots};
use crate::chance::splitmix;
use crate::resp::control::{self, Control};
use crate::topology::{NOBODY, SLOTS};
use crate::units::Address;
use crate::upstream::topology::{Announce, Asked, TOPOLOGY_INTERVAL};

fn asked(announce: Vec<Announce>) -> Asked {
    Asked { at: Vec::new(), announce, interval: TOPOLOGY_INTERVAL }
}

fn at(text: &str) -> Address {
    text.parse().unwrap()
}

/// Where the second primary's replicas are, and in which zones.
fn replicas(found: &Found) -> Vec<(String, Option<&str>)> {
    let replicas = &found.layout.nodes[1].replicas;
    replicas.iter().map(|replica| (replica.address.to_string(), replica.zone.as_deref())).collect()
}

/// A reply from words: `[` and `]` are an array's ends, `:1` a number, `nil`, `''` an empty text, all else a text.
fn reply(words: &str) -> Control {
    let mut open: Vec<Vec<Control>> = vec![Vec::new()];
    for word in words.split_whitespace() {
        let one = match word {
            "[" => {
                open.push(Vec::new());
                continue;
            }
            "]" => Control::Array(open.pop().unwrap()),
            "nil" => Control::Null,
            "''" => Control::bulk(""),
            word => match word.strip_prefix(':') {
                Some(number) => Control::Integer(number.parse().unwrap()),
                None => Control::bulk(word),
            },
        };
        open.last_mut().unwrap().push(one);
    }
    open.pop().unwrap().pop().unwrap()
}

/// As a server writes it, and read from its bytes.
fn wire(reply: &Control) -> Vec<u8> {
    let mut bytes = Vec::new();
    control::encode(reply, &mut bytes);
    bytes
}

/// Redis 7.0.15.
const REDIS_7: &str = "[ \
    [ slots [ :0 :8191 ] nodes [ \
      [ id bb port :7001 ip 127.0.0.1 endpoint 127.0.0.1 role master replication-offset :84 health online ] \
      [ id cc port :7003 ip 127.0.0.1 endpoint 127.0.0.1 role replica replication-offset :84 health online ] \
      [ id dd port :7004 ip 127.0.0.1 endpoint 127.0.0.1 role replica replication-offset :84 health fail ] ] ] \
    [ slots [ :8192 :16000 :16002 :16383 ] nodes [ \
      [ id aa port :7002 ip 127.0.0.1 endpoint 127.0.0.1 role master replication-offset :70 health online ] ] ] \
    [ slots [ :16001 :16001 ] nodes [ \
      [ id ee port :7005 ip 127.0.0.1 endpoint 127.0.0.1 role master replication-offset :70 health online ] ] ] ]";

/// Valkey 8, whose shards have an id and may have the one that was beside the one that is; with hostnames, and a field that
/// nobody knows.
const VALKEY_8: &str = "[ \
    [ slots [ :0 :16383 ] nodes [ \
      [ id old port :7001 tls-port :0 ip 10.0.0.1 endpoint a.example hostname a.example role master replication-offset :1 \
        health fail shard-id x ] \
      [ id new port :7001 ip 10.0.0.2 endpoint b.example hostname b.example role master replication-offset :9 health online \
        availability-zone eu-1 mystery [ [ :1 ] nil ] ] \
      [ id rep port :7001 ip 10.0.0.3 endpoint c.example hostname c.example role replica replication-offset :9 health loading \
        availability-zone eu-2 ] ] id s1 ] \
    [ slots [ ] nodes [ \
      [ id empty port :7001 ip 10.0.0.4 endpoint d.example hostname d.example role master replication-offset :0 health online ] \
      ] id s2 ] \
    [ slots [ ] nodes [ \
      [ id gone port :7001 ip 10.0.0.5 endpoint e.example hostname e.example role master replication-offset :0 health fail ] \
      ] id s3 ] \
    [ slots [ ] nodes [ \
      [ id tls tls-port :7002 ip 10.0.0.6 endpoint f.example hostname f.example role master replication-offset :0 health online ] \
      ] id s4 ] ]";

/// Redis 6.2: no metadata behind the id.
const REDIS_6_SLOTS: &str = "[ \
    [ :0 :5460 [ 127.0.0.1 :7001 aa ] [ 127.0.0.1 :7004 dd ] ] \
    [ :5461 :10922 [ 127.0.0.1 :7002 bb ] ] \
    [ :10923 :16383 [ 127.0.0.1 :7003 cc ] [ 127.0.0.1 :7005 ee ] [ 127.0.0.1 :7006 ff ] ] ]";

/// Redis 7.0 with `cluster-preferred-endpoint-type hostname`, one node without one; and with `unknown-endpoint`.
const REDIS_7_SLOTS: &str = "[ \
    [ :0 :99 [ a.example :7001 aa [ ip 10.0.0.1 ] ] [ ? :7004 dd [ ip 10.0.0.4 ] ] ] \
    [ :100 :200 [ ? :7002 bb [ ip 10.0.0.2 ] ] ] \
    [ :300 :300 [ a.example :7001 aa [ ip 10.0.0.1 ] ] ] ]";

fn owner(found: &Found, slot: usize) -> Option<&str> {
    let at = found.layout.slots.as_ref().unwrap()[slot];
    (at != NOBODY).then(|| found.layout.nodes[usize::from(at)].id.as_str())
}

#[test]
fn info_is_read() {
    let text = "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_current_epoch:6\r\ncluster_my_epoch:1\r\n";
    let read = info(&Control::bulk(text)).unwrap();
    assert!(read.ok && read.epoch == 6);
    assert!(!info(&Control::bulk("cluster_state:fail\r\n")).unwrap().ok);
    assert_eq!(info(&Control::bulk("nothing")), None);
    assert_eq!(info(&Control::Integer(1)), None);
}

#[test]
fn shards_of_redis_7() {
    let found = shards(&reply(REDIS_7), &at("127.0.0.1:7001"), &asked(Vec::new()), false).unwrap();
    assert!(found.settled);
    let nodes: Vec<_> = found.layout.nodes.iter().map(|node| (node.id.as_str(), node.name.as_str())).collect();
    assert_eq!(nodes, [("aa", "127.0.0.1:7002"), ("bb", "127.0.0.1:7001"), ("ee", "127.0.0.1:7005")]);
    assert_eq!(replicas(&found), [("127.0.0.1:7003".into(), None)]);
    assert_eq!(found.layout.nodes[1].replicas[0].announced, ["127.0.0.1:7003"]);
    assert_eq!(found.layout.nodes[1].announced, ["127.0.0.1:7001"]);
    for (slot, id) in
        [(0, "bb"), (8191, "bb"), (8192, "aa"), (16_000, "aa"), (16_001, "ee"), (16_002, "aa"), (16_383, "aa")]
    {
        assert_eq!(owner(&found, slot), Some(id), "{slot}");
    }
    assert_eq!((found.layout.slots_of(0), found.layout.slots_of(2)), (Some(8191), Some(1)));
}

#[test]
fn shards_of_valkey_8() {
    let found = shards(&reply(VALKEY_8), &at("10.0.0.1:7001"), &asked(Vec::new()), false).unwrap();
    // Of two that are called primary the one that is well; who has no slots yet may get some; who failed without is gone.
    let nodes: Vec<_> = found.layout.nodes.iter().map(|node| (node.id.as_str(), node.address.to_string())).collect();
    assert_eq!(nodes, [("empty", "d.example:7001".to_owned()), ("new", "b.example:7001".to_owned())]);
    assert_eq!(owner(&found, 0), Some("new"));
    assert_eq!(found.layout.nodes[1].announced, ["b.example:7001", "10.0.0.2:7001"]);
    assert_eq!(replicas(&found), [("c.example:7001".into(), Some("eu-2"))]);
    assert!(found.settled);
}

#[test]
fn slots_of_redis_6_and_7() {
    let found = slots(&reply(REDIS_6_SLOTS), &at("127.0.0.1:7001"), &asked(Vec::new())).unwrap();
    assert!(found.settled);
    assert_eq!(owner(&found, 5460), Some("aa"));
    assert_eq!(owner(&found, 5461), Some("bb"));
    assert_eq!(found.layout.nodes[2].replicas.len(), 2);

    let found = slots(&reply(REDIS_7_SLOTS), &at("seed:7009"), &asked(Vec::new())).unwrap();
    assert!(!found.settled, "slots are missing");
    assert_eq!(
        (owner(&found, 99), owner(&found, 200), owner(&found, 250), owner(&found, 300)),
        (Some("aa"), Some("bb"), None, Some("aa"))
    );
    // Who has no name is where the question went.
    assert_eq!(found.layout.nodes[1].address, at("seed:7002"));
    assert_eq!(found.layout.nodes[1].announced, ["10.0.0.2:7002", "?:7002"]);
    assert_eq!(found.layout.nodes[0].announced, ["a.example:7001", "10.0.0.1:7001"]);
}

#[test]
fn who_says_nothing_of_where_it_is_is_where_it_was_asked() {
    for endpoint in ["nil", "''"] {
        let words = format!(
            "[ [ slots [ :0 :16383 ] nodes [ [ id aa port :7001 ip '' endpoint {endpoint} role master health online ] ] ] ]"
        );
        let found = shards(&reply(&words), &at("[::1]:7009"), &asked(Vec::new()), false).unwrap();
        assert_eq!(found.layout.nodes[0].address, at("[::1]:7001"));
        assert_eq!(found.layout.nodes[0].announced, [":7001"]);
    }
}

#[test]
fn nodes_are_where_announce_says() {
    let rules = vec![
        Announce::Whole { from: ("127.0.0.1".into(), 7002), to: at("10.1.1.1:9002") },
        Announce::Host { from: "127.0.0.1".into(), to: "outside".into() },
    ];
    let found = shards(&reply(REDIS_7), &at("10.1.1.1:9001"), &asked(rules), false).unwrap();
    let reached: Vec<String> = found.layout.nodes.iter().map(|node| node.address.to_string()).collect();
    assert_eq!(reached, ["10.1.1.1:9002", "outside:7001", "outside:7005"]);
    assert_eq!(found.layout.nodes[0].announced, ["127.0.0.1:7002"], "redirections spell it as the node does");
    assert_eq!(found.layout.nodes[1].replicas[0].address, at("outside:7003"));
    // By its address, though it is called by a name.
    let rules = vec![Announce::Host { from: "10.0.0.2".into(), to: "outside".into() }];
    let found = shards(&reply(VALKEY_8), &at("10.1.1.1:9001"), &asked(rules), false).unwrap();
    assert_eq!(found.layout.nodes[1].address, at("outside:7001"));
    // Two nodes cannot be in one place.
    let to = at("10.1.1.1:9002");
    let rules = [7001, 7002].map(|port| Announce::Whole { from: ("127.0.0.1".into(), port), to: to.clone() });
    let wrong = shards(&reply(REDIS_7), &at("10.1.1.1:9001"), &asked(rules.to_vec()), false).unwrap_err();
    assert_eq!(wrong, "the nodes 127.0.0.1:7002 and 127.0.0.1:7001 would both be at 10.1.1.1:9002: see `announce`");
}

#[test]
fn what_is_no_layout_is_an_error() {
    for words in [
        ":1",
        "nil",
        "[ ]",
        "[ [ ] ]",
        "[ [ slots [ ] nodes [ ] ] ]",
        "[ [ slots [ :0 ] nodes [ ] ] ]",
        "[ [ slots [ :0 :16384 ] nodes [ [ id a port :1 role master ] ] ] ]",
        "[ [ slots [ :5 :4 ] nodes [ [ id a port :1 role master ] ] ] ]",
        "[ [ slots [ :-1 :4 ] nodes [ [ id a port :1 role master ] ] ] ]",
        "[ [ slots [ :0 :4 ] nodes [ [ port :1 role master ] ] ] ]",
        "[ [ slots [ :0 :4 ] ] ]",
    ] {
        assert!(shards(&reply(words), &at("a:1"), &asked(Vec::new()), false).is_err(), "{words}");
    }
    for words in [":1", "[ ]", "[ [ :0 ] ]", "[ [ :0 :1 ] ]", "[ [ :0 :1 [ ] ] ]", "[ [ :0 :16384 [ a :1 b ] ] ]"] {
        assert!(slots(&reply(words), &at("a:1"), &asked(Vec::new())).is_err(), "{words}");
    }
    // A port that is none is no node: its slots are nobody's.
    let words = "[ [ slots [ :0 :4 ] nodes [ [ id a port :99999 role master ] ] ] ]";
    assert!(shards(&reply(words), &at("a:1"), &asked(Vec::new()), false).is_err());
}

#[test]
fn more_nodes_than_can_be_are_refused() {
    let node = |n: usize| format!("[ slots [ :{n} :{n} ] nodes [ [ id n{n} port :{} ip h role master ] ] ]", n + 1);
    let all: Vec<String> = (0..2049).map(node).collect();
    let wrong = shards(&reply(&format!("[ {} ]", all.join(" "))), &at("a:1"), &asked(Vec::new()), false).unwrap_err();
    assert_eq!(wrong, "it tells of more than 2048 nodes");
    let found =
        shards(&reply(&format!("[ {} ]", all[..2048].join(" "))), &at("a:1"), &asked(Vec::new()), false).unwrap();
    assert_eq!(found.layout.nodes.len(), 2048);
}

/// Broken in any way, a reply gives a layout that is whole or an error.
#[test]
fn broken_replies_break_nothing() {
    let recorded = [REDIS_7, VALKEY_8, REDIS_6_SLOTS, REDIS_7_SLOTS].map(|words| wire(&reply(words)));
    let marks: [&[u8]; 12] =
        [b"*", b"$", b":", b"-1", b"0", b"9", b"\r\n", b"*-1\r\n", b"$-1\r\n", b"nodes", b"\xff", b"16384"];
    let mut layouts = 0;
    for round in 0..40_000_u64 {
        let mut lot = splitmix(round);
        let mut draw = |of: usize| {
            lot = splitmix(lot);
            (lot % of as u64) as usize
        };
        let mut bytes = recorded[draw(recorded.len())].clone();
        for _ in 0..1 + draw(3) {
            let (place, mark) = (draw(bytes.len()), marks[draw(marks.len())]);
            let end = place + [0, mark.len(), draw(40)][draw(3)].min(bytes.len() - place);
            bytes.splice(place..end, mark.iter().copied());
        }
        let Ok(Some((broken, _))) = control::parse(&bytes) else { continue };
        let _ = info(&broken);
        for read in [|reply: &_, at: &_, asked: &_| shards(reply, at, asked, false), slots] {
            let Ok(found) = read(&broken, &at("127.0.0.1:7001"), &asked(Vec::new())) else { continue };
            let table = found.layout.slots.as_ref().unwrap();
            assert_eq!(table.len(), SLOTS);
            assert!(table.iter().all(|&at| at == NOBODY || usize::from(at) < found.layout.nodes.len()));
            layouts += 1;
        }
    }
    assert!(layouts > 100, "only {layouts} of them could be read");
}
