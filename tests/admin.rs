//! The admin listener over real sockets, spoken to byte by byte.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hotring::admin::status::Status;
use hotring::admin::{Access, Backend, Explanation, Limits, Listener, Readiness, Source, Wanted, serve, serve_within};
use hotring::metrics::AdminAction;
use hotring::units::Secret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Only a test that fails waits this long.
const FOREVER: Duration = Duration::from_secs(60);

const TOKEN: &str = "the-token-of-this-test";

/// Metrics too many for the sockets' buffers: 18 MB.
const LINE: &str = "hotring_workers 1\n";
const LINES: usize = 1_000_000;

#[derive(Default)]
struct Fake {
    reasons: Mutex<Vec<String>>,
    /// The order in which requests arrived, by the key asked for.
    asked: Mutex<Vec<Vec<u8>>>,
    gate: CancellationToken,
}

impl Source for Fake {
    fn access(&self) -> Access {
        Access { token: Some(Secret::new(TOKEN)), for_reads: false, hosts: Vec::new() }
    }

    fn acted(&self, _: AdminAction) {}

    fn metrics(&self) -> String {
        LINE.repeat(LINES)
    }

    fn ready(&self) -> Readiness {
        match self.reasons.lock().unwrap().clone() {
            none if none.is_empty() => Readiness::Ready("2 pools".to_owned()),
            reasons => Readiness::NotReady(reasons),
        }
    }

    fn config(&self) -> String {
        "alpha:\n  redis_auth: \"***\"\n".to_owned()
    }

    fn faults(&self) -> String {
        "no faults are injected\n".to_owned()
    }

    fn add_fault(&self, wanted: Wanted) -> Explanation {
        Box::pin(async move { Ok(format!("{}\n", wanted.rule)) })
    }

    fn remove_faults(&self, id: Option<u64>) -> Explanation {
        Box::pin(async move { id.map_or(Ok("all\n".to_owned()), |id| Err(format!("no {id}"))) })
    }

    fn warm(&self) -> String {
        "pool a: from previous\n".to_owned()
    }

    fn topology(&self) -> String {
        "pool alpha: static, 1 in the file\n".to_owned()
    }

    fn explain(&self, pool: Option<String>, request: Vec<Vec<u8>>) -> Explanation {
        let key = request[1].clone();
        self.asked.lock().unwrap().push(key.clone());
        let gate = self.gate.clone();
        Box::pin(async move {
            match key.as_slice() {
                b"never" => pending().await,
                b"gate" => gate.cancelled().await,
                _ => {}
            }
            match pool.as_deref() {
                Some("none") => Err("no pool `none`".to_owned()),
                pool => Ok(format!("{pool:?} {}\n", request.join(&b' ').escape_ascii())),
            }
        })
    }

    fn hot_keys(&self) -> String {
        "{\"pools\":[]}\n".into()
    }

    fn status(&self) -> Status {
        Status::default()
    }

    fn reload(&self, dry: bool) -> Explanation {
        Box::pin(async move { if dry { Ok("would\n".to_owned()) } else { Err("is wrong\n".to_owned()) } })
    }

    fn backends(&self) -> Vec<Backend> {
        let row = |name: &str, state: &str| Backend {
            pool: "alpha".to_owned(),
            name: name.to_owned(),
            address: "127.0.0.1:6379".to_owned(),
            role: "primary".to_owned(),
            state: state.to_owned(),
            connections: 2,
            in_queue: 0,
            out_queue: 17,
        };
        vec![row("one", "up"), row("the-other", "ejected\nfor 3 s")]
    }
}

/// A running listener and what to drive it with.
struct Running {
    at: SocketAddr,
    source: Arc<Fake>,
    shutdown: CancellationToken,
    served: JoinHandle<io::Result<()>>,
}

impl Running {
    async fn start(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (source, shutdown) = (Arc::new(Fake::default()), CancellationToken::new());
        let served = spawn_local(serve_within(limits, listener, source.clone(), shutdown.clone()));
        Self { at, source, shutdown, served }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.at).await.unwrap()
    }

    async fn send(&self, request: impl AsRef<[u8]>) -> String {
        exchange(self.connect().await, request.as_ref()).await
    }

    async fn get(&self, path: &str) -> String {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.served.await.unwrap().unwrap();
    }
}

