//! Connections that break, servers that tell nothing, reloads, workers, listeners.

use super::*;

#[test]
fn with_the_connections_to_the_server_goes_what_was_read_on_them() {
    let s = Stand::new();
    let (mut app, mut direct) = (s.app(), s.redis.client());
    assert_eq!(direct.ask("SET k 0"), "+OK\r\n");
    for round in 0..5 {
        s.warm(&mut app, "k", &round.to_string());
        // Nobody is told of this change: it comes behind the end of the connection.
        direct.send(&[wire(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]), wire(&["INCR", "k"])].concat());
        assert!(direct.text().starts_with(':'));
        assert_eq!(direct.text(), format!(":{}\r\n", round + 1));
        soon("the change is seen", || {
            let told = app.ask("GET k");
            let lost = told.starts_with('-');
            assert!(lost || told == bulk(&round.to_string()) || told == bulk(&(round + 1).to_string()), "{told}");
            told == bulk(&(round + 1).to_string())
        });
    }
    s.warm(&mut app, "k", "5");
}

#[test]
fn a_server_that_remembers_one_key_only_forgets_none_silently() {
    let s = Stand::with(&["--tracking-table-max-keys", "1"], &[NEAR]);
    let (mut app, mut direct) = (s.app(), s.redis.client());
    let keys: Vec<String> = (0..10).map(|number| format!("k{number}")).collect();
    for round in 0..20 {
        for key in &keys {
            assert_eq!(direct.ask(&format!("SET {key} {round}")), "+OK\r\n");
        }
        for key in &keys {
            comes(&mut app, key, &bulk(&round.to_string()));
        }
        for key in &keys {
            for _ in 0..20 {
                assert_eq!(app.ask(&format!("GET {key}")), bulk(&round.to_string()));
            }
        }
    }
}

#[test]
fn a_server_that_may_not_tell_of_changes_makes_answers_old_for_no_longer_than_allowed() {
    for denied in ["-client|tracking", "-client|caching"] {
        let user = ["--user", "default", "on", "nopass", "~*", "&*", "+@all", denied];
        let s = Stand::with(&user, &["hot_keys: {reads: near, max_staleness: 300ms}"]);
        let (mut app, mut other, mut direct) = (s.app(), s.app(), s.redis.client());
        assert_eq!(direct.ask("SET k 0"), "+OK\r\n");
        for round in 0..2 {
            let begun = now();
            while begun.elapsed() < Duration::from_millis(500) {
                app.send(&wire(&["GET", "k"]).repeat(50));
                for _ in 0..50 {
                    assert_eq!(app.text(), bulk(&(2 * round).to_string()));
                }
            }
            assert_eq!(direct.ask("INCR k"), format!(":{}\r\n", 2 * round + 1));
            let written = now();
            loop {
                let asked = written.elapsed();
                let told = app.ask("GET k");
                if asked > Duration::from_millis(302) {
                    assert_eq!(told, bulk(&(2 * round + 1).to_string()), "asked {asked:?} after it was written");
                    break;
                }
            }
            // What is written through here is seen at once.
            assert_eq!(other.ask("INCR k"), format!(":{}\r\n", 2 * round + 2));
            assert_eq!(app.ask("GET k"), bulk(&(2 * round + 2).to_string()));
        }
        if denied == "-client|tracking" {
            let refused = "hotring_near_untracked_backends{pool=\"main\"}";
            eventually("it is told", || s.hotring.metric(refused) == 1.0);
        }
    }
}

