//! Commands that wait for something to happen, over real shards, in both protocols: woken by others, served in order, left
//! by apps that go away, and never in anybody's way.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;
use support::{Client, FOREVER, Hotring, Redis, eventually, home, key_on, keys_on, now, shards, wire};

/// Keys of one hash tag live together.
const TAGGED: &[&str] = &["hash_tag: \"{}\""];
const CROSSED: &str = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";

fn speaking(mut client: Client, resp3: bool) -> Client {
    if resp3 {
        assert!(client.ask("HELLO 3").starts_with("%7\r\n"));
    }
    client
}

fn request(line: &str) -> Vec<u8> {
    wire(&line.split_whitespace().collect::<Vec<_>>())
}

fn say(client: &mut Client, line: &str) {
    client.send(&request(line));
}

/// Waits until a server has so many clients that block.
fn await_blocked(redis: &Redis, count: usize) {
    let mut client = redis.client();
    eventually("so many are blocked", || {
        client.ask("INFO clients").contains(&format!("\r\nblocked_clients:{count}\r\n"))
    });
}

/// What is asked first, what blocks, and by what it is woken; all keys live on one shard.
const WAKES: &[(&str, &str, &str)] = &[
    ("DEL {t}q", "BLPOP {t}q 0", "RPUSH {t}q a b"),
    ("DEL {t}q {t}p", "BLPOP {t}p {t}q 0", "LPUSH {t}q a b"),
    ("DEL {t}q", "BRPOP {t}q 30", "RPUSH {t}q a b"),
    ("DEL {t}q {t}p", "BRPOPLPUSH {t}q {t}p 0", "RPUSH {t}q a"),
    ("DEL {t}q {t}p", "BLMOVE {t}q {t}p LEFT RIGHT 0", "RPUSH {t}q a"),
    ("DEL {t}q {t}p", "BLMPOP 0 2 {t}p {t}q LEFT COUNT 2", "RPUSH {t}q a b c"),
    ("DEL {t}z {t}y", "BZPOPMIN {t}y {t}z 0", "ZADD {t}z 1.5 a 2 b"),
    ("DEL {t}z", "BZPOPMAX {t}z 0", "ZADD {t}z 1.5 a 2 b"),
    ("DEL {t}z", "BZMPOP 0 1 {t}z MIN COUNT 2", "ZADD {t}z 1.5 a 2 b"),
    ("DEL {t}x", "XREAD BLOCK 0 STREAMS {t}x $", "XADD {t}x 1-1 f v"),
    ("DEL {t}x {t}w", "XREAD COUNT 5 BLOCK 0 STREAMS {t}w {t}x 0 0", "XADD {t}x 1-1 f v"),
    ("XGROUP CREATE {t}x g $ MKSTREAM", "XREADGROUP GROUP g c BLOCK 0 STREAMS {t}x >", "XADD {t}x 2-1 f v"),
    ("DEL {t}q", "BLPOP {t}q 0", "EVAL return(redis.call('rpush',KEYS[1],'s')) 1 {t}q"),
    ("RPUSH {t}r 1", "BLPOP {t}q 0", "RENAME {t}r {t}q"),
];

#[test]
fn whoever_waits_is_woken_as_redis_would() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, TAGGED);
    let alone = Redis::start(&[]);
    let shard = &redis[home(3, b"t")];
    for resp3 in [false, true] {
        for (before, blocks, wakes) in WAKES {
            let told = [(hotring.app(), hotring.app(), shard), (alone.client(), alone.client(), &alone)].map(
                |(one, other, server)| {
                    let (mut one, mut other) = (speaking(one, resp3), speaking(other, !resp3));
                    other.ask(before);
                    // Replies behind it keep their turn.
                    say(&mut one, blocks);
                    say(&mut one, "GET {t}none");
                    say(&mut one, "PING");
                    await_blocked(server, 1);
                    let woke = other.ask(wakes);
                    assert!(!woke.starts_with('-'), "{wakes}: {woke}");
                    let replies: Vec<String> = (0..3).map(|_| one.text()).collect();
                    assert_eq!(replies[2], "+PONG\r\n");
                    replies
                },
            );
            assert_eq!(told[0], told[1], "{blocks}, RESP3 {resp3}");
        }
        for server in redis.iter().chain([&alone]) {
            server.client().ask("FLUSHALL");
        }
    }
}

