//! hotring as it is started, which finds out by itself that a key is hot.

use crate::support::{FOREVER, Hotring, Redis, eventually, home, now, pool, shards, wire};

const KEYS: &[&str] = &["hot_keys: {reads: copies, max_staleness: 60s}"];

fn copies(hotring: &Hotring, what: &str) -> f64 {
    hotring.metric(&format!("hotring_copy_{what}_total{{pool=\"main\"}}"))
}

/// Reads until copies answer.
fn warm(hotring: &Hotring, key: &str) {
    let mut app = hotring.app();
    let batch = wire(&["GET", key]).repeat(200);
    eventually("copies are read", || {
        app.send(&batch);
        (0..200).for_each(|_| drop(app.reply()));
        copies(hotring, "hits") > 100.0
    });
}

#[test]
fn a_key_that_is_hot_is_read_at_several_servers() {
    let (servers, at) = shards(3);
    let hotring = Hotring::with_admin(&pool(&at, KEYS));
    let mut direct = servers[home(3, b"hot")].client();
    direct.ask("SET hot one");
    warm(&hotring, "hot");
    let gets = |servers: &[Redis]| servers.iter().map(|redis| redis.calls("get")).collect::<Vec<_>>();
    let before = gets(&servers);
    let mut app = hotring.app();
    for _ in 0..2000 {
        assert_eq!(app.ask("GET hot"), "$3\r\none\r\n");
    }
    let reads: Vec<u64> = gets(&servers).iter().zip(before).map(|(after, before)| after - before).collect();
    assert!(reads.iter().filter(|&&reads| reads > 300).count() >= 2, "{reads:?}");
    // Who writes past hotring is seen long before `max_staleness` is over.
    let from = now();
    direct.ask("SET hot two");
    eventually("all reads tell it", || (0..20).all(|_| app.ask("GET hot") == "$3\r\ntwo\r\n"));
    assert!(from.elapsed() < FOREVER / 2);
}

#[test]
fn what_an_app_has_written_it_reads() {
    let (servers, at) = shards(3);
    // Two workers tell each other of writes.
    let keys = ["^workers: 2", "hot_keys: {reads: copies, max_staleness: 500ms}"];
    let hotring = Hotring::with_admin(&pool(&at, &keys));
    servers[home(3, b"hot")].client().ask("SET hot 0");
    warm(&hotring, "hot");
    let mut writer = hotring.app();
    let mut readers: Vec<_> = (0..6).map(|_| hotring.app()).collect();
    let from = now();
    let mut version = 0;
    while from.elapsed().as_secs() < 4 || version < 2 {
        version += 1;
        writer.ask(&format!("SET hot {version}"));
        let expected = format!("${}\r\n{version}\r\n", version.to_string().len());
        for n in 0..2400 {
            assert_eq!(readers[n % 6].ask("GET hot"), expected);
        }
    }
    assert!(version > 1);
}
