//! What is asked for in other ways than by one GET: pipelines, MGET, transactions, WATCH.

use super::*;

#[test]
fn a_hot_key_is_answered_from_memory_and_its_server_is_spared() {
    let s = Stand::new();
    let mut app = s.app();
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    s.warm(&mut app, "k", "v");
    let (calls, hits) = (s.redis.calls("get"), s.hotring.metric(HITS));
    for _ in 0..1000 {
        assert_eq!(app.ask("GET k"), "$1\r\nv\r\n");
    }
    assert!(s.redis.calls("get") - calls < 10, "{} of 1000 came", s.redis.calls("get") - calls);
    eventually("they are counted", || s.hotring.metric(HITS) - hits > 990.0);
}

#[test]
fn a_get_pipelined_behind_a_set_sees_it() {
    let s = Stand::new();
    let (mut app, mut other) = (s.app(), s.app());
    assert_eq!(app.ask("SET k 0"), "+OK\r\n");
    for round in 0..20 {
        s.warm(&mut other, "k", &(3 * round).to_string());
        let set = |value: u32| wire(&["SET", "k", &value.to_string()]);
        let (first, second, third) = (3 * round + 1, 3 * round + 2, 3 * round + 3);
        let get = wire(&["GET", "k"]);
        app.send(&[&get, &set(first), &get, &get, &set(second), &set(third), &get].map(|bytes| &bytes[..]).concat());
        let replies: String = (0..7).map(|_| app.text()).collect();
        let (before, first, third) =
            (bulk(&(3 * round).to_string()), bulk(&first.to_string()), bulk(&third.to_string()));
        assert_eq!(replies, format!("{before}+OK\r\n{first}{first}+OK\r\n+OK\r\n{third}"));
        assert_eq!(other.ask("GET k"), third);
    }
}

#[test]
fn replies_from_memory_keep_their_place_among_others() {
    let (redis, at) = shards(3);
    let hotring = Hotring::with_admin(&pool(&at, &[NEAR]));
    let (hot, cold) = (key_on(0, 3), key_on(1, 3));
    let mut app = hotring.app();
    assert_eq!([app.ask(&format!("SET {hot} hot")), app.ask(&format!("SET {cold} cold"))], ["+OK\r\n", "+OK\r\n"]);
    warm(&mut app, &redis[0], &hot, "$3\r\nhot\r\n");
    let requests = [&["GET", &cold][..], &["GET", &hot], &["PING"], &["GET", &hot], &["GET", &cold], &["GET", &hot]];
    app.send(&requests.map(wire).concat());
    let replies: Vec<String> = requests.iter().map(|_| app.text()).collect();
    assert_eq!(replies.concat(), "$4\r\ncold\r\n$3\r\nhot\r\n+PONG\r\n$3\r\nhot\r\n$4\r\ncold\r\n$3\r\nhot\r\n");
    // Inline, and with replies that are not wanted.
    app.send(format!("GET {hot}\r\n").as_bytes());
    assert_eq!(app.text(), "$3\r\nhot\r\n");
    app.send(&[wire(&["CLIENT", "REPLY", "SKIP"]), wire(&["GET", &hot]), wire(&["PING", "next"])].concat());
    assert_eq!(app.text(), "$4\r\nnext\r\n");
}

#[test]
fn mget_of_a_hot_key_and_cold_ones_has_each_ones_own() {
    let (redis, at) = shards(3);
    let hotring = Hotring::with_admin(&pool(&at, &[NEAR]));
    let (hot, cold) = (key_on(0, 3), [key_on(1, 3), key_on(2, 3)]);
    let (mut app, mut other) = (hotring.app(), hotring.app());
    for key in [&hot, &cold[0], &cold[1]] {
        assert_eq!(app.ask(&format!("SET {key} {key}:0")), "+OK\r\n");
    }
    for round in 0..10 {
        warm(&mut app, &redis[0], &hot, &bulk(&format!("{hot}:{round}")));
        let all = format!("MGET {} {hot} {} {hot}", cold[0], cold[1]);
        let wanted = |round: u32| {
            let [hot, first, second] = [&hot, &cold[0], &cold[1]].map(|key| bulk(&format!("{key}:{round}")));
            format!("*4\r\n{first}{hot}{second}{hot}")
        };
        assert_eq!(app.ask(&all), wanted(round));
        let next = round + 1;
        let set = format!("MSET {hot} {hot}:{next} {} {}:{next} {} {}:{next}", cold[0], cold[0], cold[1], cold[1]);
        assert_eq!(other.ask(&set), "+OK\r\n");
        assert_eq!(app.ask(&format!("GET {hot}")), bulk(&format!("{hot}:{next}")), "written by parts of an MSET");
        assert_eq!(app.ask(&all), wanted(next));
    }
    // And gone by parts of a DEL.
    warm(&mut app, &redis[0], &hot, &bulk(&format!("{hot}:10")));
    assert_eq!(other.ask(&format!("DEL {} {hot} {}", cold[0], cold[1])), ":3\r\n");
    assert_eq!(app.ask(&format!("GET {hot}")), "$-1\r\n");
}