/// Sends all and reads until the other side ends.
async fn exchange(mut socket: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> String {
    socket.write_all(request).await.expect("all is taken, wanted or not");
    rest(socket).await
}

async fn rest(mut socket: impl AsyncRead + Unpin) -> String {
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.expect("an end, not a reset");
    String::from_utf8(answer).unwrap()
}

fn status(answer: &str) -> &str {
    answer.strip_prefix("HTTP/1.1 ").map_or(answer, |after| &after[..3])
}

/// The header that shows the token.
fn shown() -> String {
    format!("Authorization: Bearer {TOKEN}\r\n")
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("a head").1
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let all = LocalSet::new();
    all.block_on(&runtime, async { timeout(FOREVER, test).await.expect("the test came to no end") });
}

#[test]
fn pages_answer_in_plain_text() {
    run(async {
        let admin = Running::start(Limits::default()).await;
        for (path, wants) in [
            ("/", "/readyz"),
            ("/healthz", "ok\n"),
            ("/version", concat!("hotring ", env!("CARGO_PKG_VERSION"))),
            ("/config", "redis_auth: \"***\""),
            (
                "/backends",
                "alpha  the-other  127.0.0.1:6379  ejected for 3 s  2            0         17         primary\n",
            ),
            ("/healthz?x=y", "ok\n"),
        ] {
            let answer = admin.get(path).await;
            assert_eq!(status(&answer), "200", "{path}: {answer}");
            assert!(body(&answer).contains(wants), "{path}: {answer}");
            assert!(answer.contains("content-type: text/plain; charset=utf-8\r\n"), "{path}: {answer}");
            assert!(answer.contains("connection: close\r\n"), "{path}: {answer}");
        }
        let index = admin.get("/").await;
        for line in body(&index).lines().filter(|line| line.starts_with('/')) {
            let path = line.split(' ').next().unwrap();
            assert!(!["404", "405"].contains(&status(&admin.get(path).await)), "{path} is listed but not there");
        }
        admin.stop().await;
    });
}

#[test]
fn metrics_have_their_content_type_and_come_whole() {
    run(async {
        let admin = Running::start(Limits::default()).await;
        let answer = admin.get("/metrics").await;
        assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{}", &answer[..200]);
        assert_eq!(body(&answer).len(), LINE.len() * LINES);
        let head = admin.send("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!((status(&head), body(&head)), ("200", ""));
        admin.stop().await;
    });
}

#[test]
fn readiness_gives_its_reasons() {
    run(async {
        let admin = Running::start(Limits::default()).await;
        let answer = admin.get("/readyz").await;
        assert_eq!((status(&answer), body(&answer)), ("200", "ready\n2 pools\n"));
        *admin.source.reasons.lock().unwrap() = vec!["alpha: no shard".to_owned(), "draining\nready".to_owned()];
        let answer = admin.get("/readyz").await;
        assert_eq!((status(&answer), body(&answer)), ("503", "not ready\nalpha: no shard\ndraining ready\n"));
        assert_eq!(status(&admin.get("/healthz").await), "200");
        admin.stop().await;
    });
}

#[test]
fn explain_passes_bytes_and_tells_errors() {
    run(async {
        let limits = Limits { answer: Duration::from_millis(30), ..Limits::default() };
        let admin = Running::start(limits).await;
        for (query, code, wants) in [
            ("?key=a", "200", "None GET a\n"),
            ("?key=%ff%00&command=SET&arg=v&pool=p", "200", "Some(\"p\") SET \\xff\\x00 v\n"),
            ("", "400", "which key? ?key=K[&command=GET][&arg=A ...][&pool=P]\n"),
            ("?key=%f", "400", "`key` has a percent sign without two hex digits\n"),
            ("?key=a&pool=none", "400", "no pool `none`\n"),
            ("?key=never", "504", "no worker answered in time\n"),
        ] {
            let answer = admin.get(&format!("/explain{query}")).await;
            assert_eq!((status(&answer), body(&answer)), (code, wants), "{query}");
        }
        admin.stop().await;
    });
}

#[test]
fn what_is_not_there_is_refused_in_plain_text() {
    run(async {
        let admin = Running::start(Limits::default()).await;
        for (request, code) in
            [("GET /metrics/", "404"), ("GET /../config", "404"), ("POST /nowhere", "404"), ("DELETE /config", "405")]
        {
            let answer = admin.send(format!("{request} HTTP/1.1\r\nHost: x\r\n{}\r\n", shown())).await;
            assert_eq!(status(&answer), code, "{request}");
            assert!(answer.contains("content-type: text/plain") && !body(&answer).is_empty(), "{answer}");
        }
        let mut post = format!("POST /config HTTP/1.1\r\n{}Content-Length: 100000\r\n\r\n", shown()).into_bytes();
        post.resize(post.len() + 100_000, b'x');
        let answer = admin.send(&post).await;
        assert_eq!(status(&answer), "405");
        assert!(answer.contains("allow: GET,HEAD\r\n"), "{answer}");
        admin.stop().await;
    });
}

#[test]
fn who_still_sends_is_not_reset() {
    run(async {
        let admin = Running::start(Limits::default()).await;
        let mut socket = admin.connect().await;
        let half = vec![b'x'; 50_000];
        socket.write_all(b"POST /config HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n").await.unwrap();
        socket.write_all(&half).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("an end, not a reset");
        assert_eq!(status(&answer), "401");
        // Plenty of turns for a listener that would close on what it has not read.
        for _ in 0..1000 {
            yield_now().await;
        }
        socket.write_all(&half).await.expect("the rest is taken, though not wanted");
        admin.stop().await;
    });
}

#[test]
fn garbage_costs_its_own_connection_only() {
    run(async {
        let admin = Running::start(Limits::default()).await;
        let mut huge = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ".to_vec();
        huge.resize(100_000, b'x');
        let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(50_000));
        for (garbage, codes) in [
            (&b"*1\r\n$4\r\nPING\r\n"[..], &["400"][..]),
            (b"\0\xff\x16\x03\x01\r\n\r\n", &["400"]),
            (b"GET / HTTP/9.9\r\n\r\n", &["400", "505", ""]),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &["400", "505", ""]),
            (&huge, &["431"]),
            (many.as_bytes(), &["431"]),
            (long.as_bytes(), &["414", "431"]),
        ] {
            let answer = admin.send(garbage).await;
            assert!(
                codes.contains(&status(&answer)),
                "{:?}: {answer}",
                garbage[..20.min(garbage.len())].escape_ascii()
            );
        }
        let mut cut = admin.connect().await;
        cut.write_all(b"GET /hea").await.unwrap();
        cut.shutdown().await.unwrap();
        rest(cut).await;
        assert_eq!(body(&admin.get("/healthz").await), "ok\n");
        admin.stop().await;
    });
}

