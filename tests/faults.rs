//! What breaks costs those who need it, at once and in words that say whether retrying is safe; and it heals by itself.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;
use support::{Client, FOREVER, Fake, Hotring, Redis, eventually, home, key_on, keys_on, now, shards, wire};

/// Sends a request whose reply will not come soon, and waits until the worker has read and sent it.
fn send_on(app: &mut Client, hotring: &Hotring, request: &[u8]) {
    app.send(request);
    // Taken up behind it, and answered when the pass that sent it is over.
    let mut other = hotring.app();
    for _ in 0..2 {
        assert_eq!(other.ask("PING"), "+PONG\r\n");
    }
}

#[test]
fn a_killed_shard_costs_its_own_keys_and_comes_back_by_itself() {
    let (mut redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let [a, b, c] = [0, 1, 2].map(|shard| key_on(shard, 3));
    assert_eq!(app.ask(&format!("MSET {a} 1 {b} 2 {c} 3")), "+OK\r\n");
    // With a request under way: it may have run.
    redis[1].freeze();
    let mut waiting = hotring.app();
    send_on(&mut waiting, &hotring, &wire(&["INCR", &b]));
    redis[1].kill();
    let said = waiting.text();
    let reasons = ["closed by the server", "connection reset", "broken pipe"];
    let texts = reasons.map(|reason| format!("-ERR shard s1 was lost ({reason}); the command may have run\r\n"));
    assert!(texts.contains(&said), "{said}");
    // From now on nothing is sent, and the answer comes at once.
    let down = |said: &str| {
        let cannot =
            said.starts_with("-ERR shard s1 is down (") || said.starts_with("-ERR shard s1 cannot be reached (");
        assert!(cannot && said.ends_with("); nothing was sent\r\n"), "{said}");
    };
    let start = now();
    for _ in 0..50 {
        down(&app.ask(&format!("SET {b} x")));
        down(&app.ask(&format!("MGET {a} {b} {c}")));
        down(&app.ask(&format!("MSET {a} x {b} x")));
        assert_eq!(app.ask(&format!("GET {a}")), "$1\r\n1\r\n");
        assert_eq!(app.ask(&format!("MGET {a} {c}")), "*2\r\n$1\r\n1\r\n$1\r\n3\r\n");
    }
    // `timeout` and `connect_timeout` are a minute: nobody has waited for that.
    assert!(start.elapsed() < FOREVER / 2);
    redis[1].restart();
    eventually("the shard is back", || app.ask(&format!("SET {b} again")) == "+OK\r\n");
    assert_eq!(app.ask(&format!("GET {b}")), "$5\r\nagain\r\n");
    assert_eq!(app.ask(&format!("MGET {a} {b}")), "*2\r\n$1\r\n1\r\n$5\r\nagain\r\n");
}

#[test]
fn a_shard_that_was_restarted_while_nobody_asked_costs_nobody_anything() {
    let (mut redis, at) = shards(2);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let (a, b) = (key_on(0, 2), key_on(1, 2));
    for _ in 0..5 {
        assert_eq!(app.ask(&format!("MSET {a} 1 {b} 2")), "+OK\r\n");
        redis[1].restart();
        // The end of the old connection is read before what comes now.
        assert_eq!(app.ask(&format!("GET {a}")), "$1\r\n1\r\n");
        assert_eq!(app.ask(&format!("GET {b}")), "$-1\r\n");
    }
}

#[test]
fn a_shard_that_stands_still_times_out_and_others_do_not() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &["timeout: 5s"]);
    let mut app = hotring.app();
    let [a, b, c] = [0, 1, 2].map(|shard| key_on(shard, 3));
    assert_eq!(app.ask(&format!("MSET {a} 1 {b} 2 {c} 3")), "+OK\r\n");
    redis[1].freeze();
    let mut waiting = hotring.app();
    let start = now();
    waiting.send(&[wire(&["GET", &b]), wire(&["INCR", &b]), wire(&["MGET", &a, &b])].concat());
    let text = "-ERR shard s1 timed out (no answer within the pool's timeout); the command may have run\r\n";
    let mut meanwhile = 0;
    std::thread::scope(|scope| {
        let late = scope.spawn(|| [waiting.text(), waiting.text(), waiting.text()]);
        while !late.is_finished() {
            assert_eq!(app.ask(&format!("GET {a}")), "$1\r\n1\r\n");
            assert_eq!(app.ask(&format!("GET {c}")), "$1\r\n3\r\n");
            meanwhile += 1;
        }
        assert_eq!(late.join().unwrap(), [text; 3]);
    });
    assert!(meanwhile >= 10, "the others were answered {meanwhile} times");
    assert!(start.elapsed() >= Duration::from_secs(5), "{:?}", start.elapsed());
    let start = now();
    let said = app.ask(&format!("GET {b}"));
    assert_eq!(said, "-ERR shard s1 is down (no answer within the pool's timeout); nothing was sent\r\n");
    assert!(start.elapsed() < Duration::from_secs(5), "refused at once");
    redis[1].thaw();
    // What the old connection would have answered goes to nobody; the INCR did run.
    eventually("the shard is back", || !app.ask(&format!("GET {b}")).starts_with('-'));
    assert_eq!(app.ask(&format!("GET {b}")), "$1\r\n3\r\n");
    assert_eq!(waiting.ask(&format!("GET {c}")), "$1\r\n3\r\n");
}

