//! Nodes of a cluster that are asked which of them serves what: whose word counts, and what one who lies can do.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use hotring::topology::talk::Access;
use hotring::topology::{Answer, Layout, Node, SLOTS, Settings, Source};
use hotring::upstream::Topology;
use hotring::upstream::topology::Asked;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{Fake, free_port, now};

/// A node that tells of one primary at a port, which has all slots.
fn node(state: &str, epoch: u64, port: u16) -> Fake {
    let (state, asked) = (state.to_owned(), Arc::new(AtomicUsize::new(0)));
    Fake::start(move |visit| {
        asked.fetch_add(1, Ordering::Relaxed);
        while let Some(request) = visit.request() {
            let reply = match &request[1][..] {
                b"INFO" => {
                    let text = format!("cluster_state:{state}\r\ncluster_current_epoch:{epoch}\r\n");
                    format!("${}\r\n{text}\r\n", text.len())
                }
                _ => {
                    let node = format!(
                        "*8\r\n$2\r\nid\r\n$2\r\naa\r\n$4\r\nport\r\n:{port}\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n\
                         $4\r\nrole\r\n$6\r\nmaster\r\n"
                    );
                    format!("*1\r\n*4\r\n$5\r\nslots\r\n*2\r\n:0\r\n:16383\r\n$5\r\nnodes\r\n*1\r\n{node}")
                }
            };
            visit.send(reply.as_bytes());
        }
    })
}

fn source(at: &[&str], patience: Duration, seed: u64) -> Source {
    let asked = Asked {
        at: at.iter().map(|at| at.parse().unwrap()).collect(),
        announce: Vec::new(),
        interval: Duration::from_secs(30),
    };
    let topology = Topology::Cluster { asked, redirect_wait: Duration::ZERO };
    Source::new(&Settings { topology, access: Access::default(), patience }, seed).unwrap()
}

fn ask(source: &mut Source) -> Result<Answer, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(source.ask());
    runtime.shutdown_background();
    answer
}

