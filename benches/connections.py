#!/usr/bin/env python3
"""Thousands of apps that connect at once, before servers that take a hundred connections: no proxy, twemproxy, hotring.

    cargo build --release && benches/connections.py --picture docs/connections.svg

Starts three redis-servers with `maxclients 100` and each target in front of them. All apps connect in the same moment, and each
writes a key of its own and reads it; an app counts as served when it has read what it wrote. When all have been served or
refused, those that are connected ask once more, so that they are seen to be there together. hotring runs with the configuration
of the pod in deploy/kubernetes/sidecar-native.yaml, its addresses and servers replaced. An app that is refused does not come again.

Prints a table, and draws how many apps had been served after how long. Needs Linux, Python 3.8 and redis-server; nutcracker is
left out if it is not installed. Ends with 1 if hotring did not serve all.
"""
import argparse
import collections
import os
import re
import resource
import select
import socket
import sys
import tempfile
import textwrap
import threading
import time

import side_by_side as bench

MAXCLIENTS = 100
SERVERS = 3
PATIENCE = 60.0
MANIFEST = os.path.join(bench.ROOT, "deploy/kubernetes/sidecar-native.yaml")

Storm = collections.namedtuple("Storm", "target apps served refused curve last backends rss")


class App:
    """One app: its socket, what it asked and what has come."""

    def __init__(self, number):
        self.number = number
        self.got = b""
        self.socket = socket.socket()
        self.socket.setblocking(False)

    def ask(self):
        name, value = b"app:%d" % self.number, b"%d" % self.number
        request = b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(name), name, len(value), value)
        request += b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(name), name)
        self.got = b""
        self.socket.send(request)

    def wanted(self):
        value = b"%d" % self.number
        return b"+OK\r\n$%d\r\n%s\r\n" % (len(value), value)


class Watch(threading.Thread):
    """The most connections that each server had, and the proxy's of them; asks on connections that were there before."""

    def __init__(self, ports):
        super().__init__(daemon=True)
        self.clients = [bench.Client(port) for port in ports]
        self.most = [0] * len(ports)
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.005):
            for number, client in enumerate(self.clients):
                told = re.search(r"connected_clients:(\d+)", client.ask("INFO", "clients"))
                # Its own one does not count.
                self.most[number] = max(self.most[number], int(told.group(1)) - 1)

    def stop(self):
        self.over.set()
        self.join()
        for client in self.clients:
            client.close()


def drive(port, count):
    """All apps at once; gives when each was served, and how many were refused, from the first connect on, in seconds."""
    apps = [App(number) for number in range(count)]
    by_fd = {app.socket.fileno(): app for app in apps}
    poll = select.epoll()
    served, refused = [], 0
    begun = time.monotonic()
    for app in apps:
        app.socket.connect_ex(("127.0.0.1", port))
        poll.register(app.socket.fileno(), select.EPOLLOUT)
    open_ = set(by_fd)

    def settle(again):
        """Until each that is open was answered or refused."""
        nonlocal refused
        waiting = set(open_)
        end = time.monotonic() + PATIENCE
        while waiting and time.monotonic() < end:
            for fd, _ in poll.poll(1.0, 4096):
                app = by_fd[fd]
                gone = False
                try:
                    if not app.got and not again and app.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                        gone = True
                    elif fd in unasked:
                        unasked.discard(fd)
                        poll.modify(fd, select.EPOLLIN)
                        app.ask()
                        continue
                    else:
                        read = app.socket.recv(4096)
                        app.got += read
                        gone = not read or app.got.startswith(b"-")
                except BlockingIOError:
                    continue
                except OSError:
                    gone = True
                if gone:
                    poll.unregister(fd)
                    app.socket.close()
                    open_.discard(fd)
                    waiting.discard(fd)
                    refused += 1
                elif app.got == app.wanted():
                    waiting.discard(fd)
                    if not again:
                        served.append(time.monotonic() - begun)
        for fd in waiting:
            # No answer in all that time is none.
            open_.discard(fd)
            refused += 1

    unasked = set(open_)
    settle(again=False)
    first = len(served)
    for fd in open_:
        by_fd[fd].ask()
    settle(again=True)
    if len(open_) != first:
        bench.say(f"{first - len(open_)} of those that had been served were refused when they asked again")
    return apps, sorted(served), refused