#[test]
fn a_reply_that_is_cut_is_never_passed_on() {
    for (part, number) in [("$10\r\nabc", 0), ("+O", 1), ("*2\r\n$1\r\na\r\n", 2), ("$40000\r\n", 3), ("", 4)] {
        let redis = Redis::start(&[]);
        let cutter = Fake::start(move |visit| {
            visit.shake_hands();
            if visit.number == 0 {
                visit.request().unwrap();
                visit.send(part.as_bytes());
                return;
            }
            while visit.request().is_some_and(|_| visit.send(b"$5\r\nwhole\r\n")) {}
        });
        let hotring = Hotring::over(&[redis.address(), cutter.address()], &[]);
        let mut app = hotring.app();
        let (a, b) = (key_on(0, 2), key_on(1, 2));
        let text = "-ERR shard s1 was lost (closed by the server); the command may have run\r\n";
        if number % 2 == 0 {
            assert_eq!(app.ask(&format!("GET {b}")), text, "{part:?}");
        } else {
            assert_eq!(app.ask(&format!("MGET {a} {b}")), text, "{part:?}");
        }
        eventually("the shard is back", || app.ask(&format!("GET {b}")) == "$5\r\nwhole\r\n");
        assert_eq!(app.ask(&format!("GET {a}")), "$-1\r\n");
    }
}

#[test]
fn what_is_no_reply_ends_the_connection_to_the_shard_only() {
    for garbage in ["HTTP/1.1 400 Bad Request\r\n\r\n", "$abc\r\n", "*-7\r\n", "\0\0\0\0", ":12x\r\n\r\n!"] {
        let redis = Redis::start(&[]);
        let liar = Fake::start(move |visit| {
            visit.shake_hands();
            while visit.request().is_some() {
                let reply = if visit.number == 0 { garbage } else { "$4\r\ntrue\r\n" };
                visit.send(reply.as_bytes());
            }
        });
        let hotring = Hotring::over(&[redis.address(), liar.address()], &[]);
        let mut app = hotring.app();
        let (a, b) = (key_on(0, 2), key_on(1, 2));
        let said = app.ask(&format!("GET {b}"));
        if garbage.starts_with(':') {
            // A line is passed on as it is; what follows is no reply to anybody.
            assert_eq!(said, ":12x\r\n");
        } else {
            let text = "-ERR shard s1 broke the protocol (it sent what is no reply); the command may have run\r\n";
            assert_eq!(said, text, "{garbage:?}");
        }
        eventually("the shard is back", || app.ask(&format!("GET {b}")) == "$4\r\ntrue\r\n");
        assert_eq!(app.ask(&format!("GET {a}")), "$-1\r\n");
    }
}

