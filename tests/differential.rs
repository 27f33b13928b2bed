//! hotring against a real server: thousands of random commands, right and wrong ones, must be answered as the server alone
//! answers them, byte for byte, and leave the same behind.
//!
//! Over one shard every reply is the server's, but for what hotring documents as refused or answered by itself; over three
//! shards a command may besides be refused because its keys are on several. Over a cluster every reply is what a client gets
//! that asks the nodes of an equal one itself (`differential/direct.rs`). With a prefix before its keys, that nothing but scripts show. What is excepted is listed in `differential/compare.rs`.
//!
//! `HOTRING_SEED=n` runs the round of that seed alone, `HOTRING_ROUNDS=n` as many rounds.
#![allow(clippy::print_stderr, reason = "a failure tells how to see it again")]

#[path = "differential/compare.rs"]
mod compare;
#[path = "differential/direct.rs"]
mod direct;
#[path = "differential/generate.rs"]
mod generate;
#[path = "differential/grammar.rs"]
mod grammar;
#[path = "differential/pair.rs"]
mod pair;
#[path = "differential/servers.rs"]
#[allow(dead_code, reason = "tests with clients use the rest")]
mod servers;
mod support;

use direct::Direct;
use pair::{Pair, VERSION};
use servers::{Connection, Directory, Hotring, Server};
use support::Cluster;

/// Runs all rounds over so many shards; `more` are further lines of the pool.
fn run(shard_count: usize, more: &str) {
    let directory = Directory::new("differential");
    let server = Server::start(&directory, "alone");
    let shards: Vec<Server> = (0..shard_count).map(|n| Server::start(&directory, &format!("shard-{n}"))).collect();
    let hotring = Hotring::start(&shards, more);
    let (through, alone) = (|| hotring.connect(), || server.connect());
    let shards = shards.iter().map(Server::connect).collect();
    pair::run(Pair::of(&through, alone(), shards, vec![server.connect()], false), &through, &alone);
}

#[test]
fn one_shard_is_the_server_itself() {
    run(1, "");
}

#[test]
fn three_shards_are_one_server_or_refuse() {
    run(3, "");
}

#[test]
fn nor_do_shared_replies_and_more_connections_show() {
    run(3, "    coalesce: true\n    server_connections: 2\n");
}

/// Apps with a prefix, on servers that have others' keys, too.
fn run_behind_a_prefix(shard_count: usize) {
    const PREFIX: &str = "t[e]am-a:";
    let directory = Directory::new("differential");
    let server = Server::start(&directory, "alone");
    let shards: Vec<Server> = (0..shard_count).map(|n| Server::start(&directory, &format!("shard-{n}"))).collect();
    let hotring = Hotring::start(&shards, &format!("    prefix: \"{PREFIX}\"\n"));
    let (through, alone) = (|| hotring.connect(), || server.connect());
    let shards = shards.iter().map(Server::connect).collect();
    pair::run(Pair::of(&through, alone(), shards, vec![server.connect()], false).behind(PREFIX), &through, &alone);
}

#[test]
fn nor_does_a_prefix_show() {
    run_behind_a_prefix(1);
}

#[test]
fn nor_does_a_prefix_show_over_three_shards() {
    run_behind_a_prefix(3);
}

/// Keys live in three pools, by how they begin: what names keys is carried there, in whatever order and however it is split.
#[test]
fn keys_in_several_pools_are_one_server_or_refuse() {
    let directory = Directory::new("differential");
    let server = Server::start(&directory, "alone");
    let servers: Vec<Server> = (0..5).map(|n| Server::start(&directory, &format!("shard-{n}"))).collect();
    let (main, rest) = servers.split_at(2);
    let (tagged, single) = rest.split_at(2);
    let routes = r#"{"{a}": tagged, "{a}h": single, "x": single, "s": tagged, "{b}z": tagged, "l0": single}"#;
    let hotring = Hotring::with_routes(&[("main", main), ("tagged", tagged), ("single", single)], routes);
    let (through, alone) = (|| hotring.connect(), || server.connect());
    let shards = servers.iter().map(Server::connect).collect();
    let pair = Pair::of(&through, alone(), shards, vec![server.connect()], false);
    pair::run(
        pair.without(&["dbsize", "flushall", "flushdb", "keys", "lastsave", "randomkey", "scan"]),
        &through,
        &alone,
    );
}

/// Both sides are a cluster of three primaries: hotring before one of them, a client that knows of clusters at the other.
fn run_over_clusters(keys: &[&str]) {
    let clusters = [(); 2].map(|()| Cluster::start(3, 0));
    let nodes = |cluster: &Cluster| -> Vec<String> { (0..3).map(|node| cluster.address(node).to_owned()).collect() };
    let [ours, theirs] = [nodes(&clusters[0]), nodes(&clusters[1])];
    let hotring = support::Hotring::start(&clusters[0].yaml(&[0], keys));
    let (through, alone) = (|| Connection::to(hotring.address(0)), || Direct::to(&theirs));
    let to = |nodes: &[String]| nodes.iter().map(|node| Connection::to(node)).collect();
    pair::run(Pair::of(&through, alone(), to(&ours), to(&theirs), true), &through, &alone);
}

