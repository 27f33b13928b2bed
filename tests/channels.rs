//! Publish and subscribe: one subscription at a shard serves all apps, every message comes once, and nothing comes before the
//! app has been told that it is subscribed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{Client, FOREVER, Fake, Hotring, Redis, eventually, home, key_on, keys_on, now, pool, shards, wire};

/// What an app is told of one message.
fn message(channel: &str, text: &str) -> String {
    format!("*3\r\n$7\r\nmessage\r\n${}\r\n{channel}\r\n${}\r\n{text}\r\n", channel.len(), text.len())
}

fn told(word: &str, name: &str, count: usize) -> String {
    format!("*3\r\n${}\r\n{word}\r\n${}\r\n{name}\r\n:{count}\r\n", word.len(), name.len())
}

/// Names for channels, one at each of three shards.
fn channels() -> [String; 3] {
    [0, 1, 2].map(|shard| key_on(shard, 3))
}

/// Subscribers of a channel as a server counts them.
fn heard_at(redis: &Redis, channel: &str) -> String {
    redis.client().ask(&format!("PUBSUB NUMSUB {channel}"))
}

#[test]
fn every_subscriber_gets_every_message_once_in_order() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let [a, b, c] = channels();
    let mut apps: Vec<Client> = (0..20).map(|_| hotring.app()).collect();
    for app in &mut apps {
        app.send(&wire(&["SUBSCRIBE", &a, &b, &c]));
        for (count, name) in [(1, &a), (2, &b), (3, &c)] {
            assert_eq!(app.text(), told("subscribe", name, count));
        }
    }
    // Twenty apps, one subscription at the channel's home, none elsewhere.
    for (number, channel) in [&a, &b, &c].into_iter().enumerate() {
        for (shard, redis) in redis.iter().enumerate() {
            let count = usize::from(shard == number);
            assert_eq!(heard_at(redis, channel), format!("*2\r\n${}\r\n{channel}\r\n:{count}\r\n", channel.len()));
        }
    }
    let mut publisher = hotring.app();
    for number in 0..100 {
        for channel in [&a, &b, &c] {
            assert_eq!(publisher.ask(&format!("PUBLISH {channel} {number}")), ":1\r\n");
        }
    }
    for app in &mut apps {
        let mut next = [0; 3];
        for _ in 0..300 {
            let said = app.text();
            let at = [&a, &b, &c]
                .iter()
                .position(|channel| said == message(channel, &next_of(&next, channel, [&a, &b, &c])));
            next[at.unwrap_or_else(|| panic!("{said} after {next:?}"))] += 1;
        }
        assert_eq!(next, [100; 3]);
    }
}

fn next_of(next: &[usize; 3], channel: &str, all: [&String; 3]) -> String {
    next[all.iter().position(|one| *one == channel).unwrap()].to_string()
}

#[test]
fn patterns_are_heard_at_every_shard_and_a_message_comes_once() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let (mut app, mut other, mut publisher) = (hotring.app(), hotring.app(), hotring.app());
    assert_eq!(app.ask("PSUBSCRIBE *"), told("psubscribe", "*", 1));
    let [a, b, c] = channels();
    assert_eq!(app.ask(&format!("SUBSCRIBE {a}")), told("subscribe", &a, 2));
    assert_eq!(other.ask("PSUBSCRIBE no*match"), told("psubscribe", "no*match", 1));
    for channel in [&a, &b, &c] {
        publisher.ask(&format!("PUBLISH {channel} x"));
    }
    let mut said: Vec<String> = (0..4).map(|_| app.text()).collect();
    let by_pattern =
        |channel: &str| format!("*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n${}\r\n{channel}\r\n$1\r\nx\r\n", channel.len());
    let mut wanted = vec![message(&a, "x"), by_pattern(&a), by_pattern(&b), by_pattern(&c)];
    said.sort();
    wanted.sort();
    assert_eq!(said, wanted);
    assert_eq!(other.ask("PING"), "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
}