#[test]
fn a_reply_that_nobody_asked_for_reaches_nobody() {
    let liar = Fake::start(|visit| {
        visit.shake_hands();
        while let Some(request) = visit.request() {
            let key = &request[1];
            let mut reply = format!("${}\r\n", key.len()).into_bytes();
            reply.extend([key, &b"\r\n"[..]].concat());
            if visit.number < 3 {
                reply.extend(b"$5\r\nwrong\r\n");
            }
            visit.send(&reply);
        }
    });
    let hotring = Hotring::over(&[liar.address()], &["probe_interval: off"]);
    let mut app = hotring.app();
    let (mut right, mut n) = (0, 0);
    eventually("it stops lying", || {
        n += 1;
        let key = format!("key:{n}");
        match app.ask(&format!("GET {key}")) {
            said if said == format!("${}\r\n{key}\r\n", key.len()) => right += 1,
            said => assert!(said.starts_with("-ERR shard s0 "), "{said}"),
        }
        right >= 10
    });
    assert_eq!(liar.visits(), 4, "each lie cost a connection");
}

#[test]
fn a_server_that_answers_too_few_times_out() {
    let lazy = Fake::start(|visit| {
        visit.shake_hands();
        while let Some(request) = visit.request() {
            if request[1] != b"skip" && !visit.send(b"+OK\r\n") {
                return;
            }
        }
    });
    let hotring = Hotring::over(&[lazy.address()], &["timeout: 3s"]);
    let mut app = hotring.app();
    app.send(&[wire(&["GET", "a"]), wire(&["GET", "b"]), wire(&["GET", "skip"])].concat());
    assert_eq!((app.text(), app.text()), ("+OK\r\n".into(), "+OK\r\n".into()));
    let text = "-ERR shard s0 timed out (no answer within the pool's timeout); the command may have run\r\n";
    assert_eq!(app.text(), text);
    eventually("it is asked again", || app.ask("GET a") == "+OK\r\n");
}

#[test]
fn a_server_that_answers_byte_by_byte_is_waited_for() {
    let reply = "*300\r\n".to_owned() + &"$3\r\na\r\n\r\n".repeat(300);
    let slow = Fake::start({
        let reply = reply.clone();
        move |visit| {
            visit.shake_hands();
            while visit.request().is_some() {
                assert!(reply.bytes().all(|byte| visit.send(&[byte])));
            }
        }
    });
    let hotring = Hotring::over(&[slow.address()], &[]);
    let mut app = hotring.app();
    for _ in 0..3 {
        assert_eq!(app.ask("LRANGE list 0 -1"), reply);
    }
}

#[test]
fn a_server_that_does_not_shake_hands_is_not_reached() {
    for (reply, reason) in [
        ("", "no answer within connect_timeout"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "not a Redis server"),
        ("-LOADING Redis is loading the dataset in memory\r\n", "still loading its data"),
        ("-MASTERDOWN Link with MASTER is down\r\n", "a replica without its master"),
        ("-ERR max number of clients reached\r\n", "it has reached its maxclients"),
        ("-NOAUTH Authentication required.\r\n", "it wants a password"),
        ("-DENIED Redis is running in protected mode\r\n", "it refused the handshake"),
        ("+PONG\r\n+PONG\r\n", "not a Redis server"),
    ] {
        let silent = Fake::start(move |visit| {
            visit.request();
            visit.send(reply.as_bytes());
            visit.until_gone();
        });
        let hotring = match reply {
            "" => Hotring::over(&[silent.address()], &["connect_timeout: 200ms"]),
            _ => Hotring::over(&[silent.address()], &[]),
        };
        let mut app = hotring.app();
        assert_eq!(app.ask("SET k v"), format!("-ERR shard s0 cannot be reached ({reason}); nothing was sent\r\n"));
        let said = app.ask("SET k v");
        assert_eq!(said, format!("-ERR shard s0 is down ({reason}); nothing was sent\r\n"));
        eventually("it is tried again unasked", || hotring.app().ask("PING") == "+PONG\r\n" && silent.visits() > 2);
    }
}

