//! The apps' side.

use super::support::authority::{Authority, Dialer, in_file, shown};
use super::support::{Client, FOREVER, Hotring, Redis, eventually, installed, pool, shards, wire};
use super::{LISTEN, tls};
use rustls::version::{TLS12, TLS13};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn both_versions_are_spoken_and_pipelines_and_large_values_pass() {
    let ca = Authority::new();
    let own = ca.local("hotring");
    let (_servers, at) = shards(2);
    let hotring = Hotring::start(&pool(&at, &[LISTEN, &tls(&own, ""), "^workers: 2"]));
    for version in [&TLS12, &TLS13] {
        let mut app = Dialer::believing(&ca.ca(), None, &[version]).app(hotring.address(1));
        assert_eq!(app.tls().protocol_version(), Some(version.version));
        assert_eq!(app.ask("SET a 1"), "+OK\r\n");
        let mut many = Vec::new();
        for number in 0..3000 {
            many.extend(wire(&["SET", &format!("k{number}"), &format!("v{number}")]));
            many.extend(wire(&["GET", &format!("k{number}")]));
        }
        app.send(&many);
        for number in 0..3000 {
            assert_eq!(app.text(), "+OK\r\n");
            assert!(app.text().ends_with(&format!("\r\nv{number}\r\n")));
        }
        for length in [100, 16_384, 16_385, 200_000, 10 << 20] {
            let value: Vec<u8> = (0..length).map(|n: usize| (n * 7 + n / 251) as u8).collect();
            assert_eq!(app.call(&[&b"SET"[..], b"large", &value]), b"+OK\r\n");
            let reply = app.call(&["GET", "large"]);
            let head = format!("${length}\r\n").len();
            assert!(reply[head..head + length] == value, "{length}");
        }
    }
}

#[test]
fn it_may_be_the_only_way_in_and_be_beside_others() {
    let ca = Authority::new();
    let own = ca.local("hotring");
    let yaml = format!("admin: off\npools:\n  main:\n    {LISTEN}\n    servers: embedded:1\n    {}\n", tls(&own, ""));
    let alone = Hotring::start(&yaml);
    assert_eq!(ca.client().app(alone.address(0)).ask("PING"), "+PONG\r\n");
    let strict = yaml.replace("    servers", "    listen: 127.0.0.1:0\n    listen_strict: 127.0.0.1:0\n    servers");
    let beside = Hotring::start(&strict);
    assert_eq!(beside.app().ask("SET k v"), "+OK\r\n");
    assert_eq!(Client::connect(beside.address(1)).ask("GET k"), "$1\r\nv\r\n");
    assert_eq!(ca.client().app(beside.address(2)).ask("GET k"), "$1\r\nv\r\n");
}

#[test]
fn certificates_of_apps_are_looked_at() {
    let (ca, other) = (Authority::new(), Authority::new());
    let own = ca.local("hotring");
    let (_servers, at) = shards(1);
    let start = |auth: &str| {
        let tls = tls(&own, &format!(", client_ca: {}{auth}", ca.ca()));
        Hotring::with_admin(&pool(&at, &[LISTEN, "listen: 127.0.0.1:0", &tls]))
    };
    let (known, expired, stranger) =
        (ca.issue("app", &["DNS:app"]), ca.expired("old"), other.issue("app", &["DNS:app"]));
    // One without a certificate learns in TLS 1.3 only from the first reply that it is not let in.
    let is_let_in = |hotring: &Hotring, dialer: &Dialer| {
        let app = dialer.app_as(hotring.address(1), "127.0.0.1");
        app.is_ok_and(|mut app| app.try_ask("PING").is_ok_and(|reply| reply == "+PONG\r\n"))
    };
    let failures = |hotring: &Hotring, why: &str| {
        hotring.metric(&format!("hotring_client_tls_handshake_failures_total{{pool=\"main\",why=\"{why}\"}}"))
    };
    let (required, optional) = (start(""), start(", client_auth: optional"));
    for (hotring, without) in [(&required, false), (&optional, true)] {
        assert!(is_let_in(hotring, &ca.client_with(&known)));
        assert_eq!(is_let_in(hotring, &ca.client()), without);
        assert!(!is_let_in(hotring, &ca.client_with(&expired)));
        let strange = Dialer::believing(&ca.ca(), Some(&stranger), &[&TLS13, &TLS12]);
        assert!(!is_let_in(hotring, &strange));
        eventually("all are counted", || {
            failures(hotring, "expired") == 1.0
                && failures(hotring, "unknown_issuer") == 1.0
                && failures(hotring, "no_certificate") == f64::from(u8::from(!without))
        });
    }
}

