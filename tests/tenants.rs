//! Apps whose keys have a prefix on the servers: they see none of it, and nobody else's keys, whatever they send. That a
//! tenant is answered as if it had a server for itself is what `tests/differential.rs` compares, command by command.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "differential/generate.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod generate;
#[path = "differential/grammar.rs"]
mod grammar;
mod support;

use generate::{Chance, Maker, SCRIPTS};
use support::{Client, Hotring, Redis, Site, eventually, pool, shards, wire};

/// Two tenants and who may see everything, all of one pool.
const USERS: &str = "users: {a: {password: pa, rules: '+@all ~* &*', prefix: 'a:'}, \
                     b: {password: pb, rules: '+@all ~* &*', prefix: 'b:'}, \
                     all: {password: po, rules: '+@all ~* &*', prefix: ''}}";

fn log_in(hotring: &Hotring, user: &str) -> Client {
    let mut app = hotring.app();
    assert_eq!(app.ask(&format!("AUTH {user} p{}", user.replace("all", "o"))), "+OK\r\n");
    app
}

fn list(words: &[&str]) -> String {
    String::from_utf8(wire(words)).unwrap()
}

#[test]
fn a_key_is_another_for_each_tenant() {
    let (redis, at) = shards(1);
    let hotring = Hotring::over(&at, &["prefix: 'team:'", USERS]);
    let (mut plain, mut a, mut b) = (hotring.app(), log_in(&hotring, "a"), log_in(&hotring, "b"));
    for (app, value) in [(&mut plain, "of-the-pool"), (&mut a, "of-a"), (&mut b, "of-b")] {
        assert_eq!(app.ask(&format!("SET k {value}")), "+OK\r\n");
    }
    let mut server = redis[0].client();
    for (key, value) in [("team:k", "of-the-pool"), ("a:k", "of-a"), ("b:k", "of-b")] {
        let told = format!("${}\r\n{value}\r\n", value.len());
        assert_eq!(server.ask(&format!("GET {key}")), told);
        assert_eq!(log_in(&hotring, "all").ask(&format!("GET {key}")), told, "without a prefix names are in full");
    }
    for app in [&mut plain, &mut a, &mut b] {
        assert_eq!(app.ask("KEYS *"), list(&["k"]));
        assert_eq!(app.ask("SCAN 0 COUNT 1000"), format!("*2\r\n$1\r\n0\r\n{}", list(&["k"])));
        assert_eq!(app.ask("GET a:k"), "$-1\r\n");
        for everybodys in ["FLUSHALL", "FLUSHDB", "DBSIZE", "RANDOMKEY", "FUNCTION FLUSH", "SLOWLOG GET"] {
            let told = app.ask(everybodys);
            assert!(told.contains("it is about everybody's keys"), "{everybodys}: {told}");
        }
    }
    // A DEL of all one sees is one of one's own.
    assert_eq!(a.ask("DEL k"), ":1\r\n");
    assert_eq!(server.ask("DBSIZE"), ":2\r\n");
}

#[test]
fn what_is_refused_counts_as_what_was_asked_for() {
    let (_redis, at) = shards(1);
    let users = "users: {a: {password: pa, rules: '+@all -flushdb -set ~*', prefix: 'a:'}}";
    let hotring = Hotring::with_admin(&pool(&at, &[users]));
    let mut app = log_in(&hotring, "a");
    for (request, why) in [
        ("DBSIZE", "-ERR hotring"),
        ("FLUSHALL", "-ERR hotring"),
        ("FLUSHDB", "-NOPERM"),
        ("FUNCTION FLUSH", "-ERR hotring"),
        ("SET k v", "-NOPERM"),
        ("GET k", "$-1"),
    ] {
        let told = app.ask(request);
        assert!(told.starts_with(why), "{request}: {told}");
    }
    let counted = |series: &str| hotring.metric(&format!("hotring_{series}"));
    for command in ["dbsize", "flushall", "flushdb", "function|flush", "set", "get"] {
        let (asked, failed) = ["requests", "errors"]
            .map(|what| format!("command_{what}_total{{pool=\"main\",command=\"{command}\"}}"))
            .into();
        eventually(&asked, || counted(&asked) == 1.0);
        eventually(&failed, || counted(&failed) == f64::from(u8::from(command != "get")));
    }
    assert_eq!(counted("command_requests_total{pool=\"main\",command=\"ping\"}"), 0.0);
}

