"""What the Python scripts share: their arguments, a way to run checks, and a look at the shards.

Every script is called with the host and port of what it talks to and the addresses of the servers behind. A redis-server
of its own is a pool of one: then both are the same address, and a check over several shards has nothing to refuse.
"""

import faulthandler
import os
import socket
import sys
import time
import traceback

HOST, PORT, SHARDS = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
URL = f"redis://{HOST}:{PORT}"
# Whether those are the nodes of a cluster, which has one database only.
CLUSTER = "HOTRING_CLUSTER" in os.environ
# Only a run that fails waits so long.
PATIENCE = 60
# A script that stands still tells where, and ends.
faulthandler.dump_traceback_later(10 * PATIENCE, exit=True)

failures = 0


def run(name, *checks):
    """Runs each check and prints a line for it: `NAME: CHECK passed`, or what went wrong. The next one is tried anyway."""
    global failures
    for check in checks:
        title = check.__name__.replace("_", " ")
        try:
            check()
        except Exception:
            failures += 1
            print(f"{name}: {title} FAILED\n{traceback.format_exc()}", flush=True)
        else:
            print(f"{name}: {title} passed", flush=True)


def end():
    """Ends the script: well if all checks passed."""
    sys.exit(1 if failures else 0)


def raises(what, text, call):
    """The call must fail with an error of this class whose text has `text`, in upper or lower case."""
    try:
        result = call()
    except what as error:
        assert text.lower() in str(error).lower(), f"{error!r} has no {text!r}"
    else:
        raise AssertionError(f"no error, but {result!r}")


def until(what, is_so):
    """Asks until the answer is yes. What is asked goes through a socket, so that others get their turn meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, f"still not so: {what}"


def blocked():
    """How many connections wait in a blocking command, as the shards themselves say."""
    count = 0
    for shard in SHARDS:
        host, port = shard.rsplit(":", 1)
        with socket.create_connection((host, int(port)), PATIENCE) as connection:
            connection.sendall(b"INFO clients\r\nQUIT\r\n")
            info = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        count += sum(int(line.split(":")[1]) for line in info.splitlines() if line.startswith("blocked_clients:"))
    return count


def apart(prefix):
    """Keys on all shards. They differ in their beginning: some hashes put those that differ in their end side by side."""
    return [f"{n}:{prefix}:apart" for n in range(50)]
