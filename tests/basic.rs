//! What an app sees over three real shards: Redis' own replies, in order, however the bytes are cut.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::os::unix::fs::PermissionsExt;
use support::{Client, FOREVER, Hotring, Redis, Scratch, eventually, home, now, shards, wire};

#[test]
fn commands_answer_as_redis_does_and_keys_live_at_home() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    assert_eq!(app.ask("PING"), "+PONG\r\n");
    assert_eq!(app.ask("ECHO hello"), "$5\r\nhello\r\n");
    for n in 0..100 {
        assert_eq!(app.ask(&format!("SET key:{n} {n}")), "+OK\r\n");
    }
    let mut held = [0; 3];
    for n in 0..100 {
        let key = format!("key:{n}");
        let value = format!("${}\r\n{n}\r\n", n.to_string().len());
        assert_eq!(app.ask(&format!("GET {key}")), value);
        let shard = home(3, key.as_bytes());
        assert_eq!(redis[shard].client().ask(&format!("GET {key}")), value);
        held[shard] += 1;
    }
    for (redis, held) in redis.iter().zip(held) {
        assert!(held > 0, "a hundred keys reach every shard");
        assert_eq!(redis.client().ask("DBSIZE"), format!(":{held}\r\n"), "and are nowhere else");
    }
    for (words, reply) in [
        ("GET nothing", "$-1\r\n"),
        ("INCR n", ":1\r\n"),
        ("INCRBY n 41", ":42\r\n"),
        ("INCR key:x:text", ":1\r\n"),
        ("RPUSH list a b c", ":3\r\n"),
        ("LRANGE list 0 -1", "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n"),
        ("GET list", "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"),
        ("HSET hash f v", ":1\r\n"),
        ("HGETALL hash", "*2\r\n$1\r\nf\r\n$1\r\nv\r\n"),
        ("ZADD zset 1.5 m", ":1\r\n"),
        ("ZSCORE zset m", "$3\r\n1.5\r\n"),
        ("SET soon v EXAT 4102444800", "+OK\r\n"),
        ("EXPIRETIME soon", ":4102444800\r\n"),
        ("EVAL return{KEYS[1],{1,{2}}} 1 k", "*2\r\n$1\r\nk\r\n*2\r\n:1\r\n*1\r\n:2\r\n"),
        ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
        ("NONSENSE a b", "-ERR unknown command 'NONSENSE', with args beginning with: 'a' 'b' \r\n"),
        ("SELECT 0", "+OK\r\n"),
        ("get KEY:1", "$-1\r\n"),
        ("gEt key:1", "$1\r\n1\r\n"),
    ] {
        assert_eq!(app.ask(words), reply, "{words}");
    }
}

#[test]
fn a_pipeline_of_thousands_over_several_shards_keeps_its_order() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let (mut requests, mut replies) = (Vec::new(), Vec::new());
    for n in 0..5000 {
        let (key, value) = (format!("key:{n}"), format!("value:{n}"));
        requests.extend(wire(&["SET", &key, &value]));
        replies.extend(b"+OK\r\n");
        requests.extend(wire(&["GET", &key]));
        replies.extend(format!("${}\r\n{value}\r\n", value.len()).bytes());
        // Answered by hotring itself, between what shards answer.
        match n % 4 {
            0 => {
                requests.extend(wire(&["ECHO", &key]));
                replies.extend(format!("${}\r\n{key}\r\n", key.len()).bytes());
            }
            1 => {
                requests.extend(wire(&["NONSENSE"]));
                replies.extend(b"-ERR unknown command 'NONSENSE', with args beginning with: \r\n");
            }
            2 => {
                requests.extend(wire(&["MGET", &key, "nothing"]));
                replies.extend(format!("*2\r\n${}\r\n{value}\r\n$-1\r\n", value.len()).bytes());
            }
            _ => {}
        }
    }
    let mut writer = app.writer();
    let sending = std::thread::spawn(move || writer.send(&requests));
    let got = app.exactly(replies.len());
    sending.join().unwrap();
    assert!(got == replies, "differs first at byte {:?}", got.iter().zip(&replies).position(|(a, b)| a != b));
}