#[test]
fn a_cluster_is_what_a_client_makes_of_it_that_knows_of_clusters() {
    run_over_clusters(&[]);
}

#[test]
fn nor_do_shared_replies_and_more_connections_show_over_a_cluster() {
    run_over_clusters(&["coalesce: true", "server_connections: 2"]);
}

/// What is sent as it stands, on a connection of its own; then the reading ends.
const FORMS: &[&[u8]] = &[
    b"PING\r\n",
    b"PING\n",
    b"ping hello\r\n",
    b"  ECHO  'a b'  \r\n",
    b"ECHO \"\\x41\\n\\q\"\r\n",
    b"ECHO 'it\\'s'\r\n",
    b"ECHO \"a\r\nPING\r\n",
    b"ECHO 'a'b\r\nPING\r\n",
    b"ECHO \"\"\r\n",
    b"SET k v\r\nGET k\r\nNONESUCH 'a b'\r\nGET\r\n",
    b"SET k 'a\\r\\nb'\r\nGET k\r\n",
    b"\r\n\r\n  \r\nPING\r\n",
    b"*0\r\n*-1\r\n*-7\r\nPING\r\n",
    b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPI",
    b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\nPING\r\n",
    b"*1\r\n$0\r\n\r\nPING\r\n",
    b"PING\r\n*x\r\nPING\r\n",
    b"*\r\nPING\r\n",
    b"* 1\r\nPING\r\n",
    b"*1 \r\nPING\r\n",
    b"*+1\r\n$4\r\nPING\r\n",
    b"*01\r\n$4\r\nPING\r\n",
    b"*2147483648\r\n",
    b"*9223372036854775808\r\n",
    b"*1\r\n:1\r\n",
    b"*1\r\nPING\r\n",
    b"*1\r\n$-1\r\nPING\r\n",
    b"*1\r\n$\r\n",
    b"*1\r\n$x\r\n",
    b"*1\r\n$+4\r\nPING\r\n",
    b"*1\r\n$04\r\nPING\r\n",
    b"*1\r\n$536870913\r\n",
    b"*2\r\n$4\r\nECHO\r\n*1\r\n",
    b"QUIT\r\nPING\r\n",
    b"*1\r\n$4\r\nquit\r\n*1\r\n$4\r\nPING\r\n",
    b"*2\r\n$4\r\nQUIT\r\n$3\r\nnow\r\n",
    b"PING\r\nQUIT\r\n",
    b"GET / HTTP/1.1\r\n",
    b"RESET\r\nPING\r\n",
    b"SELECT 0\r\nGET none\r\n",
];

/// Forms that hotring answers otherwise, and how.
const OTHER_FORMS: &[(&[u8], &[u8])] = &[
    // A server skips two bytes after an argument without looking at them.
    (b"*1\r\n$4\r\nPINGxxPING\r\n", b"-ERR Protocol error: bulk string without CRLF at its end\r\n"),
    // A server has had no such bound since 7.0, but for that of numbers.
    (b"*1048577\r\n$4\r\nPING\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    // Browsers that were led here: a server hangs up without a word.
    (b"POST / HTTP/1.1\r\nPING\r\n", b"-ERR Protocol error: expected '$', got 'H'\r\n"),
    (
        b"GET / HTTP/1.1\r\nHost: x\r\nPING\r\n",
        b"-ERR wrong number of arguments for 'get' command\r\n-ERR Protocol error: expected '$', got 'H'\r\n",
    ),
];

#[test]
fn all_forms_of_requests_are_read_as_the_server_reads_them() {
    let directory = Directory::new("forms");
    let (server, shard) = (Server::start(&directory, "alone"), Server::start(&directory, "shard"));
    let shards = [shard];
    let hotring = Hotring::start(&shards, "");
    let exact =
        String::from_utf8_lossy(&server.connect().tell("INFO server")).contains(&format!("redis_version:{VERSION}"));
    let told = |mut connection: Connection, form: &[u8]| {
        connection.send(form).expect("a request sent");
        connection.finish();
        connection.rest()
    };
    let endless = [b'a'; 70_000];
    let long = [&b"ECHO "[..], &[b'a'; 60_000], b"\r\n"].concat();
    for form in FORMS.iter().copied().chain([&endless[..], &long]) {
        let (ours, theirs) = (told(hotring.connect(), form), told(server.connect(), form));
        let form = &form[..form.len().min(80)];
        if exact || !theirs.starts_with(b"-") {
            assert_eq!(ours.escape_ascii().to_string(), theirs.escape_ascii().to_string(), "{}", form.escape_ascii());
        }
    }
    for (form, expected) in OTHER_FORMS {
        let ours = told(hotring.connect(), form);
        assert_eq!(ours.escape_ascii().to_string(), expected.escape_ascii().to_string(), "{}", form.escape_ascii());
    }
}