/// Whether an MGET reaches the servers at all.
fn mget_is_near(app: &mut Client, redis: &[Redis], words: &str, reply: &str) -> bool {
    let calls = || redis.iter().map(|redis| redis.calls("mget")).sum::<u64>();
    let before = calls();
    assert_eq!(app.ask(words), reply, "{words}");
    calls() == before
}

#[test]
fn mget_from_memory_alone_is_told_in_order_and_in_each_protocol() {
    let (redis, at) = shards(2);
    let hotring = Hotring::with_admin(&pool(&at, &[NEAR]));
    let (mut app, mut three, mut other) = (hotring.app(), hotring.app(), hotring.app());
    assert!(three.ask("HELLO 3").starts_with('%'));
    let (a, b, absent) = (key_on(0, 2), key_on(1, 2), "absent");
    for round in 0..5 {
        assert_eq!(
            [other.ask(&format!("SET {a} a{round}")), other.ask(&format!("SET {b} b{round}"))],
            ["+OK\r\n", "+OK\r\n"]
        );
        warm(&mut app, &redis[0], &a, &bulk(&format!("a{round}")));
        warm(&mut app, &redis[1], &b, &bulk(&format!("b{round}")));
        warm(&mut app, &redis[home(2, absent.as_bytes())], absent, "$-1\r\n");
        let words = format!("MGET {b} {absent} {a} {a} {absent} {b}");
        let (at_a, at_b) = (bulk(&format!("a{round}")), bulk(&format!("b{round}")));
        let reply = |null: &str| format!("*6\r\n{at_b}{null}{at_a}{at_a}{null}{at_b}");
        assert!(mget_is_near(&mut app, &redis, &words, &reply("$-1\r\n")));
        assert!(mget_is_near(&mut three, &redis, &words, &reply("_\r\n")));
        assert!(mget_is_near(&mut app, &redis, &format!("MGET {a}"), &format!("*1\r\n{at_a}")));
        // In one go with what changes it, and with what comes from elsewhere before and behind.
        let next = format!("n{round}");
        let set = wire(&["SET", &a, &next]);
        let mget = wire(&["MGET", &a, &b]);
        app.send(&[&wire(&["GET", "cold"]), &mget, &set, &mget, &wire(&["PING"])].map(|bytes| &bytes[..]).concat());
        let replies: String = (0..5).map(|_| app.text()).collect();
        let next = bulk(&next);
        assert_eq!(replies, format!("$-1\r\n*2\r\n{at_a}{at_b}+OK\r\n*2\r\n{next}{at_b}+PONG\r\n"));
        assert_eq!(three.ask(&format!("MGET {a} {b}")), format!("*2\r\n{next}{at_b}"));
    }
    // Another database, a transaction, a watch.
    warm(&mut app, &redis[1], &b, "$2\r\nb4\r\n");
    assert_eq!(three.ask("SELECT 1"), "+OK\r\n");
    assert_eq!(three.ask(&format!("MGET {b} {b}")), "*2\r\n_\r\n_\r\n");
    assert_eq!([app.ask("MULTI"), app.ask(&format!("MGET {b} {b}"))], ["+OK\r\n", "+QUEUED\r\n"]);
    assert_eq!(app.ask("EXEC"), "*1\r\n*2\r\n$2\r\nb4\r\n$2\r\nb4\r\n");
}