#[test]
fn requests_may_be_cut_at_every_byte() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let (mut app, mut other) = (hotring.app(), hotring.app());
    let mut requests = wire(&["SET", "k", "a\r\nb"]);
    requests.extend(wire(&["GET", "k"]));
    requests.extend(b"\r\nGET k\r\n*0\r\n");
    requests.extend(wire(&["MGET", "k", "x", "y"]));
    requests.extend(wire(&["EXISTS", "k", "k"]));
    let value = "$4\r\na\r\nb\r\n";
    let replies = format!("+OK\r\n{value}{value}*3\r\n{value}$-1\r\n$-1\r\n:2\r\n");
    for cut in 0..=requests.len() {
        app.send(&requests[..cut]);
        // Its reply comes when the worker has read what came before.
        assert_eq!(other.ask("PING"), "+PONG\r\n");
        app.send(&requests[cut..]);
        assert_eq!(
            app.exactly(replies.len()).escape_ascii().to_string(),
            replies.as_bytes().escape_ascii().to_string()
        );
    }
    for byte in &requests {
        app.send(&[*byte]);
    }
    assert_eq!(app.exactly(replies.len()), replies.as_bytes());
}

#[test]
fn inline_commands() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    for (line, reply) in [
        ("PING\r\n", "+PONG\r\n"),
        ("ping\n", "+PONG\r\n"),
        ("\r\n\n   \r\nPING\r\n", "+PONG\r\n"),
        ("SET k \"a b\\x41\\n\"\r\n", "+OK\r\n"),
        ("  GET   k  \r\n", "$5\r\na bA\n\r\n"),
        ("SET k 'it\\'s'\r\n", "+OK\r\n"),
        ("GET k\r\n", "$4\r\nit's\r\n"),
        ("MSET a 1 b 2 c 3\r\n", "+OK\r\n"),
        ("MGET a b c\r\n", "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n"),
        ("GET\r\n", "-ERR wrong number of arguments for 'get' command\r\n"),
    ] {
        app.send(line.as_bytes());
        assert_eq!(app.text(), reply, "{line:?}");
    }
}

#[test]
fn a_protocol_error_has_redis_words_and_ends_its_own_connection_only() {
    let redis = Redis::start(&[]);
    let hotring = Hotring::over(&[redis.address()], &[]);
    let mut bystander = hotring.app();
    assert_eq!(bystander.ask("SET k v"), "+OK\r\n");
    let long = [b"*1\r\n".to_vec(), vec![b'a'; 70_000]].concat();
    for bytes in [
        &b"*abc\r\n"[..],
        b"*1\r\n+PING\r\n",
        b"*1\r\nPING\r\n",
        b"*2\r\n$3\r\nGET\r\n:1\r\n",
        b"*1\r\n$abc\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$536870913\r\n",
        b"SET k \"v\r\n",
        b"SET k 'v'w\r\n",
        &long[4..],
        // What came before is answered, what comes after is not carried out.
        b"*1\r\n$4\r\nPING\r\n*1\r\n!\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3\r\nbad\r\n",
    ] {
        let [said, expected] = [hotring.app(), redis.client()].map(|mut client| {
            // It may be closed before it has taken all.
            let _ = client.try_send(bytes);
            String::from_utf8(client.rest()).unwrap()
        });
        let shown = bytes[..bytes.len().min(40)].escape_ascii();
        assert!(expected.contains("-ERR Protocol error: "), "{shown}: {expected:?}");
        assert_eq!(said, expected, "{shown}");
        assert_eq!(bystander.ask("GET k"), "$1\r\nv\r\n");
    }
    let mut browser = hotring.app();
    browser.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET k bad\r\n");
    browser.rest();
    assert_eq!(bystander.ask("GET k"), "$1\r\nv\r\n");
}

#[test]
fn a_request_above_max_request_is_refused() {
    let redis = Redis::start(&[]);
    let hotring = Hotring::over(&[redis.address()], &["max_request: 64kb"]);
    let mut app = hotring.app();
    let value = "x".repeat(60_000);
    assert_eq!(app.ask(&format!("SET k {value}")), "+OK\r\n");
    app.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$65537\r\n");
    assert_eq!(app.rest(), b"-ERR Protocol error: invalid bulk length\r\n");
    assert_eq!(hotring.app().ask("STRLEN k"), ":60000\r\n");
}