#[test]
fn what_does_not_wait_or_waits_in_vain_answers_as_redis_does() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, TAGGED);
    let alone = Redis::start(&[]);
    for resp3 in [false, true] {
        let mut sides = [hotring.app(), alone.client()].map(|client| speaking(client, resp3));
        for line in [
            "BLPOP {t}q 0.01",
            "BRPOP {t}q {t}p 0.001",
            "BLMOVE {t}q {t}p LEFT LEFT 0.01",
            "BRPOPLPUSH {t}q {t}p 0.01",
            "BLMPOP 0.01 2 {t}q {t}p RIGHT",
            "BZPOPMIN {t}z 0.01",
            "BZPOPMAX {t}z 0.01",
            "BZMPOP 0.01 1 {t}z MAX",
            "XREAD BLOCK 10 STREAMS {t}x $",
            "XREAD BLOCK 1 COUNT 1 STREAMS {t}x 0",
            "XREAD STREAMS {t}x 0",
            "BLPOP {t}q -1",
            "BLPOP {t}q never",
            "BLPOP {t}q",
            "BLPOP 0",
            "BLMPOP 0 0 {t}q LEFT",
            "BLMPOP 0 x {t}q LEFT",
            "BLMPOP 0 1 {t}q UP",
            "BLMPOP 0 3 {t}q LEFT",
            "BZMPOP never 1 {t}q MIN",
            "BLMOVE {t}q {t}p LEFT UP 0",
            "XREAD BLOCK -1 STREAMS {t}x $",
            "XREAD BLOCK never STREAMS {t}x $",
            "XREAD BLOCK 0 STREAMS {t}x",
            "XREADGROUP GROUP g c BLOCK 1 STREAMS {t}x >",
            "SET {t}s text",
            "BLPOP {t}s 0",
            "BZPOPMIN {t}s 0",
            "XREAD BLOCK 0 STREAMS {t}s 0",
            "RPUSH {t}q a b c d e f",
            "BLPOP {t}q 0",
            "BRPOP {t}p {t}q 0",
            "BLMOVE {t}q {t}p LEFT LEFT 0",
            "BRPOPLPUSH {t}q {t}p 0",
            "BLMPOP 0 2 {t}none {t}q LEFT COUNT 10",
            "LRANGE {t}p 0 -1",
            "ZADD {t}z 1 a 2.5 b 3 c",
            "BZPOPMIN {t}z 0",
            "BZPOPMAX {t}none {t}z 0",
            "BZMPOP 0 1 {t}z MIN",
            "XADD {t}x 1-1 f v",
            "XREAD BLOCK 0 STREAMS {t}x 0",
            "XGROUP CREATE {t}x g 0",
            "XREADGROUP GROUP g c BLOCK 0 STREAMS {t}x >",
            "XREADGROUP GROUP g c BLOCK 1 STREAMS {t}x >",
            "XREADGROUP GROUP g c BLOCK 0 STREAMS {t}x 0",
        ] {
            let told = sides.each_mut().map(|side| side.ask(line));
            assert_eq!(told[0], told[1], "{line}, RESP3 {resp3}");
        }
        for side in &mut sides {
            side.ask("DEL {t}s {t}p {t}x");
        }
    }
}

#[test]
fn those_who_wait_for_one_key_are_served_in_order() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &["probe_interval: off"]);
    let key = key_on(1, 3);
    let mut waiting: Vec<Client> = Vec::new();
    for number in 0..20 {
        let mut app = speaking(hotring.app(), number % 2 == 1);
        say(&mut app, &format!("BLPOP {key} 0"));
        waiting.push(app);
        await_blocked(&redis[1], waiting.len());
    }
    // They hold up nobody.
    let mut other = hotring.app();
    for n in 0..300 {
        assert_eq!(other.ask(&format!("SET key:{n}:value {n}")), "+OK\r\n");
    }
    assert_eq!(other.ask("MGET key:1:value key:2:value"), "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
    let values: Vec<String> = (10..20).map(|n| n.to_string()).collect();
    assert_eq!(other.ask(&format!("RPUSH {key} {}", values.join(" "))), ":10\r\n");
    for value in (20..30).map(|n| n.to_string()) {
        assert_eq!(redis[1].client().ask(&format!("RPUSH {key} {value}")), ":1\r\n");
    }
    for (app, value) in waiting.iter_mut().zip(10..) {
        assert_eq!(app.text(), format!("*2\r\n${}\r\n{key}\r\n$2\r\n{value}\r\n", key.len()));
    }
    assert_eq!(other.ask(&format!("LLEN {key}")), ":0\r\n");
    // Each had a connection, and they are used again.
    let before = redis[1].connections();
    for app in &mut waiting {
        assert!(app.ask(&format!("BLPOP {key} 0.001")).len() <= 5);
    }
    assert!(redis[1].connections() <= before && before <= 22, "{before}");
}

