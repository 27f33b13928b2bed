//! Spans of sampled requests for a collector of OpenTelemetry, and the log of accesses: what is told, of how many, and what
//! becomes of it when nobody takes it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, dead_code, reason = "parts of one test")]

#[path = "tracing/collector.rs"]
mod collector;
#[path = "support/engine.rs"]
mod inner;
mod support;

use collector::{Collector, Span};
use hotring::engine::samples::{ALL, Sampling, Source, Wanted};
use hotring::error::{Cause, Failure};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{Fake, Hotring, Redis, Scratch, Site, eventually, key_on, pool, wire};

/// Kinds of span.
const INTERNAL: u64 = 1;
const SERVER: u64 = 2;
const CLIENT: u64 = 3;

fn tracing(collector: &Collector, more: &str) -> String {
    format!("^tracing: {{endpoint: '{}', {more}}}", collector.endpoint())
}

fn nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<&Span> = spans.iter().filter(|span| span.is_root() && span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

fn below<'a>(spans: &'a [Span], of: &Span) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.parent == of.id).collect()
}

/// What holds of any spans.
fn well_formed(spans: &[Span]) {
    let ids: HashSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    assert_eq!(ids.len(), spans.len(), "each has a number of its own");
    let roots: HashMap<&str, &Span> = spans.iter().filter(|s| s.is_root()).map(|s| (s.id.as_str(), s)).collect();
    let traces: HashSet<&str> = roots.values().map(|span| span.trace.as_str()).collect();
    assert_eq!(traces.len(), roots.len(), "each request is a trace");
    for span in spans {
        assert!(span.start <= span.end, "{span:?}");
        assert_eq!(span.resource["service.version"], env!("CARGO_PKG_VERSION"));
        if span.is_root() {
            assert_eq!(span.kind, SERVER, "{span:?}");
            continue;
        }
        let root = roots[span.parent.as_str()];
        assert_eq!(span.trace, root.trace);
        assert!(root.start <= span.start && span.end <= root.end, "{span:?} within {root:?}");
        match span.name.as_str() {
            "queued" => assert_eq!(span.kind, INTERNAL),
            name => assert_eq!(name, root.name),
        }
    }
}