#[test]
fn a_server_that_accepts_and_closes_is_not_reached() {
    let closing = Fake::start(|_| {});
    let hotring = Hotring::over(&[closing.address()], &[]);
    let said = hotring.app().ask("SET k v");
    let reasons = ["closed during the handshake", "connection reset", "broken pipe"];
    let texts = reasons.map(|reason| format!("-ERR shard s0 cannot be reached ({reason}); nothing was sent\r\n"));
    assert!(texts.contains(&said), "{said}");
}

#[test]
fn a_server_that_finishes_loading_is_used() {
    let loading = Fake::start(|visit| {
        visit.request();
        if visit.number < 3 {
            visit.send(b"-LOADING Redis is loading the dataset in memory\r\n");
            return;
        }
        visit.send(b"+PONG\r\n");
        while visit.request().is_some_and(|_| visit.send(b"+OK\r\n")) {}
    });
    let hotring = Hotring::over(&[loading.address()], &["probe_interval: off"]);
    let mut app = hotring.app();
    let said = app.ask("SET k v");
    assert_eq!(said, "-ERR shard s0 cannot be reached (still loading its data); nothing was sent\r\n");
    eventually("it has loaded", || app.ask("SET k v") == "+OK\r\n");
    assert_eq!(loading.visits(), 4);
}

#[test]
fn servers_that_are_not_there() {
    let redis = Redis::start(&[]);
    let nobody = support::Scratch::new();
    let [refused, unknown] =
        [format!("127.0.0.1:{}", support::free_port()), format!("{}.invalid:6379", "x".repeat(70))];
    let at = [redis.address().to_owned(), refused, nobody.file("nobody.sock"), unknown];
    let hotring = Hotring::over(&at, &["preconnect: true"]);
    let mut app = hotring.app();
    assert_eq!(app.ask(&format!("SET {} v", key_on(0, 4))), "+OK\r\n", "a proxy starts without all of its shards");
    let reasons = ["connection refused", "no such socket", "its name cannot be resolved"];
    for (shard, reason) in (1..).zip(reasons) {
        let said = app.ask(&format!("SET {} v", key_on(shard, 4)));
        let texts = ["cannot be reached", "is down"]
            .map(|what| format!("-ERR shard s{shard} {what} ({reason}); nothing was sent\r\n"));
        assert!(texts.contains(&said), "{said}");
    }
}

#[test]
fn an_ejected_shard_gives_its_keys_away_until_it_is_well_again() {
    let (mut redis, at) = shards(3);
    let keys = ["auto_eject_hosts: true", "server_failure_limit: 2", "server_retry_timeout: 200ms"];
    let hotring = Hotring::over(&at, &keys);
    let mut app = hotring.app();
    let mine = keys_on(1, 3, 200);
    let others = [keys_on(0, 3, 50), keys_on(2, 3, 50)].concat();
    for key in mine.iter().chain(&others) {
        assert_eq!(app.ask(&format!("SET {key} first")), "+OK\r\n");
    }
    redis[1].kill();
    eventually("it is ejected", || app.ask(&format!("SET {} second", mine[0])) == "+OK\r\n");
    // Its keys are spread over the others; theirs stay where they were.
    for key in &mine {
        assert_eq!(app.ask(&format!("SET {key} second")), "+OK\r\n");
    }
    let away = [0, 2].map(|shard| {
        mine.iter().filter(|key| redis[shard].client().ask(&format!("GET {key}")) == "$6\r\nsecond\r\n").count()
    });
    assert!(away[0] + away[1] == mine.len() && away.iter().all(|&n| n > 0), "{away:?}");
    for key in &others {
        assert_eq!(app.ask(&format!("GET {key}")), "$5\r\nfirst\r\n");
    }
    redis[1].restart();
    for key in &mine {
        assert_eq!(redis[1].client().ask(&format!("SET {key} third")), "+OK\r\n");
    }
    eventually("it is back in the ring", || app.ask(&format!("GET {}", mine[0])) == "$5\r\nthird\r\n");
    for key in &mine {
        assert_eq!(app.ask(&format!("GET {key}")), "$5\r\nthird\r\n");
    }
    for key in &others {
        assert_eq!(app.ask(&format!("GET {key}")), "$5\r\nfirst\r\n");
    }
    assert_eq!(home(3, mine[0].as_bytes()), 1);
}