#[test]
fn what_an_app_that_left_waited_for_goes_to_others() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &["probe_interval: off"]);
    let key = key_on(2, 3);
    let marker = keys_on(2, 3, 2).remove(1);
    let behind = request(&format!("SET {marker} 1"));
    for (number, (behind, end)) in [&b""[..], &behind, &behind[..5]]
        .into_iter()
        .flat_map(|behind| (0..4).map(move |end| (behind, end)))
        .enumerate()
    {
        let mut leaver = speaking(hotring.app(), number % 2 == 1);
        let mut stays = hotring.app();
        if end == 3 {
            assert_eq!(leaver.ask(&format!("WATCH {key}")), "+OK\r\n");
        }
        say(&mut leaver, &format!("BLPOP {key} 0"));
        await_blocked(&redis[2], 1);
        leaver.send(behind);
        say(&mut stays, &format!("BRPOP {key} 0"));
        await_blocked(&redis[2], 2);
        match end {
            0 => {
                leaver.half_close();
                assert_eq!(leaver.rest(), b"", "nobody answers what never came");
            }
            1 => leaver.reset(),
            _ => drop(leaver),
        }
        await_blocked(&redis[2], 1);
        assert_eq!(redis[2].client().ask(&format!("RPUSH {key} {number}")), ":1\r\n");
        let text = number.to_string();
        assert_eq!(stays.text(), format!("*2\r\n${}\r\n{key}\r\n${}\r\n{text}\r\n", key.len(), text.len()));
        assert_eq!(stays.ask(&format!("EXISTS {key} {marker}")), ":0\r\n");
    }
    eventually("their connections are closed", || redis[2].connections() <= 3);
}

#[test]
fn the_pools_timeout_is_not_for_those_who_wait() {
    let (redis, at) = shards(1);
    let hotring = Hotring::over(&at, &["timeout: 3s", "probe_interval: off"]);
    let (mut one, mut other) = (hotring.app(), hotring.app());
    say(&mut other, "BLPOP q 0");
    let start = now();
    assert_eq!(one.ask("BLPOP none 4"), "*-1\r\n");
    assert!(start.elapsed() >= Duration::from_millis(3900), "{:?}", start.elapsed());
    await_blocked(&redis[0], 1);
    assert_eq!(one.ask("RPUSH q x"), ":1\r\n");
    assert_eq!(other.text(), "*2\r\n$1\r\nq\r\n$1\r\nx\r\n");
    // The same connections, in use for something that does not wait.
    assert_eq!(one.ask("MULTI"), "+OK\r\n");
    assert_eq!(one.ask("SET k 1"), "+QUEUED\r\n");
    redis[0].freeze();
    let told = one.ask("EXEC");
    redis[0].thaw();
    assert_eq!(told, "-ERR shard s0 timed out (no answer within the pool's timeout); the command may have run\r\n");
    eventually("it is back", || other.ask("GET none") == "$-1\r\n");
    assert_eq!(redis[0].connections(), 2, "no second one for a transaction, at no time");
}