#[test]
fn spans_tell_what_became_of_requests_and_nothing_else() {
    let servers: Vec<Redis> = (0..2).map(|_| Redis::tcp(&[])).collect();
    let at: Vec<&str> = servers.iter().map(|server| server.address()).collect();
    let collector = Collector::start();
    let more = "sample: 1, service_name: shop-cache, headers: {X-Scope: tenant-7}";
    let hotring = Hotring::with_admin(&pool(&at, &[&tracing(&collector, more)]));
    let (first, second) = (key_on(0, 2), key_on(1, 2));
    let before = nanos();
    let mut app = hotring.app();
    assert_eq!(app.ask("CLIENT SETNAME checkout"), "+OK\r\n");
    assert_eq!(app.ask(&format!("SET {first} hidden-value")), "+OK\r\n");
    assert_eq!(app.ask(&format!("GET {first}")), "$12\r\nhidden-value\r\n");
    assert_eq!(app.ask(&format!("MGET {first} {second}")), "*2\r\n$12\r\nhidden-value\r\n$-1\r\n");
    assert!(app.ask(&format!("LPUSH {first} hidden-value")).starts_with("-WRONGTYPE "));
    assert!(app.ask(&format!("SINTER {first} {second}")).starts_with("-CROSSSLOT "));
    assert!(app.ask("HIDDEN-COMMAND 1").starts_with("-ERR unknown command"));
    assert_eq!(app.ask("PING"), "+PONG\r\n");
    let spans = collector.spans_until("PING");
    well_formed(&spans);
    let after = nanos();

    let get = named(&spans, "GET");
    assert_eq!(get.resource["service.name"], "shop-cache");
    assert!(before <= get.start + 1_000_000 && get.end <= after + 1_000_000, "{before} {get:?} {after}");
    let port = |address: &str| address.rsplit_once(':').unwrap().1.to_owned();
    for (name, value) in [
        ("db.system.name", "redis"),
        ("db.operation.name", "GET"),
        ("db.namespace", "0"),
        ("server.address", "127.0.0.1"),
        ("server.port", &port(hotring.address(0))),
        ("network.peer.address", "127.0.0.1"),
        ("user.name", "default"),
        ("hotring.client.name", "checkout"),
        ("hotring.pool", "main"),
        ("hotring.shard", "s0"),
        ("hotring.source", "shard"),
        ("hotring.reply.size", "19"),
        ("hotring.request.size", &wire(&["GET", &first]).len().to_string()),
    ] {
        assert_eq!(get.get(name), value, "{name}");
    }
    assert!(get.get("network.peer.port").parse::<u16>().unwrap() > 0);
    assert!(!get.failed && get.get("error.type").is_empty());
    let asked: Vec<&Span> = below(&spans, get).into_iter().filter(|span| span.kind == CLIENT).collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].get("server.port"), port(at[0]));
    assert_eq!(asked[0].get("hotring.shard"), "s0");

    let mget = named(&spans, "MGET");
    assert_eq!(mget.attributes["hotring.shards"].as_array().unwrap().len(), 2);
    let mut shards: Vec<String> =
        below(&spans, mget).iter().filter(|s| s.kind == CLIENT).map(|s| s.get("hotring.shard")).collect();
    shards.sort();
    assert_eq!(shards, ["s0", "s1"]);

    for (name, error, code, shards) in [
        ("LPUSH", "WRONGTYPE", "WRONGTYPE", 1),
        ("SINTER", "cross_shard", "CROSSSLOT", 0),
        ("UNKNOWN", "unknown_command", "ERR", 0),
    ] {
        let span = named(&spans, name);
        assert!(span.failed, "{span:?}");
        assert_eq!((span.get("error.type"), span.get("db.response.status_code")), (error.into(), code.into()));
        assert_eq!(below(&spans, span).iter().filter(|s| s.kind == CLIENT && s.failed).count(), shards, "{name}");
    }
    assert_eq!(named(&spans, "PING").get("hotring.source"), "proxy");

    for post in collector.posts() {
        assert!(post.head.contains("\r\nx-scope: tenant-7\r\n"), "{}", post.head);
        assert!(post.head.starts_with("post /v1/traces http/1.1\r\n"), "{}", post.head);
        assert!(post.head.contains("\r\ncontent-type: application/json\r\n"), "{}", post.head);
        let secrets = [first.as_str(), second.as_str(), "hidden", "HIDDEN"];
        secrets.iter().for_each(|secret| assert!(!post.body.contains(secret), "{secret}"));
    }
    let requests = spans.iter().filter(|span| span.is_root()).count() as f64;
    eventually("they are counted", || hotring.metric("hotring_traces_exported_total") >= requests);
    assert!(!hotring.page("/config").1.contains("tenant-7"), "what is sent to the collector may be a secret");
}

#[test]
fn keys_are_told_where_that_is_asked_for() {
    let server = Redis::tcp(&[]);
    let collector = Collector::start();
    let hotring = Hotring::with_admin(&pool(&[server.address()], &[&tracing(&collector, "sample: 1, keys: true")]));
    let mut app = hotring.app();
    app.ask("SET told hidden");
    app.ask("MSET one hidden two hidden");
    let spans = collector.spans_until("MSET");
    assert_eq!(named(&spans, "SET").attributes["hotring.keys"], serde_json::json!(["told"]));
    assert_eq!(named(&spans, "MSET").attributes["hotring.keys"], serde_json::json!(["one", "two"]));
    assert!(collector.posts().iter().all(|post| !post.body.contains("hidden")));
}

