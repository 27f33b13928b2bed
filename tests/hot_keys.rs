//! Hot keys in a process with real servers: who asks is told which they are, whatever worker they are hot on.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use hotring::chance::splitmix;
use serde_yaml::Value;
use support::{Client, FOREVER, Hotring, eventually, home, now, pool, shards, wire};

/// A thousand reads in one write, a third of them of one key.
fn ask(app: &mut Client, celebrity: &str, round: u64) {
    let key = |n: u64| match splitmix(round << 10 | n) % 3000 {
        draw if draw < 1000 => celebrity.to_owned(),
        draw => format!("other:{draw}"),
    };
    let requests: Vec<u8> = (0..1000).flat_map(|n| wire(&["GET", &key(n)])).collect();
    app.send(&requests);
    (0..1000).for_each(|_| drop(app.reply()));
}

fn hot_keys(hotring: &Hotring) -> Value {
    let (code, page) = hotring.page("/hotkeys");
    assert_eq!(code, 200);
    serde_yaml::from_str(&page).unwrap_or_else(|wrong| panic!("{wrong} in {page}"))
}

/// A key's row on the admin page, if it is hot.
fn row(hotring: &Hotring, key: &str) -> Option<Value> {
    let page = hot_keys(hotring);
    page["pools"][0]["keys"].as_sequence()?.iter().find(|row| row["key"] == key && row["level"] == "hot").cloned()
}

fn number(row: &Value, field: &str) -> f64 {
    row[field].as_f64().unwrap_or_else(|| panic!("no {field} in {row:?}"))
}

#[test]
fn a_hot_key_is_told_of_by_command_page_and_metrics() {
    let (_redis, at) = shards(4);
    let hotring = Hotring::with_admin(&pool(&at, &["^workers: 2"]));
    let mut apps = [hotring.app(), hotring.app()];
    assert_eq!(hot_keys(&hotring)["pools"][0]["keys"], Value::Sequence(vec![]));
    assert_eq!(apps[0].ask("HOTRING HOTKEYS"), "*0\r\n");
    apps[0].ask("SET star\"\\n x");
    let (start, mut round) = (now(), 0);
    let name = "star\"\\n";
    let told = "star\\\"\\\\n";
    let row = loop {
        for app in &mut apps {
            round += 1;
            ask(app, name, round);
        }
        // Both workers have to have seen it: then their shares add up.
        if let Some(row) = row(&hotring, told).filter(|row| number(row, "share") > 0.28) {
            break row;
        }
        assert!(start.elapsed() < FOREVER, "{:?}", hot_keys(&hotring));
    };
    assert!(number(&row, "share") < 0.38 && number(&row, "share_at_most") >= number(&row, "share"), "{row:?}");
    assert!(number(&row, "requests_per_second") > 10.0 && number(&row, "reads_per_second") > 10.0, "{row:?}");
    assert_eq!(
        (&row["pool"], &row["served_by"], &row["why_not_more"]),
        (&"main".into(), &"shard".into(), &"reads: off".into())
    );
    assert_eq!(row["shard"], format!("s{}", home(4, name.as_bytes())));
    let pool = &hot_keys(&hotring)["pools"][0];
    assert!(number(pool, "imbalance") > 1.3 && number(pool, "imbalance") < 2.5, "{pool:?}");

    let reply = apps[1].ask("HOTRING HOTKEYS COUNT 1");
    assert!(
        reply.starts_with("*1\r\n*28\r\n$3\r\nkey\r\n$9\r\nstar\\\"\\\\n\r\n$5\r\nlevel\r\n$3\r\nhot\r\n"),
        "{reply}"
    );
    apps[1].ask("HELLO 3");
    assert!(apps[1].ask("HOTRING HOTKEYS").starts_with("*1\r\n%14\r\n$3\r\nkey\r\n"));

    eventually("the gauges tell", || {
        (1..3).contains(&(hotring.metric("hotring_hot_keys{pool=\"main\"}") as u32))
            && hotring.metric("hotring_hot_key_share_max{pool=\"main\"}") > 0.28
            && hotring.metric("hotring_hot_keys_entered_total{pool=\"main\"}") >= 1.0
            && hotring.metric("hotring_shard_imbalance{pool=\"main\"}") > 1.3
    });
    assert_eq!(hotring.metric("hotring_near_hits_total{pool=\"main\"}"), 0.0);
}

#[test]
fn what_would_be_served_is_observed_and_what_is_served_is_told() {
    for (reads, served_by) in [("observe", "shard (observed: memory)"), ("auto", "memory")] {
        let (_redis, at) = shards(2);
        let hotring = Hotring::with_admin(&pool(&at, &[&format!("hot_keys: {{reads: {reads}}}")]));
        let mut app = hotring.app();
        app.ask("SET star x");
        let (start, mut round) = (now(), 0);
        let series = if reads == "auto" { "hotring_near_hits_total" } else { "hotring_hot_would_serve_total" };
        loop {
            round += 1;
            ask(&mut app, "star", round);
            let row = row(&hotring, "star");
            let saved = |row: &Value| reads == "observe" || number(row, "saved_per_second") > 0.0;
            if row.is_some_and(|row| row["served_by"] == served_by && saved(&row))
                && hotring.metric(&format!("{series}{{pool=\"main\"}}")) > 0.0
            {
                break;
            }
            assert!(start.elapsed() < FOREVER, "{:?}", hot_keys(&hotring));
        }
    }
}

#[test]
fn a_long_value_is_hot_by_its_bytes() {
    let (_redis, at) = shards(4);
    let hotring = Hotring::with_admin(&pool(&at, &[]));
    let mut app = hotring.app();
    // Longer than what is passed on while it comes.
    let long = "x".repeat(2 << 20);
    app.call(&["SET", "long", &long]);
    let (start, mut round) = (now(), 0);
    loop {
        round += 1;
        let requests: Vec<u8> =
            (0..200).flat_map(|n| wire(&["GET", &format!("other:{}", splitmix(round << 8 | n) % 3000)])).collect();
        app.send(&requests);
        (0..200).for_each(|_| drop(app.reply()));
        assert!(app.call(&["GET", "long"]).len() > 2 << 20);
        if let Some(row) = row(&hotring, "long").filter(|row| number(row, "share_of_bytes") > 0.9) {
            assert!(number(&row, "share") < 0.03, "{row:?}");
            break;
        }
        assert!(start.elapsed() < FOREVER, "{:?}", hot_keys(&hotring));
    }
}

#[test]
fn the_command_is_told_of_and_says_what_is_wrong() {
    let (_redis, at) = shards(1);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    assert_eq!(
        app.ask("HOTRING HELP"),
        "*3\r\n+HOTRING <subcommand> [<arg> [value] [opt] ...]. Subcommands are:\r\n+HELP\r\n+HOTKEYS\r\n"
    );
    assert_eq!(app.ask("HOTRING HOTKEYS COUNT 0"), "-ERR COUNT should be greater than 0\r\n");
    assert_eq!(app.ask("HOTRING HOTKEYS COUNT"), "-ERR syntax error\r\n");
    assert_eq!(app.ask("HOTRING HOTKEYS most 3"), "-ERR syntax error\r\n");
    assert_eq!(app.ask("HOTRING NONE"), "-ERR unknown subcommand 'NONE'. Try HOTRING HELP.\r\n");
    assert!(app.ask("COMMAND INFO hotring|hotkeys").contains("@admin"));
    assert!(app.ask("COMMAND DOCS hotring").contains("hotring"));
}