#[test]
fn a_shard_that_dies_answers_those_who_wait() {
    let (mut redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let key = key_on(0, 3);
    for how in 0..4 {
        let mut app = hotring.app();
        eventually("the shard is back", || app.ask(&format!("EXISTS {key}")) == ":0\r\n");
        say(&mut app, &format!("BLPOP {key} 0"));
        say(&mut app, "ECHO behind");
        await_blocked(&redis[0], 1);
        let id = redis[0].client().ask("CLIENT LIST").lines().find_map(|line| {
            let id = line.split(' ').find_map(|field| field.strip_prefix("id="))?;
            line.contains("cmd=blpop").then(|| id.to_owned())
        });
        let id = id.unwrap();
        let expected = match how {
            0 => {
                assert_eq!(redis[0].client().ask(&format!("CLIENT KILL ID {id}")), ":1\r\n");
                "-ERR shard s0 was lost (closed by the server); the command may have run\r\n"
            }
            1 => {
                assert_eq!(redis[0].client().ask(&format!("CLIENT UNBLOCK {id}")), ":1\r\n");
                "*-1\r\n"
            }
            2 => {
                assert_eq!(redis[0].client().ask(&format!("CLIENT UNBLOCK {id} ERROR")), ":1\r\n");
                "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"
            }
            _ => {
                redis[0].kill();
                "-ERR shard s0 was lost (closed by the server); the command may have run\r\n"
            }
        };
        assert_eq!(app.text(), expected);
        assert_eq!(app.text(), "$6\r\nbehind\r\n");
    }
    // Down, it is told at once; back, it serves.
    let mut app = hotring.app();
    eventually("it is known", || app.ask(&format!("GET {key}")).contains("nothing was sent"));
    let told = app.ask(&format!("BLPOP {key} 0"));
    assert!(told.starts_with("-ERR shard s0 ") && told.contains("nothing was sent"), "{told}");
    redis[0].restart();
    eventually("it is back", || app.ask(&format!("RPUSH {key} x")).starts_with(':'));
    assert_eq!(app.ask(&format!("BLPOP {key} 0")), format!("*2\r\n${}\r\n{key}\r\n$1\r\nx\r\n", key.len()));
}

#[test]
fn keys_on_several_shards_are_refused_and_nobody_waits() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let (here, there) = (key_on(0, 3), key_on(1, 3));
    let mut app = hotring.app();
    for line in [
        format!("BLPOP {here} {there} 0"),
        format!("BRPOP {there} {here} 0"),
        format!("BLMOVE {here} {there} LEFT LEFT 0"),
        format!("BRPOPLPUSH {here} {there} 0"),
        format!("BLMPOP 0 2 {here} {there} LEFT"),
        format!("BZPOPMIN {here} {there} 0"),
        format!("BZMPOP 0 2 {here} {there} MIN"),
        format!("XREAD BLOCK 0 STREAMS {here} {there} $ $"),
        format!("XREADGROUP GROUP g c BLOCK 0 STREAMS {here} {there} > >"),
    ] {
        assert_eq!(app.ask(&line), CROSSED, "{line}");
        // Nor may a session that watches at one shard wait at another.
        assert_eq!(app.ask(&format!("WATCH {here}")), "+OK\r\n");
        assert_eq!(app.ask(&line), CROSSED, "{line}");
        assert_eq!(app.ask(&format!("BLPOP {there} 0")), CROSSED);
        assert_eq!(app.ask("UNWATCH"), "+OK\r\n");
    }
    assert!(redis.iter().all(|redis| redis.client().ask("INFO clients").contains("blocked_clients:0\r\n")));
}

#[test]
fn who_waits_in_a_database_is_woken_there() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let key = key_on(0, 3);
    for resp3 in [false, true] {
        let (mut one, mut other) = (speaking(hotring.app(), resp3), hotring.app());
        assert_eq!(one.ask("SELECT 5"), "+OK\r\n");
        say(&mut one, &format!("BLPOP {key} 0"));
        await_blocked(&redis[0], 1);
        assert_eq!(other.ask(&format!("RPUSH {key} zero")), ":1\r\n");
        assert_eq!(other.ask("SELECT 5"), "+OK\r\n");
        assert_eq!(other.ask(&format!("RPUSH {key} five")), ":1\r\n");
        assert_eq!(one.text(), format!("*2\r\n${}\r\n{key}\r\n$4\r\nfive\r\n", key.len()));
        assert_eq!(one.ask("SELECT 0"), "+OK\r\n");
        assert_eq!(one.ask(&format!("BLPOP {key} 0")), format!("*2\r\n${}\r\n{key}\r\n$4\r\nzero\r\n", key.len()));
    }
}