#[test]
fn replies_from_memory_and_of_nodes_in_the_process_say_so() {
    let server = Redis::tcp(&[]);
    let collector = Collector::start();
    let hot = "hot_keys: {reads: near, near_all: true, max_staleness: 60s}";
    let hotring = Hotring::with_admin(&pool(&[server.address()], &[&tracing(&collector, "sample: 1"), hot]));
    let mut app = hotring.app();
    app.ask("SET k v");
    eventually("it is answered from memory", || {
        (0..100).for_each(|_| assert_eq!(app.ask("GET k"), "$1\r\nv\r\n"));
        hotring.metric("hotring_near_hits_total{pool=\"main\"}") > 0.0
    });
    app.ask("PING");
    let spans = collector.spans_until("PING");
    well_formed(&spans);
    let near: Vec<&Span> = spans.iter().filter(|span| span.get("hotring.source") == "near").collect();
    assert!(!near.is_empty());
    for span in near {
        assert_eq!((span.name.as_str(), span.kind, below(&spans, span).len()), ("GET", SERVER, 0));
    }

    let collector = Collector::start();
    let yaml = format!(
        "admin: off\ntracing: {{endpoint: '{}', sample: 1}}\npools: {{p: {{listen: '127.0.0.1:0', servers: embedded:2}}}}",
        collector.endpoint()
    );
    let hotring = Hotring::with_admin(&yaml);
    hotring.app().ask("GET k");
    let spans = collector.spans_until("GET");
    well_formed(&spans);
    assert_eq!(named(&spans, "GET").get("hotring.source"), "embedded");
}

#[test]
fn as_many_are_sampled_as_are_wanted() {
    let server = Redis::tcp(&[]);
    let collector = Collector::start();
    let hotring = Hotring::with_admin(&pool(&[server.address()], &[&tracing(&collector, "sample: 0.05")]));
    let mut app = hotring.app();
    for _ in 0..40 {
        app.send(&wire(&["GET", "k"]).repeat(500));
        (0..500).for_each(|_| assert_eq!(app.text(), "$-1\r\n"));
    }
    // A thousand, and ten times the standard deviation to both sides.
    let told = || {
        let dropped = |why: &str| hotring.metric(&format!("hotring_traces_dropped_total{{why=\"{why}\"}}"));
        hotring.metric("hotring_traces_exported_total") + dropped("queue") + dropped("worker")
    };
    eventually("they are exported", || told() > 690.0 && hotring.metric("hotring_traces_waiting") == 0.0);
    drop(app);
    hotring.stop().unwrap();
    let spans = collector.spans();
    well_formed(&spans);
    let count = spans.iter().filter(|span| span.is_root()).count();
    assert!((690..1310).contains(&count), "{count}");
}

#[test]
fn slow_requests_are_always_there() {
    let server = Redis::tcp(&[]);
    let collector = Collector::start();
    let hotring = Hotring::with_admin(&pool(&[server.address()], &[&tracing(&collector, "sample: 0, slow: 5ms")]));
    let mut app = hotring.app();
    (0..100).for_each(|_| assert_eq!(app.ask("GET k"), "$-1\r\n"));
    assert_eq!(app.call(&["EVAL", "for i = 1, 2e7 do end return 1", "1", "k"]), b":1\r\n");
    let spans = collector.spans_until("EVAL");
    well_formed(&spans);
    // On a machine that has much to do others may be slow, too.
    for root in spans.iter().filter(|span| span.is_root()) {
        assert!(root.end - root.start >= 5_000_000, "{root:?}");
    }
    let eval = named(&spans, "EVAL");
    let backend = below(&spans, eval).into_iter().find(|span| span.kind == CLIENT).unwrap();
    assert!(backend.end - backend.start > (eval.end - eval.start) / 2, "the server took the time: {backend:?}");
    let slowlog = app.ask("SLOWLOG LEN");
    assert!(slowlog.starts_with(':'), "{slowlog}");
}

