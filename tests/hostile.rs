//! Bytes that nobody should send: who sends them gets what Redis would say, and everybody else is served meanwhile.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{Client, Hotring, Redis, eventually, key_on, pool, shards, wire};

/// Two shards, a hotring, and an app that is served all the time.
struct Site {
    _redis: Vec<Redis>,
    hotring: Hotring,
    other: Client,
    keys: [String; 2],
}

impl Site {
    fn new() -> Self {
        let (redis, at) = shards(2);
        // A build for tests may take longer over a million arguments than a shard is given.
        let hotring = Hotring::with_admin(&pool(&at, &["timeout: off"]));
        let other = hotring.app();
        let mut site = Self { _redis: redis, hotring, other, keys: [key_on(0, 2), key_on(1, 2)] };
        for key in site.keys.clone() {
            assert_eq!(site.other.ask(&format!("SET {key} value")), "+OK\r\n");
        }
        site
    }

    /// Another session, over both shards.
    fn others_are_served(&mut self) {
        let [a, b] = &self.keys;
        assert_eq!(self.other.ask(&format!("MGET {a} {b}")), "*2\r\n$5\r\nvalue\r\n$5\r\nvalue\r\n");
    }

    /// What an app is told that sends these bytes and then no more.
    fn says(&mut self, bytes: &[u8]) -> String {
        let mut app = self.hotring.app();
        let mut writer = app.writer();
        let bytes = bytes.to_vec();
        // Beside, as more may be sent than anybody takes before it has been read.
        let sent = std::thread::spawn(move || {
            // Whoever has been told that it is wrong is not read any further.
            if writer.try_send(&bytes).is_ok() {
                writer.half_close();
            }
        });
        while !sent.is_finished() {
            self.others_are_served();
        }
        sent.join().unwrap();
        let said = app.rest();
        self.others_are_served();
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Nothing is left of those who are gone.
    fn ends(mut self) {
        self.others_are_served();
        let hotring = self.hotring;
        eventually("only one app is left", || {
            hotring.metric("hotring_client_connections{pool=\"main\"}") == 1.0
                && hotring.metric("hotring_requests_pending{pool=\"main\"}") == 0.0
                && hotring.metric("hotring_client_output_bytes{pool=\"main\"}") == 0.0
        });
        assert_eq!(hotring.metric("hotring_panics_total{worker=\"0\"}"), 0.0);
        hotring.stop().unwrap();
    }
}

#[test]
fn depth_and_lengths_out_of_all_proportion() {
    let mut site = Site::new();
    let digits = b"9".repeat(70_000);
    let cases: &[(Vec<u8>, &str)] = &[
        (b"*1\r\n".repeat(100_000), "-ERR Protocol error: expected '$', got '*'\r\n"),
        (b"*2\r\n$3\r\nGET\r\n$99999999999\r\n".to_vec(), "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*2\r\n$3\r\nGET\r\n$-1\r\n".to_vec(), "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*2\r\n$3\r\nGET\r\n$-99999999999999999999\r\n".to_vec(), "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*2\r\n$3\r\nGET\r\n$0000000000000000000000001\r\n".to_vec(), "-ERR Protocol error: invalid bulk length\r\n"),
        ([b"*2\r\n$3\r\nGET\r\n$", &digits[..]].concat(), "-ERR Protocol error: invalid bulk length\r\n"),
        ([b"*", &digits[..]].concat(), "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*2147483648\r\n".to_vec(), "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*-1\r\n*-99999\r\n*0\r\nPING\r\n".to_vec(), "+PONG\r\n"),
        // Announced and never sent: no memory is taken for it, nobody waits.
        (b"*1000000\r\n$536870912\r\n".to_vec(), ""),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nxyz".to_vec(), ""),
    ];
    for (bytes, told) in cases {
        let start = &bytes[..bytes.len().min(60)];
        assert_eq!(site.says(bytes), *told, "{}", start.escape_ascii());
    }
    site.ends();
}

#[test]
fn lines_without_an_end_or_without_anything() {
    let mut site = Site::new();
    let long = |length: usize| [b"ECHO ".to_vec(), vec![b'x'; length], b"\r\n".to_vec()].concat();
    let too_big = "-ERR Protocol error: too big inline request\r\n";
    assert_eq!(site.says(&long(60_000)), format!("$60000\r\n{}\r\n", "x".repeat(60_000)));
    assert_eq!(site.says(&long(64 * 1024)), too_big);
    assert_eq!(site.says(&long(1 << 20)), too_big);
    assert_eq!(site.says(&vec![b'x'; 4 << 20]), too_big);
    assert_eq!(site.says(&vec![b' '; 4 << 20]), too_big);
    assert_eq!(site.says(&[b"\r\n".repeat(1_000_000), b"PING\r\n".to_vec()].concat()), "+PONG\r\n");
    assert_eq!(site.says(&[b"*0\r\n".repeat(250_000), b"PING\r\n".to_vec()].concat()), "+PONG\r\n");
    assert_eq!(site.says(&[b"\n".repeat(1_000_000), b"PING\n".to_vec()].concat()), "+PONG\r\n");
    for (line_end, told) in [("\n", "+PONG\r\n"), ("\r\r\n", "+PONG\r\n"), ("\n\r", "+PONG\r\n"), ("\r", "")] {
        let said = site.says(format!("PING{line_end}").as_bytes());
        assert_eq!(said, told, "{line_end:?}");
    }
    for bytes in
        ["*1\n$4\nPING\n", "*1\r$4\rPING\r", "*1\r\n$4\r\nPING\n\n", "*1\r\n$4\nPING\r\n", "*1\r\r\n$4\r\nPING\r\n"]
    {
        let said = site.says(bytes.as_bytes());
        assert!(said.starts_with("-ERR Protocol error: ") && said.matches("\r\n").count() == 1, "{bytes:?}: {said:?}");
    }
    site.ends();
}

#[test]
fn other_protocols() {
    let mut site = Site::new();
    let http = "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n";
    let said = site.says(http.as_bytes());
    assert!(said.starts_with("-ERR wrong number of arguments for 'get' command\r\n"), "{said}");
    assert!(said.lines().all(|line| line.starts_with("-ERR")), "{said}");
    let key = site.keys[0].clone();
    // A page that makes a browser send this must not get a command carried out behind the head.
    let post = format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nSET {key} stolen\r\n");
    let said = site.says(post.as_bytes());
    assert!(!said.contains("+OK"), "{said}");
    // A ClientHello of TLS 1.2: a record of type 22 with a version, a length and 32 bytes of chance.
    let mut hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    hello.extend((0..=255).cycle().map(|n: u8| n.wrapping_mul(167)).take(512));
    let said = site.says(&hello);
    assert!(said.is_empty() || said.lines().all(|line| line.starts_with("-ERR")), "{said}");
    // What a memcached client says, and what a terminal does.
    assert!(site.says(b"set key 0 900 5\r\nhello\r\n").starts_with('-'));
    assert!(site.says(b"\xff\xfd\x03\xff\xfb\x18\r\n").starts_with("-ERR unknown command"));
    site.ends();
}

#[test]
fn zero_bytes() {
    let mut site = Site::new();
    let (key, value) = (b"k\0\0".to_vec(), b"\0v\r\n\0".to_vec());
    let mut app = site.hotring.app();
    assert_eq!(app.call(&[b"SET".to_vec(), key.clone(), value.clone()]), b"+OK\r\n");
    assert_eq!(app.call(&[b"GET".to_vec(), key]), [b"$5\r\n".to_vec(), value, b"\r\n".to_vec()].concat());
    assert!(app.call(&[&b"G\0T"[..], b"k"]).starts_with(b"-ERR unknown command"));
    assert!(app.call(&[&b""[..]]).starts_with(b"-ERR unknown command"));
    drop(app);
    for bytes in [
        &b"\0\0\0\r\n"[..],
        b"GET \0\r\n",
        b"*1\r\n$4\0\r\nPING\r\n",
        b"*1\r\n\0",
        b"*\0\r\n",
        b"\0*1\r\n$4\r\nPING\r\n",
    ] {
        let said = site.says(bytes);
        assert!(said.starts_with("-ERR") || said.starts_with("$-1"), "{}: {said}", bytes.escape_ascii());
    }
    assert_eq!(site.says(&vec![0; 100_000]), "-ERR Protocol error: too big inline request\r\n");
    site.ends();
}

/// All forms of a request, one after the other.
fn all_forms(keys: &[String; 2]) -> Vec<u8> {
    let [a, b] = keys;
    [
        wire(&["SET", "plain", "1"]),
        b"GET plain\r\n".to_vec(),
        b"\r\n*0\r\n*-1\r\n\n".to_vec(),
        wire(&["MGET", a, b, "none"]),
        b"SET \"quo\\x74ed\" 'a b\\'c'\n".to_vec(),
        wire(&["GET", "quoted"]),
        wire(&["SET", "", "\r\n*1\r\n$4\r\nPING\r\n"]),
        wire(&["GET", ""]),
        wire(&["NONSENSE", "x"]),
        wire(&["MSET", a, "value", b, "value"]),
        wire(&["EVAL", "return {1,{2,'x'}}", "1", a]),
        wire(&["MULTI"]),
        wire(&["GET", a]),
        wire(&["EXEC"]),
        wire(&["DEL", "plain", "quoted", "", "none"]),
        wire(&["ECHO", "last"]),
    ]
    .concat()
}

#[test]
fn a_pipeline_of_all_forms_cut_at_every_byte() {
    let mut site = Site::new();
    let bytes = all_forms(&site.keys);
    let expected = site.says(&bytes);
    assert!(expected.ends_with("$4\r\nlast\r\n") && expected.contains("$1\r\n1\r\n"), "{expected}");
    let replies = expected.len();
    let mut app = site.hotring.app();
    for cut in 1..bytes.len() {
        app.send(&bytes[..cut]);
        // What was sent before this has been read by then.
        site.others_are_served();
        app.send(&bytes[cut..]);
        let said = app.exactly(replies);
        assert_eq!(String::from_utf8_lossy(&said), expected, "cut at {cut}");
    }
    for byte in bytes.chunks(1) {
        app.send(byte);
        site.others_are_served();
    }
    assert_eq!(String::from_utf8_lossy(&app.exactly(replies)), expected, "byte by byte");
    drop(app);
    site.ends();
}

#[test]
fn commands_that_are_never_finished() {
    let mut site = Site::new();
    let bytes = all_forms(&site.keys);
    // Each stops somewhere else, and stays.
    let apps: Vec<Client> = (1..bytes.len())
        .step_by(2)
        .map(|cut| {
            let mut app = site.hotring.app();
            app.send(&bytes[..cut]);
            app
        })
        .collect();
    for _ in 0..20 {
        site.others_are_served();
    }
    let ways = apps.into_iter().enumerate();
    ways.for_each(|(n, app)| if n % 2 == 0 { app.reset() } else { drop(app) });
    site.ends();
}

#[test]
fn a_million_arguments() {
    let mut site = Site::new();
    let request = |name: &str, count: usize| {
        let mut bytes = format!("*{}\r\n${}\r\n{name}\r\n", count + 1, name.len()).into_bytes();
        (0..count).for_each(|n| bytes.extend(format!("$6\r\n{n:06}\r\n").bytes()));
        bytes
    };
    assert_eq!(site.says(&request("EXISTS", 999_999)), ":0\r\n");
    let said = site.says(&request("MGET", 999_999));
    assert!(said.starts_with("*999999\r\n$-1\r\n") && said.len() == "*999999\r\n".len() + 999_999 * "$-1\r\n".len());
    assert!(site.says(&request("GET", 999_999)).starts_with("-ERR wrong number of arguments"));
    // One more than there may be.
    assert_eq!(site.says(b"*1048577\r\n$3\r\nDEL\r\n"), "-ERR Protocol error: invalid multibulk length\r\n");
    site.ends();
}
