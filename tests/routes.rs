//! Keys that live in other pools (`routes`), with real servers: where they go, what is split over pools, transactions and what
//! waits, what happens when one pool dies, and what a reload does. That nothing else shows is in `tests/differential.rs`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{Client, Cluster, Hotring, Redis, Site, eventually, pool, shards, wire};

const CROSS: &str = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";

/// A pool that apps do not connect to.
fn more(name: &str, servers: &[String], keys: &[&str]) -> String {
    let mut yaml = format!("  {name}:\n    connect_timeout: 1m\n");
    if !keys.iter().any(|key| key.starts_with("timeout")) {
        yaml += "    timeout: 1m\n";
    }
    for key in keys {
        yaml += &format!("    {key}\n");
    }
    let servers: Vec<String> = servers.iter().map(|at| format!("\"{at}:1\"")).collect();
    yaml + &format!("    servers: [{}]\n", servers.join(", "))
}

const ROUTES: &str = r#"routes: {"user:": users, "user:session:": sessions, "s:": sessions}"#;

/// A hotring with three pools: `main` over two servers, `users` over two, `sessions` over one.
struct Pools {
    main: Vec<Redis>,
    users: Vec<Redis>,
    sessions: Vec<Redis>,
    at: [Vec<String>; 3],
    site: Site,
}

impl Pools {
    fn new(keys: &[&str]) -> Self {
        Self::with([&[&[ROUTES], keys].concat(), &[], &[]])
    }

    /// With these keys of each pool.
    fn with(keys: [&[&str]; 3]) -> Self {
        let ((main, main_at), (users, users_at), (sessions, sessions_at)) = (shards(2), shards(2), shards(1));
        let at = [main_at, users_at, sessions_at];
        let site = Site::new(&Self::yaml(&at, keys));
        Self { main, users, sessions, at, site }
    }

    fn yaml([main, users, sessions]: &[Vec<String>; 3], keys: [&[&str]; 3]) -> String {
        pool(main, keys[0]) + &more("users", users, keys[1]) + &more("sessions", sessions, keys[2])
    }

    fn reload(&self, keys: [&[&str]; 3]) {
        let (status, told) = self.site.reload(&Self::yaml(&self.at, keys));
        assert_eq!(status, 200, "{told}");
    }

    fn app(&self) -> Client {
        self.site.hotring.app()
    }
}

/// Which of these servers have a key.
fn has(servers: &[Redis], key: &str) -> usize {
    servers.iter().filter(|server| server.client().ask(&format!("EXISTS {key}")) == ":1\r\n").count()
}

fn routed(hotring: &Hotring) -> f64 {
    hotring.metric("hotring_routed_requests_total{pool=\"main\"}")
}

#[test]
fn keys_live_where_the_longest_beginning_leads() {
    let pools = Pools::new(&[]);
    let mut app = pools.app();
    for n in 0..20 {
        for key in [format!("user:{n}"), format!("user:session:{n}"), format!("s:{n}"), format!("other:{n}")] {
            assert_eq!(app.ask(&format!("SET {key} {key}")), "+OK\r\n");
            assert_eq!(app.ask(&format!("GET {key}")), format!("${}\r\n{key}\r\n", key.len()));
            let expected = match key.split(':').next().unwrap() {
                "user" if key.starts_with("user:session:") => [0, 0, 1],
                "user" => [0, 1, 0],
                "s" => [0, 0, 1],
                _ => [1, 0, 0],
            };
            let found = [&pools.main, &pools.users, &pools.sessions].map(|servers| has(servers, &key));
            assert_eq!(found, expected, "{key}");
        }
    }
    // Their ring is their own pool's.
    let names = (0..100).map(|n| format!("user:{:x}", n * 2_654_435_761_u64));
    names.for_each(|key| assert_eq!(app.ask(&format!("SET {key} 1")), "+OK\r\n"));
    assert!(pools.users.iter().all(|server| server.client().ask("DBSIZE") != ":0\r\n"));
    let hotring = &pools.site.hotring;
    eventually("all is counted", || routed(hotring) == 220.0);
    eventually("there, too", || hotring.metric("hotring_requests_total{pool=\"users\",class=\"read\"}") == 20.0);
    // Branches are nobody's connections.
    assert_eq!(hotring.metric("hotring_client_connections{pool=\"users\"}"), 0.0);
    assert_eq!(app.ask("CLIENT LIST").matches("id=").count(), 1);
}