#[test]
fn a_server_that_is_not_there_is_an_error_with_its_cause() {
    let gone = Redis::tcp(&[]).address().to_owned();
    let collector = Collector::start();
    let hotring = Hotring::with_admin(&pool(&[gone], &[&tracing(&collector, "sample: 1")]));
    assert!(hotring.app().ask("GET k").starts_with("-ERR shard s0 "));
    let spans = collector.spans_until("GET");
    well_formed(&spans);
    let get = named(&spans, "GET");
    assert!(get.failed && ["connect", "shard_down"].contains(&get.get("error.type").as_str()), "{get:?}");
}

#[test]
fn a_dead_collector_harms_nobody() {
    // Whose port nobody has any more.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Redis::tcp(&[]);
    let keys = [format!("^tracing: {{endpoint: 'http://{address}/v1/traces', sample: 1}}")];
    let hotring = Hotring::with_admin(&pool(&[server.address()], &[&keys[0]]));
    let mut app = hotring.app();
    let dropped = |why: &str| hotring.metric(&format!("hotring_traces_dropped_total{{why=\"{why}\"}}"));
    let mut most = 0.0f64;
    eventually("the queue is full, and no more than that", || {
        app.send(&wire(&["GET", "k"]).repeat(500));
        (0..500).for_each(|_| assert_eq!(app.text(), "$-1\r\n"));
        most = most.max(hotring.metric("hotring_traces_waiting"));
        dropped("queue") > 0.0
    });
    assert!(most <= 2048.0, "{most}");
    eventually("what was tried often enough is dropped", || dropped("failed") > 0.0);
    assert!(hotring.metric("hotring_trace_export_failures_total") >= 4.0);
    assert_eq!(hotring.metric("hotring_traces_exported_total"), 0.0);
    assert_eq!(app.ask("PING"), "+PONG\r\n");
}

#[test]
fn a_collector_that_says_later_is_asked_again_and_not_for_ever() {
    let busy = || Some(("503 Service Unavailable\r\nRetry-After: 0".to_owned(), String::new()));
    let fine = || Some(("200 OK".to_owned(), "{}".to_owned()));
    let server = Redis::tcp(&[]);
    // Twice later, then taken: nothing is lost, and it is the same batch.
    let collector = Collector::answering(move |number| if number < 2 { busy() } else { fine() });
    let hotring = Hotring::with_admin(&pool(&[server.address()], &[&tracing(&collector, "sample: 1")]));
    assert_eq!(hotring.app().ask("GET k"), "$-1\r\n");
    eventually("it is taken", || hotring.metric("hotring_traces_exported_total") == 1.0);
    let posts = collector.posts();
    assert_eq!(posts.len(), 3);
    assert!(posts.iter().all(|post| post.body == posts[0].body), "the same spans with the same numbers");
    assert_eq!(hotring.metric("hotring_trace_export_failures_total"), 2.0);
    drop(hotring);

    for (answer, why, attempts) in
        [("503 Service Unavailable\r\nRetry-After: 0", "failed", 4), ("400 Bad Request", "refused", 1)]
    {
        let collector = Collector::answering(move |_| Some((answer.into(), String::new())));
        let hotring = Hotring::with_admin(&pool(&[server.address()], &[&tracing(&collector, "sample: 1")]));
        assert_eq!(hotring.app().ask("GET k"), "$-1\r\n");
        let series = format!("hotring_traces_dropped_total{{why=\"{why}\"}}");
        eventually(why, || hotring.metric(&series) == 1.0);
        assert_eq!(collector.posts().len(), attempts, "{answer}");
    }
    // What is taken in part is counted so.
    let part = r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"no"}}"#;
    let collector = Collector::answering(move |_| Some(("200 OK".into(), part.into())));
    let hotring = Hotring::with_admin(&pool(&[server.address()], &[&tracing(&collector, "sample: 1")]));
    assert_eq!(hotring.app().ask("GET k"), "$-1\r\n");
    eventually("it is refused", || hotring.metric("hotring_traces_dropped_total{why=\"refused\"}") == 1.0);
}

