//! What `/metrics` says is what is declared, and it adds up.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/exposition.rs"]
mod exposition;

use std::collections::BTreeSet;

use exposition::{Family, read};
use hotring::metrics::{
    BackendCounts, BuildCounts, Cause, Class, EmbeddedCounts, Exporter, InfoCounts, Kind, Label, METRICS, PoolCounts,
    ProcessCounts, Role, Setting, Told, ToldCount, Unit, VersionCounts, WorkerCounts, Written, table,
};

/// The value of the one series with these label values.
fn value(family: &Family, labels: &[&str]) -> f64 {
    let same = |s: &&exposition::Sample| s.labels.iter().map(|(_, v)| v.as_str()).eq(labels.iter().copied());
    let mut found = family.samples.iter().filter(same);
    let value = found.next().unwrap_or_else(|| panic!("{labels:?} not in {family:?}")).value;
    assert!(found.next().is_none());
    value
}

/// The values of the `pool` label in the text.
fn pools(text: &str) -> BTreeSet<String> {
    let families = read(text).unwrap();
    let labels = families.into_values().flat_map(|f| f.samples).flat_map(|s| s.labels);
    labels.filter(|(label, _)| label == "pool").map(|(_, pool)| pool).collect()
}

#[test]
fn declared_and_rendered_are_the_same() {
    let exporter = Exporter::new();
    assert_eq!(exporter.render(), "");
    let mut info = exporter.info("p", "b");
    let mut told = InfoCounts {
        used_memory: Told(Some(1)),
        max_memory: Told(Some(1)),
        evicted_keys: ToldCount(Some(1)),
        expired_keys: ToldCount(Some(1)),
        keyspace_hits: ToldCount(Some(1)),
        keyspace_misses: ToldCount(Some(1)),
        clients: Told(Some(1)),
        max_clients: Told(Some(1)),
        rejected_clients: ToldCount(Some(1)),
        commands: ToldCount(Some(1)),
        operations: Told(Some(1)),
        replicas: Told(Some(1)),
        replica_lag_bytes: Told(Some(1)),
        replica_lag: Told(Some(1)),
        link_up: Told(Some(1)),
        link_silence: Told(Some(1)),
        loading: Told(Some(1)),
        uptime: Told(Some(1)),
        ..InfoCounts::default()
    };
    for role in <Role as Label>::ALL {
        told.role[*role] = Told(Some(1));
    }
    for file in <Written as Label>::ALL {
        told.write_failed[*file] = Told(Some(1));
    }
    info.fold(&mut told);
    let mut version = exporter.version("p", "b", "7");
    version.fold(&mut VersionCounts { info: Told(Some(1)) });
    let mut process = exporter.process();
    let usage = (Told(Some(1)), Told(Some(1)), Told(Some(1)));
    let (resident, open_fds, max_fds) = usage;
    process.fold(&mut ProcessCounts { resident, open_fds, max_fds, ..ProcessCounts::default() });
    let held = (
        (info, version, process, exporter.command("p", "get"), exporter.prefix("p", "user:")),
        exporter.pool("p"),
        exporter.backend("p", "b"),
        exporter.limit("p", "l"),
        exporter.user("p", "u"),
        exporter.certificate("p", "f"),
        exporter.topology("p"),
        exporter.embedded("p", "b"),
        exporter.worker(0),
        exporter.build("1.2.3"),
    );
    let text = exporter.render();
    let families = read(&text).unwrap();
    let order: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(order, METRICS.iter().map(|m| m.name).collect::<Vec<_>>());
    for metric in METRICS {
        let family = &families[metric.name];
        assert_eq!((family.kind.as_str(), family.help.as_str()), (metric.kind.as_str(), metric.help));
        let series = text.lines().filter(|line| line.starts_with(&format!("{}{{", metric.name)));
        assert!(series.is_sorted(), "{}", metric.name);
        for sample in &family.samples {
            let labels = sample.labels.iter().map(|(label, _)| label.as_str()).filter(|label| *label != "le");
            assert!(labels.eq(metric.labels()), "{} {sample:?}", metric.name);
        }
    }
    drop(held);
    assert_eq!(exporter.render(), "");
}

