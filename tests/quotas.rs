//! What a tenant may have beside requests and their bytes (tests/limits.rs): connections, and bytes of replies; and what the metrics tell.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{Hotring, Site, eventually, pool, shards};

const USERS: &str = "users: {app: {password: one, rules: \"+@all ~* &*\", connections: 2}, free: {password: two, rules: \"+@all ~* &*\"}}";
const FULL: &str = "-ERR max number of clients of user 'app' reached ('connections: 2')\r\n";

#[test]
fn a_user_has_so_many_connections_over_all_workers() {
    let (_redis, at) = shards(1);
    let hotring = Hotring::with_admin(&pool(&at, &["^workers: 3", USERS]));
    let open = |password: &str| {
        let mut app = hotring.app();
        let said = app.ask(password);
        (app, said)
    };
    let (mut first, said) = open("AUTH app one");
    assert_eq!(said, "+OK\r\n");
    let (mut second, said) = open("HELLO 3 AUTH app one");
    assert!(said.starts_with('%'), "{said}");
    for how in ["AUTH app one", "HELLO 2 AUTH app one"] {
        let (mut third, said) = open(how);
        assert_eq!(said, FULL, "{how}");
        assert_eq!(third.rest(), b"", "it is closed");
    }
    // Who is logged in may say so again, and others have their own.
    assert_eq!(first.ask("AUTH app one"), "+OK\r\n");
    let others: Vec<_> = (0..5).map(|_| open("AUTH free two")).collect();
    assert!(others.iter().all(|(_, said)| said == "+OK\r\n"));
    let has = |user: &str| hotring.metric(&format!("hotring_user_connections{{pool=\"main\",user=\"{user}\"}}"));
    eventually("the metrics tell", || has("app") == 2.0 && has("free") == 5.0);
    assert_eq!(hotring.metric("hotring_user_max_connections{pool=\"main\",user=\"app\"}"), 2.0);
    assert_eq!(hotring.metric("hotring_user_max_connections{pool=\"main\",user=\"free\"}"), 0.0);
    // A seat is given back by RESET, by being another user, and by leaving.
    assert_eq!(second.ask("RESET"), "+RESET\r\n");
    let (mut third, said) = open("AUTH app one");
    assert_eq!(said, "+OK\r\n");
    assert_eq!(second.ask("AUTH free two"), "+OK\r\n");
    assert_eq!(third.ask("AUTH free two"), "+OK\r\n");
    let (fourth, said) = open("AUTH app one");
    assert_eq!(said, "+OK\r\n");
    drop((first, fourth));
    eventually("who has left is not counted", || has("app") == 0.0);
    assert_eq!(open("AUTH app one").1, "+OK\r\n");
}

#[test]
fn a_wrong_password_takes_no_seat_and_a_reload_counts_who_is_there() {
    let (_redis, at) = shards(1);
    let without = USERS.replace(", connections: 2", "");
    let site = Site::new(&pool(&at, &[&without]));
    let mut apps: Vec<_> = (0..3).map(|_| site.hotring.app()).collect();
    for app in &mut apps {
        assert!(app.ask("AUTH app wrong").starts_with("-WRONGPASS"));
        assert_eq!(app.ask("AUTH app one"), "+OK\r\n");
    }
    assert_eq!(site.reload(&pool(&at, &[USERS])).0, 200);
    assert_eq!(site.hotring.app().ask("AUTH app one"), FULL);
    assert!(apps.iter_mut().all(|app| app.ask("GET a") == "$-1\r\n"), "nobody is thrown out");
    drop(apps);
    eventually("there is room again", || {
        let mut app = site.hotring.app();
        app.ask("AUTH app one") == "+OK\r\n"
    });
}

#[test]
fn replies_are_a_debt() {
    let (_redis, at) = shards(1);
    let users = "users: {app: {password: one, rules: \"+@all ~* &*\"}}";
    let limits = "rate_limits: [{reply_bytes: 100/s, user: app, name: egress}]";
    let hotring = Hotring::with_admin(&pool(&at, &[users, limits]));
    let limited = "-ERR rate limited: the limit 'egress' of this pool is reached; nothing was sent, slow down\r\n";
    let mut other = hotring.app();
    // Two large ones: one that passes through memory, one that is passed on while it comes.
    for (key, length) in [("short", 50_000), ("long", 3_000_000)] {
        assert_eq!(other.call(&["SET", key, &"x".repeat(length)]), b"+OK\r\n");
        let mut app = hotring.app();
        // Whatever was to be paid for before is: the reply to AUTH is not.
        assert_eq!(app.ask("AUTH app one"), "+OK\r\n");
        if key == "short" {
            assert_eq!(app.ask(&format!("GET {key}")).len(), format!("${length}\r\n").len() + length + 2);
        }
        assert_eq!(app.ask("GET short"), limited, "it takes minutes to make up for");
        assert_eq!(app.ask("PING"), limited);
        assert_eq!(other.ask("PING"), "+PONG\r\n", "others are not concerned");
    }
    let series = |name: &str| hotring.metric(&format!("{name}{{pool=\"main\",limit=\"egress\"}}"));
    eventually("the metrics tell", || series("hotring_rate_limited_total") == 4.0);
    assert!(series("hotring_rate_limit_reply_bytes_total") > 50_000.0);
    assert_eq!(series("hotring_rate_limit_max_reply_bytes"), 100.0);
    assert_eq!(series("hotring_rate_limit_max_requests"), 0.0);
    assert_eq!(series("hotring_rate_limit_requests_total"), 1.0, "of those refused none counts");
}

#[test]
fn a_reply_that_is_passed_on_counts_too() {
    let (_redis, at) = shards(1);
    let hotring = Hotring::with_admin(&pool(&at, &["rate_limits: [{reply_bytes: 1mb/s, requests: 1000/s}]"]));
    let mut app = hotring.app();
    assert_eq!(app.call(&["SET", "long", &"x".repeat(8 << 20)]), b"+OK\r\n");
    assert_eq!(app.call(&["GET", "long"]).len(), "$8388608\r\n".len() + (8 << 20) + 2);
    assert!(app.ask("GET a").starts_with("-ERR rate limited"));
    let series = |name: &str| hotring.metric(&format!("{name}{{pool=\"main\",limit=\"pool\"}}"));
    eventually("the metrics tell", || series("hotring_rate_limit_reply_bytes_total") > 8e6);
    assert!(series("hotring_rate_limit_request_bytes_total") > 8e6);
    // What was refused is paid for by nobody: after so long requests are let through again.
    eventually("the debt is paid", || app.ask("GET a") == "$-1\r\n");
}
