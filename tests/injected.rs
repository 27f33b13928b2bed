//! Faults that are injected on purpose (`POST /faults`), with real servers: each kind meets what its rule names and nothing else, and ends.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{Client, Hotring, Redis, Site, eventually, pool, shards, wire};

struct Faulty {
    redis: Vec<Redis>,
    at: Vec<String>,
    site: Site,
}

impl Faulty {
    fn new(settings: &[&str]) -> Self {
        let (redis, at) = shards(2);
        let site = Site::new(&pool(&at, settings));
        Self { redis, at, site }
    }

    fn hotring(&self) -> &Hotring {
        &self.site.hotring
    }

    fn app(&self) -> Client {
        self.hotring().app()
    }

    /// Sets a rule.
    fn inject(&self, query: &str) -> String {
        let (status, told) = self.hotring().ask_admin("POST", &format!("/faults?{query}"), "");
        assert_eq!(status, 200, "{told}");
        told
    }

    fn end(&self) {
        assert_eq!(self.hotring().ask_admin("DELETE", "/faults", "").0, 200);
    }

    fn calls(&self, command: &str) -> u64 {
        self.redis.iter().map(|redis| redis.calls(command)).sum()
    }

    fn injected(&self, why: &str) -> f64 {
        self.hotring().metric(&format!("hotring_faults_injected_total{{pool=\"main\",why=\"{why}\"}}"))
    }

    fn delayed(&self) -> f64 {
        self.hotring().metric("hotring_faults_delayed{pool=\"main\"}")
    }
}

/// Others are served as always.
fn unharmed(app: &mut Client) {
    for n in 0..50 {
        assert_eq!(app.ask(&format!("SET b:{n} {n}")), "+OK\r\n");
        assert_eq!(app.ask(&format!("INCR b:{n}")), format!(":{}\r\n", n + 1));
    }
}

#[test]
fn an_error_meets_what_the_rule_names_and_nothing_is_sent() {
    for workers in ["^workers: 1", "^workers: 2"] {
        let all = Faulty::new(&[workers]);
        let mut apps: Vec<Client> = (0..4).map(|_| all.app()).collect();
        apps[0].ask("SET a:1 x");
        let told = all.inject("error=ERR%20on+purpose&prefix=a:&command=get,MGET");
        assert!(
            told.starts_with("fault 1: error=\"ERR on purpose\" command=get,mget prefix=\"a:\" share=1.000 pool=main"),
            "{told}"
        );
        let before = all.calls("get") + all.calls("mget");
        for app in &mut apps {
            assert_eq!(app.ask("GET a:1"), "-ERR on purpose\r\n");
            assert_eq!(app.ask("MGET b:1 a:1"), "-ERR on purpose\r\n");
            assert_eq!(app.ask("STRLEN a:1"), ":1\r\n");
            unharmed(app);
        }
        assert_eq!(all.calls("get") + all.calls("mget"), before, "nothing was sent");
        eventually("they are counted", || all.injected("error") == 8.0);
        assert_eq!(all.hotring().metric("hotring_errors_total{pool=\"main\",cause=\"injected\"}"), 8.0);
        assert!(all.hotring().page("/faults").1.starts_with("fault 1: "));
        // A reload is no reason to forget it.
        assert_eq!(all.site.reload(&pool(&all.at, &[workers, "coalesce: true"])).0, 200);
        assert_eq!(apps[0].ask("GET a:1"), "-ERR on purpose\r\n");
        all.end();
        apps.iter_mut().for_each(|app| assert_eq!(app.ask("GET a:1"), "$1\r\nx\r\n"));
        assert_eq!(all.hotring().page("/faults").1, "no faults are injected\n");
    }
}

#[test]
fn an_error_within_a_transaction_spoils_it() {
    let all = Faulty::new(&[]);
    let mut app = all.app();
    all.inject("error=OOM+injected&command=set");
    assert_eq!(app.ask("MULTI"), "+OK\r\n");
    assert_eq!(app.ask("SET k 1"), "-OOM injected\r\n");
    assert!(app.ask("EXEC").starts_with("-EXECABORT"));
    assert_eq!(app.ask("GET k"), "$-1\r\n");
}

#[test]
fn what_a_session_says_of_itself_is_never_met_and_a_command_means_all_its_subcommands() {
    let all = Faulty::new(&[]);
    let mut app = all.app();
    all.inject("error=ERR%20on+purpose&command=xgroup,object,client");
    for met in ["XGROUP CREATE s g $ MKSTREAM", "OBJECT ENCODING k", "xgroup destroy s g"] {
        assert_eq!(app.ask(met), "-ERR on purpose\r\n");
    }
    all.inject("error=ERR%20on+purpose");
    for never in ["CLIENT SETNAME x", "CLIENT SETINFO lib-name y", "SELECT 0"] {
        assert_eq!(app.ask(never), "+OK\r\n", "{never}");
    }
    assert_eq!(app.ask("CONFIG GET save"), "-ERR on purpose\r\n");
    assert_eq!(all.calls("xgroup|create"), 0);
}