#[test]
fn names_follow_the_rules() {
    let mut names = BTreeSet::new();
    for metric in METRICS {
        let name = metric.name;
        assert!(names.insert(name), "{name} is declared twice");
        assert!(
            (name.starts_with("hotring_") || name.starts_with("process_"))
                && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{name}"
        );
        assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
        let stem = name.strip_suffix("_total").unwrap_or(name);
        assert_eq!(stem.ends_with("_seconds"), metric.unit == Unit::Seconds, "{name}");
        assert_eq!(stem.ends_with("_bytes"), metric.unit == Unit::Bytes, "{name}");
        assert!(!["_sum", "_count", "_bucket", "_info_total"].iter().any(|end| name.ends_with(end)), "{name}");
        for label in metric.labels() {
            let known = [
                "pool", "backend", "worker", "version", "class", "cause", "full", "state", "result", "why", "limit",
                "user", "age", "outcome", "command", "prefix", "role", "file",
            ];
            assert!(known.contains(&label), "{name} has a label {label}");
        }
        let help = metric.help;
        assert!(help.ends_with('.') && !help.contains(['\\', '\n', '|']) && !help.contains("  "), "{name}: {help}");
    }
}

#[test]
fn counters_of_workers_add_up() {
    let exporter = Exporter::new();
    let (mut a, mut b) = (exporter.pool("p"), exporter.pool("p"));
    let (mut mine, mut theirs) = (PoolCounts::default(), PoolCounts::default());
    for round in 1..=3 {
        mine.requests[Class::Read] += 5;
        theirs.requests[Class::Read] += 2;
        theirs.errors[Cause::Timeout] += 1;
        mine.request_duration[Class::Read].record(1_000);
        theirs.request_duration[Class::Read].record(1_001);
        a.fold(&mut mine);
        b.fold(&mut theirs);
        a.fold(&mut mine);
        let families = read(&exporter.render()).unwrap();
        assert_eq!(value(&families["hotring_requests_total"], &["p", "read"]), 7.0 * f64::from(round));
        assert_eq!(value(&families["hotring_requests_total"], &["p", "write"]), 0.0);
        assert_eq!(value(&families["hotring_errors_total"], &["p", "timeout"]), f64::from(round));
        let durations = &families["hotring_request_duration_seconds"];
        assert_eq!(value(durations, &["p", "read", "0.001"]), f64::from(round));
        assert_eq!(value(durations, &["p", "read", "0.002"]), 2.0 * f64::from(round));
    }
    let text = exporter.render();
    assert!(text.contains("hotring_request_duration_seconds_sum{pool=\"p\",class=\"read\"} 0.006003\n"), "{text}");
}

#[test]
fn levels_of_workers_add_up_and_leave_with_them() {
    let exporter = Exporter::new();
    let connections =
        |exporter: &Exporter| value(&read(&exporter.render()).unwrap()["hotring_server_connections"], &["p", "b"]);
    let (mut a, mut b) = (exporter.backend("p", "b"), exporter.backend("p", "b"));
    let (mut mine, mut theirs) = (BackendCounts::default(), BackendCounts::default());
    mine.server_connections += 3;
    theirs.server_connections.set(4);
    a.fold(&mut mine);
    a.fold(&mut mine);
    b.fold(&mut theirs);
    assert_eq!(connections(&exporter), 7.0);
    mine.server_connections -= 2;
    a.fold(&mut mine);
    assert_eq!(connections(&exporter), 5.0);
    drop(b);
    assert_eq!(connections(&exporter), 1.0);
}

#[test]
fn a_backend_that_left_is_not_rendered_and_goes_on_when_it_returns() {
    let exporter = Exporter::new();
    let _stays = exporter.backend("p", "stays");
    let mut leaves = exporter.backend("p", "leaves");
    let mut counts = BackendCounts { server_ejects: 2, ..BackendCounts::default() };
    counts.out_queue += 9;
    leaves.fold(&mut counts);
    assert!(exporter.render().contains("backend=\"leaves\""));
    drop(leaves);
    let without = exporter.render();
    assert!(!without.contains("leaves") && without.contains("backend=\"stays\""), "{without}");
    let _again = exporter.backend("p", "leaves");
    let families = read(&exporter.render()).unwrap();
    assert_eq!(value(&families["hotring_server_ejects_total"], &["p", "leaves"]), 2.0);
    assert_eq!(value(&families["hotring_server_out_queue"], &["p", "leaves"]), 0.0);
}

#[test]
fn what_is_not_told_is_not_rendered() {
    let exporter = Exporter::new();
    let mut info = exporter.info("p", "b");
    assert_eq!(exporter.render(), "");
    info.fold(&mut InfoCounts {
        evicted_keys: ToldCount(Some(9)),
        uptime: Told(Some(1_500_000)),
        ..InfoCounts::default()
    });
    let text = exporter.render();
    assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 2, "{text}");
    assert!(text.contains("# TYPE hotring_server_evicted_keys_total counter\n"), "{text}");
    assert!(text.contains("hotring_server_uptime_seconds{pool=\"p\",backend=\"b\"} 1.5\n"), "{text}");
    // A server that began anew counts from nothing.
    info.fold(&mut InfoCounts { evicted_keys: ToldCount(Some(1)), ..InfoCounts::default() });
    let families = read(&exporter.render()).unwrap();
    assert_eq!(value(&families["hotring_server_evicted_keys_total"], &["p", "b"]), 1.0);
    assert!(!families.contains_key("hotring_server_uptime_seconds"));
    drop(info);
    assert_eq!(exporter.render(), "");
}

