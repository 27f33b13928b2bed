//! Pools whose servers real sentinels tell.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::sentinel::Watch;

#[test]
fn sentinels_fail_over() {
    let mut watch = Watch::over(3, &["one", "two"]);
    let first = watch.primary("one").unwrap();
    let start = support::now();
    let second = watch.failover("one");
    eprintln!("{:?}", start.elapsed());
    assert_ne!(first, second);
    let start = support::now();
    watch.server(&second).kill();
    assert_eq!(watch.primary_after("one", &second), first);
    eprintln!("{:?}", start.elapsed());
    watch.server(&second).restart();
    let start = support::now();
    support::eventually("it follows", || support::sentinel::is_replica(&second));
    eprintln!("{:?}", start.elapsed());
}