#[test]
fn embedded_nodes_have_tenants_too() {
    let hotring = Hotring::start(&format!(
        "admin: off\npools:\n  main:\n    listen: 127.0.0.1:0\n    servers: embedded:3\n    {USERS}\n"
    ));
    for user in ["a", "b"] {
        let mut app = log_in(&hotring, user);
        for number in 0..20 {
            assert_eq!(app.ask(&format!("SET {user}{number} {user}")), "+OK\r\n");
        }
        let (found, scanned) = (app.ask("KEYS *"), app.ask("SCAN 0 COUNT 1000"));
        assert!(found.starts_with("*20\r\n") && scanned.starts_with("*2\r\n"), "{found} {scanned}");
        assert_eq!(app.ask("MGET a1 b1").matches(&format!("\r\n{user}\r\n")).count(), 1);
        assert!(app.ask("FLUSHALL").starts_with("-ERR hotring"));
    }
}

#[test]
fn patterns_mean_what_they_mean_though_the_prefix_has_stars_of_its_own() {
    let (redis, at) = shards(1);
    let hotring = Hotring::over(&at, &["prefix: 'x?[a-z]\\:'"]);
    let (mut app, mut server) = (hotring.app(), redis[0].client());
    for other in ["xyb:k1", "x?a:k1", "k1"] {
        assert_eq!(server.ask(&format!("SET {other} 1")), "+OK\r\n");
    }
    assert_eq!(app.ask("MSET k1 1 k2 2 other 3"), "+OK\r\n");
    assert_eq!(
        app.ask("KEYS k?"),
        list(&["k1", "k2"]).replace("$2\r\nk1\r\n$2\r\nk2\r\n", &sorted(&app.ask("KEYS k?")))
    );
    assert_eq!(app.ask("SCAN 0 MATCH *1 COUNT 1000"), format!("*2\r\n$1\r\n0\r\n{}", list(&["k1"])));
    assert_eq!(app.ask("SORT nothing BY w_* GET v_*"), "*0\r\n");
    assert_eq!(app.ask("RPUSH list k2 k1"), ":2\r\n");
    assert_eq!(app.ask("MSET w_k1 2 w_k2 1 v_k1 one v_k2 two"), "+OK\r\n");
    assert_eq!(app.ask("SORT list BY w_* GET v_* GET #"), list(&["two", "k2", "one", "k1"]));
}

/// The elements of a reply as they are: two keys in either order.
fn sorted(reply: &str) -> String {
    reply.split_once("\r\n").unwrap().1.to_owned()
}