#[test]
fn a_listening_app_of_resp2_may_do_little_else_and_one_of_resp3_all() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let (mut two, mut three, mut publisher) = (hotring.app(), hotring.app(), hotring.app());
    assert_eq!(two.ask("SUBSCRIBE c"), told("subscribe", "c", 1));
    let only = "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n";
    assert_eq!(two.ask("GET x"), format!("-ERR Can't execute 'get': {only}"));
    assert_eq!(two.ask("MULTI"), format!("-ERR Can't execute 'multi': {only}"));
    assert_eq!(two.ask("PING hey"), "*2\r\n$4\r\npong\r\n$3\r\nhey\r\n");
    assert!(three.ask("HELLO 3").starts_with("%7\r\n"));
    assert_eq!(three.ask("SUBSCRIBE c"), told("subscribe", "c", 1).replacen('*', ">", 1));
    assert_eq!(three.ask("SET x 1"), "+OK\r\n");
    assert_eq!(three.ask("PING"), "+PONG\r\n");
    publisher.ask("PUBLISH c m");
    assert_eq!(two.text(), message("c", "m"));
    assert_eq!(three.text(), message("c", "m").replacen('*', ">", 1));
    // One that listens and publishes gets both, each whole.
    three.send(&wire(&["PUBLISH", "c", "own"]));
    let mut said = [three.text(), three.text()];
    said.sort();
    assert_eq!(said, [":1\r\n".to_owned(), message("c", "own").replacen('*', ">", 1)]);
    assert_eq!(two.text(), message("c", "own"));
    assert_eq!(two.ask("UNSUBSCRIBE"), told("unsubscribe", "c", 0));
    assert_eq!(two.ask("GET x"), "$1\r\n1\r\n");
    assert_eq!(two.ask("UNSUBSCRIBE"), "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n");
    assert_eq!(two.ask("SUBSCRIBE c"), told("subscribe", "c", 1));
    assert_eq!(two.ask("RESET"), "+RESET\r\n");
    assert_eq!(two.ask("GET x"), "$1\r\n1\r\n");
}

#[test]
fn what_is_asked_before_subscribing_is_answered_before_any_message() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut publisher = hotring.app();
    for round in 0..50 {
        let mut app = hotring.app();
        let pipeline: Vec<u8> =
            [wire(&["SET", "k", "v"]), wire(&["GET", "k"]), wire(&["SUBSCRIBE", "c"]), wire(&["PING"])].concat();
        app.send(&pipeline);
        publisher.ask(&format!("PUBLISH c {round}"));
        assert_eq!([app.text(), app.text()], ["+OK\r\n", "$1\r\nv\r\n"]);
        assert_eq!(app.text(), told("subscribe", "c", 1));
        publisher.ask("PUBLISH c last");
        let pong = "*2\r\n$4\r\npong\r\n$0\r\n\r\n";
        let said: Vec<String> =
            std::iter::repeat_with(|| app.text()).take_while(|said| *said != message("c", "last")).collect();
        assert!(said.iter().all(|said| said == pong || *said == message("c", &round.to_string())), "{said:?}");
    }
}

#[test]
fn nobody_listens_at_a_shard_when_the_last_app_has_gone() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let channel = key_on(1, 3);
    let none = format!("*2\r\n${}\r\n{channel}\r\n:0\r\n", channel.len());
    let (mut one, mut other) = (hotring.app(), hotring.app());
    for app in [&mut one, &mut other] {
        app.ask(&format!("SUBSCRIBE {channel}"));
        app.ask("PSUBSCRIBE p*");
    }
    drop(one);
    assert_ne!(heard_at(&redis[1], &channel), none);
    assert_eq!(redis[0].client().ask("PUBSUB NUMPAT"), ":1\r\n");
    drop(other);
    eventually("the subscriptions end", || {
        heard_at(&redis[1], &channel) == none
            && redis.iter().all(|redis| redis.client().ask("PUBSUB NUMPAT") == ":0\r\n")
    });
}