#[test]
fn a_collector_that_says_nothing_holds_up_neither_apps_nor_the_stop() {
    let server = Redis::tcp(&[]);
    let collector = Collector::answering(|_| None);
    let hotring = Hotring::with_admin(&pool(&[server.address()], &[&tracing(&collector, "sample: 1")]));
    let mut app = hotring.app();
    app.ask("GET k");
    eventually("it was asked", || !collector.posts().is_empty());
    (0..1000).for_each(|_| assert_eq!(app.ask("GET k"), "$-1\r\n"));
    drop(app);
    let began = support::now();
    hotring.stop().unwrap();
    // It was given ten seconds to answer, and would have been asked four times.
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

#[test]
fn what_was_sampled_is_told_before_the_end() {
    let server = Redis::tcp(&[]);
    let collector = Collector::start();
    let dir = Scratch::new();
    let (keys, log) = (tracing(&collector, "sample: 1"), dir.file("access.log"));
    let hotring =
        Hotring::with_admin(&pool(&[server.address()], &[&keys, &format!("^access_log: {{sample: 1, to: '{log}'}}")]));
    assert_eq!(hotring.app().ask("GET k"), "$-1\r\n");
    hotring.stop().unwrap();
    assert_eq!(collector.spans().iter().filter(|span| span.is_root()).count(), 1);
    assert_eq!(std::fs::read_to_string(log).unwrap().lines().count(), 1);
}

#[test]
fn settings_follow_the_file() {
    let server = Redis::tcp(&[]);
    let (one, other) = (Collector::start(), Collector::start());
    let yaml = |more: &[&str]| pool(&[server.address()], more);
    let site = Site::new(&yaml(&[]));
    let mut app = site.hotring.app();
    let reload = |more: &[&str]| {
        let (status, said) = site.reload(&yaml(more));
        assert_eq!(status, 200, "{said}");
        said
    };
    (0..10).for_each(|_| drop(app.ask("STRLEN k")));
    assert!(reload(&[&tracing(&one, "sample: 1")]).contains("`tracing` changes"));
    app.ask("GET k");
    one.spans_until("GET");
    reload(&[]);
    (0..10).for_each(|_| drop(app.ask("STRLEN k")));
    reload(&[&tracing(&other, "sample: 1, service_name: renamed")]);
    app.ask("TTL k");
    let spans = other.spans_until("TTL");
    assert!(spans.iter().all(|span| span.resource["service.name"] == "renamed"));
    let all = one.spans().into_iter().chain(spans);
    let names: HashSet<String> = all.filter(|span| span.is_root()).map(|span| span.name).collect();
    assert_eq!(names, HashSet::from(["GET".to_owned(), "TTL".to_owned()]));
}

/// The lines of a log of accesses about commands of this name.
fn lines(path: &str, command: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")));
    all.filter(|line: &Value| line["command"] == command).collect()
}

#[test]
fn the_log_of_accesses_tells_who_asked_for_what() {
    let servers: Vec<Redis> = (0..2).map(|_| Redis::tcp(&[])).collect();
    let at: Vec<&str> = servers.iter().map(|server| server.address()).collect();
    let dir = Scratch::new();
    let log = dir.file("access.log");
    let yaml = |more: &str| pool(&at, &[&format!("^access_log: {{sample: 1, to: '{log}'{more}}}")]);
    let site = Site::new(&yaml(""));
    let (first, second) = (key_on(0, 2), key_on(1, 2));
    let mut app = site.hotring.app();
    app.ask("CLIENT SETNAME checkout");
    app.ask(&format!("SET {first} hidden-value"));
    app.ask(&format!("MGET {first} {second}"));
    app.ask(&format!("INCR {first}"));
    eventually("all are told", || !lines(&log, "INCR").is_empty());
    let (set, mget, incr) = (&lines(&log, "SET")[0], &lines(&log, "MGET")[0], &lines(&log, "INCR")[0]);
    for (name, value) in [
        ("pool", "main"),
        ("client_name", "checkout"),
        ("user", "default"),
        ("command", "SET"),
        ("source", "shard"),
        ("outcome", "ok"),
    ] {
        assert_eq!(set[name], value, "{set}");
    }
    assert!(set["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{set}");
    assert_eq!((set["db"].as_u64(), set["reply_bytes"].as_u64()), (Some(0), Some(5)));
    let time = |name: &str| set[name].as_u64().unwrap();
    assert_eq!(time("took_us"), time("proxy_us") + time("server_us"));
    assert!(set["time"].as_str().unwrap().starts_with("20") && set["time"].as_str().unwrap().ends_with('Z'));
    assert_eq!((&set["shards"], mget["shards"].as_array().unwrap().len()), (&serde_json::json!(["s0"]), 2));
    assert_eq!((&incr["outcome"], &incr["error"]), (&"error".into(), &"ERR".into()));
    let mode = std::fs::metadata(&log).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0, "who asked for what is not for everybody");
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains(&first) && !text.contains("hidden"), "{text}");
    eventually("they are counted", || site.hotring.metric("hotring_access_log_lines_total") >= 4.0);

    // A file that is moved away is begun anew; keys are told where that is asked for.
    std::fs::rename(&log, dir.file("access.log.1")).unwrap();
    let (status, said) = site.reload(&yaml(", keys: true"));
    assert!(status == 200 && said.contains("`access_log` changes"), "{said}");
    app.ask(&format!("MGET {first} {second}"));
    eventually("it is told", || !lines(&log, "MGET").is_empty());
    assert_eq!(lines(&log, "MGET")[0]["keys"], serde_json::json!([first, second]));

    // One that cannot be written costs its lines.
    std::fs::rename(&log, dir.file("access.log.2")).unwrap();
    std::fs::create_dir(&log).unwrap();
    app.ask("PING");
    eventually("it is counted", || site.hotring.metric("hotring_access_log_dropped_total") > 0.0);
    std::fs::remove_dir(&log).unwrap();
    eventually("it goes on", || {
        app.ask("ECHO again");
        !lines(&log, "ECHO").is_empty()
    });
}