#[test]
fn what_is_published_is_heard_by_the_tenant_that_it_is_for() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[USERS]);
    let (mut a, mut b, mut publisher) = (log_in(&hotring, "a"), log_in(&hotring, "b"), log_in(&hotring, "a"));
    let mut third = log_in(&hotring, "a");
    assert!(third.ask("HELLO 3").starts_with('%'));
    for app in [&mut a, &mut b] {
        assert_eq!(app.ask("SUBSCRIBE news"), "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
        assert_eq!(app.ask("PSUBSCRIBE n[a-e]*"), "*3\r\n$10\r\npsubscribe\r\n$7\r\nn[a-e]*\r\n:2\r\n");
        assert_eq!(app.ask("SSUBSCRIBE shard"), "*3\r\n$10\r\nssubscribe\r\n$5\r\nshard\r\n:1\r\n");
    }
    assert_eq!(third.ask("SUBSCRIBE news"), ">3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    assert_eq!(publisher.ask("PUBSUB CHANNELS"), list(&["news"]));
    assert_eq!(publisher.ask("PUBSUB CHANNELS x*"), "*0\r\n");
    assert_eq!(publisher.ask("PUBSUB NUMSUB news none"), "*4\r\n$4\r\nnews\r\n:1\r\n$4\r\nnone\r\n:0\r\n");
    assert_eq!(publisher.ask("PUBSUB SHARDCHANNELS"), list(&["shard"]));
    assert_eq!(publisher.ask("PUBSUB SHARDNUMSUB shard"), "*2\r\n$5\r\nshard\r\n:1\r\n");
    assert_eq!(publisher.ask("PUBLISH news a:text"), ":2\r\n");
    assert_eq!(publisher.ask("SPUBLISH shard text"), ":1\r\n");
    let mut heard = [a.text(), a.text(), a.text()];
    heard.sort();
    assert_eq!(
        heard,
        [
            "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$6\r\na:text\r\n",
            "*3\r\n$8\r\nsmessage\r\n$5\r\nshard\r\n$4\r\ntext\r\n",
            "*4\r\n$8\r\npmessage\r\n$7\r\nn[a-e]*\r\n$4\r\nnews\r\n$6\r\na:text\r\n",
        ]
    );
    assert_eq!(third.text(), ">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$6\r\na:text\r\n");
    // Who is another has heard none of it, and leaves what it has.
    let left = b.ask("UNSUBSCRIBE");
    assert_eq!(left, "*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    assert_eq!(b.ask("PUNSUBSCRIBE"), "*3\r\n$12\r\npunsubscribe\r\n$7\r\nn[a-e]*\r\n:0\r\n");
    assert_eq!(b.ask("SUNSUBSCRIBE"), "*3\r\n$12\r\nsunsubscribe\r\n$5\r\nshard\r\n:0\r\n");
    assert_eq!(b.ask("PING"), "+PONG\r\n");
    // Whoever becomes another listens no more.
    assert_eq!(third.ask("AUTH b pb"), "+OK\r\n");
    assert_eq!(publisher.ask("PUBLISH news x"), ":2\r\n");
    assert_eq!(third.ask("GET k"), "_\r\n");
}

#[test]
fn a_server_tells_of_a_tenants_keys_by_their_own_names() {
    let redis = Redis::start(&["--notify-keyspace-events", "KEA"]);
    let at = [redis.address().to_owned()];
    let hotring = Hotring::over(&at, &[USERS]);
    let (mut keys, mut patterns, mut events) = (log_in(&hotring, "a"), log_in(&hotring, "a"), log_in(&hotring, "a"));
    assert_eq!(keys.ask("SUBSCRIBE __keyspace@0__:k"), "*3\r\n$9\r\nsubscribe\r\n$16\r\n__keyspace@0__:k\r\n:1\r\n");
    assert!(patterns.ask("PSUBSCRIBE __keyspace@*__:*").contains("$16\r\n__keyspace@*__:*\r\n"));
    assert!(events.ask("SUBSCRIBE __keyevent@0__:set").contains("$18\r\n__keyevent@0__:set\r\n"));
    assert!(log_in(&hotring, "a").ask("PSUBSCRIBE __keyspace@*").contains("does not carry this pattern"));
    assert_eq!(log_in(&hotring, "b").ask("SET k 1"), "+OK\r\n");
    assert_eq!(redis.client().ask("SET x 1"), "+OK\r\n");
    assert_eq!(log_in(&hotring, "a").ask("SET k 1"), "+OK\r\n");
    assert_eq!(keys.text(), "*3\r\n$7\r\nmessage\r\n$16\r\n__keyspace@0__:k\r\n$3\r\nset\r\n");
    let told = "*4\r\n$8\r\npmessage\r\n$16\r\n__keyspace@*__:*\r\n$16\r\n__keyspace@0__:k\r\n$3\r\nset\r\n";
    assert_eq!(patterns.text(), told);
    assert_eq!(events.text(), "*3\r\n$7\r\nmessage\r\n$18\r\n__keyevent@0__:set\r\n$1\r\nk\r\n");
    // Nor can one tenant tell another of keys that it has not.
    assert_eq!(log_in(&hotring, "b").ask("PUBLISH __keyevent@0__:set a:forged"), ":1\r\n");
    assert_eq!(log_in(&hotring, "a").ask("SET last 1"), "+OK\r\n");
    assert_eq!(events.text(), "*3\r\n$7\r\nmessage\r\n$18\r\n__keyevent@0__:set\r\n$4\r\nlast\r\n");
}

#[test]
fn a_transaction_tells_of_names_in_all_its_replies() {
    let (_redis, at) = shards(1);
    let hotring = Hotring::over(&at, &["prefix: 'a:'"]);
    let mut app = hotring.app();
    app.send(&wire(&["RPUSH", "list", "1", "2", "3", "4"]));
    app.send(&wire(&["XADD", "stream", "1-1", "f", "v"]));
    app.send(&wire(&["ZADD", "z", "1", "m"]));
    let _ = (app.text(), app.text(), app.text());
    for round in 0..2 {
        let commands: &[&[&str]] = &[
            &["MULTI"],
            &["PING"],
            &["GET", "none"],
            &["LMPOP", "1", "list", "LEFT"],
            &["BLPOP", "list", "0"],
            &["XREAD", "STREAMS", "stream", "0"],
            &["XPENDING", "stream", "nobody"],
            &["KEYS", "z"],
            &["SCAN", "0", "COUNT", "1000", "MATCH", "z"],
            &["ZMPOP", "1", "none", "MIN"],
            &["EXEC"],
        ];
        app.send(&commands.iter().flat_map(|words| wire(words)).collect::<Vec<_>>());
        assert_eq!(app.text(), "+OK\r\n");
        (0..commands.len() - 2).for_each(|_| assert_eq!(app.text(), "+QUEUED\r\n"));
        let (first, second) = (1 + 2 * round, 2 + 2 * round);
        let told = format!(
            "*9\r\n+PONG\r\n$-1\r\n*2\r\n$4\r\nlist\r\n*1\r\n$1\r\n{first}\r\n*2\r\n$4\r\nlist\r\n$1\r\n{second}\r\n\
             *1\r\n*2\r\n$6\r\nstream\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n\
             -NOGROUP No such key 'stream' or consumer group 'nobody'\r\n*1\r\n$1\r\nz\r\n\
             *2\r\n$1\r\n0\r\n*1\r\n$1\r\nz\r\n*-1\r\n"
        );
        assert_eq!(app.text(), told);
    }
    // One that is begun before the one before it is answered takes nothing of that.
    for round in 0..3 {
        assert_eq!(app.ask("MULTI"), "+OK\r\n");
        assert_eq!(app.ask("KEYS z"), "+QUEUED\r\n", "{round}");
        app.send(&[wire(&["EXEC"]), wire(&["MULTI"]), wire(&["PING"]), wire(&["EXEC"])].concat());
        let replies = [app.text(), app.text(), app.text(), app.text()];
        assert_eq!(replies, ["*1\r\n*1\r\n$1\r\nz\r\n", "+OK\r\n", "+QUEUED\r\n", "*1\r\n+PONG\r\n"]);
    }
    // One that is given up leaves nothing for the next.
    for end in ["DISCARD", "RESET"] {
        assert_eq!((app.ask("MULTI"), app.ask("KEYS *")), ("+OK\r\n".into(), "+QUEUED\r\n".into()));
        assert!(app.ask(end).starts_with('+'));
    }
    assert_eq!((app.ask("MULTI"), app.ask("FLUSHALL").starts_with("-ERR hotring")), ("+OK\r\n".into(), true));
    assert!(app.ask("EXEC").starts_with("-EXECABORT"));
    assert_eq!(app.ask("WATCH z"), "+OK\r\n");
    assert_eq!(hotring.app().ask("ZADD z 2 m"), ":0\r\n");
    assert_eq!((app.ask("MULTI"), app.ask("GET k")), ("+OK\r\n".into(), "+QUEUED\r\n".into()));
    assert_eq!(app.ask("EXEC"), "*-1\r\n");
}

#[test]
fn auth_waits_for_what_was_asked_before_it() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[USERS]);
    let mut app = hotring.app();
    for round in 0..20 {
        let all = |user: &str| -> Vec<u8> {
            let set = [wire(&["RPUSH", "k", user]), wire(&["LMPOP", "1", "k", "LEFT"]), wire(&["SET", "v", user])];
            [wire(&["AUTH", user, &format!("p{user}")]), set.concat(), wire(&["KEYS", "v"])].concat()
        };
        app.send(&[all("a"), all("b")].concat());
        for user in ["a", "b"] {
            assert_eq!([app.text(), app.text()], ["+OK\r\n", ":1\r\n"], "round {round}");
            assert_eq!(app.text(), format!("*2\r\n$1\r\nk\r\n*1\r\n$1\r\n{user}\r\n"));
            assert_eq!([app.text(), app.text()], ["+OK\r\n".to_owned(), list(&["v"])]);
        }
        if round % 2 == 0 {
            app.send(&[wire(&["KEYS", "v"]), wire(&["RESET"]), wire(&["GET", "v"])].concat());
            assert_eq!([app.text(), app.text(), app.text()], [list(&["v"]), "+RESET\r\n".into(), "$-1\r\n".into()]);
        }
    }
}