/// The port of the only node.
fn port(answer: &Answer) -> u16 {
    let text = answer.layout.nodes[0].address.to_string();
    text.rsplit_once(':').unwrap().1.parse().unwrap()
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn who_sees_a_cluster_that_is_well_is_believed() {
    let (cut_off, well) = (node("fail", 9, 1), node("ok", 7, 2));
    for seed in 0..10 {
        let answer = ask(&mut source(&[cut_off.address(), well.address()], MINUTE, seed)).unwrap();
        assert_eq!((port(&answer), answer.settled), (2, true), "{seed}");
    }
    // Where nobody does, the newest is.
    let older = node("fail", 8, 3);
    for seed in 0..10 {
        let answer = ask(&mut source(&[cut_off.address(), older.address()], MINUTE, seed)).unwrap();
        assert_eq!((port(&answer), answer.settled), (1, false), "{seed}");
    }
}

#[test]
fn who_is_behind_is_believed_only_where_nobody_is_ahead() {
    // The nodes tell of nobody who is there: the seeds are asked each time.
    let (behind, ahead) = (node("ok", 3, 1), node("ok", 4, 2));
    let mut asked = source(&[behind.address(), ahead.address()], MINUTE, 5);
    let mut both = Vec::new();
    for _ in 0..40 {
        both.push(port(&ask(&mut asked).unwrap()));
    }
    // Before the newer has been heard either may be taken; after it no other.
    let first = both.iter().position(|&port| port == 2).expect("the newer one is asked at some time");
    assert!(both[first..].iter().all(|&port| port == 2), "{both:?}");
    // Of those who are not well none takes back what is known.
    drop(ahead);
    assert_eq!(port(&ask(&mut asked).unwrap()), 1, "it was made anew, perhaps");
    let cut_off = node("fail", 2, 3);
    let mut asked = source(&[cut_off.address(), behind.address()], MINUTE, 5);
    while port(&ask(&mut asked).unwrap()) != 1 {}
    drop(behind);
    let told = ask(&mut asked).unwrap_err();
    assert_eq!(told, "only nodes that are behind answer (epoch 2, known is 3)");
}

#[test]
fn who_is_silent_holds_nobody_up() {
    let silent: Vec<Fake> = (0..4).map(|_| Fake::start(|visit| visit.until_gone())).collect();
    let well = node("ok", 1, 2);
    let all: Vec<&str> = silent.iter().chain([&well]).map(Fake::address).collect();
    for seed in 0..4 {
        let start = now();
        assert_eq!(port(&ask(&mut source(&all, MINUTE, seed)).unwrap()), 2);
        assert!(start.elapsed() < MINUTE / 2, "it waited for one that says nothing");
    }
    // Nor does one that says nothing keep an answer that is not good from being taken.
    let poor = node("fail", 1, 3);
    let start = now();
    assert_eq!(port(&ask(&mut source(&[silent[0].address(), poor.address()], MINUTE, 1)).unwrap()), 3);
    assert!(start.elapsed() < MINUTE / 2);
    // Where all are silent, that is said in time.
    let told = ask(&mut source(&[silent[0].address()], Duration::from_millis(50), 1)).unwrap_err();
    assert_eq!(told, format!("{}: no answer within connect_timeout", silent[0].address()));
}

#[test]
fn whatever_a_node_says_is_an_error_that_names_it() {
    let with = |reply: Vec<u8>| Fake::start(move |visit| while visit.request().is_some() && visit.send(&reply) {});
    let mut endless = b"*2\r\n$9000000\r\n".to_vec();
    endless.resize(9_000_000, b'x');
    for (reply, told) in [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "no Redis server: a reply began with byte 0x48"),
        (
            b"-ERR This instance has cluster support disabled\r\n".to_vec(),
            "ERR This instance has cluster support disabled",
        ),
        (b"+OK\r\n".to_vec(), "its CLUSTER INFO tells no state"),
        (b"$-1\r\n".to_vec(), "its CLUSTER INFO tells no state"),
        (b"%1\r\n+a\r\n+b\r\n".to_vec(), "its answer is beyond what is read"),
        (b"$20\r\ncluster_state:ok\r\n  \r\n".to_vec(), "its answer is not understood"),
        ([b"*1\r\n".repeat(100_000), b":1\r\n".to_vec()].concat(), "its answer is beyond what is read"),
        (b"*2000000\r\n".to_vec(), "no answer within connect_timeout"),
        (endless, "its answer is too long"),
    ] {
        let fake = with(reply);
        let wait = if told.starts_with("no answer") { Duration::from_millis(50) } else { MINUTE };
        assert_eq!(ask(&mut source(&[fake.address()], wait, 1)).unwrap_err(), format!("{}: {told}", fake.address()));
    }
    let nobody = format!("127.0.0.1:{}", free_port());
    assert_eq!(ask(&mut source(&[&nobody], MINUTE, 1)).unwrap_err(), format!("{nobody}: connection refused"));
}

/// Numbers of servers are 16 bits: one that named others each time would make two servers of one number.
#[test]
fn who_tells_of_other_nodes_each_time_does_not_use_up_all_numbers() {
    let yaml = "pools: {main: {listen: 127.0.0.1:0, topology: cluster, servers: ['127.0.0.1:1']}}";
    let config = hotring::config::parse(yaml, std::path::Path::new("hotring.yaml")).unwrap();
    let at = now();
    let mut live = hotring::live::Live::first(config, at);
    let layout = |from: u32| {
        let node = |n: u32| {
            let host = std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
            let address = format!("{host}:7000").parse().unwrap();
            let name = format!("{host}:7000");
            Node { id: name.clone(), name, weight: 1, address, announced: Vec::new(), replicas: Vec::new() }
        };
        Arc::new(Layout { nodes: (from..from + 1024).map(node).collect(), slots: Some(vec![0; SLOTS]) })
    };
    let mut taken = 0;
    for n in 0..16 {
        if live.pools[0].has_room_for(&layout(n * 1024), at) {
            live = live.with_layout("main", layout(n * 1024), at);
            taken += 1;
        }
    }
    assert_eq!((taken, live.pools[0].shards.len()), (8, 8192));
    assert!(live.pools[0].has_room_for(&layout(7 * 1024), at), "those that are known are no others");
    let later = at + hotring::live::REST + Duration::from_secs(1);
    assert!(live.pools[0].has_room_for(&layout(9 * 1024), later), "numbers are used again");
}