def pod(directory, ports, hotring):
    """The pod's configuration with these servers; gives the command and the port where apps find it."""
    port = bench.free_port()
    with open(MANIFEST, encoding="utf-8") as manifest:
        text = re.search(r"  proxy\.yaml: \|\n(.*?)\n---\n", manifest.read(), re.S).group(1)
    config = textwrap.dedent(text)
    servers = ", ".join(f'"127.0.0.1:{one}:1 redis-{number}"' for number, one in enumerate(ports))
    for was, now in [(r"admin: .*", "admin: off"), (r"listen: .*", f'listen: ["127.0.0.1:{port}"]'),
                     (r"servers: embedded:3", f"servers: [{servers}]")]:
        config, found = re.subn(rf"(?m)^( *){was}$", rf"\g<1>{now}", config)
        if not found:
            raise bench.Failed(f"{MANIFEST}: there is no `{was}`")
    path = os.path.join(directory, "proxy.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(config)
    return [hotring, "-c", path], port


def twemproxy(directory, ports):
    port = bench.free_port()
    servers = "\n".join(f"    - 127.0.0.1:{one}:1 redis-{number}" for number, one in enumerate(ports))
    path = os.path.join(directory, "nutcracker.yml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(bench.CONFIG.format(listen=f"127.0.0.1:{port}", servers=servers))
    return [bench.program("nutcracker"), "-c", path, "-s", str(bench.free_port()), "-a", "127.0.0.1"], port


def storm(target, options, directory):
    """One target before servers of its own."""
    running = []
    try:
        ports = []
        for number in range(SERVERS):
            port = bench.free_port()
            command = [bench.program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly",
                       "no", "--maxclients", str(MAXCLIENTS), "--tcp-backlog", "4096", "--dir", directory]
            running.append(bench.Process(f"{target} redis {number}", command, directory, None))
            running[-1].wait_for(port)
            ports.append(port)
        proxy, place = None, ports[0]
        if target != bench.DIRECT:
            make = {bench.OURS: lambda: pod(directory, ports, options.hotring), bench.PEER: lambda: twemproxy(directory, ports)}
            command, place = make[target]()
            proxy = bench.Process(target, command, directory, None)
            running.append(proxy)
            proxy.wait_for(place)
        watch = Watch(ports if proxy else ports[:1])
        watch.start()
        apps, curve, refused = drive(place, options.apps)
        rss = proxy.rss() if proxy else None
        watch.stop()
        for app in apps:
            app.socket.close()
        return Storm(target, options.apps, len(curve), refused, curve, curve[-1] if curve else 0.0, watch.most, rss)
    finally:
        for process in reversed(running):
            process.stop()


def table(storms):
    lines = [
        bench.row("", "Apps served", "refused", "the last after", "most connections at a server", "memory of the proxy"),
        bench.row(*["---"] * 6),
    ]
    for one in storms:
        rss = "" if one.rss is None else f"{one.rss / 1024:.0f} MiB"
        lines.append(bench.row(one.target, f"{one.served:,}", f"{one.refused:,}", f"{one.last:.2f} s", max(one.backends), rss))
    return "\n".join(lines)


COLOURS = {bench.DIRECT: "#c0392b", bench.PEER: "#8a6d00", bench.OURS: "#2e7d5b"}
DASHES = {bench.DIRECT: "", bench.PEER: "6 4", bench.OURS: ""}


def picture(storms):
    """Apps served over time, as SVG."""
    width, height, left, top, right, bottom = 760, 360, 60, 50, 190, 40
    across, down = width - left - right, height - top - bottom
    span = max(one.last for one in storms) * 1.02
    apps = storms[0].apps

    def at(seconds, count):
        return left + across * seconds / span, top + down * (1 - count / apps)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="10" y="20" font-size="14">{apps:,} apps connect at once; each server takes {MAXCLIENTS} connections</text>',
        f'<text x="10" y="38" fill="#666">apps served, by seconds since the first of them connected</text>',
    ]
    for part in range(5):
        count = apps * part // 4
        _, y = at(0, count)
        out.append(f'<line x1="{left}" x2="{left + across}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#666">{count:,}</text>')
        x, _ = at(span * part / 4, 0)
        anchor = "end" if part == 4 else "middle"
        out.append(f'<text x="{x:.1f}" y="{top + down + 18}" text-anchor="{anchor}" fill="#666">{span * part / 4:.1f} s</text>')
    labels = []
    for one in storms:
        steps = max(1, len(one.curve) // 400)
        points = [at(0, 0)] + [at(when, number + 1) for number, when in enumerate(one.curve) if number % steps == 0]
        points += [at(one.last, one.served), at(span, one.served)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dash = f' stroke-dasharray="{DASHES[one.target]}"' if DASHES[one.target] else ""
        out.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[one.target]}" stroke-width="2"{dash}/>')
        labels.append((points[-1][1], one))
    above = None
    for y, one in sorted(labels, key=lambda label: label[0]):
        y = min(y, top + down - 30)
        y = max(y, top + 4) if above is None else max(y, above + 52)
        above = y
        x = left + across + 8
        most = max(one.backends)
        out.append(f'<text x="{x}" y="{y:.1f}" fill="{COLOURS[one.target]}" font-weight="bold">{one.target}</text>')
        out.append(f'<text x="{x}" y="{y + 15:.1f}" fill="#333">{one.served:,} served, {one.refused:,} refused</text>')
        out.append(f'<text x="{x}" y="{y + 30:.1f}" fill="#333">{most} connection{"s" * (most != 1)} at a server</text>')
    return "\n".join(out) + "\n</svg>\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apps", type=int, default=10_000)
    parser.add_argument("--hotring", default=os.path.join(bench.ROOT, "target/release/hotring"))
    parser.add_argument("--picture", metavar="SVG", help="where to draw it")
    options = parser.parse_args()
    options.hotring = os.path.abspath(options.hotring)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < options.apps + 256:
        raise bench.Failed(f"{options.apps} apps need as many open files, and {hard} are allowed (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    targets = [bench.DIRECT] + [bench.PEER] * bool(bench.program("nutcracker")) + [bench.OURS]
    storms = []
    for target in targets:
        with tempfile.TemporaryDirectory(prefix="hotring-connections-") as directory:
            storms.append(storm(target, options, directory))
    print(table(storms))
    if options.picture:
        with open(options.picture, "w", encoding="utf-8") as file:
            file.write(picture(storms))
    return 0 if storms[-1].served == options.apps and not storms[-1].refused else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except bench.Failed as why:
        sys.exit(f"connections.py: {why}")