#[test]
fn rules_are_about_names_as_the_app_writes_them() {
    let (redis, at) = shards(1);
    let users = "users: {u: {password: pu, rules: '+@all ~app:* &chat:*', prefix: 'u:'}}";
    let hotring = Hotring::over(&at, &[users]);
    let mut app = log_in(&hotring, "u");
    assert_eq!(app.ask("SET app:k 1"), "+OK\r\n");
    assert_eq!(redis[0].client().ask("GET u:app:k"), "$1\r\n1\r\n");
    for denied in ["SET k 1", "SET u:app:k 1", "MGET app:k k", "LMPOP 2 app:k k LEFT"] {
        assert_eq!(
            app.ask(denied),
            "-NOPERM this user has no permissions to access one of the keys used as arguments\r\n",
            "{denied}"
        );
    }
    assert_eq!(app.ask("PUBLISH chat:a x"), ":0\r\n");
    assert!(app.ask("PUBLISH u:chat:a x").starts_with("-NOPERM"));
    assert_eq!(app.ask("MULTI"), "+OK\r\n");
    assert!(app.ask("GET k").starts_with("-NOPERM"));
    assert!(app.ask("EXEC").starts_with("-EXECABORT"));
    assert_eq!(redis[0].client().ask("DBSIZE"), ":1\r\n");
}

