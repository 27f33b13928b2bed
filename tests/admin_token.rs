//! Who may do what over the admin listener: the token, names, browsers, and what the audit log is told.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use support::{Hotring, Scratch, Site, TOKEN, eventually, now, pool, shards};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

const METHODS: [&str; 6] = ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "FROB"];

fn embedded(more: &str) -> String {
    format!("{more}watch: off\npools:\n  main: {{listen: '127.0.0.1:0', servers: embedded:1}}\n")
}

/// All paths that the index lists, and one that is not there.
fn paths(hotring: &Hotring) -> Vec<String> {
    let (_, index) = hotring.ask_admin("GET", "/", "Accept: text/plain\r\n");
    let words = index.split_whitespace().filter(|word| word.starts_with('/'));
    let mut paths: Vec<String> = words.map(|word| word.split('?').next().unwrap().to_owned()).collect();
    paths.push("/nowhere".into());
    assert!(paths.len() > 10 && paths.contains(&"/reload".into()), "{index}");
    paths
}

/// The whole answer to a request, head and all.
fn whole(hotring: &Hotring, request: &str) -> String {
    String::from_utf8(hotring.raw_admin(request.as_bytes())).unwrap()
}

#[test]
fn whatever_is_no_read_is_refused_without_the_token() {
    let hotring = Hotring::with_admin(&embedded(""));
    for path in paths(&hotring) {
        for method in METHODS {
            for header in [
                "Authorization:\r\n",
                "Authorization: Bearer\r\n",
                "Authorization: Bearer the-token-of-the-test\r\n",
                "Authorization: Bearer the-token-of-the-tests-\r\n",
                "Authorization: Basic the-token-of-the-tests\r\n",
                "Authorization: Bearer the-token-of-the-tests\r\nAuthorization: Bearer the-token-of-the-tests\r\n",
            ] {
                let (status, said) = hotring.ask_admin(method, &path, header);
                assert_eq!(status, 401, "{method} {path} {header}: {said}");
            }
            let (status, said) = hotring.ask_admin(method, &path, "");
            assert!(![401, 403].contains(&status), "{method} {path}: {said}");
        }
    }
    let answer = whole(&hotring, "POST /reload HTTP/1.1\r\nHost: x\r\n\r\n").to_ascii_lowercase();
    assert!(answer.contains("\r\nwww-authenticate: bearer realm=\"hotring\"\r\n"), "{answer}");
    eventually("they are counted", || {
        hotring.metric("hotring_admin_actions_total{outcome=\"wrong_token\"}") > 300.0
            && hotring.metric("hotring_admin_actions_total{outcome=\"allowed\"}") > 50.0
    });
}

#[test]
fn without_a_token_in_the_configuration_nothing_can_be_changed() {
    let dir = Scratch::new();
    let path = dir.file("none.yaml");
    std::fs::write(&path, embedded("")).unwrap();
    let hotring = Hotring::with_file(&embedded(""), std::path::Path::new(&path));
    assert_eq!(hotring.ask_admin("POST", "/reload", "").0, 200, "the tests' own token, which the file does not have");
    for path in paths(&hotring) {
        for method in METHODS {
            let (status, said) = hotring.ask_admin(method, &path, "");
            assert_eq!(status, 403, "{method} {path}: {said}");
            assert!(said.contains("`admin_token`") && said.contains("SIGHUP"), "{said}");
        }
    }
    hotring.tell(hotring::proxy::Signal::Reload);
    eventually("a signal still does", || hotring.metric("hotring_config_reloads_total{result=\"taken\"}") == 2.0);
}