#[test]
fn a_share_is_a_share() {
    let all = Faulty::new(&[]);
    all.inject("error=ERR+injected&share=0.3");
    let mut app = all.app();
    app.send(&wire(&["GET", "k"]).repeat(2000));
    let met = (0..2000).filter(|_| app.text().starts_with('-')).count();
    assert!((450..=750).contains(&met), "{met}");
}

#[test]
fn a_delayed_reply_keeps_its_order_and_holds_up_nobody_else() {
    let all = Faulty::new(&[]);
    let (mut app, mut other) = (all.app(), all.app());
    other.ask("SET a:1 x");
    all.inject("delay=30ms&prefix=a:&share=0.5");
    for where_ in ["reply", "request"] {
        all.inject(&format!("delay=50ms&prefix=a:&where={where_}&share=0.5"));
        for round in 0..5 {
            let key = format!("n:{where_}:{round}");
            let requests: Vec<Vec<u8>> =
                (0..40).map(|n| if n % 4 == 0 { wire(&["GET", "a:1"]) } else { wire(&["INCR", &key]) }).collect();
            app.send(&requests.concat());
            unharmed(&mut other);
            let mut count = 0;
            for n in 0..40 {
                count += u32::from(n % 4 != 0);
                assert_eq!(app.text(), if n % 4 == 0 { "$1\r\nx\r\n".to_owned() } else { format!(":{count}\r\n") });
            }
        }
    }
    eventually("some were delayed", || all.injected("delay") > 10.0);
    eventually("nothing is left", || all.delayed() == 0.0);
}

#[test]
fn what_is_delayed_for_long_is_held_where_it_is_said() {
    let all = Faulty::new(&[]);
    let mut other = all.app();
    other.ask("SET a:1 x");
    all.inject("delay=1m&command=get&prefix=a:");
    all.inject("delay=1m&command=strlen&prefix=a:&where=request");
    let (mut reply, mut request) = (all.app(), all.app());
    reply.send(&wire(&["GET", "a:1"]));
    request.send(&wire(&["STRLEN", "a:1"]));
    eventually("both are held", || all.injected("delay") == 2.0);
    eventually("the reply is there", || all.delayed() == 1.0);
    assert_eq!(all.calls("get"), 1, "it was sent");
    unharmed(&mut other);
    assert_eq!(all.calls("strlen"), 0, "it was not");
    // Without rules nothing is held back any more.
    all.end();
    assert_eq!((reply.text().as_str(), request.text().as_str()), ("$1\r\nx\r\n", ":1\r\n"));
    eventually("nothing is left", || all.delayed() == 0.0);
}

#[test]
fn a_dropped_connection_is_closed_and_others_are_not() {
    let all = Faulty::new(&[]);
    let (mut app, mut other) = (all.app(), all.app());
    all.inject("drop&prefix=a:");
    app.send(&[wire(&["SET", "b", "1"]), wire(&["SET", "a:1", "x"]), wire(&["SET", "b", "2"])].concat());
    let _ = app.rest();
    unharmed(&mut other);
    assert_eq!(other.ask("STRLEN b"), ":1\r\n");
    eventually("it is counted", || all.injected("drop") == 1.0);
    all.end();
    assert_eq!(other.ask("GET a:1"), "$-1\r\n", "it was not sent");
    assert!(other.ask("GET b").contains('1'), "what came behind it is not carried out");
}

#[test]
fn a_rule_ends_by_itself() {
    let all = Faulty::new(&["^workers: 2"]);
    let mut apps: Vec<Client> = (0..4).map(|_| all.app()).collect();
    all.inject("error=ERR+injected&ttl=1s");
    for app in &mut apps {
        eventually("it is over", || app.ask("GET k") == "$-1\r\n");
    }
    eventually("it is not listed any more", || all.hotring().page("/faults").1 == "no faults are injected\n");
    eventually("nor counted", || all.hotring().metric("hotring_fault_rules{pool=\"main\"}") == 0.0);
}