#[test]
fn microseconds_are_rendered_as_seconds_and_times_stay_exact() {
    let exporter = Exporter::new();
    let (mut worker, mut process, mut build) = (exporter.worker(3), exporter.process(), exporter.build("0.1.0"));
    let mut counts = WorkerCounts { paused: 1_250_000, ..WorkerCounts::default() };
    counts.pause.set(120);
    worker.fold(&mut counts);
    let start = Setting(1_785_000_000_123_456);
    let hash = Setting((1 << 48) - 1);
    process.fold(&mut ProcessCounts { start_time: start, config_hash: hash, ..ProcessCounts::default() });
    build.fold(&mut BuildCounts { info: Setting(1) });
    let text = exporter.render();
    for line in [
        "hotring_worker_paused_seconds_total{worker=\"3\"} 1.25",
        "hotring_worker_pause_seconds{worker=\"3\"} 0.00012",
        "hotring_start_time_seconds 1785000000.123456",
        "hotring_config_hash 281474976710655",
        "hotring_build_info{version=\"0.1.0\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} not in {text}");
    }
}

#[test]
fn no_name_can_break_the_text() {
    let exporter = Exporter::new();
    let names =
        ["a\"b", "a\\b", "a_b", "a\\\"b", "\\", "\\\\", "\"", "a} 1", "", "ü,x=\"y\"", "trailing\\", "%q", "%", "%p%b"];
    let mut held: Vec<_> = names.iter().map(|name| (exporter.pool(name), exporter.backend("p", name))).collect();
    for ((_, backend), count) in held.iter_mut().zip(1u64..) {
        backend.fold(&mut BackendCounts { server_requests: count, ..BackendCounts::default() });
    }
    let text = exporter.render();
    let want: BTreeSet<String> = names.iter().map(|&name| name.to_owned()).chain(["p".to_owned()]).collect();
    assert_eq!(pools(&text), want);
    // Each is a series of its own, in the text and for who asks without it.
    let requests = &read(&text).unwrap()["hotring_server_requests_total"];
    let told = exporter.values("hotring_server_requests_total", &["p"]);
    assert_eq!(told.len(), names.len());
    for (name, count) in names.iter().zip(1u32..) {
        assert_eq!(value(requests, &["p", name]), f64::from(count), "{name}");
        assert_eq!(exporter.value("hotring_server_requests_total", &["p", name]), u64::from(count), "{name}");
        assert!(told.contains(&((*name).to_owned(), u64::from(count))), "{name}: {told:?}");
    }
    // Control characters are shown as something else.
    let _bell = exporter.pool("a\n\u{7}b");
    assert!(pools(&exporter.render()).contains("a__b"));
}

#[test]
fn exporters_are_independent_and_shared_between_threads() {
    let (one, other) = (Exporter::new(), Exporter::new());
    let _other = other.embedded("q", "node");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut node = one.embedded("p", "node");
                for _ in 0..100 {
                    node.fold(&mut EmbeddedCounts { hits: 1, ..EmbeddedCounts::default() });
                    one.upkeep();
                    read(&one.render()).unwrap();
                }
            });
        }
    });
    let _node = one.embedded("p", "node");
    assert_eq!(value(&read(&one.render()).unwrap()["hotring_embedded_hits_total"], &["p", "node"]), 200.0);
    assert_eq!(pools(&other.render()), ["q".to_owned()].into());
}

#[test]
fn label_values_have_names_of_their_own() {
    fn check<L: Label + PartialEq + std::fmt::Debug>() {
        for (i, value) in L::ALL.iter().enumerate() {
            assert_eq!(value.index(), i);
            assert_eq!(L::named(value.as_str()), Some(*value));
        }
        assert_eq!(L::named("no such value"), None);
    }
    check::<Class>();
    check::<Cause>();
    check::<hotring::metrics::Full>();
}

#[test]
fn the_table_has_a_row_for_every_metric() {
    let table = table();
    let mut rows = table.lines();
    assert_eq!(rows.next(), Some("| Metric | Type | Labels | Meaning |"));
    assert_eq!(rows.next(), Some("| --- | --- | --- | --- |"));
    for (row, metric) in rows.by_ref().zip(METRICS) {
        assert!(row.starts_with(&format!("| `{}` | {} | ", metric.name, metric.kind.as_str())), "{row}");
        assert_eq!(row.matches('|').count(), 5, "{row}");
    }
    assert_eq!(table.lines().count(), METRICS.len() + 2);
}