#[test]
fn a_connection_serves_one_request() {
    run(async {
        let admin = Running::start(Limits::default()).await;
        let twice = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2);
        let answer = admin.send(twice).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        admin.stop().await;
    });
}

#[test]
fn half_a_request_is_not_waited_for() {
    run(async {
        let limits = Limits { head: Duration::from_millis(30), ..Limits::default() };
        let admin = Running::start(limits).await;
        for half in ["", "GET /healthz", "GET /healthz HTTP/1.1\r\nHost: x\r\n"] {
            let mut socket = admin.connect().await;
            socket.write_all(half.as_bytes()).await.unwrap();
            let answer = rest(socket).await;
            assert!(["", "408"].contains(&status(&answer)), "{answer}");
        }
        admin.stop().await;
    });
}

#[test]
fn an_answer_nobody_reads_is_given_up() {
    run(async {
        let limits = Limits { connections: 1, whole: Duration::from_secs(2), patience: FOREVER, ..Limits::default() };
        let admin = Running::start(limits).await;
        // So much does not fit into the sender's buffer once the receiver's is small.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut deaf = socket.connect(admin.at).await.unwrap();
        deaf.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        // The only place is taken until the deaf one is given up.
        assert_eq!(body(&admin.get("/healthz").await), "ok\n");
        let mut got = Vec::new();
        let _ = deaf.read_to_end(&mut got).await;
        assert!(got.len() < LINE.len() * LINES);
        admin.stop().await;
    });
}