#[test]
fn a_long_value_gets_its_prefix_while_it_arrives() {
    let (redis, at) = shards(3);
    let users = "users: {l: {password: pl, rules: '+@all ~k* &*', prefix: 'l:'}}";
    let hotring = Hotring::with_admin(&pool(&at, &["prefix: 'p:'", users]));
    let value = vec![b'x'; (3 << 20) + 7];
    let (mut app, mut limited) = (hotring.app(), log_in(&hotring, "l"));
    for (app, prefix) in [(&mut app, "p:"), (&mut limited, "l:")] {
        for key in ["k1", "k2", "k3", "k4"] {
            let bytes = wire(&[b"SET".as_slice(), key.as_bytes(), &value, b"EXAT", b"4102444800"]);
            let mut writer = app.writer();
            let writing = std::thread::spawn(move || bytes.chunks(50_000).for_each(|part| writer.send(part)));
            assert_eq!(app.text(), "+OK\r\n");
            writing.join().unwrap();
            assert_eq!(app.ask(&format!("STRLEN {key}")), format!(":{}\r\n", value.len()));
            let has = |redis: &Redis| redis.client().ask(&format!("EXISTS {prefix}{key}")) == ":1\r\n";
            assert_eq!(redis.iter().filter(|redis| has(redis)).count(), 1);
            assert_eq!(app.call(&["GET", key]).len(), value.len() + b"$3145735\r\n\r\n".len());
        }
    }
    // Passed on, and not held.
    let mut slow = hotring.app();
    slow.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n");
    slow.send(&value);
    eventually("what has come of it is on its way", || {
        let metric = |shard| format!("hotring_server_request_bytes_total{{pool=\"main\",backend=\"s{shard}\"}}");
        let sent: f64 = (0..3).map(|shard| hotring.metric(&metric(shard))).sum();
        sent >= 9.0 * value.len() as f64
    });
    assert_eq!(app.ask("DEL k1 k2 k3 k4"), ":4\r\n");
    let all: usize = redis.iter().map(|redis| redis.client().ask("DBSIZE")[1..2].parse::<usize>().unwrap()).sum();
    assert_eq!(all, 4);
}

