#!/usr/bin/env python3
"""What TLS costs: CPU of hotring for each request and handshake, plain and with TLS, in one run.

    cargo build --release && benches/tls.py [--requests 200000] [--seconds 3] [--haproxy]

One redis-server, hotring (one worker, no pauses) with a plain and a TLS listener, and one that speaks TLS to a redis-server with
TLS. redis-benchmark asks; the CPU is the process' own, from /proc. With --haproxy the same of HAProxy (mode tcp, one thread), which
ends TLS and does nothing else. Needs redis-server, redis-benchmark and openssl; certificates are made for the run.
"""
import argparse
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu(pid):
    """Seconds of CPU that a process has used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


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


def ask(port, tls, ca, requests, pipeline, size, clients):
    """Has redis-benchmark GET; requests a second."""
    command = ["redis-benchmark", "-p", str(port), "-n", str(requests), "-c", str(clients), "-P", str(pipeline), "-d", str(size),
               "-t", "get", "--csv"]
    command += ["--tls", "--cacert", str(ca)] if tls else []
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
    return float(said.strip().splitlines()[-1].split(",")[1].strip('"'))


def shake(port, ca, seconds, resume):
    """Handshakes, one after another on four threads; how many."""
    context = ssl.create_default_context(cafile=ca)
    end, count = time.monotonic() + seconds, [0] * 4

    def run(number):
        session = None
        while time.monotonic() < end:
            with socket.create_connection(("127.0.0.1", port)) as plain:
                with context.wrap_socket(plain, server_hostname="localhost", session=session) as secure:
                    secure.sendall(b"PING\r\n")
                    secure.recv(64)
                    if resume:
                        session = secure.session
            count[number] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return sum(count)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/hotring")
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--haproxy", action="store_true")
    args = parser.parse_args()
    processes = []
    where = pathlib.Path(tempfile.mkdtemp())
    try:
        certificates(where)
        ca, cert, key = where / "ca.crt", where / "tls.crt", where / "tls.key"
        ports = {name: free_port() for name in ("redis", "redis_tls", "plain", "tls", "behind", "ha_plain", "ha_tls")}

        def start(command, port, **more):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=where, **more)
            processes.append(process)
            up(port)
            return process.pid

        start(["redis-server", "--port", str(ports["redis"]), "--tls-port", str(ports["redis_tls"]), "--tls-cert-file", str(cert),
               "--tls-key-file", str(key), "--tls-ca-cert-file", str(ca), "--tls-auth-clients", "no", "--save", "", "--dir", str(where)],
              ports["redis"])
        (where / "proxy.yaml").write_text(f"""
admin: off
max_pause: off
pools:
  front:
    listen: 127.0.0.1:{ports["plain"]}
    listen_tls: 127.0.0.1:{ports["tls"]}
    tls: {{cert: {cert}, key: {key}}}
    servers: ["127.0.0.1:{ports["redis"]}:1 a"]
  back:
    listen: 127.0.0.1:{ports["behind"]}
    servers: ["127.0.0.1:{ports["redis_tls"]}:1 a"]
    server_tls: {{ca: {ca}}}
""")
        binary = str(pathlib.Path(args.binary).resolve())
        hotring = start([binary, "-c", str(where / "proxy.yaml")], ports["plain"])
        sides = [("hotring, plain", hotring, "plain", False), ("hotring, TLS to apps", hotring, "tls", True),
                 ("hotring, TLS to the server", hotring, "behind", False)]
        if args.haproxy:
            (where / "both.pem").write_text(cert.read_text() + key.read_text())
            (where / "haproxy.cfg").write_text(f"""
global
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
listen plain
  bind 127.0.0.1:{ports["ha_plain"]}
  server a 127.0.0.1:{ports["redis"]}
listen tls
  bind 127.0.0.1:{ports["ha_tls"]} ssl crt {where / "both.pem"}
  server a 127.0.0.1:{ports["redis"]}
""")
            haproxy = start([shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", str(where / "haproxy.cfg")],
                            ports["ha_tls"])
            sides += [("HAProxy, plain", haproxy, "ha_plain", False), ("HAProxy, TLS to apps", haproxy, "ha_tls", True)]
        for size in (100, 10_000):
            value = ["redis-benchmark", "-p", str(ports["redis"]), "-n", "1", "-d", str(size), "-t", "set", "-q"]
            subprocess.run(value, stdout=subprocess.DEVNULL, check=True)
            for pipeline in (1, 16):
                print(f"\nGET of {size} bytes, pipelines of {pipeline}: CPU of the proxy for each request")
                base = {}
                for name, pid, port, tls in sides:
                    before = cpu(pid)
                    ask(ports[port], tls, ca, args.requests, pipeline, size, 50)
                    used = (cpu(pid) - before) / args.requests * 1e6
                    kind = name.split(",")[0]
                    base.setdefault(kind, used)
                    print(f"  {name:28} {used:7.2f} us   x {used / max(base[kind], 0.01):.2f}")
        print("\nHandshakes (TLS 1.3, P-256), with a PING each: CPU of the proxy for each")
        for name, pid, port, tls in sides:
            if not tls:
                continue
            for resume in (False, True):
                before = cpu(pid)
                count = shake(ports[port], ca, args.seconds, resume)
                used = (cpu(pid) - before) / count * 1e6
                kind = "resumed" if resume else "whole"
                print(f"  {name:28} {kind:8} {used:7.0f} us, {1e6 / max(used, 1):6.0f} a second of one core ({count} measured)")
        memory = lambda: int(pathlib.Path(f"/proc/{hotring}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        context = ssl.create_default_context(cafile=ca)
        before, held = memory(), []
        for _ in range(500):
            plain = socket.create_connection(("127.0.0.1", ports["tls"]))
            held.append(context.wrap_socket(plain, server_hostname="localhost"))
        for one in held:
            one.sendall(b"PING\r\n")
            one.recv(64)
        print(f"\nAn idle connection with TLS: {(memory() - before) / len(held) / 1024:.1f} KiB of hotring")
    finally:
        for process in processes:
            process.kill()
            process.wait()
        shutil.rmtree(where, ignore_errors=True)


if __name__ == "__main__":
    main()