#[test]
fn what_names_keys_of_several_pools_is_split_and_put_together() {
    let pools = Pools::new(&[]);
    let mut app = pools.app();
    assert_eq!(app.ask("MSET a 1 user:1 2 user:2 3 s:1 4 b 5"), "+OK\r\n");
    assert_eq!(
        app.ask("MGET s:1 nothing user:2 a user:1 s:none b a"),
        "*8\r\n$1\r\n4\r\n$-1\r\n$1\r\n3\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n$1\r\n5\r\n$1\r\n1\r\n"
    );
    assert_eq!(app.ask("EXISTS a user:1 s:1 user:none a"), ":4\r\n");
    assert_eq!(app.ask("MSET a 1 user:1"), "-ERR wrong number of arguments for 'mset' command\r\n");
    assert_eq!(app.ask("DEL a user:1 user:2 s:1 s:2"), ":4\r\n");
    assert_eq!(app.ask("EXISTS a b user:1 user:2 s:1"), ":1\r\n");
    for refused in
        ["RENAME a user:1", "MSETNX a 1 user:1 2", "SINTER user:1 s:1", "BLPOP a user:1 0", "LMOVE s:1 b LEFT LEFT"]
    {
        assert_eq!(app.ask(refused), CROSS, "{refused}");
    }
    assert_eq!(app.ask("EVAL return{KEYS[1]} 2 a s:1"), CROSS);
    assert_eq!(app.ask("RPUSH user:list 1 2"), ":2\r\n");
    for sort in ["SORT user:list BY w_*", "SORT list GET user:*"] {
        assert!(app.ask(sort).starts_with("-ERR"), "{sort}");
    }
    assert_eq!(app.ask("SORT user:list DESC"), "*2\r\n$1\r\n2\r\n$1\r\n1\r\n");
    // An error of one of them is the reply.
    assert_eq!(app.ask("RPUSH user:1 x"), ":1\r\n");
    assert_eq!(app.ask("MGET a user:1"), "*2\r\n$-1\r\n$-1\r\n");
}

/// Whatever the pools' servers take, replies come in the order of the requests, and a session sees its own writes.
#[test]
fn pipelined_replies_are_in_order() {
    let pools = Pools::new(&["server_connections: 2", "coalesce: true"]);
    let mut app = pools.app();
    let keys = ["a", "user:1", "s:1", "user:session:1", "user:2", "b"];
    let (mut requests, mut expected) = (Vec::new(), Vec::new());
    for round in 0..200 {
        for key in keys {
            let value = format!("{key}-{round}");
            requests.extend(wire(&["SET", key, &value]));
            expected.extend(b"+OK\r\n");
            requests.extend(wire(&["GET", key]));
            expected.extend(format!("${}\r\n{value}\r\n", value.len()).into_bytes());
        }
        if round % 10 == 0 {
            requests.extend(wire(&["MSET", "a", "x", "user:1", "y", "s:1", "z"]));
            requests.extend(wire(&["GET", "user:1"]));
            requests.extend(wire(&["MGET", "s:1", "a"]));
            requests.extend(wire(&["PING"]));
            expected.extend(b"+OK\r\n$1\r\ny\r\n*2\r\n$1\r\nz\r\n$1\r\nx\r\n+PONG\r\n");
        }
    }
    let mut writer = app.writer();
    let length = expected.len();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.send(&requests));
        assert_eq!(app.exactly(length), expected);
    });
}