#[test]
fn every_element_arrives_once_though_apps_come_and_go() {
    const CONSUMERS: usize = 6;
    const EACH: usize = 60;
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let keys: Vec<String> = (0..3).map(|shard| key_on(shard, 3)).collect();
    let consumers: Vec<_> = (0..CONSUMERS)
        .map(|number| {
            let (address, key) = (hotring.address(0).to_owned(), keys[number % 3].clone());
            std::thread::spawn(move || {
                let mut got = Vec::new();
                let mut app = speaking(Client::connect(&address), number % 2 == 0);
                while got.len() < EACH {
                    if got.len() % 7 == 3 {
                        app = speaking(Client::connect(&address), number % 2 == 1);
                    }
                    // Two at once: the second waits for its turn.
                    let asked = 2.min(EACH - got.len());
                    (0..asked).for_each(|_| say(&mut app, &format!("BLPOP {key} 0")));
                    for _ in 0..asked {
                        got.push(app.text().split("\r\n").nth(4).unwrap().to_owned());
                    }
                }
                got
            })
        })
        .collect();
    let mut producer = hotring.app();
    for n in 0..CONSUMERS * EACH {
        assert!(producer.ask(&format!("RPUSH {} {n}", keys[n % 3])).starts_with(':'));
    }
    let mut all = BTreeSet::new();
    for consumer in consumers {
        for value in consumer.join().unwrap() {
            assert!(all.insert(value.clone()), "{value} came twice");
        }
    }
    assert_eq!(all.len(), CONSUMERS * EACH);
    for (redis, key) in redis.iter().zip(&keys) {
        assert_eq!(redis.client().ask(&format!("EXISTS {key}")), ":0\r\n");
    }
}

#[test]
fn no_more_wait_than_may() {
    let (redis, at) = shards(1);
    let hotring = Hotring::over(&at, &["dedicated_connections: 2"]);
    let mut apps: Vec<Client> = (0..3).map(|_| hotring.app()).collect();
    for (app, blocked) in apps.iter_mut().zip(1..=2) {
        say(app, "BLPOP q 0");
        await_blocked(&redis[0], blocked);
    }
    let exhausted = "-ERR all 2 dedicated connections to shard s0 are in use; nothing was sent\r\n";
    assert_eq!(apps[2].ask("BLPOP q 0"), exhausted);
    assert_eq!(apps[2].ask("WATCH q"), exhausted);
    assert_eq!(apps[2].ask("RPUSH q x"), ":1\r\n", "others go on");
    assert_eq!(apps[0].text(), "*2\r\n$1\r\nq\r\n$1\r\nx\r\n");
    say(&mut apps[2], "BLPOP q 0");
    await_blocked(&redis[0], 2);
    // One that leaves makes room.
    drop(apps.remove(2));
    await_blocked(&redis[0], 1);
    say(&mut apps[0], "BLPOP q 0");
    await_blocked(&redis[0], 2);
    assert_eq!(redis[0].client().ask("RPUSH q a b"), ":2\r\n");
    assert_eq!([apps[1].text(), apps[0].text()], ["a", "b"].map(|value| format!("*2\r\n$1\r\nq\r\n$1\r\n{value}\r\n")));
}

#[test]
fn hotring_ends_without_those_who_wait() {
    let (redis, at) = shards(1);
    let hotring = Hotring::over(&at, &["^drain: {timeout: 1m}"]);
    let mut app = hotring.app();
    say(&mut app, "BLPOP q 0");
    await_blocked(&redis[0], 1);
    let start = now();
    hotring.stop().unwrap();
    assert!(start.elapsed() < FOREVER / 2, "{:?}", start.elapsed());
    assert_eq!(app.rest(), b"");
    assert_eq!(redis[0].client().ask("RPUSH q x"), ":1\r\n");
    assert_eq!(redis[0].client().ask("LLEN q"), ":1\r\n", "nothing is given to who is gone");
}

#[test]
fn who_leaves_is_seen_to_leave_however_much_was_asked_behind() {
    let (redis, at) = shards(1);
    let hotring = Hotring::over(&at, &[]);
    for length in [20_000, 60_000, 150_000] {
        let mut app = hotring.app();
        say(&mut app, "BLPOP q 0");
        app.send(&wire(&["ECHO", &"x".repeat(length)]));
        app.send(&wire(&["ECHO", &"x".repeat(length)]));
        await_blocked(&redis[0], 1);
        drop(app);
        await_blocked(&redis[0], 0);
    }
    assert_eq!(hotring.app().ask("RPUSH q element"), ":1\r\n");
    assert_eq!(hotring.app().ask("LLEN q"), ":1\r\n");
}

#[test]
fn hotring_ends_without_uploads_that_stand_still() {
    let (redis, at) = shards(1);
    let hotring = Hotring::over(&at, &["^drain: {timeout: 1m}"]);
    let mut app = hotring.app();
    app.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3000000\r\n");
    app.send(&vec![b'x'; 2_000_000]);
    eventually("it is on its way", || redis[0].connections() == 1);
    let start = now();
    hotring.stop().unwrap();
    assert!(start.elapsed() < FOREVER / 2, "{:?}", start.elapsed());
}