/// With `admin_token_for: all` nothing is told without the token but to machines; and by default reads need none.
#[test]
fn reads_need_the_token_where_that_is_wanted() {
    let keys = |who: &str| embedded(&format!("admin_token: {TOKEN}\nadmin_token_for: {who}\n"));
    let shown = format!("Authorization: Bearer {TOKEN}\r\n");
    let site = Site::new(&keys("changes"));
    let hotring = &site.hotring;
    let paths: Vec<String> = paths(hotring).into_iter().map(|path| path.replace("/reload", "/")).collect();
    for path in &paths {
        assert_ne!(hotring.ask_admin("GET", path, "").0, 401, "{path}");
    }
    assert_eq!(site.reload(&keys("all")), (200, "`admin_token_for` changes\ntaken\n".to_owned()));
    let open = ["/metrics", "/healthz", "/readyz"];
    for path in &paths {
        for method in ["GET", "HEAD"] {
            let wanted = if open.contains(&path.as_str()) { 200 } else { 401 };
            for header in ["Authorization: Bearer another-token-of-tests\r\n", "Authorization: \r\n"] {
                let (status, said) = hotring.ask_admin(method, path, header);
                assert_eq!(status, wanted, "{method} {path}: {said}");
                assert!(status == 200 || !said.contains("main"), "{said}");
            }
            assert_ne!(hotring.ask_admin(method, path, &shown).0, 401, "{method} {path}");
        }
    }
    eventually("who was refused is counted", || {
        hotring.metric("hotring_admin_actions_total{outcome=\"wrong_token\"}")
            >= 4.0 * (paths.len() - open.len()) as f64
    });
    // Reads that are allowed are no actions: all there was is the reload.
    assert_eq!(hotring.metric("hotring_admin_actions_total{outcome=\"allowed\"}"), 1.0);
    assert_eq!(site.reload(&keys("changes")).0, 200);
    assert_eq!(hotring.page("/status").0, 200);
    // Nobody could read anything.
    let wrong =
        hotring::config::parse(&embedded("admin_token_for: all\n"), std::path::Path::new("t.yaml")).unwrap_err();
    assert!(wrong.to_string().contains("admin_token_for: `all` without a token"), "{wrong}");
}

#[test]
fn the_token_follows_its_file() {
    let dir = Scratch::new();
    let token = dir.write("token", "the-first-token-of-all\n");
    let yaml = embedded(&format!("admin_token_file: {token}\n")).replace("watch: off", "watch: 100ms");
    let path = dir.write("own.yaml", &yaml);
    let hotring = Hotring::with_file(&yaml, std::path::Path::new(&path));
    let tries = |token: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        hotring.ask_admin("POST", "/reload?dry_run", &header).0
    };
    assert_eq!(tries("the-first-token-of-all"), 200);
    assert_eq!(tries(TOKEN), 401);
    dir.write("token", "the-second-token-of-all\n");
    eventually("the new one counts", || tries("the-second-token-of-all") == 200);
    assert_eq!(tries("the-first-token-of-all"), 401);
    let (_, shown) = hotring.page("/config");
    assert!(shown.contains("\nadmin_token: \"********\"\n") && !shown.contains("second"), "{shown}");
}

#[test]
fn a_token_that_could_be_guessed_is_none() {
    let (_redis, at) = shards(1);
    let parse = |keys: &str| {
        let yaml = format!("{keys}{}", pool(&at, &[]).replace("admin: off\n", ""));
        hotring::config::parse(&yaml, std::path::Path::new("t.yaml")).map_err(|wrong| wrong.to_string())
    };
    for keys in
        ["admin_token: short\n", "admin_token: 'with a blank in the middle'\n", "admin_token: sixteen-characté\n"]
    {
        let wrong = parse(keys).unwrap_err();
        assert!(wrong.contains("admin_token: read a text, expected a token of at least 16"), "{wrong}");
        assert!(!wrong.contains("short") && !wrong.contains("blank in"), "{wrong}");
    }
    let wrong = parse("admin_token: the-token-of-the-tests\nadmin_token_env: HOME\n").unwrap_err();
    assert!(wrong.contains("given twice, expected only one of"), "{wrong}");
    let wrong = parse("admin_hosts: [a.example, 'b.example:80']\n").unwrap_err();
    assert!(wrong.contains("admin_hosts[1]: read `b.example:80`, expected a list of names"), "{wrong}");
    assert_eq!(parse("admin_hosts: A.Example.\n").unwrap().admin_hosts, ["a.example"]);
}