#[test]
fn a_transaction_goes_where_its_first_key_lives() {
    let pools = Pools::new(&[]);
    let mut app = pools.app();
    // What it was told before is told there.
    for (ask, reply) in [
        ("MULTI", "+OK\r\n"),
        ("PING", "+QUEUED\r\n"),
        ("SET user:1 1", "+QUEUED\r\n"),
        ("INCR user:1", "+QUEUED\r\n"),
        ("EXEC", "*3\r\n+PONG\r\n+OK\r\n:2\r\n"),
        ("GET user:1", "$1\r\n2\r\n"),
        // A key that lives elsewhere spoils it.
        ("MULTI", "+OK\r\n"),
        ("SET s:1 1", "+QUEUED\r\n"),
        ("SET a 1", CROSS),
        ("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
        ("EXISTS s:1 a", ":0\r\n"),
        ("MULTI", "+OK\r\n"),
        ("SET a 1", "+QUEUED\r\n"),
        ("SET s:1 1", CROSS),
        ("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
        ("EXISTS s:1 a", ":0\r\n"),
        // So does what is no command, there and here.
        ("MULTI", "+OK\r\n"),
        ("SET s:1 1", "+QUEUED\r\n"),
        ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
        ("MULTI", "-ERR MULTI calls can not be nested\r\n"),
        ("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
        ("MULTI", "+OK\r\n"),
        ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
        ("SET s:1 1", "+QUEUED\r\n"),
        ("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
        ("EXISTS s:1", ":0\r\n"),
        ("MULTI", "+OK\r\n"),
        ("SET s:1 1", "+QUEUED\r\n"),
        ("DISCARD", "+OK\r\n"),
        ("EXISTS s:1", ":0\r\n"),
        ("EXEC", "-ERR EXEC without MULTI\r\n"),
        ("MULTI", "+OK\r\n"),
        ("SET s:1 1", "+QUEUED\r\n"),
        ("RESET", "+RESET\r\n"),
        ("EXISTS s:1", ":0\r\n"),
        ("EXEC", "-ERR EXEC without MULTI\r\n"),
    ] {
        assert_eq!(app.ask(ask), reply, "{ask}");
    }
    let calls = |servers: &[Redis]| servers.iter().map(|server| server.calls("exec")).sum::<u64>();
    assert_eq!(calls(&pools.users), 1);
}

#[test]
fn a_watch_is_kept_where_its_key_lives() {
    let pools = Pools::new(&[]);
    let (mut app, mut other) = (pools.app(), pools.app());
    for changed in [false, true] {
        assert_eq!(app.ask("WATCH user:1"), "+OK\r\n");
        // Meanwhile everything is carried as always.
        assert_eq!(app.ask("SET a 1"), "+OK\r\n");
        assert_eq!(app.ask("SET s:1 1"), "+OK\r\n");
        assert_eq!(app.ask("WATCH s:1"), CROSS);
        assert_eq!(app.ask("WATCH a"), CROSS);
        if changed {
            assert_eq!(other.ask("SET user:1 other"), "+OK\r\n");
        }
        assert_eq!(app.ask("MULTI"), "+OK\r\n");
        assert_eq!(app.ask("SET user:1 own"), "+QUEUED\r\n");
        assert_eq!(app.ask("EXEC"), if changed { "*-1\r\n" } else { "*1\r\n+OK\r\n" });
    }
    assert_eq!(app.ask("GET user:1"), "$5\r\nother\r\n");
    assert_eq!(app.ask("WATCH user:1"), "+OK\r\n");
    assert_eq!(app.ask("UNWATCH"), "+OK\r\n");
    assert_eq!(other.ask("SET user:1 again"), "+OK\r\n");
    assert_eq!(app.ask("WATCH s:1 user:1"), CROSS);
    for (ask, reply) in [("WATCH a", "+OK\r\n"), ("WATCH user:1", CROSS), ("MULTI", "+OK\r\n"), ("SET user:1 x", CROSS)]
    {
        assert_eq!(app.ask(ask), reply, "{ask}");
    }
    assert_eq!(app.ask("EXEC"), "-EXECABORT Transaction discarded because of previous errors.\r\n");
    assert_eq!(app.ask("GET user:1"), "$5\r\nagain\r\n");
}

/// All of it at once: no reply is waited for.
#[test]
fn pipelined_transactions_are_whole() {
    let pools = Pools::new(&[]);
    let mut app = pools.app();
    let (mut requests, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        for key in ["user:1", "a", "s:1"] {
            for words in [
                &["INCR", "s:before"][..],
                &["MULTI"],
                &["PING"],
                &["SET", key, "1"],
                &["INCR", key],
                &["EXEC"],
                &["GET", key],
            ] {
                requests.extend(wire(words));
            }
            expected.push(key);
        }
    }
    app.send(&requests);
    for (n, key) in expected.iter().enumerate() {
        let replies: Vec<String> = (0..7).map(|_| app.text()).collect();
        let before = format!(":{}\r\n", n + 1);
        let wanted = [
            &before,
            "+OK\r\n",
            "+QUEUED\r\n",
            "+QUEUED\r\n",
            "+QUEUED\r\n",
            "*3\r\n+PONG\r\n+OK\r\n:2\r\n",
            "$1\r\n2\r\n",
        ];
        assert_eq!(replies, wanted, "{key}");
    }
}

#[test]
fn what_waits_in_another_pool_waits_alone() {
    let pools = Pools::new(&[]);
    let (mut app, mut other) = (pools.app(), pools.app());
    // What is asked behind it is carried when it has ended.
    app.send(&[wire(&["BLPOP", "s:list", "0"]), wire(&["SET", "a", "behind"]), wire(&["GET", "user:1"])].concat());
    eventually("it waits", || pools.sessions[0].client().ask("INFO clients").contains("blocked_clients:1"));
    assert_eq!(other.ask("GET a"), "$-1\r\n");
    assert_eq!(other.ask("RPUSH s:list x"), ":1\r\n");
    assert_eq!(app.text(), "*2\r\n$6\r\ns:list\r\n$1\r\nx\r\n");
    assert_eq!((app.text(), app.text()), ("+OK\r\n".into(), "$-1\r\n".into()));
    assert_eq!(app.ask("BLPOP s:list 0.01"), "*-1\r\n");
    // An app that leaves takes its wait with it.
    app.send(&wire(&["BLPOP", "s:list", "0"]));
    eventually("it waits", || pools.sessions[0].client().ask("INFO clients").contains("blocked_clients:1"));
    drop(app);
    eventually("it waits no more", || pools.sessions[0].client().ask("INFO clients").contains("blocked_clients:0"));
    assert_eq!(other.ask("RPUSH s:list y"), ":1\r\n");
    assert_eq!(other.ask("LLEN s:list"), ":1\r\n");
}

#[test]
fn patterns_find_what_lives_where_they_begin() {
    let pools = Pools::new(&[]);
    let mut app = pools.app();
    assert_eq!(app.ask("MSET a 1 user:1 1 user:2 1 s:1 1"), "+OK\r\n");
    let mut keys = app.ask("KEYS user:*");
    assert!(keys.starts_with("*2\r\n") && keys.contains("user:1") && keys.contains("user:2"), "{keys}");
    assert_eq!(app.ask("KEYS *"), "*1\r\n$1\r\na\r\n");
    let mut cursor = "0".to_owned();
    keys.clear();
    loop {
        let reply = app.ask(&format!("SCAN {cursor} COUNT 1 MATCH user:*"));
        cursor = reply.split("\r\n").nth(2).unwrap().to_owned();
        keys += reply.splitn(4, "\r\n").nth(3).unwrap();
        if cursor == "0" {
            break;
        }
    }
    assert!(keys.contains("user:1") && keys.contains("user:2") && !keys.contains("$1\r\na\r\n"), "{keys}");
    // What is about all keys is about the pool's own.
    assert_eq!(app.ask("DBSIZE"), ":1\r\n");
    assert_eq!(app.ask("FLUSHALL"), "+OK\r\n");
    assert_eq!(app.ask("EXISTS a user:1 user:2 s:1"), ":3\r\n");
}

#[test]
fn scripts_and_functions_are_known_wherever_keys_live() {
    let pools = Pools::new(&[]);
    let mut app = pools.app();
    let script = "return redis.call('incr', KEYS[1])";
    let sha = String::from_utf8(app.call(&["SCRIPT", "LOAD", script])).unwrap();
    let sha = sha.split("\r\n").nth(1).unwrap().to_owned();
    for key in ["a", "user:1", "s:1"] {
        assert_eq!(app.ask(&format!("EVALSHA {sha} 1 {key}")), ":1\r\n", "{key}");
    }
    assert_eq!(app.ask(&format!("SCRIPT EXISTS {sha}")), "*1\r\n:1\r\n");
    let library = "#!lua name=l\nredis.register_function('f', function(keys) return redis.call('incr', keys[1]) end)";
    assert_eq!(app.call(&["FUNCTION", "LOAD", library]), b"$1\r\nl\r\n");
    for key in ["a", "user:1", "user:2", "s:1"] {
        assert!(app.ask(&format!("FCALL f 1 {key}")).starts_with(':'), "{key}");
    }
    assert_eq!(app.ask("SCRIPT FLUSH"), "+OK\r\n");
    let all = [&pools.main, &pools.users, &pools.sessions];
    for server in all.into_iter().flatten() {
        assert_eq!(server.client().ask(&format!("SCRIPT EXISTS {sha}")), "*1\r\n:0\r\n");
    }
}

#[test]
fn protocol_and_database_are_the_sessions_wherever_its_keys_live() {
    let pools = Pools::new(&[]);
    let mut app = pools.app();
    assert_eq!(app.ask("HSET user:h f v"), ":1\r\n");
    assert_eq!(app.ask("HGETALL user:h"), "*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
    assert!(app.ask("HELLO 3").starts_with("%7\r\n"));
    assert_eq!(app.ask("HGETALL user:h"), "%1\r\n$1\r\nf\r\n$1\r\nv\r\n");
    assert_eq!(app.ask("MGET user:none s:none none"), "*3\r\n_\r\n_\r\n_\r\n");
    assert_eq!(app.ask("SELECT 2"), "+OK\r\n");
    assert_eq!(app.ask("HGETALL user:h"), "%0\r\n");
    assert_eq!(app.ask("SET s:1 two"), "+OK\r\n");
    assert!(app.ask("HELLO 2").starts_with("*14\r\n"));
    assert_eq!(app.ask("SELECT 0"), "+OK\r\n");
    assert_eq!(app.ask("GET s:1"), "$-1\r\n");
    assert_eq!(app.ask("HGETALL user:h"), "*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
    let mut there = pools.sessions[0].client();
    assert_eq!((there.ask("SELECT 2"), there.ask("GET s:1")), ("+OK\r\n".into(), "$3\r\ntwo\r\n".into()));
}

/// Longer than what is passed on while it comes, in both directions.
#[test]
fn long_values_pass_whole() {
    let pools = Pools::new(&[]);
    let mut app = pools.app();
    let value = vec![b'v'; 3 << 20];
    for key in ["user:long", "long", "s:long"] {
        assert_eq!(app.call(&[b"SET", key.as_bytes(), &value]), b"+OK\r\n");
        let reply = app.call(&["GET", key]);
        assert!(reply.len() == value.len() + 12 && reply.ends_with(b"vv\r\n"), "{} bytes", reply.len());
        assert_eq!(app.ask(&format!("STRLEN {key}")), format!(":{}\r\n", value.len()));
    }
    assert_eq!([has(&pools.main, "long"), has(&pools.users, "user:long"), has(&pools.sessions, "s:long")], [1, 1, 1]);
}

#[test]
fn a_pool_that_is_dead_costs_only_its_own_keys() {
    let mut pools = Pools::new(&["server_connections: 1"]);
    let mut app = pools.app();
    assert_eq!(app.ask("MSET a 1 user:1 2 s:1 3"), "+OK\r\n");
    pools.sessions[0].kill();
    eventually("its keys fail", || app.ask("GET s:1").starts_with('-'));
    for _ in 0..20 {
        assert_eq!(app.ask("GET a"), "$1\r\n1\r\n");
        assert_eq!(app.ask("GET user:1"), "$1\r\n2\r\n");
        assert!(app.ask("SET s:1 x").starts_with('-'));
        assert!(app.ask("MGET a s:1 user:1").starts_with('-'));
    }
    app.send(
        &[wire(&["GET", "s:1"]), wire(&["GET", "a"]), wire(&["SET", "s:1", "y"]), wire(&["GET", "user:1"])].concat(),
    );
    let replies: Vec<String> = (0..4).map(|_| app.text()).collect();
    assert!(replies[0].starts_with('-') && replies[2].starts_with('-'), "{replies:?}");
    assert_eq!((replies[1].as_str(), replies[3].as_str()), ("$1\r\n1\r\n", "$1\r\n2\r\n"));
    pools.sessions[0].restart();
    eventually("it is back", || app.ask("SET s:1 again") == "+OK\r\n");
    assert_eq!(app.ask("MGET a s:1 user:1"), "*3\r\n$1\r\n1\r\n$5\r\nagain\r\n$1\r\n2\r\n");
}

/// A server of another pool stands still: what is for others is carried, though its reply has to wait for its turn.
#[test]
fn a_pool_that_is_frozen_holds_up_only_its_own_keys() {
    let pools = Pools::with([&[ROUTES], &[], &["timeout: 300ms"]]);
    let (mut app, mut other) = (pools.app(), pools.app());
    assert_eq!(app.ask("SET s:1 1"), "+OK\r\n");
    pools.sessions[0].freeze();
    app.send(&[wire(&["GET", "s:1"]), wire(&["SET", "a", "carried"])].concat());
    eventually("what is behind it is carried", || other.ask("GET a") == "$7\r\ncarried\r\n");
    let reply = app.text();
    assert!(reply.starts_with("-ERR") && reply.contains("timeout"), "{reply}");
    assert_eq!(app.text(), "+OK\r\n");
    pools.sessions[0].thaw();
    eventually("it is back", || app.ask("GET s:1") == "$1\r\n1\r\n");
}

/// What was carried out in one pool is not undone because another one refuses its part, and the error must not say otherwise.
#[test]
fn a_part_that_is_refused_leaves_the_whole_in_doubt() {
    let mut pools = Pools::with([&[ROUTES], &["read_only: true"], &[]]);
    let mut app = pools.app();
    let told = app.ask("MSET a 1 user:1 1");
    assert!(told.starts_with("-READONLY") && told.ends_with("; the command may have run\r\n"), "{told}");
    assert_eq!(app.ask("GET a"), "$1\r\n1\r\n");
    let alone = app.ask("SET user:1 1");
    assert!(alone.ends_with("; nothing was sent\r\n"), "{alone}");
    pools.sessions[0].kill();
    eventually("its keys fail", || app.ask("GET s:1").ends_with("; nothing was sent\r\n"));
    let told = app.ask("DEL a s:1");
    assert!(told.starts_with("-ERR shard") && told.ends_with("; the command may have run\r\n"), "{told}");
    assert_eq!(app.ask("EXISTS a"), ":0\r\n");
}

#[test]
fn what_users_may_counts_wherever_keys_live() {
    let users = r#"users: {default: {nopass: true, rules: "off"}, app: {password: secret, rules: "on ~user:* ~a* +@all -flushall"}}"#;
    let pools = Pools::with([&[ROUTES, users], &["deny_commands: [append]"], &[]]);
    let mut app = pools.app();
    assert!(app.ask("GET user:1").starts_with("-NOAUTH"));
    assert_eq!(app.ask("AUTH app secret"), "+OK\r\n");
    assert_eq!(app.ask("SET user:1 1"), "+OK\r\n");
    assert!(app.ask("SET s:1 1").starts_with("-NOPERM"));
    assert!(app.ask("MGET user:1 s:1").starts_with("-NOPERM"));
    // What nobody may do there nobody may that comes from here, and only there.
    assert!(app.ask("APPEND user:1 x").starts_with("-NOPERM"));
    assert_eq!(app.ask("APPEND a x"), ":1\r\n");
    for (ask, reply) in [
        ("MULTI", "+OK\r\n"),
        ("SET user:1 2", "+QUEUED\r\n"),
        ("SET s:1 1", "-NOPERM"),
        ("EXEC", "-EXECABORT"),
        ("GET user:1", "$1\r\n1\r\n"),
    ] {
        let told = app.ask(ask);
        assert!(told.starts_with(reply), "{ask}: {told}");
    }
}

/// Tenants' prefixes are before the names that routes are about.
#[test]
fn tenants_keys_are_routed_by_their_whole_names() {
    let users = r#"users: {default: {nopass: true, rules: "off"}, a: {password: a, prefix: "s:", rules: "on allkeys allcommands"}}"#;
    let pools = Pools::new(&[users]);
    let mut app = pools.app();
    assert_eq!(app.ask("AUTH a a"), "+OK\r\n");
    assert_eq!(app.ask("SET user:1 mine"), "+OK\r\n");
    assert_eq!(app.ask("MSET x 1 y 2"), "+OK\r\n");
    assert_eq!(app.ask("KEYS user*"), "*1\r\n$6\r\nuser:1\r\n");
    for (ask, reply) in [
        ("MULTI", "+OK\r\n"),
        ("KEYS *", "+QUEUED\r\n"),
        ("EXEC", "*1\r\n*3\r\n"),
        ("MULTI", "+OK\r\n"),
        ("INCR x", "+QUEUED\r\n"),
        ("EXEC", "*1\r\n:2\r\n"),
    ] {
        let told = app.ask(ask);
        assert!(told.starts_with(reply) && !told.contains("s:"), "{ask}: {told}");
    }
    assert_eq!(has(&pools.sessions, "s:user:1"), 1);
    assert_eq!(has(&pools.sessions, "s:x"), 1);
}

#[test]
fn routes_come_and_go_while_apps_are_connected() {
    let listen: &[&str] = &["listen: 127.0.0.1:0"];
    let pools = Pools::with([&[], listen, listen]);
    let mut app = pools.app();
    assert_eq!(app.ask("SET user:1 main"), "+OK\r\n");
    pools.reload([&[ROUTES], &[], &[]]);
    assert_eq!(app.ask("GET user:1"), "$-1\r\n");
    assert_eq!(app.ask("SET user:1 users"), "+OK\r\n");
    assert_eq!(has(&pools.users, "user:1"), 1);
    // A transaction ends where it has begun, though its keys live elsewhere now.
    assert_eq!((app.ask("MULTI"), app.ask("SET user:1 x")), ("+OK\r\n".into(), "+QUEUED\r\n".into()));
    pools.reload([&[], listen, listen]);
    assert_eq!(app.ask("SET user:1 y"), CROSS);
    assert_eq!(app.ask("EXEC"), "-EXECABORT Transaction discarded because of previous errors.\r\n");
    assert_eq!(app.ask("GET user:1"), "$4\r\nmain\r\n");
    pools.reload([&[r#"routes: {"user:": sessions}"#], listen, listen]);
    assert_eq!(app.ask("GET user:1"), "$-1\r\n");
}

#[test]
fn keys_can_live_in_a_cluster() {
    let cluster = Cluster::start(3, 0);
    let (main, at) = shards(1);
    let there = format!(
        "  grid:\n    topology: cluster\n    timeout: 1m\n    connect_timeout: 1m\n    servers: [\"{}\"]\n",
        cluster.address(0)
    );
    let site = Site::new(&(pool(&at, &[r#"routes: {"c:": grid}"#]) + &there));
    let mut app = site.hotring.app();
    for n in 0..50 {
        assert_eq!(app.ask(&format!("SET c:{n} {n}")), "+OK\r\n");
        assert_eq!(app.ask(&format!("SET m:{n} {n}")), "+OK\r\n");
    }
    let slot = 7000;
    let key = (0..).map(|n| format!("c:k{n}")).find(|key| hotring::ring::slot_of(key.as_bytes()) == slot).unwrap();
    assert_eq!(app.ask(&format!("SET {key} before")), "+OK\r\n");
    let to = (cluster.owner(slot) + 1) % 3;
    cluster.move_slot(slot, to);
    assert_eq!(app.ask(&format!("GET {key}")), "$6\r\nbefore\r\n");
    assert_eq!(app.ask(&format!("MGET {key} m:1 c:1 c:2")), "*4\r\n$6\r\nbefore\r\n$1\r\n1\r\n$1\r\n1\r\n$1\r\n2\r\n");
    assert_eq!(app.ask("DEL c:1 c:2 c:3 m:1"), ":4\r\n");
    for (ask, reply) in [
        ("MULTI", "+OK\r\n"),
        ("SET c:{t}1 1", "+QUEUED\r\n"),
        ("INCR c:{t}1", "+QUEUED\r\n"),
        ("EXEC", "*2\r\n+OK\r\n:2\r\n"),
    ] {
        assert_eq!(app.ask(ask), reply, "{ask}");
    }
    assert_eq!(app.ask("SELECT 1"), "-ERR DB index is out of range\r\n");
    assert_eq!(main[0].client().ask("DBSIZE"), ":49\r\n");
}

/// A full outbox of another pool keeps its session from being read, and lets it go on.
#[test]
fn a_pool_that_takes_no_more_stops_who_asks_it() {
    let pools = Pools::with([&[ROUTES], &[], &["max_outbox: 64kb", "probe_interval: off"]]);
    let (mut app, mut other) = (pools.app(), pools.app());
    assert_eq!(app.ask("PING"), "+PONG\r\n");
    pools.sessions[0].freeze();
    let value = "v".repeat(200_000);
    let requests: Vec<u8> = (0..200).flat_map(|n| wire(&["SET", &format!("s:{n}"), &value])).collect();
    let mut writer = app.writer();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.send(&requests));
        let hotring = &pools.site.hotring;
        let paused = || hotring.metric("hotring_client_pauses_total{pool=\"sessions\",full=\"outbox\"}");
        eventually("it is not read", || paused() >= 1.0);
        assert_eq!(other.ask("SET a 1"), "+OK\r\n");
        pools.sessions[0].thaw();
        for n in 0..200 {
            assert_eq!(app.text(), "+OK\r\n", "{n}");
        }
    });
    assert_eq!(app.ask("MGET a s:none"), "*2\r\n$1\r\n1\r\n$-1\r\n");
}

#[test]
fn explain_tells_of_the_route() {
    let pools = Pools::new(&[]);
    let told = |command: &str| {
        let words: Vec<&str> = command.split(' ').collect();
        let rest: String = words[2..].iter().map(|word| format!("&arg={word}")).collect();
        let query = format!("/explain?pool=main&command={}&key={}{rest}", words[0], words[1]);
        let (status, text) = pools.site.hotring.page(&query);
        assert_eq!(status, 200, "{text}");
        text
    };
    let text = told("GET user:session:1");
    assert!(text.contains("route \"user:session:\" leads to pool sessions"), "{text}");
    assert!(text.contains("pool sessions, command get") && text.contains("-> forwarded to"), "{text}");
    assert!(told("MGET a user:1").contains("key a: pool main\nkey user:1: pool users\n-> split over pools"));
    assert!(told("RENAME a user:1").contains("-> refused: CROSSSLOT"));
    assert!(!told("GET a").contains("route \""));
}