#[test]
fn what_is_too_long_is_so_for_tenants_though_it_arrives_slowly() {
    const MIB: usize = 1 << 20;
    let (redis, at) = shards(1);
    let hotring = Hotring::over(&at, &["prefix: 'p:'", "max_value: 2mb", "max_key: 512b"]);
    let (value, longer) = (vec![b'x'; 3 * MIB / 2], vec![b'x'; 3 * MIB]);
    let key = "k".repeat(511);
    let mut app = hotring.app();
    for (args, told) in [
        (vec![&b"RPUSH"[..], b"list", &value, &longer], "value of 3145728 bytes is longer than 'max_value'"),
        (vec![b"SET", key.as_bytes(), &value], "key of 513 bytes is longer than 'max_key'"),
        (vec![b"SET", key.as_bytes(), b"v"], "key of 513 bytes is longer than 'max_key'"),
    ] {
        let bytes = wire(&args);
        let mut writer = app.writer();
        let writing = std::thread::spawn(move || bytes.chunks(50_000).for_each(|part| writer.send(part)));
        let reply = app.text();
        assert!(reply.starts_with(&format!("-ERR a {told}")), "{reply}");
        writing.join().unwrap();
    }
    assert_eq!(app.call(&[&b"RPUSH"[..], b"list", &value, &value]), b":2\r\n");
    assert_eq!(app.call(&[&b"SET"[..], &key.as_bytes()[1..], &value]), b"+OK\r\n");
    assert_eq!(redis[0].client().ask("DBSIZE"), ":2\r\n");
}

#[test]
fn operators_see_full_names_and_tenants_their_own() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::with_admin(&pool(&at, &["prefix: 'team:'", USERS]));
    let (status, told) = hotring.page("/explain?key=k&command=GET");
    assert_eq!(status, 200);
    assert!(told.contains("key team:k\n"), "{told}");
    let (_, told) = hotring.page("/explain?key=x&command=FLUSHALL");
    assert!(told.contains("everybody's keys"), "{told}");
    let (mut a, mut b, mut all) = (log_in(&hotring, "a"), log_in(&hotring, "b"), log_in(&hotring, "all"));
    for (app, count) in [(&mut a, 1), (&mut b, 1), (&mut all, 3)] {
        let told = app.ask("CLIENT LIST");
        assert_eq!(told.matches("id=").count(), count, "{told}");
    }
    let id = b.ask("CLIENT ID").trim().replace(':', "");
    assert_eq!(a.ask(&format!("CLIENT KILL ID {id}")), ":0\r\n");
    assert_eq!(a.ask(&format!("CLIENT UNBLOCK {id}")), ":0\r\n");
    assert_eq!(b.ask("PING"), "+PONG\r\n");
    eventually("a key is told of as hot", || {
        (0..200).for_each(|_| assert_eq!(a.ask("GET hot"), "$-1\r\n"));
        let (own, others, full) = (a.ask("HOTRING HOTKEYS"), b.ask("HOTRING HOTKEYS"), all.ask("HOTRING HOTKEYS"));
        assert_eq!(others, "*0\r\n");
        assert!(!own.contains("a:hot"));
        own.contains("$3\r\nhot\r\n") && full.contains("$5\r\na:hot\r\n")
    });
}