#[test]
fn subscriptions_outlive_their_shard() {
    let (mut redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let [kept, other, _] = channels();
    let (mut app, mut publisher) = (hotring.app(), hotring.app());
    app.ask(&format!("SUBSCRIBE {kept}"));
    app.ask(&format!("SUBSCRIBE {other}"));
    app.ask("PSUBSCRIBE news.*");
    redis[0].kill();
    publisher.ask(&format!("PUBLISH {other} still"));
    assert_eq!(app.text(), message(&other, "still"));
    // What cannot be listened to is refused, and said so.
    let mut late = hotring.app();
    eventually("the loss is known", || late.ask(&format!("SUBSCRIBE {kept}")).starts_with("-ERR shard s0 "));
    assert_eq!(late.ask("PING"), "+PONG\r\n");
    redis[0].restart();
    let both = || {
        let client = &mut redis[0].client();
        client.ask(&format!("PUBSUB NUMSUB {kept}")).ends_with(":1\r\n") && client.ask("PUBSUB NUMPAT") == ":1\r\n"
    };
    eventually("all is subscribed again", both);
    eventually("the shard takes requests", || publisher.ask(&format!("PUBLISH {kept} back")) == ":1\r\n");
    assert_eq!(app.text(), message(&kept, "back"));
    assert_eq!(late.ask(&format!("SUBSCRIBE {kept}")), told("subscribe", &kept, 1));
}

#[test]
fn servers_tell_of_their_keys_wherever_they_are() {
    let (redis, at) = shards(3);
    redis.iter().for_each(|redis| assert_eq!(redis.client().ask("CONFIG SET notify-keyspace-events KEA"), "+OK\r\n"));
    let hotring = Hotring::over(&at, &[]);
    let (mut app, mut writer) = (hotring.app(), hotring.app());
    assert_eq!(app.ask("SUBSCRIBE __keyevent@0__:set"), told("subscribe", "__keyevent@0__:set", 1));
    for key in &channels() {
        assert_eq!(writer.ask(&format!("SET {key} v")), "+OK\r\n");
        assert_eq!(app.text(), message("__keyevent@0__:set", key));
    }
}

#[test]
fn sharded_channels_are_counted_by_themselves() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let (mut app, mut publisher) = (hotring.app(), hotring.app());
    assert_eq!(app.ask("SUBSCRIBE c"), told("subscribe", "c", 1));
    assert_eq!(app.ask("SSUBSCRIBE c"), told("ssubscribe", "c", 1));
    assert_eq!(publisher.ask("SPUBLISH c m"), ":1\r\n");
    assert_eq!(app.text(), message("c", "m").replacen("$7\r\nmessage", "$8\r\nsmessage", 1));
    assert_eq!(app.ask("SUNSUBSCRIBE"), told("sunsubscribe", "c", 0));
    publisher.ask("PUBLISH c m");
    assert_eq!(app.text(), message("c", "m"));
}

#[test]
fn an_app_that_does_not_read_is_ended_and_holds_up_nobody() {
    let (_redis, at) = shards(1);
    let hotring = Hotring::with_admin(&pool(&at, &["max_output: 64kb"]));
    let (mut slow, mut app, mut publisher) = (hotring.app(), hotring.app(), hotring.app());
    assert_eq!(slow.ask("SUBSCRIBE c"), told("subscribe", "c", 1));
    assert_eq!(app.ask("SUBSCRIBE c"), told("subscribe", "c", 1));
    let text = "x".repeat(1_000_000);
    eventually("it is ended", || {
        publisher.ask(&format!("PUBLISH c {text}"));
        assert_eq!(app.text(), message("c", &text));
        hotring.metric("hotring_client_output_limit_kills_total{pool=\"main\"}") > 0.0
    });
    assert_eq!(app.ask("PING"), "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
}

#[test]
fn publishing_in_a_transaction_stays_on_its_shard() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let [a, b, _] = channels();
    assert_ne!(home(3, a.as_bytes()), home(3, b.as_bytes()));
    let (mut app, mut listener) = (hotring.app(), hotring.app());
    listener.ask(&format!("SUBSCRIBE {a}"));
    for words in ["MULTI".to_owned(), format!("SET {a} 1"), format!("PUBLISH {a} m")] {
        app.ask(&words);
    }
    assert_eq!(app.ask("EXEC"), "*2\r\n+OK\r\n:1\r\n");
    assert_eq!(listener.text(), message(&a, "m"));
    app.ask("MULTI");
    app.ask(&format!("SET {a} 2"));
    assert!(app.ask(&format!("PUBLISH {b} m")).starts_with("-CROSSSLOT"));
    assert!(app.ask("EXEC").starts_with("-EXECABORT"));
}

#[test]
fn what_is_heard_while_other_shards_have_not_answered_is_not_lost() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut publisher = hotring.app();
    for round in 0..100 {
        let mut app = hotring.app();
        let channel = format!("n:{round}");
        app.send(&[wire(&["SUBSCRIBE", &channel]), wire(&["PSUBSCRIBE", &format!("n:{round}*")])].concat());
        // As soon as a server counts both, both must bring it.
        let mut last = 0;
        while publisher.ask(&format!("PUBLISH {channel} {last}")) != ":2\r\n" {
            last += 1;
        }
        let end = format!("\r\n{last}\r\n");
        let mut ends = Vec::new();
        while ends.len() < 2 {
            ends.extend(Some(app.text()).filter(|said| said.ends_with(&end)));
        }
        assert!(ends.iter().any(|said| said.starts_with("*3\r\n$7\r\nmessage")), "{ends:?}");
        assert!(ends.iter().any(|said| said.starts_with("*4\r\n$8\r\npmessage")), "{ends:?}");
    }
}