/// An engine over two shards that samples everything, with keys.
fn sampling() -> (hotring::engine::Engine, inner::Wires, [String; 2]) {
    let (mut engine, wires) = inner::engine(inner::pool(2, 1, false), 2);
    let wanted = Wanted { share: ALL, slow: None, keys: true };
    engine.set_sampling(Sampling { trace: wanted, log: Wanted::default() }, 1);
    let keys = [inner::key_on(&engine, 0), inner::key_on(&engine, 1)];
    (engine, wires, keys)
}

#[test]
fn times_are_those_of_reading_sending_and_the_reply() {
    let (mut engine, mut wires, [a, b]) = sampling();
    engine.submit(0, &inner::request(&format!("GET {a}")), 1_000, &mut wires);
    // Something else is read before anything is sent.
    engine.submit(1, &inner::request(&format!("MGET {a} {b}")), 1_250, &mut wires);
    engine.flush(&mut wires);
    engine.receive(0, b"$1\r\nx\r\n*1\r\n$1\r\nx\r\n", 4_250, &mut wires).unwrap();
    engine.receive(1, b"*1\r\n$-1\r\n", 5_250, &mut wires).unwrap();
    let (samples, lost) = engine.take_samples();
    assert_eq!((samples.len(), lost), (2, 0));
    let [get, mget] = &samples[..] else { panic!() };
    assert_eq!((get.command, get.at, get.took, get.reply_bytes), ("get", 1_000, 3_250, 7));
    assert_eq!((get.source, get.keys[0].as_ref()), (Source::Shard, a.as_bytes()));
    let parts = |sample: &hotring::engine::samples::Sample| -> Vec<_> {
        sample.parts.iter().map(|part| (part.shard, part.sent, part.took)).collect()
    };
    assert_eq!(parts(get), [(Some(0), 250, 3_000)]);
    assert_eq!((mget.command, mget.at, mget.took, mget.keys.len()), ("mget", 1_250, 4_000, 2));
    assert_eq!(parts(mget), [(Some(0), 0, 3_000), (Some(1), 0, 4_000)]);
    assert_eq!(engine.take_samples().0, []);
}