#[test]
fn a_reload_takes_what_is_in_memory_with_it_or_not_but_is_right() {
    let (redis, at) = shards(2);
    let file = |servers: &[&str], hot: &str| pool(servers, &["^watch: off", "distribution: even", hot]);
    let (one, two) = ([at[0].as_str()], [at[0].as_str(), at[1].as_str()]);
    let site = Site::new(&file(&one, NEAR));
    let mut app = site.hotring.app();
    // A key that the second server gets when it comes.
    let key = {
        let both = Hotring::over(&two, &["distribution: even"]);
        let mut app = both.app();
        let keys: Vec<String> = (0..20).map(|number| format!("k{number}")).collect();
        keys.iter().for_each(|key| assert_eq!(app.ask(&format!("SET {key} x")), "+OK\r\n"));
        let mut direct = redis[1].client();
        let moves = |key: &&String| direct.ask(&format!("EXISTS {key}")) == ":1\r\n";
        keys.iter().find(moves).unwrap().clone()
    };
    redis.iter().for_each(|redis| assert_eq!(redis.client().ask("FLUSHALL"), "+OK\r\n"));
    let take = |yaml: &str| {
        let (status, told) = site.reload(yaml);
        assert_eq!(status, 200, "{told}");
    };
    let set = |server: usize, value: &str| {
        assert_eq!(redis[server].client().ask(&format!("SET {key} {value}")), "+OK\r\n");
    };
    set(0, "a");
    set(1, "b");
    comes(&mut app, &key, "$1\r\na\r\n");
    warm(&mut app, &redis[0], &key, "$1\r\na\r\n");
    // Another setting, while it is there and is changed.
    take(&file(&one, "hot_keys: {reads: near, max_staleness: 30s, near_value: 1kb}"));
    set(0, "c");
    comes(&mut app, &key, "$1\r\nc\r\n");
    warm(&mut app, &redis[0], &key, "$1\r\nc\r\n");
    // It lives elsewhere from now on.
    take(&file(&two, NEAR));
    assert_eq!(app.ask(&format!("GET {key}")), "$1\r\nb\r\n");
    warm(&mut app, &redis[1], &key, "$1\r\nb\r\n");
    set(0, "d");
    set(1, "e");
    comes(&mut app, &key, "$1\r\ne\r\n");
    warm(&mut app, &redis[1], &key, "$1\r\ne\r\n");
    // And back, where it has been changed meanwhile.
    take(&file(&one, NEAR));
    assert_eq!(app.ask(&format!("GET {key}")), "$1\r\nd\r\n");
    warm(&mut app, &redis[0], &key, "$1\r\nd\r\n");
    // Off is off, from the next request on.
    set(0, "f");
    take(&file(&one, "hot_keys: {reads: off}"));
    assert_eq!(app.ask(&format!("GET {key}")), "$1\r\nf\r\n");
    set(0, "g");
    assert!(!is_near(&mut app, &redis[0], &key, "$1\r\ng\r\n"));
    // On again, though somebody wrote while nobody listened.
    set(0, "h");
    take(&file(&one, NEAR));
    assert_eq!(app.ask(&format!("GET {key}")), "$1\r\nh\r\n");
    warm(&mut app, &redis[0], &key, "$1\r\nh\r\n");
    assert_eq!(app.ask(&format!("SET {key} i")), "+OK\r\n");
    assert_eq!(app.ask(&format!("GET {key}")), "$1\r\ni\r\n");
}

#[test]
fn what_one_worker_has_written_the_other_does_not_answer_from_before() {
    let s = Stand::with(&[], &[NEAR, "^workers: 2"]);
    // Dealt in turn.
    let (mut first, mut second) = (s.app(), s.app());
    assert_eq!(first.ask("SET k 0"), "+OK\r\n");
    let script = "return redis.call('SET', 'k', ARGV[1])";
    for round in 0..60 {
        let (before, next) = (round.to_string(), (round + 1).to_string());
        s.warm(&mut first, "k", &before);
        s.warm(&mut second, "k", &before);
        let (writer, reader) = if round % 2 == 0 { (&mut first, &mut second) } else { (&mut second, &mut first) };
        match round % 5 {
            0 => assert_eq!(writer.ask(&format!("SET k {next}")), "+OK\r\n"),
            1 => assert_eq!(writer.ask("INCR k"), format!(":{next}\r\n")),
            2 => assert_eq!(writer.call(&["EVAL", script, "0", &next]), b"+OK\r\n"),
            3 => {
                assert_eq!([writer.ask("MULTI"), writer.ask("INCR k")], ["+OK\r\n", "+QUEUED\r\n"]);
                assert_eq!(writer.ask("EXEC"), format!("*1\r\n:{next}\r\n"));
            }
            _ => assert_eq!(writer.ask(&format!("MSET other 1 k {next}")), "+OK\r\n"),
        }
        assert_eq!(reader.ask("GET k"), bulk(&next), "round {round}");
        assert_eq!(writer.ask("GET k"), bulk(&next), "round {round}");
    }
}

#[test]
fn a_long_set_that_comes_in_parts_counts_from_its_first_part() {
    let s = Stand::new();
    let (mut app, mut other) = (s.app(), s.app());
    let long = "x".repeat(8 << 20);
    for key in ["a", "b", "c"] {
        assert_eq!(app.ask(&format!("SET {key} 1")), "+OK\r\n");
        s.warm(&mut app, key, "1");
        let request = wire(&["SET", key, &long]);
        let (first, rest) = request.split_at(request.len() / 2);
        other.send(first);
        assert_eq!(app.ask(&format!("GET {key}")), "$1\r\n1\r\n");
        other.send(rest);
        assert_eq!(other.text(), "+OK\r\n");
        assert!(app.call(&["GET", key]).starts_with(b"$8388608\r\n"));
        assert_eq!(other.ask(&format!("SET {key} 1")), "+OK\r\n");
        assert_eq!(app.ask(&format!("GET {key}")), "$1\r\n1\r\n");
    }
}

