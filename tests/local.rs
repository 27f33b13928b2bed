//! Commands that hotring answers by itself, beside a real server's answers, in both protocols.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{Client, Hotring, Redis, eventually, home, shards, shards_with, wire};

/// hotring over one server, and that server.
fn both() -> (Redis, Hotring) {
    let redis = Redis::tcp(&[]);
    let hotring = Hotring::over(&[redis.address()], &[]);
    (redis, hotring)
}

/// A session of each, in RESP3 or not.
fn sessions(redis: &Redis, hotring: &Hotring, resp3: bool) -> (Client, Client) {
    let (mut app, mut direct) = (hotring.app(), redis.client());
    if resp3 {
        for client in [&mut app, &mut direct] {
            assert!(client.ask("HELLO 3").starts_with("%7\r\n"));
        }
    }
    (app, direct)
}

/// Words of a line; `""` is an empty one, and `_` in a word a blank.
fn words(line: &str) -> Vec<String> {
    line.split(' ').map(|word| if word == "\"\"" { String::new() } else { word.replace('_', " ") }).collect()
}

#[test]
fn answers_are_the_servers_own() {
    let (redis, hotring) = both();
    let mut wrong = Vec::new();
    for resp3 in [false, true] {
        let (mut app, mut direct) = sessions(&redis, &hotring, resp3);
        for line in SAME {
            let words = words(line);
            let (said, expected) = (app.call(&words), direct.call(&words));
            if said != expected {
                let (said, expected) = (String::from_utf8_lossy(&said), String::from_utf8_lossy(&expected));
                wrong.push(format!("{line} in RESP{}: {said:?}, expected {expected:?}", if resp3 { 3 } else { 2 }));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What `sessions` of both say to bytes sent at once, as far as a PING behind them.
fn piped(client: &mut Client, lines: &[&str]) -> String {
    let mut bytes: Vec<u8> = lines.iter().flat_map(|line| wire(&words(line))).collect();
    bytes.extend(wire(&["PING", "end"]));
    client.send(&bytes);
    let mut said = String::new();
    while !said.ends_with("$3\r\nend\r\n") {
        said += &client.text();
    }
    said
}

#[test]
fn replies_that_are_not_wanted_are_not_sent() {
    let (redis, hotring) = both();
    for resp3 in [false, true] {
        let (mut app, mut direct) = sessions(&redis, &hotring, resp3);
        for lines in [
            &["SET k v", "CLIENT REPLY OFF", "GET k", "SET k w", "PING", "NONSENSE", "CLIENT REPLY ON", "GET k"][..],
            &["GET k", "CLIENT REPLY SKIP", "GET k", "PING", "GET k"],
            &["CLIENT REPLY SKIP", "PING", "CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "GET k", "GET k"],
            &["CLIENT REPLY SKIP", "CLIENT REPLY ON", "GET k"],
            &["CLIENT REPLY SKIP", "CLIENT REPLY x", "GET k"],
            &["CLIENT REPLY OFF", "CLIENT REPLY SKIP", "GET k", "CLIENT REPLY ON", "PING"],
            &["CLIENT REPLY SKIP", "CLIENT REPLY OFF", "GET k", "CLIENT REPLY ON", "PING"],
            &["CLIENT REPLY SKIP", "MULTI", "INCR n", "INCR n", "EXEC"],
            &["CLIENT REPLY OFF", "MULTI", "INCR n", "EXEC", "CLIENT REPLY ON"],
            &["CLIENT REPLY OFF", "MGET k n", "INFO", "BLPOP none 0.001", "CLIENT REPLY ON", "GET n"],
            &["CLIENT REPLY OFF", "GET k", "RESET", "GET k"],
        ] {
            // What counts up does so on both.
            assert_eq!(direct.ask("FLUSHALL"), "+OK\r\n");
            let expected = piped(&mut direct, lines);
            assert_eq!(direct.ask("FLUSHALL"), "+OK\r\n");
            assert_eq!(piped(&mut app, lines), expected, "{lines:?}");
        }
    }
}

#[test]
fn a_muted_session_of_several_shards_hears_nothing() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let lines: Vec<String> = (0..200).map(|n| format!("SET key:{n} {n}")).collect();
    let mut all: Vec<&str> = vec!["CLIENT REPLY OFF"];
    all.extend(lines.iter().map(String::as_str));
    all.push("CLIENT REPLY ON");
    assert_eq!(piped(&mut app, &all), "+OK\r\n$3\r\nend\r\n");
    assert_eq!(app.ask("GET key:199"), "$3\r\n199\r\n");
}

/// The id of a session.
fn number(client: &mut Client) -> String {
    client.ask("CLIENT ID").trim_matches([':', '\r', '\n']).to_owned()
}

#[test]
fn a_session_is_told_with_its_fields() {
    let (_redis, hotring) = both();
    let (mut app, mut other) = (hotring.app(), hotring.app());
    let id = number(&mut app);
    for line in ["CLIENT SETNAME worker", "CLIENT SETINFO lib-name x-py", "CLIENT SETINFO LIB-VER 1.2", "SELECT 3"] {
        assert_eq!(app.ask(line), "+OK\r\n");
    }
    assert_eq!(app.ask("CLIENT SETINFO lib-nam x"), "-ERR Unrecognized option 'lib-nam'\r\n");
    assert_eq!(
        String::from_utf8(app.call(&["CLIENT", "SETINFO", "lib-ver", "a b"])).unwrap(),
        "-ERR lib-ver cannot contain spaces, newlines or special characters.\r\n"
    );
    assert!(app.ask("HELLO 3").starts_with('%'));
    let own = app.ask("CLIENT INFO");
    assert!(own.starts_with('=') && own.contains("\r\ntxt:id="), "{own}");
    let all = other.ask("CLIENT LIST");
    assert!(all.starts_with('$'), "{all}");
    let line = all.lines().find(|line| line.starts_with(&format!("id={id} "))).unwrap();
    let laddr = format!("laddr={}", hotring.address(0));
    let fields =
        ["name=worker", "db=3", "flags=N", "multi=-1", "resp=3", "lib-name=x-py", "lib-ver=1.2", "user=default"];
    for field in fields.into_iter().chain([laddr.as_str()]) {
        assert!(line.split(' ').any(|told| told == field), "{field} in {line}");
    }
    assert!(line.contains(" addr=127.0.0.1:"), "{line}");
    assert_eq!(all.lines().filter(|line| line.starts_with("id=")).count(), 2);
    assert_eq!(other.ask(&format!("CLIENT LIST ID {id}")).matches("id=").count(), 1);
    assert_eq!(other.ask("CLIENT LIST TYPE normal").matches("\nid=").count(), 2);
    assert_eq!(app.ask("RESET"), "+RESET\r\n");
    assert!(app.ask("CLIENT INFO").contains(" name= "));
}

#[test]
fn a_session_can_be_ended_by_another() {
    let (_redis, hotring) = both();
    let mut app = hotring.app();
    for how in ["id", "address", "old form", "several"] {
        let mut victim = hotring.app();
        let id = number(&mut victim);
        let told = app.ask(&format!("CLIENT LIST ID {id}"));
        let address = told.split(' ').find_map(|field| field.strip_prefix("addr=")).unwrap().to_owned();
        let (line, reply) = match how {
            "id" => (format!("CLIENT KILL ID {id}"), ":1\r\n"),
            "address" => (format!("CLIENT KILL ADDR {address} TYPE normal USER default"), ":1\r\n"),
            "old form" => (format!("CLIENT KILL {address}"), "+OK\r\n"),
            _ => ("CLIENT KILL TYPE normal SKIPME yes".to_owned(), ":1\r\n"),
        };
        assert_eq!(app.ask(&line), reply, "{how}");
        assert_eq!(victim.rest(), b"", "{how}");
        assert_eq!(app.ask(&format!("CLIENT KILL ID {id}")), ":0\r\n", "{how}");
    }
    // One that waits, and oneself.
    let mut waiting = hotring.app();
    let id = number(&mut waiting);
    waiting.send(&wire(&["BLPOP", "none", "0"]));
    eventually("it waits", || app.ask(&format!("CLIENT LIST ID {id}")).contains(" flags=b "));
    assert_eq!(app.ask(&format!("CLIENT KILL ID {id}")), ":1\r\n");
    assert_eq!(waiting.rest(), b"");
    let id = number(&mut app);
    assert_eq!(app.ask(&format!("CLIENT KILL ID {id} SKIPME no")), ":1\r\n");
    assert_eq!(app.rest(), b"");
}

#[test]
fn a_wait_can_be_ended_by_another_session() {
    let (redis, hotring) = both();
    let (mut ours, mut direct) = (hotring.app(), redis.client());
    for resp3 in [false, true] {
        for (line, how) in [
            ("BLPOP none 0", ""),
            ("BLMOVE none none LEFT LEFT 0", " TIMEOUT"),
            ("BZPOPMIN none 0", " ERROR"),
            ("XREAD BLOCK 0 STREAMS none 0", ""),
            ("WAIT 1 0", ""),
        ] {
            let mut said = Vec::new();
            let (app, other) = sessions(&redis, &hotring, resp3);
            for (asking, mut waiting) in [(&mut ours, app), (&mut direct, other)] {
                let id = number(&mut waiting);
                assert_eq!(asking.ask(&format!("CLIENT UNBLOCK {id}")), ":0\r\n");
                waiting.send(&[wire(&words(line)), wire(&["PING"])].concat());
                eventually("it waits", || asking.ask(&format!("CLIENT UNBLOCK {id}{how}")) == ":1\r\n");
                said.push(waiting.text() + &waiting.text());
            }
            assert_eq!(said[0], said[1], "{line}{how}");
        }
    }
    // Nobody takes what comes later in its place.
    assert_eq!(ours.ask("RPUSH none x"), ":1\r\n");
    assert_eq!(ours.ask("LLEN none"), ":1\r\n");
}

#[test]
fn a_wrong_hello_changes_nothing() {
    let (_redis, hotring) = both();
    let mut app = hotring.app();
    for line in ["HELLO 3 SETNAME x NONSENSE", "HELLO 3 SETNAME x AUTH nobody x", "HELLO 4 SETNAME x"] {
        assert!(app.ask(line).starts_with('-'), "{line}");
        assert_eq!(app.ask("CLIENT GETNAME"), "$-1\r\n", "{line}");
    }
    assert!(app.ask("HELLO 3 SETNAME x AUTH default any").starts_with("%7\r\n"));
    assert_eq!(app.ask("CLIENT GETNAME"), "$1\r\nx\r\n");
}

#[test]
fn info_has_what_clients_look_at() {
    let (redis, hotring) = both();
    let (mut app, mut direct) = sessions(&redis, &hotring, true);
    for (asked, fields) in [
        ("INFO server", &["redis_version:7.0.15", "redis_mode:standalone", "uptime_in_days:0"][..]),
        ("INFO replication", &["role:master", "connected_slaves:0"]),
        ("INFO cluster persistence", &["loading:0", "cluster_enabled:0"]),
        ("info EVERYTHING", &["role:master", "loading:0", "# Hotring", "hotring_pool:main"]),
    ] {
        let (said, expected) = (app.ask(asked), direct.ask(asked));
        assert!(said.starts_with('=') && said.contains("\r\ntxt:# "), "{said}");
        for field in fields {
            assert!(said.lines().any(|line| line.trim_start_matches("txt:") == *field), "{asked}: {field}: {said}");
            let own = field.contains("otring");
            assert!(own || expected.lines().any(|line| line == *field), "{asked}: {field}: {expected}");
        }
    }
    assert!(!app.ask("INFO server").contains("# Cluster"));
    assert_eq!(
        app.ask("CONFIG GET save appendonl[y]"),
        "%2\r\n$10\r\nappendonly\r\n$2\r\nno\r\n$4\r\nsave\r\n$0\r\n\r\n"
    );
    for refused in ["CONFIG SET save x", "CONFIG REWRITE", "CONFIG RESETSTAT", "CLIENT PAUSE 1", "CLIENT TRACKING on"] {
        assert!(app.ask(refused).starts_with("-ERR hotring "), "{refused}");
    }
    assert_eq!(app.ask("PING"), "+PONG\r\n");
}

#[test]
fn commands_are_told_in_the_forms_of_each_protocol() {
    let (redis, hotring) = both();
    for resp3 in [false, true] {
        let (mut app, mut direct) = sessions(&redis, &hotring, resp3);
        for name in ["get", "set", "hset", "bitpos"] {
            let (said, expected) =
                (app.ask(&format!("COMMAND INFO {name}")), direct.ask(&format!("COMMAND INFO {name}")));
            // Hints and key specifications are not told, and the subcommands stand in another order.
            let end = expected.find(if resp3 { "~0\r\n" } else { "*0\r\n" }).unwrap();
            assert_eq!(said[..end.min(said.len())], expected[..end], "{name}");
        }
        let docs = app.ask("COMMAND DOCS get xinfo|stream");
        assert!(docs.starts_with(if resp3 { "%2\r\n" } else { "*4\r\n" }), "{docs}");
        assert!(docs.contains("forwarded by its key"), "{docs}");
        assert!(app.ask("COMMAND DOCS").len() > 10_000);
    }
}

#[test]
fn commands_of_modules_go_where_the_configuration_says_their_keys_are() {
    let renamed = ["--rename-command", "GET", "json.get", "--rename-command", "MSET", "m.set"];
    let (_redis, at) = shards_with(3, &renamed);
    let described = "^commands: {JSON.GET: {keys: '1,1,1', access: read}, m.set: {keys: '1,-1,2'}, m.x: {keys: none}}";
    let hotring = Hotring::over(&at, &[described]);
    let mut app = hotring.app();
    for n in 0..30 {
        assert_eq!(app.ask(&format!("SET k{n} {n}")), "+OK\r\n");
        assert_eq!(app.ask(&format!("json.get k{n}")), format!("${}\r\n{n}\r\n", n.to_string().len()));
    }
    assert_eq!(app.ask("JSON.GET"), "-ERR wrong number of arguments for 'json.get' command\r\n");
    assert_eq!(app.ask("M.SET k1 x"), "+OK\r\n");
    let other = (2..).map(|n| format!("k{n}")).find(|key| home(3, key.as_bytes()) != home(3, b"k1")).unwrap();
    assert!(app.ask(&format!("M.SET k1 x {other} y")).starts_with("-CROSSSLOT "));
    assert!(app.ask("M.X").starts_with("-ERR unknown command 'M.X', "), "in the words of the first shard");
    assert!(app.ask("M.Y k").starts_with("-ERR unknown command 'M.Y', "));
    assert_eq!(app.ask("COMMAND GETKEYS m.set a 1 b 2"), "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
}

/// What is answered alike, one after the other in one session.
const SAME: &[&str] = &[
    "CLIENT GETNAME",
    "CLIENT SETNAME x",
    "CLIENT GETNAME",
    "CLIENT SETNAME a_b",
    "CLIENT GETNAME",
    "CLIENT SETNAME \"\"",
    "CLIENT GETNAME",
    "CLIENT SETNAME",
    "CLIENT",
    "CLIENT NONSENSE",
    "CLIENT MAINT_NOTIFICATIONS ON",
    "CLIENT LIST TYPE nonsense",
    "CLIENT LIST TYPE",
    "CLIENT LIST TYPE pubsub",
    "CLIENT LIST TYPE master",
    "CLIENT LIST TYPE replica",
    "CLIENT LIST ID",
    "CLIENT LIST ID x",
    "CLIENT LIST ID 0 -5 999999",
    "CLIENT LIST NONSENSE",
    "CLIENT TRACKINGINFO",
    "CLIENT GETREDIR",
    "CLIENT NO-EVICT x",
    "CLIENT NO-EVICT on",
    "CLIENT NO-EVICT OFF",
    "CLIENT REPLY x",
    "CLIENT REPLY",
    "CLIENT REPLY ON",
    "CLIENT KILL",
    "CLIENT KILL x",
    "CLIENT KILL ID x",
    "CLIENT KILL ID 0",
    "CLIENT KILL ID -1",
    "CLIENT KILL ID 999999",
    "CLIENT KILL ID 999999 ADDR",
    "CLIENT KILL NONSENSE x",
    "CLIENT KILL USER nobody",
    "CLIENT KILL TYPE nonsense",
    "CLIENT KILL TYPE pubsub",
    "CLIENT KILL SKIPME maybe",
    "CLIENT KILL ADDR 1:2",
    "CLIENT KILL LADDR 1:2",
    "CLIENT KILL ADDR",
    "CLIENT UNBLOCK 999999",
    "CLIENT UNBLOCK x",
    "CLIENT UNBLOCK 999999 NONSENSE",
    "CLIENT UNBLOCK 999999 TIMEOUT x",
    "CLIENT UNBLOCK 999999 error",
    "ROLE",
    "ECHO x",
    "ECHO",
    "PING",
    "PING x",
    "PING x y",
    "CLUSTER INFO",
    "CLUSTER NODES",
    "CLUSTER NONSENSE",
    "CLUSTER",
    "CLUSTER KEYSLOT a",
    "SENTINEL masters",
    "COMMAND COUNT x",
    "COMMAND INFO nonsense",
    "COMMAND INFO xinfo|nonsense nonsense|x",
    "COMMAND DOCS nonsense",
    "COMMAND NONSENSE",
    "COMMAND LIST FILTERBY MODULE nonsense",
    "COMMAND LIST FILTERBY ACLCAT nonsense",
    "COMMAND LIST FILTERBY PATTERN nonsense*",
    "COMMAND LIST FILTERBY PATTERN get",
    "COMMAND LIST FILTERBY PATTERN xinfo|st*",
    "COMMAND LIST FILTERBY NONSENSE x",
    "COMMAND LIST FILTERBY PATTERN",
    "COMMAND LIST NONSENSE",
    "COMMAND GETKEYS get k",
    "COMMAND GETKEYS get k l",
    "COMMAND GETKEYS nonsense x",
    "COMMAND GETKEYS ping x",
    "COMMAND GETKEYS mset a 1 b 2",
    "COMMAND GETKEYS eval x 0",
    "COMMAND GETKEYS zunion x y",
    "COMMAND GETKEYSANDFLAGS get k",
    "COMMAND GETKEYSANDFLAGS mget a b",
    "COMMAND GETKEYSANDFLAGS eval x 1 k",
    "COMMAND GETKEYSANDFLAGS ping x",
    "CONFIG GET save",
    "CONFIG GET APPENDONLY",
    "CONFIG GET databases",
    "CONFIG GET timeout",
    "CONFIG GET replica-read-only",
    "CONFIG GET slave-read-onl?",
    "CONFIG GET proto-max-bulk-len",
    "CONFIG GET notify-keyspace-events",
    "CONFIG GET nonsense",
    "CONFIG GET",
    "CONFIG NONSENSE",
    "SLOWLOG NONSENSE",
    "SLOWLOG",
    "LATENCY NONSENSE",
    "INFO nonsense",
    "SELECT x",
    "SELECT 99",
    "SELECT -1",
    "SELECT 99999999999",
    "SELECT",
    "SELECT 1",
    "SELECT 0",
    "HELLO x",
    "HELLO 1",
    "HELLO 4",
    "HELLO 4 NONSENSE",
    "HELLO 3 NONSENSE",
    "HELLO 3 AUTH x",
    "HELLO 3 AUTH nobody x",
    "HELLO 3 SETNAME",
    "HELLO 3 SETNAME a_b",
    "CLIENT GETNAME",
    "CLIENT TRACKINGINFO",
    "AUTH x",
    "AUTH nobody x",
    "AUTH default x",
    "AUTH",
    "AUTH a b c",
    "CLIENT SETNAME x",
    "RESET",
    "CLIENT GETNAME",
    "CLIENT TRACKINGINFO",
    "QUIT x",
];