#[test]
fn the_certificate_is_the_one_of_the_name_that_is_asked_for() {
    let ca = Authority::new();
    let own = ca.local("hotring");
    let (one, many) =
        (ca.issue("one", &["DNS:one.example"]), ca.issue("many", &["DNS:*.many.example", "DNS:many.example"]));
    let (_servers, at) = shards(1);
    let others = format!(
        ", certificates: [{{cert: {}, key: {}}}, {{cert: {}, key: {}}}]",
        one.cert, one.key, many.cert, many.key
    );
    let hotring = Hotring::start(&pool(&at, &[LISTEN, &tls(&own, &others)]));
    let client = ca.client();
    for (host, issued) in [
        ("one.example", &one),
        ("ONE.example", &one),
        ("many.example", &many),
        ("a.many.example", &many),
        ("localhost", &own),
        ("127.0.0.1", &own),
    ] {
        let mut app = client.app_as(hotring.address(1), host).unwrap();
        assert_eq!(shown(&app), in_file(&issued.cert), "{host}");
        assert_eq!(app.ask("PING"), "+PONG\r\n");
    }
    // The default one is not for these.
    assert!(client.app_as(hotring.address(1), "a.b.many.example").is_err());
    assert!(client.app_as(hotring.address(1), "two.example").is_err());
}

#[test]
fn the_oldest_version_can_be_chosen() {
    let ca = Authority::new();
    let own = ca.local("hotring");
    let (_servers, at) = shards(1);
    let hotring =
        Hotring::with_admin(&pool(&at, &["listen: 127.0.0.1:0", LISTEN, &tls(&own, ", min_version: \"1.3\"")]));
    assert_eq!(ca.client().app(hotring.address(1)).ask("PING"), "+PONG\r\n");
    let old = Dialer::believing(&ca.ca(), None, &[&TLS12]);
    assert!(old.app_as(hotring.address(1), "127.0.0.1").is_err());
    let series = "hotring_client_tls_handshake_failures_total{pool=\"main\",why=\"nothing_in_common\"}";
    eventually("it is counted", || hotring.metric(series) == 1.0);
}

#[test]
fn what_is_no_tls_costs_its_own_connection_only() {
    let ca = Authority::new();
    let own = ca.local("hotring");
    let (_servers, at) = shards(1);
    let hotring = Hotring::with_admin(&pool(&at, &["listen: 127.0.0.1:0", LISTEN, &tls(&own, "")]));
    let told = hotring.page("/status").1;
    assert!(
        told.contains("\"strict\":false,\"tls\":false}") && told.contains("\"strict\":false,\"tls\":true}"),
        "{told}"
    );
    let mut well = ca.client().app(hotring.address(1));
    assert_eq!(well.ask("SET k v"), "+OK\r\n");
    let mut noise: Vec<Vec<u8>> = vec![wire(&["PING"]), b"PING\r\n".to_vec(), b"GET / HTTP/1.1\r\n\r\n".to_vec()];
    noise.push(vec![0; 100]);
    noise.push((0..5000).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect());
    // A handshake that is broken in its middle.
    noise.push([&[0x16, 3, 1, 0, 200][..], &[0xff; 200]].concat());
    // A hello that says it is as long as any may be, in records of one byte: it would never be whole.
    noise.push([&[0x16, 3, 1, 0, 4, 1, 0, 0xff, 0xff][..], &[0x16, 3, 1, 0, 1, 0].repeat(12_000)].concat());
    for (count, bytes) in (1..).zip(&noise) {
        let mut socket = TcpStream::connect(hotring.address(1)).unwrap();
        socket.set_read_timeout(Some(FOREVER)).unwrap();
        // It need not take all of it.
        let _ = socket.write_all(bytes);
        let mut told = Vec::new();
        // A reset is an end, too.
        let _ = socket.read_to_end(&mut told);
        assert!(!told.windows(4).any(|four| four == b"PONG"));
        let failures = |why: &str| {
            hotring.metric(&format!("hotring_client_tls_handshake_failures_total{{pool=\"main\",why=\"{why}\"}}"))
        };
        eventually("it is counted", || {
            ["not_tls", "protocol", "closed"].into_iter().map(failures).sum::<f64>() == f64::from(count)
        });
    }
    let plain = "hotring_client_tls_handshake_failures_total{pool=\"main\",why=\"not_tls\"}";
    eventually("they are counted", || hotring.metric(plain) >= 3.0);
    assert_eq!(well.ask("GET k"), "$1\r\nv\r\n");
    // And later, within a session.
    let mut garbled = ca.client().app(hotring.address(1));
    assert_eq!(garbled.ask("GET k"), "$1\r\nv\r\n");
    let open = |count: f64| hotring.metric("hotring_client_tls_connections{pool=\"main\"}") == count;
    eventually("both are counted", || open(2.0));
    garbled.send_past_tls(&[0x17, 3, 3, 0, 30]);
    garbled.send_past_tls(&[7; 30]);
    assert!(garbled.try_ask("PING").is_err());
    eventually("it is closed", || open(1.0));
    assert_eq!(well.ask("GET k"), "$1\r\nv\r\n");
}

