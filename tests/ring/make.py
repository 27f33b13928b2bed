#!/usr/bin/env python3
"""Asks twemproxy (nutcracker) itself where keys live, and writes it down as golden files.

    tests/ring/make.py                     rewrite tests/ring/*.golden
    tests/ring/make.py --live DIRECTORY    a fresh run of one case of each file into DIRECTORY (what the live test does)

Needs nutcracker 0.5.0, redis-server and Python 3, nothing else. Starts its own servers on free ports of 127.0.0.x and on
unix sockets (the committed files also need 127.0.0.2-4:11211 free), writes the keys of every case through nutcracker and
then looks on which server each one is.

A golden file is a list of cases. The lines of a case:

    case NAME
    hash, distribution, hash_tag VALUE     as in nutcracker.yml
    ejected I,J                            servers that were down and ejected, if any
    server HOST:PORT:WEIGHT [NAME]         as in nutcracker.yml and in its order, 0 the first
    keys COUNT SEED                        which keys: `keys` below, the same in tests/ring.rs
    then one character a key: the server it was found on, 0-9a-z
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

KEYS = 10_000
LIVE_KEYS = 2_000
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
HASHES = "one_at_a_time md5 crc16 crc32 crc32a fnv1_64 fnv1a_64 fnv1_32 fnv1a_32 hsieh murmur jenkins".split()
MASK = (1 << 64) - 1


class Draw:
    """splitmix64 (Steele, Lea, Flood 2014): 64 bits a draw."""

    def __init__(self, seed):
        self.state = seed

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def below(self, end):
        return self.next() % end


def keys(count, seed):
    """The keys of a case. Operands are drawn from left to right."""
    draw = Draw(seed)
    for _ in range(count):
        kind = draw.below(9)
        if kind == 0:
            yield b"user:%d" % draw.below(1_000_000)
        elif kind == 1:
            yield b"session:%016x:%d" % (draw.next(), draw.below(100))
        elif kind == 2:  # any bytes
            yield bytes(draw.below(256) for _ in range(1 + draw.below(40)))
        elif kind == 3:  # Cyrillic, two bytes a letter
            yield "".join(chr(0x430 + draw.below(32)) for _ in range(1 + draw.below(12))).encode()
        elif kind == 4:
            yield b"a:%d:{%d}:%d" % (draw.below(1000), draw.below(1000), draw.below(1000))
        elif kind == 5:
            yield b"b:%d:$%d$:%d" % (draw.below(1000), draw.below(1000), draw.below(1000))
        elif kind == 6:  # tags in all sorts of disorder, and the empty key
            yield bytes(b"{}$ab"[draw.below(5)] for _ in range(draw.below(9)))
        elif kind == 7:  # ketama's labels, which hash md5 puts exactly on points
            yield b"shard%d-%d" % (draw.below(12), draw.below(40))
        else:  # long
            yield bytes(0x20 + draw.below(95) for _ in range(100 + draw.below(200)))


def case(name, servers, hash="fnv1a_64", distribution="ketama", hash_tag=None, ejected=()):
    """`servers`: a tuple (kind, weight, alias) each; kind is `tcp`, `memcached` (port 11211) or `unix`."""
    return dict(
        name=name, servers=servers, hash=hash, distribution=distribution, hash_tag=hash_tag, ejected=list(ejected)
    )


def named(*pairs):
    return [("tcp", weight, alias) for alias, weight in pairs]


def files():
    """File names and their cases. The first case of a file is the one a live test runs."""
    # modula goes by the length of names first, so they differ in it
    four = named(("shard10", 1), ("shard2", 1), ("z", 1), ("cache", 1))
    mixed = named(("shard10", 2), ("shard2", 1), ("z", 3), ("cache", 1))
    both = ("ketama", "modula")
    yield "ketama", [case(hash, four, hash=hash) for hash in HASHES]
    yield "modula", [case(hash, four, hash=hash, distribution="modula") for hash in HASHES]
    yield "weights", [
        case("1-3-2 ketama", named(("alpha", 1), ("beta", 3), ("gamma", 2))),
        case("1-3-2 modula", named(("alpha", 1), ("beta", 3), ("gamma", 2)), distribution="modula"),
        case("100-1, no point for the second", named(("big", 100), ("tiny", 1))),
        case("100-1 modula", named(("big", 100), ("tiny", 1)), distribution="modula"),
        case("sixteen ketama", named(*((f"s{i}", 1 + i * i % 11) for i in range(16)))),
        case("sixteen modula", named(*((f"s{i}", 1 + i * i % 11) for i in range(16))), distribution="modula"),
        case("huge and thirds", named(("a", 1_000_000_007), ("b", 333_333_333), ("c", 666_666_666))),
    ]
    yield "names", [
        case("addresses ketama", [("tcp", 1, None)] * 4),
        case("addresses modula", [("tcp", 1, None)] * 4, distribution="modula"),
        case("addresses and aliases", [("tcp", 1, None), ("tcp", 2, "b"), ("tcp", 1, None), ("tcp", 1, "a")]),
        case("port 11211 ketama", [("memcached", 1, None)] * 3),
        case("port 11211 modula, with others", [("tcp", 1, None)] + [("memcached", 1, None)] * 2, distribution="modula"),
        case("port 11211 and aliases", [("memcached", 1, None), ("memcached", 1, "b"), ("tcp", 1, None)]),
        case("one server", named(("only", 7))),
        # of longer labels 272 bytes count, so the last two have the same points
        case("long names", named(("x" * 260, 1), ("y" * 300, 1), ("x" * 269, 1), ("x" * 290, 1), ("x" * 280, 1))),
        case("eighteen equals", named(*((f"server{i}", 1) for i in range(1, 19)))),
    ]
    yield "sockets", [
        case("paths ketama", [("unix", 1, None)] * 3),
        case("paths modula", [("unix", 1, None)] * 3, distribution="modula"),
        case("paths with weights", [("unix", 2, None), ("unix", 1, None), ("unix", 3, None)]),
        case("aliases", [("unix", 1, "alpha"), ("unix", 3, "beta"), ("unix", 2, "gamma")]),
        case("all kinds", [("unix", 1, None), ("tcp", 1, None), ("unix", 1, "b"), ("tcp", 1, "a")]),
    ]
    yield "tags", [
        case(f"{tag} {distribution} {hash}", four, hash_tag=tag, distribution=distribution, hash=hash)
        for tag in ("{}", "$$")
        for distribution in both
        for hash in ("fnv1a_64", "murmur")
    ]
    yield "ejected", [
        case("one of four", four, ejected=[1]),
        case("one of four modula", four, distribution="modula", ejected=[1]),
        case("one of weighted", mixed, ejected=[0]),
        case("one of weighted modula", mixed, distribution="modula", ejected=[2]),
        case("two of five", named(*((f"server{i}", 1) for i in range(1, 6))), ejected=[0, 3]),
        case("two of weighted", mixed, ejected=[0, 2]),
        case("all but one", mixed, ejected=[0, 1, 3]),
        case("one of addresses", [("tcp", 1, None)] * 3, ejected=[2]),
    ]


class Unlucky(Exception):
    """A port was taken by someone else in between."""


def free_port(host):
    with socket.socket() as s:
        s.bind((host, 0))
        return s.getsockname()[1]


def wait_for(connect, process, what, seconds=20):
    """Polls until `connect` succeeds: a server says nothing when it is ready."""
    end = time.monotonic() + seconds
    while True:
        if process.poll() is not None:
            raise Unlucky(f"{what} ended with {process.returncode}")
        try:
            return connect()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


class Peer:
    """A connection that speaks RESP."""

    def __init__(self, address):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family)
        try:
            self.socket.settimeout(60)
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self.file = self.socket.makefile("rb")

    def close(self):
        self.file.close()
        self.socket.close()

    def send(self, commands):
        out = []
        for command in commands:
            out.append(b"*%d\r\n" % len(command))
            out.extend(b"$%d\r\n%s\r\n" % (len(word), word) for word in command)
        self.socket.sendall(b"".join(out))

    def reply(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return self.file.read(int(rest) + 2)[:-2] if int(rest) >= 0 else None
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return line[:-2]

    def call(self, *command):
        self.send([command])
        return self.reply()


class Redis:
    """A shard, reachable by TCP and by a unix socket."""

    def __init__(self, number, folder, memcached):
        self.host = f"127.0.0.{number + 2}"
        self.port = 11211 if memcached else free_port(self.host)
        self.path = os.path.join(folder, f"{'m' if memcached else 's'}{number}")
        address = ["--bind", self.host, "--port", str(self.port), "--unixsocket", self.path]
        self.process = subprocess.Popen(
            ["redis-server", *address, "--dir", folder, "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def connect(self):
        what = f"redis-server {self.host}:{self.port}"
        self.peer = wait_for(lambda: Peer((self.host, self.port)), self.process, what)


class Dead:
    """A shard that refuses connections: its port is bound, so nobody else gets it, but nobody listens."""

    def __init__(self, number):
        self.host = f"127.0.0.{number + 2}"
        self.socket = socket.socket()
        self.socket.bind((self.host, 0))
        self.port = self.socket.getsockname()[1]


class Stage:
    """Redis servers as needed, one nutcracker for all cases with a pool and a unix socket each, and what is to be
    cleared away."""

    def __init__(self, cases):
        # goes into the names of unix sockets
        self.folder = tempfile.mkdtemp(prefix="ring-", dir="/tmp")
        self.processes = []
        self.cases = cases
        self.redis = {}

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def server(self, number, kind, dead):
        """What is behind server `number` of a case; cases share their live ones."""
        if dead:
            return Dead(number)
        place = (number, kind == "memcached")
        if place not in self.redis:
            redis = Redis(number, self.folder, kind == "memcached")
            self.processes.append(redis.process)
            self.redis[place] = redis
        return self.redis[place]

    def start(self):
        config = []
        for i, one in enumerate(self.cases):
            one["redis"], one["lines"] = [], []
            for number, (kind, weight, alias) in enumerate(one["servers"]):
                redis = self.server(number, kind, number in one["ejected"])
                address = redis.path if kind == "unix" else f"{redis.host}:{redis.port}"
                one["redis"].append(redis)
                one["lines"].append(f"{address}:{weight}" + (f" {alias}" if alias else ""))
            one["listen"] = os.path.join(self.folder, f"p{i}")
            config += [f"p{i}:", f"  listen: {one['listen']} 0600", "  redis: true", f"  hash: {one['hash']}"]
            config += [f"  distribution: {one['distribution']}", "  servers:"]
            config += [f"   - {line}" for line in one["lines"]]
            if one["hash_tag"]:
                config.append(f"  hash_tag: \"{one['hash_tag']}\"")
            if one["ejected"]:
                config += ["  auto_eject_hosts: true", "  server_failure_limit: 1", "  server_retry_timeout: 3600000"]
        for redis in self.redis.values():
            redis.connect()
        path = os.path.join(self.folder, "nutcracker.yml")
        with open(path, "w") as file:
            file.write("\n".join(config) + "\n")
        log = os.path.join(self.folder, "nutcracker.log")
        self.nutcracker = subprocess.Popen(
            ["nutcracker", "-c", path, "-o", log, "-a", "127.0.0.1", "-s", str(free_port("127.0.0.1")), "-m", "16384"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(self.nutcracker)
        wait_for(lambda: Peer(self.cases[-1]["listen"]).close(), self.nutcracker, "nutcracker")

    def place(self, one, wanted):
        """The server number of each of the keys."""
        pool = Peer(one["listen"])
        if one["ejected"]:
            # Every failure ejects one server; when many keys pass without one, all the dead ones are out.
            for _ in range(20):
                errors = sum(pool.call(b"SET", key, b"").startswith(b"-") for key in wanted[:1000])
                if not errors:
                    break
            else:
                raise RuntimeError(f"{one['name']}: dead servers are not ejected")
        live = [(number, redis) for number, redis in enumerate(one["redis"]) if number not in one["ejected"]]
        for _, redis in live:
            assert redis.peer.call(b"FLUSHALL") == b"+OK"
        for start in range(0, len(wanted), 200):
            part = wanted[start : start + 200]
            pool.send((b"SET", key, b"") for key in part)
            for key in part:
                reply = pool.reply()
                if reply != b"+OK":
                    raise RuntimeError(f"{one['name']}: SET {key!r} gave {reply!r}")
        pool.close()
        found = {}
        for number, redis in live:
            for key in redis.peer.call(b"KEYS", b"*"):
                assert key not in found, f"{one['name']}: {key!r} is on two servers"
                found[key] = number
        return [found[key] for key in wanted]


def golden(stage, cases, count):
    lines = []
    for number, one in enumerate(cases):
        seed = number + 1
        wanted = list(keys(count, seed))
        placed = "".join(DIGITS[server] for server in stage.place(one, wanted))
        lines += [f"case {one['name']}", f"hash {one['hash']}", f"distribution {one['distribution']}"]
        lines += [f"hash_tag {one['hash_tag']}"] if one["hash_tag"] else []
        lines += [f"ejected {','.join(map(str, one['ejected']))}"] if one["ejected"] else []
        lines += [f"server {line}" for line in one["lines"]]
        lines.append(f"keys {count} {seed}")
        lines += [placed[i : i + 100] for i in range(0, count, 100)]
    return "\n".join(lines) + "\n"


def run(folder, live):
    wanted = [(name, cases[:1] if live else cases) for name, cases in files()]
    with Stage([one for _, cases in wanted for one in cases]) as stage:
        texts = [(name, golden(stage, cases, LIVE_KEYS if live else KEYS)) for name, cases in wanted]
    for name, text in texts:
        with open(os.path.join(folder, f"{name}.golden"), "w") as file:
            file.write(text)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # by way of Stage.__exit__
    live = len(sys.argv) == 3 and sys.argv[1] == "--live"
    if not live and len(sys.argv) > 1:
        sys.exit(__doc__)
    for attempt in range(5):
        try:
            return run(sys.argv[2] if live else os.path.dirname(os.path.abspath(__file__)), live)
        except Unlucky as reason:
            print(f"again: {reason}", file=sys.stderr)
    sys.exit("gave up")


if __name__ == "__main__":
    main()