#[test]
fn who_gets_another_prefix_begins_anew() {
    let (_redis, at) = shards(1);
    let yaml = |prefix: &str| pool(&at, &[&format!("prefix: '{prefix}'"), "timeout: 1m", "^watch: off"]);
    let site = Site::new(&yaml("a:"));
    let mut app = site.hotring.app();
    assert_eq!(app.ask("SET k 1"), "+OK\r\n");
    assert_eq!(site.reload(&yaml("a:").replace("1m", "2m")).0, 200);
    assert_eq!(app.ask("GET k"), "$1\r\n1\r\n");
    assert_eq!(site.reload(&yaml("b:")).0, 200);
    assert_eq!(app.rest(), b"");
    let mut app = site.hotring.app();
    assert_eq!(app.ask("GET k"), "$-1\r\n");
    assert_eq!(site.reload(&yaml("")).0, 200);
    assert_eq!(app.rest(), b"");
    assert_eq!(site.hotring.app().ask("GET a:k"), "$1\r\n1\r\n");
}

/// What is in all values of the one, in half of the names of its keys, and in nothing that the other one sends.
const MARKER: &str = "SECRET";

/// Keys of each type, with what is in them.
fn furnish(server: &mut Client) {
    let commands = [
        "SET a:SECRET:s SECRET",
        "HSET a:SECRET:h SECRET SECRET",
        "RPUSH a:SECRET:l SECRET SECRET",
        "SADD a:SECRET:e SECRET",
        "ZADD a:SECRET:z 1 SECRET",
        "XADD a:SECRET:x 1-1 SECRET SECRET",
        "XGROUP CREATE a:SECRET:x SECRET 0",
        "GEOADD a:SECRET:g 13 38 SECRET",
        "PFADD a:SECRET:p SECRET",
        "SETBIT a:SECRET:b 7 1",
        "SET a:SECRET:ttl SECRET EXAT 4102444800",
    ];
    for command in commands.iter().flat_map(|command| [command.to_string(), command.replace("a:SECRET", "a")]) {
        assert!(!server.ask(&command).starts_with('-'), "{command}");
    }
}

/// All of it, as the server would give it to another.
fn dumped(server: &mut Client) -> Vec<(String, Vec<u8>, String)> {
    let keys = server.ask("KEYS a:*");
    let mut keys: Vec<&str> = keys.split("\r\n").filter(|line| line.starts_with("a:")).collect();
    keys.sort_unstable();
    keys.iter()
        .map(|key| ((*key).to_owned(), server.call(&["DUMP", key]), server.ask(&format!("EXPIRETIME {key}"))))
        .collect()
}