#[test]
fn a_storm_of_handshakes_is_served_and_so_are_others() {
    const MANY: usize = 300;
    let ca = Authority::new();
    let own = ca.local("hotring");
    let (_servers, at) = shards(1);
    let hotring =
        Hotring::with_admin(&pool(&at, &["listen: 127.0.0.1:0", LISTEN, &tls(&own, ", handshake_timeout: 1m")]));
    let address = hotring.address(1).to_owned();
    let mut app = hotring.app();
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    // Those who stand still, in their hello or before it, take nobody's turn.
    let still: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(&address).unwrap()).collect();
    still.iter().skip(10).for_each(|mut socket| socket.write_all(&[0x16, 3, 1, 0, 200, 1]).unwrap());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert_eq!(app.ask("SET k v"), "+OK\r\n");
            }
        });
        let storms: Vec<_> = (0..3)
            .map(|number| {
                let versions = if number == 0 { &[&TLS12][..] } else { &[&TLS13] };
                let client = Dialer::believing(&ca.ca(), None, versions);
                let address = &address;
                scope.spawn(move || (0..MANY / 3).map(|_| client.app(address)).collect::<Vec<Client>>())
            })
            .collect();
        let storms: Vec<_> = storms.into_iter().map(|storm| storm.join()).collect();
        over.store(true, Ordering::Relaxed);
        other.join().unwrap();
        for came in storms.into_iter().flat_map(Result::unwrap) {
            let mut came = came;
            assert_eq!(came.ask("GET k"), "$1\r\nv\r\n");
        }
    });
    let shaken = "hotring_client_tls_handshakes_total{pool=\"main\"}";
    eventually("all are counted", || hotring.metric(shaken) == MANY as f64);
    drop(still);
}

#[test]
fn a_handshake_that_stands_still_ends_and_counts_as_a_client_until_then() {
    let ca = Authority::new();
    let own = ca.local("hotring");
    let (_servers, at) = shards(1);
    let keys = ["listen: 127.0.0.1:0", LISTEN, &tls(&own, ", handshake_timeout: 300ms"), "client_connections: 3"];
    let hotring = Hotring::with_admin(&pool(&at, &keys));
    let mut slow: Vec<TcpStream> = Vec::new();
    for _ in 0..3 {
        let mut socket = TcpStream::connect(hotring.address(1)).unwrap();
        socket.set_read_timeout(Some(FOREVER)).unwrap();
        // The beginning of a hello.
        socket.write_all(&[0x16, 3, 1, 0, 200, 1]).unwrap();
        slow.push(socket);
    }
    for mut socket in slow {
        let mut told = Vec::new();
        let _ = socket.read_to_end(&mut told);
    }
    let late = "hotring_client_tls_handshake_failures_total{pool=\"main\",why=\"timeout\"}";
    eventually("they are counted", || hotring.metric(late) == 3.0);
    eventually("nobody is left", || hotring.metric("hotring_client_tls_handshaking{pool=\"main\"}") == 0.0);
    let mut app = hotring.app();
    assert_eq!(app.ask("PING"), "+PONG\r\n");
}

#[test]
fn half_open_handshakes_have_the_places_of_clients() {
    let ca = Authority::new();
    let own = ca.local("hotring");
    let (_servers, at) = shards(1);
    let keys = ["listen: 127.0.0.1:0", LISTEN, &tls(&own, ", handshake_timeout: 10m"), "client_connections: 1"];
    let hotring = Hotring::with_admin(&pool(&at, &keys));
    let slow = TcpStream::connect(hotring.address(1)).unwrap();
    eventually("it is there", || hotring.metric("hotring_client_tls_handshaking{pool=\"main\"}") == 1.0);
    assert_eq!(hotring.app().rest(), b"-ERR max number of clients reached\r\n");
    drop(slow);
    eventually("its place is free", || hotring.app().try_ask("PING").is_ok_and(|reply| reply == "+PONG\r\n"));
}