#[test]
fn what_has_no_reply_is_told_so_and_nothing_stays_behind() {
    let (mut engine, mut wires, [a, _]) = sampling();
    // The app leaves.
    engine.submit(0, &inner::request(&format!("GET {a}")), 0, &mut wires);
    engine.close(0, false, &mut wires);
    let samples = engine.take_samples().0;
    assert_eq!(samples.iter().map(|sample| (sample.gone, sample.took)).collect::<Vec<_>>(), [(true, 0)]);
    // The server does.
    engine.submit(1, &inner::request(&format!("GET {a}")), 100, &mut wires);
    engine.flush(&mut wires);
    engine.fail(0, Failure { cause: Cause::Lost, reason: "reset" }, 400, &mut wires);
    let samples = engine.take_samples().0;
    assert_eq!(samples.len(), 1);
    assert_eq!((samples[0].cause, samples[0].code.as_deref(), samples[0].took), (Some(Cause::Lost), Some("ERR"), 300));
    assert_eq!(samples[0].parts[0].took, 300);
    // A reply that nobody is given is no reply to the next request.
    for request in ["CLIENT REPLY OFF", "PING", "CLIENT REPLY ON"] {
        engine.submit(1, &inner::request(request), 500, &mut wires);
    }
    engine.submit(1, &inner::request("ECHO x"), 600, &mut wires);
    let told: Vec<_> = engine.take_samples().0.into_iter().map(|sample| (sample.command, sample.at)).collect();
    assert_eq!(told.last(), Some(&("echo", 600)));
    // More than can be kept is counted.
    for _ in 0..100 {
        engine.submit(1, &inner::request("PING").repeat(100), 700, &mut wires);
        engine.flush(&mut wires);
    }
    let (samples, lost) = engine.take_samples();
    assert_eq!(samples.len() as u64 + lost, 10_000);
    assert_eq!(samples.len(), hotring::engine::samples::MOST_DONE);
}

#[test]
fn a_read_that_shares_anothers_flight_is_told_with_it() {
    let (mut engine, mut wires) = inner::engine(inner::pool(1, 1, true), 2);
    let wanted = Wanted { share: ALL, slow: None, keys: false };
    engine.set_sampling(Sampling { log: wanted, ..Sampling::default() }, 1);
    engine.submit(0, &inner::request("GET k"), 0, &mut wires);
    engine.submit(1, &inner::request("GET k"), 10, &mut wires);
    engine.flush(&mut wires);
    engine.receive(0, b"$-1\r\n", 100, &mut wires).unwrap();
    let samples = engine.take_samples().0;
    let told: Vec<_> = samples.iter().map(|s| (s.joined, s.took, s.parts.len(), s.trace, s.log)).collect();
    assert_eq!(told, [(false, 100, 1, false, true), (true, 90, 1, false, true)]);
    assert!(samples.iter().all(|sample| sample.keys.is_empty()));
}

#[test]
fn servers_that_answer_late_are_not_waited_for_by_the_samples() {
    // A timeout ends the wait; the request is told with its cause.
    let fake = Fake::start(|visit| {
        visit.shake_hands();
        while visit.request().is_some() {}
    });
    let collector = Collector::start();
    let hotring = Hotring::with_admin(&pool(&[fake.address()], &[&tracing(&collector, "sample: 1"), "timeout: 100ms"]));
    assert!(hotring.app().ask("GET k").contains("timed out"));
    let spans = collector.spans_until("GET");
    well_formed(&spans);
    assert_eq!(named(&spans, "GET").get("error.type"), "timeout");
}
