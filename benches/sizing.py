#!/usr/bin/env python3
"""What hotring needs: CPU for ten thousand requests a second, memory for a thousand apps.

    cargo build --release && benches/sizing.py --pin

CPU is what the kernel charged to hotring's threads for a request, so that it counts whatever else the machine did; in cores for
10,000 requests a second of that kind. A hundredth of a core is ten of Kubernetes' millicores. Each row is the median of several
rounds. The fewer requests arrive together, the more system calls each of them costs: what a row says holds at the number of
clients that ask at the same time, and with fewer of them it is more.

Memory is resident memory with so many apps connected, each of which has asked once and waits; less what there is with none.

Needs Linux, Python 3.8, redis-server and redis-benchmark.
"""
import argparse
import os
import resource
import statistics
import sys
import tempfile

import side_by_side as bench

GET = ("GET", "key:__rand_int__")
KINDS = [
    ("GET of 64 bytes, 1 client", bench.Workload("c1", 1, 1, GET)),
    ("the same, 8 clients", bench.Workload("c8", 8, 1, GET)),
    ("the same, 50 clients", bench.Workload("c50", 50, 1, GET)),
    ("the same, 500 clients", bench.Workload("c500", 500, 1, GET)),
    ("the same, 50 clients, 16 requests at a time", bench.Workload("c50-p16", 50, 16, GET)),
    ("SET of 64 bytes, 50 clients", bench.Workload("set", 50, 1, ("SET", "key:__rand_int__", bench.BODY))),
    ("MGET of 10 keys over 3 servers, 50 clients", bench.Workload("mget", 50, 1, ("MGET",) + ("key:__rand_int__",) * 10)),
]
APPS = [1_000, 5_000, 10_000]


def cpu(stand, options):
    rows = [bench.row("10,000 requests a second", "cores, TCP", "cores, unix socket"), bench.row(*["---"] * 3)]
    targets = [stand.proxy(bench.OURS), stand.proxy(bench.OURS, unix=True)]
    stand.fill(targets[0][1])
    for name, workload in KINDS:
        cells = []
        for process, place in targets:
            rate = bench.sample(stand, workload, process, place, 5000, 0.2).rps
            taken = [bench.sample(stand, workload, process, place, rate, options.seconds) for _ in range(options.rounds)]
            # Microseconds a request, times 10,000 a second.
            cells.append(f"{statistics.median(one.proxy for one in taken) / 100:.2f}")
        rows.append(bench.row(name, *cells))
        bench.say(rows[-1])
    for process, _ in targets:
        process.stop()
    return rows


def memory(stand):
    rows = [bench.row("Apps", "memory, MiB", "for 1,000 apps, MiB"), bench.row(*["---"] * 3)]
    process, place = stand.proxy(bench.OURS)
    stand.fill(place)
    none = process.rss()
    rows.append(bench.row("none", f"{none / 1024:.1f}", ""))
    apps = []
    for count in APPS:
        while len(apps) < count:
            app = bench.Client(place)
            if app.ask("SET", f"app:{len(apps)}", bench.BODY) != "OK":
                raise bench.Failed("a SET was not answered OK")
            apps.append(app)
        more = process.rss() - none
        rows.append(bench.row(f"{count:,}", f"{process.rss() / 1024:.1f}", f"{more / 1024 / count * 1000:.2f}"))
    for app in apps:
        app.close()
    process.stop()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hotring", default=os.path.join(bench.ROOT, "target/release/hotring"))
    parser.add_argument("--pin", action="store_true", help="give hotring a CPU of its own")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    options.hotring, options.also, options.envoy = os.path.abspath(options.hotring), [], None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < APPS[-1] + 256:
        raise bench.Failed(f"{APPS[-1]} apps need as many open files, and {hard} are allowed (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="hotring-sizing-") as directory:
        stand = bench.Bench(options, directory, options.pin and len(bench.CPUS) > 1)
        try:
            stand.start_servers()
            rows = cpu(stand, options) + [""] + memory(stand)
        finally:
            stand.stop()
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except bench.Failed as why:
        sys.exit(f"sizing.py: {why}")