#[test]
fn quit_answers_what_came_before_and_closes() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let mut requests = Vec::new();
    for n in 0..50 {
        requests.extend(wire(&["SET", &format!("key:{n}"), "v"]));
    }
    requests.extend(wire(&["QUIT"]));
    requests.extend(wire(&["SET", "after", "v"]));
    app.send(&requests);
    assert_eq!(String::from_utf8(app.rest()).unwrap(), "+OK\r\n".repeat(51));
    assert_eq!(hotring.app().ask("GET after"), "$-1\r\n");
    assert_eq!(hotring.app().ask("GET key:49"), "$1\r\nv\r\n");
}

#[test]
fn an_app_that_closes_its_half_gets_all_replies() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &["max_pipeline: 100"]);
    let mut app = hotring.app();
    for n in 0..3000 {
        app.send(&wire(&["INCR", &format!("key:{}", n % 10)]));
    }
    app.half_close();
    let replies: String = (0..3000).map(|n| format!(":{}\r\n", n / 10 + 1)).collect();
    assert_eq!(String::from_utf8(app.rest()).unwrap(), replies);
}

#[test]
fn large_values_pass_both_ways() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    for size in [16 * 1024 - 1, 16 * 1024, 1 << 20, 64 << 20] {
        let mut app = hotring.app();
        let value: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let mut writer = app.writer();
        let mut requests = wire(&[b"SET", &b"large"[..], &value]);
        requests.extend(wire(&["STRLEN", "large"]));
        requests.extend(wire(&["GET", "large"]));
        requests.extend(wire(&["SET", "small", "v"]));
        requests.extend(wire(&["GET", "small"]));
        let sending = std::thread::spawn(move || writer.send(&requests));
        assert_eq!(app.text(), "+OK\r\n");
        assert_eq!(app.text(), format!(":{size}\r\n"));
        let header = format!("${size}\r\n");
        assert_eq!(app.exactly(header.len()), header.as_bytes());
        assert!(app.exactly(size) == value, "{size} bytes came back as they went");
        assert_eq!(app.exactly(2), b"\r\n");
        assert_eq!((app.text(), app.text()), ("+OK\r\n".into(), "$1\r\nv\r\n".into()));
        sending.join().unwrap();
    }
}

#[test]
fn a_large_value_keeps_nobody_else_waiting() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let (mut large, mut small) = (hotring.app(), hotring.app());
    let value = vec![b'x'; 8 << 20];
    assert_eq!(large.call(&[b"SET", &b"large"[..], &value]), b"+OK\r\n");
    // Asked for several times and not read: what does not fit into the socket waits in hotring.
    for _ in 0..6 {
        large.send(&wire(&["GET", "large"]));
    }
    for n in 0..100 {
        assert_eq!(small.ask(&format!("SET key:{n} v")), "+OK\r\n");
    }
    for _ in 0..6 {
        assert_eq!(large.reply().len(), value.len() + "$8388608\r\n\r\n".len());
    }
}