#[test]
fn channels_go_with_the_ring_to_another_shard_and_back() {
    let (mut redis, at) = shards(2);
    let keys = ["auto_eject_hosts: true", "server_failure_limit: 1", "server_retry_timeout: 100ms"];
    let hotring = Hotring::over(&at, &keys);
    let (mut early, mut late, mut publisher) = (hotring.app(), hotring.app(), hotring.app());
    let [channel, other] = [key_on(1, 2), keys_on(1, 2, 2).remove(1)];
    assert_eq!(early.ask(&format!("SUBSCRIBE {channel}")), told("subscribe", &channel, 1));
    redis[1].kill();
    eventually("it is ejected", || publisher.ask(&format!("SET {channel} v")) == "+OK\r\n");
    eventually("it is heard elsewhere", || publisher.ask(&format!("PUBLISH {channel} first")) == ":1\r\n");
    assert_eq!(early.text(), message(&channel, "first"));
    for name in [&channel, &other] {
        let count = if name == &channel { 1 } else { 2 };
        assert_eq!(late.ask(&format!("SUBSCRIBE {name}")), told("subscribe", name, count));
    }
    assert_eq!(publisher.ask(&format!("PUBLISH {other} second")), ":1\r\n");
    assert_eq!(late.text(), message(&other, "second"));
    redis[1].restart();
    eventually("it is back in the ring", || publisher.ask(&format!("EXISTS {channel}")) == ":0\r\n");
    eventually("it is heard at home", || publisher.ask(&format!("PUBLISH {channel} third")) == ":1\r\n");
    assert_eq!((early.text(), late.text()), (message(&channel, "third"), message(&channel, "third")));
    eventually("so is the other", || publisher.ask(&format!("PUBLISH {other} fourth")) == ":1\r\n");
    assert_eq!(late.text(), message(&other, "fourth"));
    assert_eq!(redis[0].client().ask("PUBSUB CHANNELS"), "*0\r\n");
}

#[test]
fn a_channel_has_a_home_where_keys_have_none() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &["distribution: random"]);
    let (mut app, mut publisher) = (hotring.app(), hotring.app());
    assert_eq!(app.ask("SUBSCRIBE c"), told("subscribe", "c", 1));
    for number in 0..20 {
        assert_eq!(publisher.ask(&format!("PUBLISH c {number}")), ":1\r\n");
        assert_eq!(app.text(), message("c", &number.to_string()));
    }
}

#[test]
fn what_was_asked_for_with_a_channel_that_cannot_be_had_is_let_go() {
    let (tell, heard) = std::sync::mpsc::channel();
    let first = key_on(0, 2);
    let known = told("subscribe", &first, 1);
    let slow = Fake::start(move |visit| {
        visit.shake_hands();
        visit.request();
        visit.send(known.as_bytes());
        while let Some(request) = visit.request() {
            tell.send(String::from_utf8_lossy(&request[0]).into_owned()).unwrap();
        }
    });
    let broken = Fake::start(|visit| {
        visit.shake_hands();
        visit.request();
    });
    let hotring = Hotring::over(&[slow.address(), broken.address()], &[]);
    let mut app = hotring.app();
    assert_eq!(app.ask(&format!("SUBSCRIBE {first}")), told("subscribe", &first, 1));
    let said = app.ask(&format!("SUBSCRIBE {} {}", keys_on(0, 2, 2)[1], key_on(1, 2)));
    assert!(said.starts_with("-ERR shard s1 was lost"), "{said}");
    for word in ["subscribe", "unsubscribe"] {
        assert_eq!(heard.recv_timeout(FOREVER).unwrap(), word);
    }
}

#[test]
fn many_subscriptions_are_told_of_without_counting_them_all_each_time() {
    let (_redis, at) = shards(1);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let start = now();
    let names: Vec<String> = (0..80_000).map(|number| format!("channel:{number}")).collect();
    let request: Vec<&str> = std::iter::once("SUBSCRIBE").chain(names.iter().map(String::as_str)).collect();
    app.send(&wire(&request));
    for (number, name) in names.iter().enumerate() {
        assert_eq!(app.text(), told("subscribe", name, number + 1));
    }
    app.send(&wire(&["UNSUBSCRIBE"]));
    for left in (0..names.len()).rev() {
        assert!(app.text().ends_with(&format!("\r\n:{left}\r\n")));
    }
    // Where each counted all, it took minutes.
    assert!(start.elapsed() < FOREVER, "{:?}", start.elapsed());
}