#[test]
fn who_sets_one_shows_the_token_and_says_what_can_be_meant() {
    let all = Faulty::new(&[]);
    let ask = |method: &str, path: &str, headers: &str| all.hotring().ask_admin(method, path, headers);
    assert_eq!(ask("POST", "/faults?drop", "Authorization: Bearer wrong\r\n").0, 401);
    assert_eq!(ask("DELETE", "/faults", "Authorization: Bearer wrong\r\n").0, 401);
    assert_eq!(all.hotring().page("/faults?drop").1, "no faults are injected\n");
    assert_eq!(ask("POST", "/faults?dorp", "").0, 400);
    let (status, told) = ask("POST", "/faults?drop&pool=nowhere", "");
    assert_eq!((status, told.as_str()), (422, "there is no pool `nowhere`, only: main\n"));
    assert_eq!(ask("DELETE", "/faults?id=7", ""), (422, "there is no fault 7\n".to_owned()));
    for _ in 0..64 {
        all.inject("drop&prefix=never");
    }
    let (status, told) = ask("POST", "/faults?drop", "");
    assert!(status == 422 && told.starts_with("there are 64 rules already"), "{told}");
    assert_eq!(ask("DELETE", "/faults?id=7", "").0, 200);
    assert_eq!(all.hotring().page("/faults").1.lines().count(), 63);
    assert_eq!(all.app().ask("GET k"), "$-1\r\n");
}

#[test]
fn what_is_held_back_is_bounded() {
    let all = Faulty::new(&[]);
    let mut other = all.app();
    let long = "x".repeat(900 << 10);
    assert_eq!(other.call(&["SET", "a:1", &long]), b"+OK\r\n");
    all.inject("delay=1m&prefix=a:");
    let mut apps: Vec<Client> = (0..30).map(|_| all.app()).collect();
    apps.iter_mut().for_each(|app| app.send(&wire(&["GET", "a:1"])));
    eventually("some are not held", || all.injected("undelayed") + all.injected("delay") == 30.0);
    assert!(all.delayed() <= 18.0 && all.injected("undelayed") >= 12.0, "16 MiB: {}", all.delayed());
    unharmed(&mut other);
}

#[test]
fn what_a_tenants_transaction_tells_of_names_is_known_though_a_reply_is_delayed() {
    let all = Faulty::new(&["prefix: '{a}:'", "hash_tag: '{}'"]);
    let mut app = all.app();
    assert_eq!(app.ask("RPUSH list 1 2"), ":2\r\n");
    all.inject("delay=1m&command=lmpop");
    app.send(&[&["MULTI"][..], &["LMPOP", "1", "list", "LEFT"], &["GET", "k"], &["EXEC"]].map(wire).concat());
    assert_eq!(app.text(), "+OK\r\n");
    eventually("one is held back, and its transaction is over", || all.delayed() == 1.0 && all.calls("exec") == 1);
    // EXEC's reply has come: it is carried out before what is asked next of the same connection.
    unharmed(&mut all.app());
    all.end();
    assert_eq!((app.text().as_str(), app.text().as_str()), ("+QUEUED\r\n", "+QUEUED\r\n"));
    assert_eq!(app.text(), "*2\r\n*2\r\n$4\r\nlist\r\n*1\r\n$1\r\n1\r\n$-1\r\n");
    // One that is alone is told by its own name, too.
    all.inject("delay=20ms&command=lmpop");
    assert_eq!(app.ask("LMPOP 1 list LEFT"), "*2\r\n$4\r\nlist\r\n*1\r\n$1\r\n2\r\n");
}

#[test]
fn what_is_refused_for_another_reason_leaves_its_fault_to_nobody() {
    let all = Faulty::new(&["users: {u: {password: p, rules: '+@all -set ~* &*'}}", "deny_commands: [APPEND]"]);
    let mut app = all.app();
    assert_eq!(app.ask("AUTH u p"), "+OK\r\n");
    all.inject("error=ERR+on+purpose&command=set,append");
    for denied in ["SET a 1", "APPEND a 1"] {
        assert!(app.ask(denied).starts_with("-NOPERM"), "{denied}");
        assert_eq!(app.ask("GET a"), "$-1\r\n", "{denied}");
    }
    eventually("all is counted", || {
        all.hotring().metric("hotring_requests_total{pool=\"main\",class=\"read\"}") == 2.0
    });
    assert_eq!(all.injected("error"), 0.0);
}

#[test]
fn a_dropped_request_is_not_taken_for_what_another_session_asks() {
    let all = Faulty::new(&["^workers: 1", "metrics_prefixes: ['a:']"]);
    all.inject("drop&prefix=a:");
    for _ in 0..20 {
        let mut app = all.app();
        app.send(&wire(&["GET", "a:1"]));
        let _ = app.rest();
        assert_eq!(all.app().ask("PING"), "+PONG\r\n");
    }
    let told =
        |name: &str| all.hotring().metric(&format!("hotring_prefix_{name}_total{{pool=\"main\",prefix=\"a:\"}}"));
    eventually("all is counted", || told("requests") == 20.0);
    assert_eq!(told("reply_bytes"), 0.0);
}