#[test]
fn empty_and_binary_keys_and_values() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let every: Vec<u8> = (0..=255).collect();
    let mut keys: Vec<Vec<u8>> = vec![b"".to_vec(), every.clone(), b"\r\n".to_vec(), b"$-1\r\n".to_vec(), vec![0; 3]];
    keys.extend((0..=255).map(|byte| vec![byte]));
    keys.push(vec![b'k'; 100_000]);
    for (n, key) in keys.iter().enumerate() {
        let value = if n == 0 { Vec::new() } else { [key.as_slice(), &every].concat() };
        assert_eq!(app.call(&[b"SET", &key[..], &value]), b"+OK\r\n");
        let reply = [format!("${}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat();
        assert_eq!(app.call(&[b"GET", &key[..]]), reply);
        assert_eq!(redis[home(3, key)].client().call(&[b"GET", &key[..]]), reply);
        let both = [b"*2\r\n", &reply[..], b"$-1\r\n"].concat();
        assert_eq!(app.call(&[b"MGET", &key[..], b"nothing at all"]), both);
    }
}

#[test]
fn listens_on_a_unix_socket_with_its_mode() {
    let (_redis, at) = shards(3);
    let dir = Scratch::new();
    let path = dir.file("app.sock");
    // Left behind by a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listen = format!("listen: {path} 0600");
    let hotring = Hotring::over(&at, &[&listen]);
    assert_eq!(hotring.address(0), path);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(hotring.app().ask("SET k v"), "+OK\r\n");
    assert_eq!(hotring.app().ask("GET k"), "$1\r\nv\r\n");
    let mut large = hotring.app();
    let value = vec![b'x'; 4 << 20];
    assert_eq!(large.call(&[b"SET", &b"large"[..], &value]), b"+OK\r\n");
    assert_eq!(large.call(&["GET", "large"]).len(), value.len() + 12);
    hotring.stop().unwrap();
    assert!(!std::fs::exists(&path).unwrap(), "the socket's file is gone with its listener");
}

#[test]
fn listens_on_ipv6() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        // A machine without IPv6 cannot be asked.
        return;
    }
    let redis = Redis::start(&[]);
    let hotring = Hotring::over(&[redis.address()], &["listen: \"[::1]:0\""]);
    assert!(hotring.address(0).starts_with("[::1]:"), "{}", hotring.address(0));
    assert_eq!(hotring.app().ask("SET k v"), "+OK\r\n");
}

#[test]
fn shards_by_tcp_and_several_listeners() {
    let redis = [Redis::tcp(&[]), Redis::tcp(&[])];
    let at: Vec<&str> = redis.iter().map(Redis::address).collect();
    let hotring = Hotring::over(&at, &["listen: [\"127.0.0.1:0\", \"127.0.0.1:0\"]", "tcpkeepalive: true"]);
    assert_ne!(hotring.address(0), hotring.address(1));
    for n in 0..20 {
        assert_eq!(Client::connect(hotring.address(n % 2)).ask(&format!("SET key:{n} v")), "+OK\r\n");
        assert_eq!(Client::connect(hotring.address(1 - n % 2)).ask(&format!("GET key:{n}")), "$1\r\nv\r\n");
    }
    let sizes: Vec<String> = redis.iter().map(|redis| redis.client().ask("DBSIZE")).collect();
    assert!(sizes.iter().all(|size| size != ":0\r\n"), "{sizes:?}");
}

#[test]
fn pools_know_nothing_of_each_other() {
    let (redis, at) = shards(2);
    let pool = |name: &str, at: &str, more: &str| {
        format!("  {name}:\n    listen: 127.0.0.1:0\n    servers: [\"{at}:1 {name}\"]\n{more}")
    };
    let one = pool("one", &at[0], "");
    let other = pool("other", &at[1], "    redis_db: 3\n");
    let hotring = Hotring::start(&format!("admin: off\npools:\n{one}{other}"));
    let (mut a, mut b) = (Client::connect(hotring.address(0)), Client::connect(hotring.address(1)));
    assert_eq!((a.ask("SET k a"), b.ask("SET k b")), ("+OK\r\n".into(), "+OK\r\n".into()));
    assert_eq!((a.ask("GET k"), b.ask("GET k")), ("$1\r\na\r\n".into(), "$1\r\nb\r\n".into()));
    let mut direct = redis[1].client();
    assert_eq!(direct.ask("GET k"), "$-1\r\n");
    assert_eq!(direct.ask("SELECT 3"), "+OK\r\n");
    assert_eq!(direct.ask("GET k"), "$1\r\nb\r\n");
}

#[test]
fn stopping_closes_sessions_and_listeners() {
    let redis = Redis::start(&[]);
    let hotring = Hotring::over(&[redis.address()], &["^drain: {timeout: 1m}"]);
    let address = hotring.address(0).to_owned();
    let mut apps: Vec<Client> = (0..10).map(|_| hotring.app()).collect();
    for app in &mut apps {
        assert_eq!(app.ask("INCR n").as_bytes()[0], b':');
    }
    let start = now();
    hotring.stop().unwrap();
    // `drain.timeout` is a minute.
    assert!(start.elapsed() < FOREVER / 2, "sessions that want nothing are not waited for");
    for app in &mut apps {
        assert_eq!(app.rest(), b"");
    }
    assert!(Client::try_connect(&address).is_err());
    eventually("its connections are closed", || redis.connections() == 0);
}