#[test]
fn an_ejected_shard_stays_away_for_its_time() {
    let (mut redis, at) = shards(2);
    let keys = ["auto_eject_hosts: true", "server_failure_limit: 1", "server_retry_timeout: 1500ms"];
    let hotring = Hotring::over(&at, &keys);
    let mut app = hotring.app();
    let key = key_on(1, 2);
    assert_eq!(app.ask(&format!("SET {key} first")), "+OK\r\n");
    let start = now();
    redis[1].kill();
    eventually("it is ejected", || app.ask(&format!("SET {key} second")) == "+OK\r\n");
    redis[1].restart();
    assert_eq!(redis[1].client().ask(&format!("SET {key} third")), "+OK\r\n");
    eventually("it is back in the ring", || app.ask(&format!("GET {key}")) == "$5\r\nthird\r\n");
    assert!(start.elapsed() >= Duration::from_millis(1500), "{:?}", start.elapsed());
}

#[test]
fn when_all_shards_are_ejected_it_says_so() {
    let (mut redis, at) = shards(2);
    let keys = ["auto_eject_hosts: true", "server_failure_limit: 1", "server_retry_timeout: 100ms"];
    let hotring = Hotring::over(&at, &keys);
    let mut app = hotring.app();
    let (a, b) = (key_on(0, 2), key_on(1, 2));
    assert_eq!(app.ask(&format!("MSET {a} 1 {b} 2")), "+OK\r\n");
    redis.iter_mut().for_each(Redis::kill);
    let none = "-ERR no shard is left: all are ejected, or nobody has told yet which there are; nothing was sent\r\n";
    eventually("all are ejected", || app.ask(&format!("GET {a}")) == none);
    assert_eq!(app.ask(&format!("MGET {a} {b}")), none);
    assert_eq!(app.ask("PING"), "+PONG\r\n");
    redis.iter_mut().for_each(Redis::restart);
    // The one that comes back last is asked only when both are in the ring.
    let asked = |redis: &Redis| redis.calls("mset") > 0;
    eventually("all are back", || app.ask(&format!("MSET {a} 1 {b} 2")) == "+OK\r\n" && redis.iter().all(asked));
    assert_eq!(app.ask(&format!("MGET {a} {b}")), "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
}

#[test]
fn replies_for_an_app_that_left_go_to_nobody_else() {
    let (redis, at) = shards(2);
    let hotring = Hotring::over(&at, &["timeout: off"]);
    let (a, b) = (key_on(0, 2), key_on(1, 2));
    let mut app = hotring.app();
    assert_eq!(app.ask(&format!("MSET {a} 1 {b} right")), "+OK\r\n");
    redis[1].freeze();
    for round in 0..3 {
        let mut leaver = hotring.app();
        let mut requests: Vec<u8> = (0..1000).flat_map(|n| wire(&["ECHO", &n.to_string()])).collect();
        requests.extend((0..1000).flat_map(|_| wire(&["STRLEN", &b])));
        requests.extend(wire(&["MGET", &a, &b]));
        send_on(&mut leaver, &hotring, &requests);
        // Both kinds of leaving: what looks like half a close, and a crash.
        if round == 0 {
            drop(leaver)
        } else {
            leaver.reset()
        }
        // Its place is taken by the next session.
        let mut others: Vec<Client> = (0..10).map(|_| hotring.app()).collect();
        for other in &mut others {
            other.send(&[wire(&["GET", &b]), wire(&["GET", &a]), wire(&["MGET", &b, &a])].concat());
        }
        assert_eq!(app.ask(&format!("GET {a}")), "$1\r\n1\r\n");
        redis[1].thaw();
        for other in &mut others {
            assert_eq!(other.text(), "$5\r\nright\r\n");
            assert_eq!(other.text(), "$1\r\n1\r\n");
            assert_eq!(other.text(), "*2\r\n$5\r\nright\r\n$1\r\n1\r\n");
        }
        redis[1].freeze();
    }
}

#[test]
fn an_ejected_shard_comes_back_though_all_apps_speak_resp3() {
    let (mut redis, at) = shards(2);
    let keys = ["auto_eject_hosts: true", "server_failure_limit: 1", "server_retry_timeout: 100ms"];
    let hotring = Hotring::over(&at, &keys);
    let mut app = hotring.app();
    assert!(app.ask("HELLO 3").starts_with("%7\r\n"));
    let key = key_on(1, 2);
    assert_eq!(app.ask(&format!("SET {key} first")), "+OK\r\n");
    redis[1].kill();
    eventually("it is ejected", || app.ask(&format!("SET {key} second")) == "+OK\r\n");
    redis[1].restart();
    assert_eq!(redis[1].client().ask(&format!("SET {key} third")), "+OK\r\n");
    eventually("it is back in the ring", || app.ask(&format!("GET {key}")) == "$5\r\nthird\r\n");
}

#[test]
fn a_database_or_a_protocol_that_a_shard_has_not_is_no_reason_to_eject_it() {
    let old = Fake::start(|visit| {
        while let Some(request) = visit.request() {
            visit.send(match request[0].as_slice() {
                b"HELLO" => b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n",
                b"PING" => b"+PONG\r\n",
                _ => b"$3\r\nold\r\n",
            });
        }
    });
    let small = Redis::start(&["--databases", "2"]);
    let keys = ["auto_eject_hosts: true", "server_failure_limit: 1", "server_retry_timeout: 3600000"];
    for (address, asked) in [(small.address(), "SELECT 9"), (old.address(), "HELLO 3")] {
        let hotring = Hotring::over(&[address], &keys);
        let (mut app, mut other) = (hotring.app(), hotring.app());
        assert!(!app.ask(asked).starts_with('-'));
        let said = app.ask("GET k");
        assert!(said.starts_with("-ERR shard s0 cannot be reached (it "), "{said}");
        let said = other.ask("GET k");
        assert!(["$3\r\nold\r\n", "$-1\r\n"].contains(&said.as_str()), "{asked}: {said}");
    }
}

#[test]
fn what_a_shard_pushes_unasked_is_nobodys_reply() {
    let chatty = Fake::start(|visit| {
        while let Some(request) = visit.request() {
            let reply = match request[0].as_slice() {
                b"HELLO" => b"%1\r\n$5\r\nproto\r\n:3\r\n".to_vec(),
                b"PING" => b"+PONG\r\n".to_vec(),
                _ => {
                    let push = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n";
                    [push, wire(&request[1..]).strip_prefix(b"*1\r\n").unwrap_or_default(), push].concat()
                }
            };
            if !visit.send(&reply) {
                return;
            }
        }
    });
    let hotring = Hotring::over(&[chatty.address()], &["probe_interval: off"]);
    let (mut one, mut other) = (hotring.app(), hotring.app());
    for app in [&mut one, &mut other] {
        assert!(app.ask("HELLO 3").starts_with("%7\r\n"));
    }
    for number in 0..20 {
        one.send(&wire(&["GET", &format!("a{number}")]));
        other.send(&wire(&["GET", &format!("b{number}")]));
        let length = 1 + number.to_string().len();
        assert_eq!(one.text(), format!("${length}\r\na{number}\r\n"));
        assert_eq!(other.text(), format!("${length}\r\nb{number}\r\n"));
    }
    assert_eq!(chatty.visits(), 1);
}