#[test]
fn connections_beyond_the_limit_wait_their_turn() {
    run(async {
        let admin = Running::start(Limits { connections: 2, patience: FOREVER, ..Limits::default() }).await;
        let mut first = admin.connect().await;
        let second = admin.connect().await;
        first.write_all(b"GET /explain?key=first HTTP/1.1\r\n").await.unwrap();
        let mut third = admin.connect().await;
        third.write_all(b"GET /explain?key=third HTTP/1.1\r\n\r\n").await.unwrap();
        // Plenty of turns for a listener that would accept it.
        for _ in 0..1000 {
            yield_now().await;
        }
        assert_eq!(third.try_read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(status(&exchange(first, b"\r\n").await), "200");
        assert_eq!(status(&rest(third).await), "200");
        assert_eq!(*admin.source.asked.lock().unwrap(), [b"first", b"third"]);
        drop(second);
        admin.stop().await;
    });
}

#[test]
fn those_who_do_not_go_on_keep_no_probe_out() {
    run(async {
        // Only for another one are they closed.
        let limits = Limits { head: FOREVER * 2, whole: FOREVER * 2, answer: FOREVER * 2, ..Limits::default() };
        let admin = Running::start(limits).await;
        // Hotring works for one, and it is the oldest.
        let mut working = admin.connect().await;
        working.write_all(b"GET /explain?key=gate HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        while admin.source.asked.lock().unwrap().is_empty() {
            yield_now().await;
        }
        let mut slow = Vec::new();
        for number in 0..200 {
            let mut socket = admin.connect().await;
            if number % 2 == 0 {
                socket.write_all(b"GET /readyz HTTP/1.1\r\nHo").await.unwrap();
            } else if number < 4 {
                // More than the buffers take, and nobody reads it.
                socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            }
            slow.push(socket);
        }
        for path in ["/readyz", "/healthz"] {
            let answer = admin.get(path).await;
            assert_eq!(status(&answer), "200", "{path}: {answer}");
        }
        admin.source.gate.cancel();
        assert_eq!(body(&rest(working).await), "None GET gate\n");
        // No more of them were closed than had to be.
        let newest = slow.pop().unwrap();
        assert_eq!(
            body(
                &exchange(
                    newest,
                    b"GET /healthz HTTP/1.1
Host: x

"
                )
                .await
            ),
            "ok
"
        );
        drop(slow);
        admin.stop().await;
    });
}

#[test]
fn many_connections_are_all_answered() {
    run(async {
        // Who gets no turn for a while is none that does not go on.
        let admin = Running::start(Limits { patience: FOREVER, ..Limits::default() }).await;
        let all: Vec<_> = (0..300)
            .map(|i| {
                let at = admin.at;
                spawn_local(async move {
                    let socket = TcpStream::connect(at).await.unwrap();
                    if i % 3 == 0 {
                        return drop(socket);
                    }
                    let answer = exchange(socket, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
                    assert_eq!(body(&answer), "ok\n");
                })
            })
            .collect();
        for one in all {
            one.await.unwrap();
        }
        admin.stop().await;
    });
}

#[test]
fn shutdown_answers_what_was_asked_and_drops_the_rest() {
    run(async {
        let admin = Running::start(Limits { drain: FOREVER, ..Limits::default() }).await;
        let mut asking = admin.connect().await;
        asking.write_all(b"GET /explain?key=gate HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut idle = admin.connect().await;
        idle.write_all(b"GET /heal").await.unwrap();
        while admin.source.asked.lock().unwrap().is_empty() {
            yield_now().await;
        }
        admin.shutdown.cancel();
        assert_eq!(rest(idle).await, "");
        let refused = TcpStream::connect(admin.at).await;
        assert!(refused.is_err(), "still listening");
        admin.source.gate.cancel();
        assert_eq!(body(&rest(asking).await), "None GET gate\n");
        admin.served.await.unwrap().unwrap();
    });
}

#[test]
fn shutdown_does_not_wait_for_ever() {
    run(async {
        let admin = Running::start(Limits { drain: Duration::from_millis(30), ..Limits::default() }).await;
        let mut asking = admin.connect().await;
        asking.write_all(b"GET /explain?key=never HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        while admin.source.asked.lock().unwrap().is_empty() {
            yield_now().await;
        }
        admin.stop().await;
        assert_eq!(rest(asking).await, "");
    });
}

#[test]
fn a_unix_socket_does_as_well() {
    run(async {
        let path = std::env::temp_dir().join(format!("hotring-admin-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let shutdown = CancellationToken::new();
        let served = spawn_local(serve(Listener::Unix(listener), Arc::new(Fake::default()), shutdown.clone()));
        let answer = exchange(UnixStream::connect(&path).await.unwrap(), b"GET /healthz HTTP/1.0\r\n\r\n").await;
        std::fs::remove_file(&path).unwrap();
        assert_eq!(body(&answer), "ok\n");
        shutdown.cancel();
        served.await.unwrap().unwrap();
    });
}