#[test]
fn mget_of_a_key_of_another_type_tells_of_nothing_there() {
    let s = Stand::new();
    let (mut app, mut other) = (s.app(), s.app());
    assert_eq!(app.ask("RPUSH k 1"), ":1\r\n");
    for _ in 0..20 {
        // To GET it is an error, to MGET it is nothing: neither may be taken for the other's.
        assert_eq!(app.ask("MGET k k"), "*2\r\n$-1\r\n$-1\r\n");
        assert!(app.ask("GET k").starts_with("-WRONGTYPE"));
    }
    assert_eq!(other.ask("DEL k"), ":1\r\n");
    assert_eq!([app.ask("MGET k"), app.ask("GET k")], ["*1\r\n$-1\r\n", "$-1\r\n"]);
}

#[test]
fn a_hot_get_within_multi_is_carried_out_there() {
    let s = Stand::new();
    let (mut app, mut other) = (s.app(), s.app());
    assert_eq!(app.ask("SET k 1"), "+OK\r\n");
    s.warm(&mut app, "k", "1");
    assert_eq!(app.ask("MULTI"), "+OK\r\n");
    for words in ["GET k", "SET k 2", "GET k"] {
        assert_eq!(app.ask(words), "+QUEUED\r\n");
    }
    assert_eq!(other.ask("GET k"), "$1\r\n1\r\n", "nothing has happened yet");
    assert_eq!(app.ask("EXEC"), "*3\r\n$1\r\n1\r\n+OK\r\n$1\r\n2\r\n");
    assert_eq!([other.ask("GET k"), app.ask("GET k")], ["$1\r\n2\r\n", "$1\r\n2\r\n"]);
    // In one go, and given up.
    s.warm(&mut app, "k", "2");
    let words = ["GET k", "MULTI", "INCR k", "EXEC", "GET k", "MULTI", "INCR k", "DISCARD", "GET k"];
    app.send(&words.map(|words| wire(&words.split(' ').collect::<Vec<_>>())).concat());
    let replies: String = words.iter().map(|_| app.text()).collect();
    let first = "$1\r\n2\r\n+OK\r\n+QUEUED\r\n*1\r\n:3\r\n$1\r\n3\r\n";
    assert_eq!(replies, format!("{first}+OK\r\n+QUEUED\r\n+OK\r\n$1\r\n3\r\n"));
    assert_eq!(other.ask("GET k"), "$1\r\n3\r\n");
}

/// Counts under WATCH with what `read` says, while somebody else counts, too: the news of that is on its way then.
fn count_under_watch(read: &str) {
    let s = Stand::new();
    let (mut app, mut direct) = (s.app(), s.redis.client());
    assert_eq!(app.ask("SET k 0"), "+OK\r\n");
    let mut wanted = 0;
    for round in 0..50 {
        s.warm(&mut app, "k", &wanted.to_string());
        direct.send(&wire(&["INCR", "k"]));
        assert_eq!(app.ask("WATCH k"), "+OK\r\n");
        let told = app.ask(read);
        let told: u32 = told.trim_end().rsplit("\r\n").next().unwrap().parse().unwrap();
        assert_eq!(app.ask("MULTI"), "+OK\r\n");
        assert_eq!(app.ask(&format!("SET k {}", told + 1)), "+QUEUED\r\n");
        let done = app.ask("EXEC") == "*1\r\n+OK\r\n";
        assert!(direct.text().starts_with(':'));
        wanted += 1 + u32::from(done);
        assert_eq!(direct.ask("GET k"), bulk(&wanted.to_string()), "round {round}: a count was lost");
        comes(&mut app, "k", &bulk(&wanted.to_string()));
    }
}

#[test]
fn what_get_reads_under_watch_is_not_older_than_the_watch() {
    count_under_watch("GET k");
}

#[test]
fn what_mget_reads_under_watch_is_not_older_than_the_watch() {
    count_under_watch("MGET k");
}

#[test]
fn nothing_is_answered_from_memory_under_watch() {
    let s = Stand::new();
    let mut app = s.app();
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    for (read, reply) in
        [("GET k", "$1\r\nv\r\n"), ("MGET k", "*1\r\n$1\r\nv\r\n"), ("MGET k k", "*2\r\n$1\r\nv\r\n$1\r\nv\r\n")]
    {
        s.warm(&mut app, "k", "v");
        assert_eq!(app.ask("WATCH k"), "+OK\r\n");
        let calls = || s.redis.calls("get") + s.redis.calls("mget");
        let before = calls();
        assert_eq!(app.ask(read), reply);
        assert_eq!(calls(), before + 1, "{read}");
        assert_eq!(app.ask("UNWATCH"), "+OK\r\n");
    }
}