#[test]
fn an_end_is_told_on_both_sides() {
    let ca = Authority::new();
    let own = ca.local("hotring");
    let (_servers, at) = shards(1);
    let hotring = Hotring::start(&pool(&at, &[LISTEN, &tls(&own, "")]));
    let mut app = ca.client().app(hotring.address(1));
    app.send(&wire(&["PING"]));
    app.send(&wire(&["QUIT"]));
    // rustls takes an end without a word of TLS's own for an error.
    assert_eq!(app.rest(), b"+PONG\r\n+OK\r\n");
    // One that only ends its half gets what it has asked for.
    let mut app = ca.client().app(hotring.address(1));
    app.send(&wire(&["PING"]).repeat(3));
    app.half_close();
    assert_eq!(app.rest(), b"+PONG\r\n".repeat(3));
}

#[test]
fn replies_that_are_not_read_wait_and_come_whole() {
    let ca = Authority::new();
    let own = ca.local("hotring");
    let (_servers, at) = shards(1);
    let hotring = Hotring::start(&pool(&at, &[LISTEN, &tls(&own, "")]));
    let mut app = ca.client().app(hotring.address(1));
    let value = vec![b'x'; 100_000];
    assert_eq!(app.call(&[&b"SET"[..], b"k", &value]), b"+OK\r\n");
    // Far more than the sockets' buffers take, and then the end.
    for _ in 0..300 {
        app.send(&wire(&["GET", "k"]));
    }
    app.send(&wire(&["QUIT"]));
    for _ in 0..300 {
        assert_eq!(app.reply().len(), value.len() + 11);
    }
    assert_eq!(app.rest(), b"+OK\r\n");
}

#[test]
fn redis_cli_speaks_to_it() {
    let ca = Authority::new();
    let (own, mine) = (ca.local("hotring"), ca.issue("cli", &["DNS:cli"]));
    let (_servers, at) = shards(1);
    let hotring = Hotring::start(&pool(&at, &[LISTEN, &tls(&own, &format!(", client_ca: {}", ca.ca()))]));
    let (host, port) = hotring.address(1).split_once(':').unwrap();
    let ask = |more: &[&str]| {
        let mut cli = Command::new("redis-cli");
        cli.args(["-h", host, "-p", port, "--tls", "--cacert", &ca.ca()]).args(more).args(["SET", "k", "v"]);
        let done = cli.output().unwrap();
        String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()
    };
    assert_eq!(ask(&["--cert", &mine.cert, "--key", &mine.key]), "OK\n");
    assert!(ask(&[]).contains("rror"), "{}", ask(&[]));
}

#[test]
fn redis_py_speaks_to_it() {
    let ca = Authority::new();
    let own = ca.local("hotring");
    let (_servers, at) = shards(2);
    let hotring = Hotring::start(&pool(&at, &[LISTEN, &tls(&own, "")]));
    let port = hotring.address(1).rsplit_once(':').unwrap().1;
    let script = format!(
        "import redis\n\
         r = redis.Redis(host='127.0.0.1', port={port}, ssl=True, ssl_ca_certs={:?})\n\
         assert r.set('a', b'x' * 3000000)\n\
         assert r.get('a') == b'x' * 3000000\n\
         p = r.pipeline(transaction=False)\n\
         for i in range(2000): p.set(f'k{{i}}', i)\n\
         assert all(p.execute())\n\
         assert r.mget([f'k{{i}}' for i in range(2000)]) == [str(i).encode() for i in range(2000)]\n\
         with r.pipeline() as t:\n\
         \x20   assert t.set('b', 1).incr('b').execute() == [True, 2]\n\
         try:\n\
         \x20   redis.Redis(host='127.0.0.1', port={port}, ssl=True).ping()\n\
         \x20   assert False\n\
         except redis.exceptions.ConnectionError as e:\n\
         \x20   assert 'CERTIFICATE_VERIFY_FAILED' in str(e), e\n\
         print('passed')\n",
        ca.ca()
    );
    let python = installed("apps/bin/python");
    let done = Command::new(&python).args(["-c", &script]).output();
    let done = done.unwrap_or_else(|error| panic!("{}: {error}; run tests/setup", python.display()));
    assert_eq!(String::from_utf8_lossy(&done.stdout), "passed\n", "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn what_is_published_is_heard() {
    let ca = Authority::new();
    let own = ca.local("hotring");
    let redis = Redis::start(&[]);
    let hotring = Hotring::start(&pool(&[redis.address()], &[LISTEN, &tls(&own, "")]));
    let mut ear = ca.client().app(hotring.address(1));
    assert!(ear.ask("SUBSCRIBE news").contains("subscribe"));
    eventually("it is heard by the server", || redis.client().ask("PUBLISH news one") == ":1\r\n");
    assert!(ear.text().contains("one"));
}