/// What somebody tries who wants to see, or to spoil, what others have.
fn mean(chance: &mut Chance) -> Vec<Vec<u8>> {
    const LINES: &[&str] = &[
        "KEYS *",
        "KEYS a:*",
        "KEYS *:*",
        "KEYS ../a:*",
        "KEYS [^x]*",
        "SCAN 0 COUNT 1000",
        "SCAN 0 MATCH * COUNT 1000",
        "SCAN 0 MATCH a:* MATCH * COUNT 1000",
        "SCAN 0 COUNT 1000 MATCH",
        "SCAN 0 MATCH * MATCH",
        "SCAN 0 TYPE string COUNT 1000 MATCH *",
        "RANDOMKEY",
        "DBSIZE",
        "FLUSHALL",
        "FLUSHDB SYNC",
        "SWAPDB 0 1",
        "MOVE KEY 1",
        "COPY KEY mine",
        "COPY KEY mine DB 1",
        "RENAME KEY mine",
        "RENAME mine KEY",
        "SORT KEY BY nosort GET *",
        "SORT names GET *",
        "SORT names BY nosort GET * GET a:* GET *->*",
        "SORT names BY * GET # STORE KEY",
        "SORT names STORE mine STORE KEY",
        "GEORADIUS places 13 38 900 km STORE KEY",
        "GEORADIUS KEY 13 38 900 km STORE mine STOREDIST KEY",
        "EVAL return{redis.call('get',KEYS[1])} 1 KEY",
        "MGET KEY KEY mine",
        "DEL KEY mine",
        "UNLINK KEY",
        "MSET KEY 1 mine 2",
        "MSETNX KEY 1",
        "SUNIONSTORE KEY mine KEY",
        "ZUNIONSTORE KEY 2 KEY mine",
        "BITOP OR KEY KEY KEY",
        "PFMERGE KEY KEY",
        "XREAD STREAMS KEY 0",
        "XREADGROUP GROUP g c STREAMS KEY >",
        "LMPOP 2 KEY mine LEFT",
        "BLMPOP 0.001 1 KEY LEFT",
        "MIGRATE 127.0.0.1 1 KEY 0 5",
        "OBJECT ENCODING KEY",
        "MEMORY USAGE KEY",
        "MEMORY STATS",
        "DUMP KEY",
        "RESTORE KEY 0 x REPLACE",
        "EXPIRE KEY 0",
        "PUBSUB CHANNELS *",
        "PUBSUB NUMPAT",
        "CLIENT LIST",
        "HOTRING HOTKEYS",
        "SLOWLOG GET",
        "DEBUG OBJECT KEY",
        "MONITOR",
        "CONFIG GET *",
        "INFO everything",
        "COMMANDLOG GET 10 slow",
        "FUNCTION LIST",
        "FUNCTION STATS",
        "SELECT 0",
        "RPUSH names a:s s a:h",
        "HELLO 2",
        "HELLO 3",
        "RESET",
        "CLIENT TRACKING on BCAST",
    ];
    let line = LINES[chance.below(LINES.len())];
    let kinds = ["s", "h", "l", "e", "z", "x", "g", "p", "b", "ttl"];
    let kind = kinds[chance.below(kinds.len())];
    let ways = [format!("a:{kind}"), format!("\r\na:{kind}"), format!("b:../a:{kind}"), format!("\0a:{kind}")];
    let key = &ways[chance.below(ways.len())];
    line.split(' ').map(|word| word.replace("KEY", key).into_bytes()).collect()
}

#[test]
fn nobody_sees_or_touches_what_another_has() {
    let redis = Redis::start(&["--notify-keyspace-events", "KEA"]);
    let at = [redis.address().to_owned()];
    let hotring = Hotring::over(&at, &["prefix: 'b:'", "admin_commands: allow"]);
    let mut server = redis.client();
    let dumps = ["SET k text", "RPUSH k a b 3", "XADD k 5-1 f v"].map(|value| {
        server.ask("DEL k");
        server.ask(value);
        let dump = server.call(&["DUMP", "k"]);
        let at = dump.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        dump[at..dump.len() - 2].to_vec()
    });
    for seed in 1..=6 {
        assert_eq!(server.ask("FLUSHALL"), "+OK\r\n");
        furnish(&mut server);
        let before = dumped(&mut server);
        assert_eq!(before.len(), 20);
        let shas: Vec<String> = SCRIPTS
            .iter()
            .map(|script| String::from_utf8(server.call(&["SCRIPT", "LOAD", script])).unwrap()[5..45].to_owned())
            .collect();
        let mut app = hotring.app();
        let mut maker = Maker::new(seed, &[&dumps[..], &[b"no functions".to_vec()]].concat(), &shas);
        let mut asked = 0;
        while asked < 1500 {
            let commands: Vec<Vec<Vec<u8>>> = match maker.chance.below(3) {
                0 => vec![mean(&mut maker.chance)],
                _ => maker.commands(),
            };
            for args in commands {
                asked += 1;
                let told = app.call(&args);
                assert!(!has_marker(&told), "seed {seed}: {:?} tells {}", shown(&args), told.escape_ascii());
            }
        }
        assert_eq!(app.ask("RESET"), "+RESET\r\n");
        assert_eq!(dumped(&mut server), before, "seed {seed}");
        // It has done something.
        assert!(server.ask("KEYS b:*").len() > 100);
    }
}

fn has_marker(bytes: &[u8]) -> bool {
    bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes())
}

fn shown(args: &[Vec<u8>]) -> Vec<String> {
    args.iter().map(|arg| arg.escape_ascii().to_string()).collect()
}