#[test]
fn a_name_that_somebody_else_could_have_opens_only_what_tells_of_no_key() {
    let hotring = Hotring::with_admin(&embedded("admin_hosts: [proxy.example.com]\n"));
    let ask = |method: &str, path: &str, host: &str| {
        let token = format!("Authorization: Bearer {TOKEN}\r\n");
        let answer = whole(&hotring, &format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{token}\r\n"));
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    for path in ["/", "/config", "/hotkeys", "/backends", "/explain?key=a", "/nowhere"] {
        assert_eq!(ask("GET", path, "rebound.example"), "421", "{path}");
        assert_ne!(ask("GET", path, "proxy.example.com:9380"), "421", "{path}");
        assert_ne!(ask("GET", path, "127.0.0.1:9380"), "421", "{path}");
    }
    assert_eq!(ask("POST", "/reload", "rebound.example"), "421");
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(ask("GET", path, "rebound.example"), "200", "{path}");
    }
    // Both of two count.
    assert_eq!(ask("GET", "/config", "localhost\r\nHost: rebound.example"), "421");
    let answer = whole(&hotring, "GET /config HTTP/1.0\r\n\r\n");
    assert!(answer.contains(" 200 "), "an old client names nobody: {answer}");
}

#[test]
fn all_answers_tell_browsers_what_they_may_do() {
    let hotring = Hotring::with_admin(&embedded(""));
    for path in paths(&hotring) {
        let origin = "Origin: http://evil.example";
        let answer =
            whole(&hotring, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n{origin}\r\n\r\n")).to_ascii_lowercase();
        for header in [
            "\r\ncache-control: no-store\r\n",
            "\r\nx-content-type-options: nosniff\r\n",
            "\r\ncontent-security-policy: default-src 'none'",
            "\r\nreferrer-policy: no-referrer\r\n",
            "\r\ncross-origin-resource-policy: same-origin\r\n",
        ] {
            assert_eq!(answer.matches(header).count(), 1, "{path} {header}: {answer}");
        }
        assert!(!answer.contains("access-control-"), "{answer}");
    }
    let (status, said) = hotring.ask_admin("POST", "/reload", "Origin: http://127.0.0.1\r\n");
    assert_eq!((status, said.as_str()), (403, "not from a browser\n"));
}

/// Keeps what is told to the audit log.
struct Audit(Arc<Mutex<Vec<String>>>);

impl Subscriber for Audit {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "hotring::audit"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Line(String);
        impl Visit for Line {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                let _ = write!(self.0, "{}={value:?} ", field.name());
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
}

#[test]
fn the_audit_log_is_told_of_all_that_was_tried() {
    let told = Arc::new(Mutex::new(Vec::new()));
    tracing::subscriber::set_global_default(Audit(Arc::clone(&told))).unwrap();
    let site = Site::new(&embedded("").replace("watch: off\n", "# told\nwatch: off\n"));
    // Others of this file run beside this one.
    let of = |mark: &str| -> Vec<String> {
        told.lock().unwrap().iter().filter(|line: &&String| line.contains(mark)).cloned().collect()
    };
    site.hotring.ask_admin("POST", "/reload?told=1", "Authorization: Bearer wrong\r\n");
    site.hotring.ask_admin("POST", "/reload?told=2", "");
    site.hotring.page("/config?told=3");
    let refused = of("told=1");
    assert_eq!(refused.len(), 1, "{refused:?}");
    for word in
        ["event=\"admin\"", "peer=\"127.0.0.1:", "command=\"POST /reload?told=1\"", "outcome=\"refused\"", "reason="]
    {
        assert!(refused[0].contains(word), "{refused:?}");
    }
    assert!(!refused[0].contains("wrong\""), "{refused:?}");
    let allowed = of("told=2");
    assert_eq!(allowed.len(), 1);
    assert!(allowed[0].contains("outcome=\"allowed\""), "{allowed:?}");
    assert!(of("told=3").is_empty());
    // Who floods is counted, and told of no more than now and then.
    let begun = now();
    for _ in 0..200 {
        site.hotring.ask_admin("PUT", "/flood?told=4", "Authorization: Bearer wrong\r\n");
    }
    let (flood, most) = (of("told=4").len() as u64, 51 + 10 * (1 + begun.elapsed().as_secs()));
    assert!((40..=most).contains(&flood), "{flood}");
}