#[test]
fn prefixes_say_which_keys_are_kept() {
    let rules = "[{prefix: \"a:\", reads: near}, {prefix: \"a:lock:\", reads: off}]";
    let (redis, at) = shards(2);
    let hotring = Hotring::with_admin(&pool(&at, &[&format!("hot_keys: {{max_staleness: 60s, prefixes: {rules}}}")]));
    let mut app = hotring.app();
    for key in ["a:1", "a:lock:1", "b:1"] {
        assert_eq!(app.ask(&format!("SET {key} v")), "+OK\r\n");
    }
    warm(&mut app, &redis[home(2, b"a:1")], "a:1", "$1\r\nv\r\n");
    for key in ["a:lock:1", "b:1"] {
        app.send(&wire(&["GET", key]).repeat(1000));
        for _ in 0..1000 {
            assert_eq!(app.text(), "$1\r\nv\r\n");
        }
        assert!(!is_near(&mut app, &redis[home(2, key.as_bytes())], key, "$1\r\nv\r\n"));
    }
}

#[test]
fn a_strict_listener_is_answered_by_the_server() {
    let s = Stand::with(&[], &[NEAR, "listen_strict: 127.0.0.1:0"]);
    let (mut app, mut strict) = (s.app(), Client::connect(s.hotring.address(1)));
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    s.warm(&mut app, "k", "v");
    for _ in 0..10 {
        assert!(is_near(&mut app, &s.redis, "k", "$1\r\nv\r\n"));
        assert!(!is_near(&mut strict, &s.redis, "k", "$1\r\nv\r\n"));
    }
    // Whatever others do at the server, it sees at once.
    let mut direct = s.redis.client();
    for round in 0..100 {
        direct.ask(&format!("SET k {round}"));
        assert_eq!(strict.ask("GET k"), bulk(&round.to_string()));
    }
}

#[test]
fn many_hot_keys_of_many_servers_stay_within_near_memory() {
    let (redis, at) = shards(2);
    let hot = "hot_keys: {reads: near, max_staleness: 60s, near_memory: 64kb, near_value: 16kb}";
    let hotring = Hotring::with_admin(&pool(&at, &[hot]));
    let keys: Vec<String> = [keys_on(0, 2, 10), keys_on(1, 2, 10)].concat();
    let mut app = hotring.app();
    let value = |key: &str, round: u32| format!("{key}:{round}:{}", "x".repeat(10_000));
    for round in 0..3 {
        for key in &keys {
            assert_eq!(app.ask(&format!("SET {key} {}", value(key, round))), "+OK\r\n");
        }
        for key in keys.iter().cycle().take(200) {
            app.send(&wire(&["GET", key]).repeat(10));
            for _ in 0..10 {
                assert_eq!(app.text(), bulk(&value(key, round)));
            }
        }
    }
    drop(redis);
}

#[test]
fn every_request_is_answered_once_and_nothing_is_left_behind() {
    let (redis, at) = shards(2);
    let hotring = Hotring::with_admin(&pool(&at, &[NEAR, "^workers: 2"]));
    let keys = [key_on(0, 2), key_on(1, 2)];
    let mut apps: Vec<Client> = (0..8).map(|_| hotring.app()).collect();
    for key in &keys {
        assert_eq!(apps[0].ask(&format!("SET {key} 0")), "+OK\r\n");
    }
    for round in 1..200 {
        for (number, app) in apps.iter_mut().enumerate() {
            let key = &keys[(round + number) % 2];
            app.send(&wire(&["GET", key]).repeat(20));
            app.send(&wire(&["MGET", &keys[0], &keys[1]]));
            if number == round % 8 {
                app.send(&wire(&["INCR", key]));
            }
            app.send(&wire(&["PING", &round.to_string()]));
        }
        for (number, app) in apps.iter_mut().enumerate() {
            (0..20).for_each(|_| assert!(app.text().starts_with('$')));
            assert!(app.text().starts_with("*2\r\n$"));
            if number == round % 8 {
                assert!(app.text().starts_with(':'));
            }
            assert_eq!(app.text(), bulk(&round.to_string()));
        }
    }
    for (key, redis) in keys.iter().zip(&redis) {
        warm(&mut apps[0], redis, key, &redis.client().ask(&format!("GET {key}")));
    }
    eventually("nothing waits", || hotring.metric("hotring_requests_pending{pool=\"main\"}") == 0.0);
    drop(apps);
    eventually("all are gone", || {
        hotring.metric("hotring_client_connections{pool=\"main\"}") == 0.0
            && hotring.metric("hotring_client_output_bytes{pool=\"main\"}") == 0.0
    });
}
