//! Keys that have moved are looked for where they lived before (`warm_from`), with real servers: what is found is copied with the time that it
//! has left, and nothing that was deleted or overwritten comes back.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use support::{Client, FOREVER, Fake, Hotring, Redis, Scratch, Site, eventually, home, pool, shards, wire};

const NIL: &str = "$-1\r\n";
const PREVIOUS: &[&str] = &["warm_from: previous"];

/// Keys that live elsewhere when a third server comes to two, and that one has them.
fn moving(count: usize) -> Vec<String> {
    let moves = |key: &String| home(2, key.as_bytes()) != home(3, key.as_bytes());
    (0..).map(|n| format!("key:{n}")).filter(moves).take(count).collect()
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn of_main(name: &str) -> String {
    format!("hotring_warm_{name}{{pool=\"main\"}}")
}

/// Three servers, of which a hotring had two until now; the keys were written before.
struct Grown {
    redis: Vec<Redis>,
    site: Site,
    keys: Vec<String>,
}

impl Grown {
    fn new(count: usize, settings: &[&str]) -> Self {
        let (redis, at) = shards(3);
        let site = Site::new(&pool(&at[..2], settings));
        let keys = moving(count);
        let mut app = site.hotring.app();
        for key in &keys {
            assert_eq!(app.ask(&format!("SET {key} old:{key} PX 600000")), "+OK\r\n");
        }
        let (status, told) = site.reload(&pool(&at, settings));
        assert_eq!(status, 200, "{told}");
        Self { redis, site, keys }
    }

    fn app(&self) -> Client {
        self.site.hotring.app()
    }

    /// The server where a key lived.
    fn former(&self, key: &str) -> Client {
        self.redis[home(2, key.as_bytes())].client()
    }

    fn home(&self, key: &str) -> Client {
        self.redis[home(3, key.as_bytes())].client()
    }

    fn metric(&self, name: &str) -> f64 {
        self.site.hotring.metric(&of_main(name))
    }
}

#[test]
fn what_is_not_there_yet_is_asked_for_where_it_was_and_copied() {
    let grown = Grown::new(50, PREVIOUS);
    let mut app = grown.app();
    // One that lives for ever, and one that was never there.
    let (eternal, never) = (&grown.keys[0], "no:such:key");
    grown.former(eternal).ask(&format!("PERSIST {eternal}"));
    for key in &grown.keys {
        assert_eq!(app.ask(&format!("GET {key}")), bulk(&format!("old:{key}")));
    }
    assert_eq!(app.ask(&format!("GET {never}")), NIL);
    eventually("all are copied", || grown.metric("copies_total") == 50.0);
    for key in &grown.keys {
        assert_eq!(grown.home(key).ask(&format!("GET {key}")), bulk(&format!("old:{key}")));
        let life: i64 = grown.home(key).ask(&format!("PTTL {key}"))[1..].trim().parse().unwrap();
        assert!(if key == eternal { life == -1 } else { (500_000..600_000).contains(&life) }, "{life}");
        assert_eq!(grown.home(key).ask(&format!("EXISTS hotring:warm:{key}")), ":0\r\n", "no mark is left");
    }
    let asked: u64 = grown.redis[..2].iter().map(|redis| redis.calls("getrange")).sum();
    for key in &grown.keys {
        assert_eq!(app.ask(&format!("GET {key}")), bulk(&format!("old:{key}")));
    }
    assert_eq!(grown.redis[..2].iter().map(|redis| redis.calls("getrange")).sum::<u64>(), asked, "once is enough");
    eventually("all are counted", || grown.metric("hits_total") == 50.0);
    let left = grown.metric("left_seconds");
    assert!((3500.0..=3600.0).contains(&left), "{left}");
    let (_, told) = grown.site.hotring.page("/warm");
    assert!(told.starts_with("pool main: from previous, 59 min left; 50"), "{told}");
    // A herd that misses together is one question.
    let key = &moving(51)[50];
    grown.former(key).ask(&format!("SET {key} herd"));
    let mut apps: Vec<Client> = (0..20).map(|_| grown.app()).collect();
    apps.iter_mut().for_each(|app| app.send(&wire(&["GET", key])));
    apps.iter_mut().for_each(|app| assert_eq!(app.text(), bulk("herd")));
}

#[test]
fn elements_are_looked_for_too() {
    for more in [&[][..], &["misses: {lease: local}"], &["misses: {miss_budget: 1}"]] {
        let grown = Grown::new(8, &[PREVIOUS, more].concat());
        let mut app = grown.app();
        let stays =
            (0..).map(|n| format!("s:{n}")).find(|key| home(2, key.as_bytes()) == home(3, key.as_bytes())).unwrap();
        app.ask(&format!("SET {stays} here"));
        let old = |n: usize| bulk(&format!("old:{}", grown.keys[n]));
        // Over several shards, with one that is nowhere, one twice and one that has not moved.
        let words = [&["MGET", &stays, "nowhere"][..], &[0, 1, 2, 0].map(|n| grown.keys[n].as_str())].concat();
        let whole = format!("*6\r\n{}{NIL}{}{}{}{}", bulk("here"), old(0), old(1), old(2), old(0));
        assert_eq!(String::from_utf8(app.call(&words)).unwrap(), whole, "{more:?}");
        eventually("they are copied", || grown.metric("copies_total") == 3.0);
        assert_eq!(app.call(&["MGET", &grown.keys[0]]), format!("*1\r\n{}", old(0)).as_bytes());
        // In order with what is asked behind it.
        app.send(
            &[wire(&["MGET", &grown.keys[3], &grown.keys[4]]), wire(&["PING"]), wire(&["GET", &grown.keys[5]])]
                .concat(),
        );
        let three = [app.text(), app.text(), app.text()];
        assert_eq!(three, [format!("*2\r\n{}{}", old(3), old(4)), "+PONG\r\n".to_owned(), old(5)]);
        eventually("all are counted", || grown.metric("hits_total") == 7.0);
        let (_, told) = grown.site.hotring.page("/warm");
        assert!(told.contains("of the last 8 reads of keys that have moved 12.5 % found them"), "{told}");
    }
}

#[test]
fn what_is_written_is_forgotten_where_it_was_before_anybody_is_told() {
    let grown = Grown::new(12, &["warm_from: previous", "admin_commands: allow"]);
    let mut app = grown.app();
    let long = "x".repeat(2 << 20);
    let key = |n: usize| grown.keys[n].as_str();
    let written = |n: usize| {
        assert_eq!(grown.former(key(n)).ask(&format!("EXISTS {}", key(n))), ":0\r\n", "{}", key(n));
        assert_eq!(grown.home(key(n)).ask(&format!("GET hotring:warm:{}", key(n))), bulk("gone"));
    };
    assert_eq!(app.ask(&format!("DEL {}", key(0))), ":0\r\n", "it was not at its home");
    written(0);
    assert_eq!(app.ask(&format!("GET {}", key(0))), NIL);
    assert_eq!(app.ask(&format!("SET {} new", key(1))), "+OK\r\n");
    written(1);
    assert_eq!(app.ask(&format!("MSET {} a {} b", key(2), key(3))), "+OK\r\n");
    (2..4).for_each(written);
    assert_eq!(app.ask(&format!("UNLINK {} {}", key(2), key(3))), ":2\r\n");
    assert_eq!(app.ask(&format!("MGET {} {}", key(2), key(3))), "*2\r\n$-1\r\n$-1\r\n");
    assert_eq!(app.ask(&format!("MGET {}", key(11))), format!("*1\r\n{}", bulk(&format!("old:{}", key(11)))));
    assert_eq!(app.ask(&format!("INCR {}", key(4))), ":1\r\n");
    written(4);
    // Within a transaction, by a script, and one that is so long that it is passed on as it comes.
    assert_eq!(app.ask("MULTI"), "+OK\r\n");
    assert_eq!(app.ask(&format!("SET {} new", key(5))), "+QUEUED\r\n");
    written(5);
    assert_eq!(app.ask(&format!("DEL {}", key(5))), "+QUEUED\r\n");
    assert_eq!(app.ask("EXEC"), "*2\r\n+OK\r\n:1\r\n");
    assert_eq!(app.ask(&format!("GET {}", key(5))), NIL);
    let script = "return redis.call('SET',KEYS[1],'new')";
    assert_eq!(app.call(&["EVAL", script, "1", key(6)]), b"+OK\r\n");
    written(6);
    assert_eq!(app.call(&["SET", key(7), &long]), b"+OK\r\n");
    written(7);
    assert_eq!(app.call(&["GET", key(7)]), bulk(&long).as_bytes());
    // In order with what the session asks besides, and with nobody's help.
    let all = [wire(&["PING"]), wire(&["SET", key(8), "new"]), wire(&["GET", key(8)]), wire(&["DEL", key(8)])].concat();
    app.send(&[all, wire(&["GET", key(8)])].concat());
    assert_eq!(
        [app.text(), app.text(), app.text(), app.text(), app.text()],
        ["+PONG\r\n", "+OK\r\n", "$3\r\nnew\r\n", ":1\r\n", NIL]
    );
    // In another database the same name is another key.
    assert_eq!(app.ask("SELECT 1"), "+OK\r\n");
    assert_eq!(app.ask(&format!("SET {} other", key(9))), "+OK\r\n");
    assert_eq!(app.ask("SELECT 0"), "+OK\r\n");
    assert_eq!(app.ask(&format!("GET {}", key(9))), bulk(&format!("old:{}", key(9))));
    // All of them.
    assert_eq!(app.ask("FLUSHALL"), "+OK\r\n");
    assert_eq!(app.ask(&format!("GET {}", key(10))), NIL);
    eventually("it is over", || grown.metric("left_seconds") == 0.0);
}

#[test]
fn a_copy_on_its_way_brings_nothing_back() {
    let (answer, may_answer) = channel::<()>();
    let may_answer = Mutex::new(may_answer);
    let (asked, is_asked) = channel::<()>();
    // Where the keys lived: it has the value, and takes its time to say so.
    let slow = Fake::start(move |visit| {
        visit.shake_hands();
        while let Some(request) = visit.request() {
            match request[0].to_ascii_uppercase().as_slice() {
                b"PTTL" => visit.send(b":60000\r\n"),
                b"STRLEN" => visit.send(b":3\r\n"),
                b"GETRANGE" => {
                    asked.send(()).unwrap();
                    may_answer.lock().unwrap().recv_timeout(FOREVER).unwrap();
                    visit.send(b"$3\r\nold\r\n")
                }
                _ => visit.send(b":1\r\n"),
            };
        }
    });
    let redis = Redis::start(&[]);
    let yaml = |servers: &[&str]| pool(servers, &["warm_from: previous", "probe_interval: off"]);
    let site = Site::new(&yaml(&[slow.address()]));
    let (status, _) = site.reload(&yaml(&[redis.address()]));
    assert_eq!(status, 200);
    for (write, now) in [("DEL k", NIL), ("SET k new", "$3\r\nnew\r\n")] {
        redis.client().ask("FLUSHALL");
        let (mut reader, mut writer) = (site.hotring.app(), site.hotring.app());
        reader.send(&wire(&["GET", "k"]));
        is_asked.recv_timeout(FOREVER).unwrap();
        writer.send(&wire(&write.split(' ').collect::<Vec<_>>()));
        // The mark says so before the former home has answered.
        eventually("the mark is set", || redis.client().ask("GET hotring:warm:k") == "$4\r\ngone\r\n");
        assert_eq!(redis.client().ask("EXISTS k"), ":0\r\n", "the write waits for the former home");
        answer.send(()).unwrap();
        assert_eq!(reader.text(), "$3\r\nold\r\n", "the write was not answered when it was asked");
        writer.reply();
        eventually("the copy was refused", || redis.calls("eval") > 0);
        assert_eq!(writer.ask("GET k"), now);
        assert_eq!(redis.client().ask("GET k"), now);
        redis.client().ask("CONFIG RESETSTAT");
    }
}

#[test]
fn a_write_that_waits_while_its_key_moves_back_is_forgotten_where_the_key_was_last() {
    let grown = Grown::new(1, PREVIOUS);
    let key = &grown.keys[0];
    let mut app = grown.app();
    assert_eq!(app.ask(&format!("GET {key}")), bulk(&format!("old:{key}")));
    eventually("it is copied", || grown.metric("copies_total") == 1.0);
    let first = &grown.redis[home(2, key.as_bytes())];
    first.freeze();
    app.send(&wire(&["DEL", key]));
    let mark = format!("GET hotring:warm:{key}");
    eventually("the write waits", || grown.home(key).ask(&mark) == bulk("gone"));
    let at: Vec<String> = grown.redis[..2].iter().map(|redis| redis.address().to_owned()).collect();
    let (status, told) = grown.site.reload(&pool(&at, PREVIOUS));
    assert_eq!(status, 200, "{told}");
    first.thaw();
    app.text();
    assert_eq!(app.ask(&format!("GET {key}")), NIL, "it was deleted");
    assert_eq!(grown.home(key).ask(&format!("EXISTS {key}")), ":0\r\n");
}

/// Two processes, writers that check what they have written, and readers that make copies all the time.
#[test]
fn two_processes_never_tell_of_what_was_overwritten() {
    let (redis, at) = shards(3);
    let keys = moving(24);
    let sites: Vec<Site> =
        (0..2).map(|_| Site::new(&pool(&at[..2], &["warm_from: previous", "^workers: 2"]))).collect();
    for key in &keys {
        redis[home(2, key.as_bytes())].client().ask(&format!("SET {key} 0"));
    }
    sites.iter().for_each(|site| assert_eq!(site.reload(&pool(&at, &["warm_from: previous", "^workers: 2"])).0, 200));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for site in &sites {
            scope.spawn(|| {
                let mut app = site.hotring.app();
                while !stop.load(Ordering::Relaxed) {
                    for key in &keys {
                        app.ask(&format!("GET {key}"));
                    }
                }
            });
        }
        let writers: Vec<_> = keys
            .chunks(12)
            .enumerate()
            .map(|(number, keys)| {
                let (sites, redis) = (&sites, &redis);
                scope.spawn(move || {
                    let (mut one, mut two) = (sites[number].hotring.app(), sites[1 - number].hotring.app());
                    let mut was = vec![String::new(); keys.len()];
                    for round in 1..40 {
                        for (key, was) in keys.iter().zip(&mut was) {
                            // What a copy that was late might have brought back since.
                            assert!(was.is_empty() || one.ask(&format!("GET {key}")) == *was, "{key} in round {round}");
                            let (write, now) = if round % 2 == 0 {
                                (format!("SET {key} {round} PX 60000"), bulk(&round.to_string()))
                            } else {
                                // As if it had been there all the time, and just before it is deleted somebody wants it.
                                one.ask(&format!("DEL {key}"));
                                redis[home(2, key.as_bytes())].client().ask(&format!("SET {key} late"));
                                redis[home(3, key.as_bytes())].client().ask(&format!("DEL hotring:warm:{key}"));
                                two.send(&wire(&["GET", key]));
                                (format!("DEL {key}"), NIL.to_owned())
                            };
                            one.ask(&write);
                            if round % 2 == 1 {
                                let old = two.text();
                                assert!(old == NIL || old == bulk("late"), "{old}");
                            }
                            let both = [one.ask(&format!("GET {key}")), two.ask(&format!("GET {key}"))];
                            assert_eq!(both, [now.clone(), now.clone()], "{key} in round {round}");
                            *was = now;
                        }
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        stop.store(true, Ordering::Relaxed);
    });
    sites.iter().for_each(|site| assert_eq!(site.hotring.metric(&of_main("distrusts_total")), 0.0));
}

#[test]
fn a_former_home_that_is_gone_is_not_missed_and_not_believed_when_it_returns() {
    let (mut redis, _) = shards(2);
    let former = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    redis.push(former);
    let at: Vec<String> = redis.iter().map(|redis| redis.address().to_owned()).collect();
    let settings = ["warm_from: previous", "server_retry_timeout: 1ms", "probe_interval: 50ms"];
    let before = pool(&at[2..], &settings);
    let after = pool(&at[..2], &settings);
    let sites: Vec<Site> = (0..2).map(|_| Site::new(&before)).collect();
    let mut app = sites[0].hotring.app();
    for n in 0..6 {
        assert_eq!(app.ask(&format!("SET key:{n} old")), "+OK\r\n");
    }
    sites.iter().for_each(|site| assert_eq!(site.reload(&after).0, 200));
    assert_eq!(app.ask("GET key:0"), "$3\r\nold\r\n");
    redis[2].kill();
    assert_eq!(app.ask("GET key:1"), NIL, "a miss is a miss");
    assert_eq!(app.ask("DEL key:2"), ":0\r\n", "and a write is a write");
    assert_eq!(app.ask("SET key:3 new"), "+OK\r\n");
    assert_eq!(app.ask("DEL key:3"), ":1\r\n");
    eventually("that is known", || sites[0].hotring.metric(&of_main("distrusts_total")) >= 1.0);
    redis[2].restart();
    assert_eq!(redis[2].client().ask("GET key:2"), "$3\r\nold\r\n", "it has it still");
    let mut other = sites[1].hotring.app();
    // The other process has not written anything that it could not be told of: it asks, but not for these.
    eventually("it is asked again", || other.ask("GET key:4") == "$3\r\nold\r\n");
    for key in ["key:2", "key:3"] {
        assert_eq!([app.ask(&format!("GET {key}")), other.ask(&format!("GET {key}"))], [NIL, NIL]);
    }
    assert_eq!(app.ask("GET key:5"), NIL, "this one believes nothing of it any more");
    eventually("that is counted", || sites[0].hotring.metric(&of_main("refused_total")) >= 1.0);
}

#[test]
fn beyond_the_rate_a_miss_is_a_miss() {
    let grown = Grown::new(40, &["warm_from: previous", "warm_rate: 1"]);
    let mut app = grown.app();
    let found = grown.keys.iter().filter(|key| app.ask(&format!("GET {key}")) != NIL).count();
    assert!((1..40).contains(&found), "{found}");
    eventually("it is counted", || grown.metric("refused_total") == (40 - found) as f64);
    eventually("so are these", || grown.metric("misses_total") == (40 - found) as f64);
}

#[test]
fn when_the_time_is_over_nothing_is_asked_and_nothing_is_kept_open() {
    let (redis, at) = shards(3);
    let site = Site::new(&pool(&at[..1], &["warm_from: previous", "warm_for: 1s"]));
    let mut app = site.hotring.app();
    assert_eq!(app.ask("SET a old"), "+OK\r\n");
    assert_eq!(app.ask("SET b old"), "+OK\r\n");
    assert_eq!(site.reload(&pool(&at[1..], &["warm_from: previous", "warm_for: 1s"])).0, 200);
    assert_eq!(app.ask("GET a"), "$3\r\nold\r\n");
    assert!(site.hotring.page("/backends").1.contains("former"));
    eventually("it is over", || !site.hotring.page("/backends").1.contains("former"));
    eventually("its connections are closed", || redis[0].connections() == 0);
    assert_eq!([app.ask("GET a"), app.ask("GET b")], ["$3\r\nold\r\n", NIL]);
    eventually("nothing is left", || site.hotring.metric(&of_main("left_seconds")) == 0.0);
    assert_eq!(site.hotring.page("/warm").1, "no pool looks for keys where they lived before\n");
    assert_eq!(app.ask("SET b new"), "+OK\r\n");
    assert_eq!(redis[0].client().ask("GET b"), "$3\r\nold\r\n", "it was not told any more");
}

#[test]
fn another_pool_warms_a_cold_one() {
    let (redis, at) = shards(3);
    let dir = Scratch::new();
    let text = format!(
        "admin: off\npools:\n  main:\n    listen: 127.0.0.1:0\n    servers: ['{}:1 n0', '{}:1 n1']\n    warm_from: old\n    \
         timeout: 1m\n  old:\n    listen: {}\n    servers: ['{}:1 o0']\n    timeout: 1m\n",
        at[0],
        at[1],
        dir.file("old.sock"),
        at[2]
    );
    let hotring = Hotring::with_admin(&text);
    redis[2].client().ask("SET k v");
    redis[2].client().ask("LPUSH list v");
    let mut app = hotring.app();
    assert_eq!(app.ask("GET k"), "$1\r\nv\r\n");
    eventually("it is copied", || hotring.metric(&of_main("copies_total")) == 1.0);
    assert_eq!(app.ask("GET list"), NIL, "lists are not copied");
    assert_eq!(app.ask("DEL k"), ":1\r\n");
    assert_eq!(redis[2].client().ask("EXISTS k"), ":0\r\n");
    assert_eq!(redis[2].client().ask("EXISTS list"), ":1\r\n");
}

/// Sessions that may not write a key do not make it forgotten; those that are strict are told what is at home.
#[test]
fn only_who_may_write_makes_anything_forgotten() {
    let (_redis, at) = shards(3);
    let dir = Scratch::new();
    let strict = dir.file("strict.sock");
    let settings = [
        "warm_from: previous",
        "users: {ro: {nopass: true, rules: \"+@read ~*\"}}",
        &format!("listen_strict: {strict}"),
    ];
    let site = Site::new(&pool(&at[..2], &settings));
    let key = &moving(1)[0];
    let mut app = site.hotring.app();
    assert_eq!(app.ask(&format!("SET {key} old")), "+OK\r\n");
    assert_eq!(site.reload(&pool(&at, &settings)).0, 200);
    let mut limited = site.hotring.app();
    assert_eq!(limited.ask("AUTH ro x"), "+OK\r\n");
    assert!(limited.ask(&format!("DEL {key}")).starts_with("-NOPERM"));
    assert_eq!(Client::connect(&strict).ask(&format!("GET {key}")), NIL);
    assert_eq!(limited.ask(&format!("GET {key}")), "$3\r\nold\r\n");
}

#[test]
fn what_is_refused_for_everybody_makes_nothing_forgotten() {
    let settings = [PREVIOUS[0], "deny_commands: [APPEND]", "max_value: 100b"];
    let grown = Grown::new(1, &settings);
    let (key, mut app) = (&grown.keys[0], grown.app());
    assert!(app.ask(&format!("APPEND {key} x")).starts_with("-NOPERM"));
    assert!(app.ask(&format!("SET {key} {}", "x".repeat(101))).starts_with("-ERR a value of"));
    assert_eq!(grown.former(key).ask(&format!("GET {key}")), bulk(&format!("old:{key}")));
    assert_eq!(app.ask(&format!("SET {key} new")), "+OK\r\n");
    assert_eq!(grown.former(key).ask(&format!("GET {key}")), NIL);
}

#[test]
fn after_reset_a_session_writes_as_before() {
    let grown = Grown::new(1, PREVIOUS);
    let (key, mut app) = (&grown.keys[0], grown.app());
    assert_eq!(app.ask("RESET"), "+RESET\r\n");
    assert_eq!(app.ask(&format!("SET {key} new")), "+OK\r\n");
    assert_eq!(grown.former(key).ask(&format!("GET {key}")), NIL, "it is forgotten where it was");
}
