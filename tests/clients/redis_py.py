"""redis-py through hotring, used as applications use it.

Arguments: host and port of a pool over several shards with hash tags in braces, port of one like it with the password
`secret`. Ends with an error at the first thing that is not as with one server, or not refused as documented.
"""

import asyncio
import sys
import threading

import redis
import redis.asyncio

HOST, PORT, PRIVATE = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
PATIENCE = {"socket_timeout": 60, "socket_connect_timeout": 60}


def connect(port=PORT, **more):
    return redis.Redis(HOST, port, **PATIENCE, **more)


def raises(what, text, call):
    """The call must fail with an error of this class whose text has `text`."""
    try:
        result = call()
    except what as error:
        assert text in str(error), f"{error!r} has no {text!r}"
    else:
        raise AssertionError(f"no error, but {result!r}")


def values(r):
    assert r.ping() and r.echo(b"\0\xff\r\n") == b"\0\xff\r\n"
    assert r.set("k", "v") and r.get("k") == b"v" and r.get("none") is None
    keys = {f"many:{n}": f"value {n}".encode() for n in range(200)}
    assert r.mset(keys)
    assert r.mget(list(keys)) == list(keys.values())
    assert r.mget(["many:7", "none", "many:7"]) == [b"value 7", None, b"value 7"]
    assert r.exists(*keys) == 200 and r.touch("many:1", "none") == 1
    assert r.delete(*list(keys)[:150]) == 150 and r.unlink(*keys) == 50
    assert r.set("k", "w", nx=True) is None and r.set("k", "w", ex=1000, get=True) == b"v"
    assert 990 <= r.ttl("k") <= 1000 and r.persist("k")
    assert [r.incr("n", step) for step in (1, 5, -3)] == [1, 6, 3] and r.incrbyfloat("n", 0.5) == 3.5
    big = bytes(range(256)) * 8192
    assert r.set("big", big) and r.get("big") == big
    assert r.mget("big", "k", "big") == [big, b"w", big]


def structures(r):
    r.hset("hash", mapping={"a": 1, "b": "two"})
    assert r.hgetall("hash") == {b"a": b"1", b"b": b"two"} and r.hincrby("hash", "a", 4) == 5
    r.rpush("list", *range(10))
    assert r.lrange("list", 2, 4) == [b"2", b"3", b"4"] and r.lpop("list", 2) == [b"0", b"1"]
    r.sadd("set", "x", "y", "z")
    assert r.smembers("set") == {b"x", b"y", b"z"} and r.sismember("set", "x") == 1
    r.zadd("sorted", {"one": 1, "two": 2, "three": 3})
    assert r.zrange("sorted", 0, -1, withscores=True) == [(b"one", 1.0), (b"two", 2.0), (b"three", 3.0)]
    assert r.zrevrank("sorted", "three") == 0
    last = [r.xadd("stream", {"n": n}) for n in range(5)][-1]
    assert r.xlen("stream") == 5 and r.xread({"stream": "0"}, count=2)[0][1][0][1] == {b"n": b"0"}
    assert r.xgroup_create("stream", "group", "0")
    assert len(r.xreadgroup("group", "me", {"stream": ">"})[0][1]) == 5
    assert r.xack("stream", "group", last) == 1 and r.xpending("stream", "group")["pending"] == 4
    assert {name for name, _ in hash_scan(r)} == {b"a", b"b"}
    raises(redis.ResponseError, "WRONGTYPE", lambda: r.incr("list"))


def hash_scan(r):
    return r.hscan_iter("hash")


def pipelines(r):
    with r.pipeline(transaction=False) as pipe:
        for n in range(1000):
            pipe.set(f"pipe:{n}", n).get(f"pipe:{n}").incr("pipe:sum")
        replies = pipe.execute()
    assert replies == [reply for n in range(1000) for reply in (True, str(n).encode(), n + 1)]
    with r.pipeline(transaction=False) as pipe:
        pipe.set("word", "x").incr("word").get("word")
        replies = pipe.execute(raise_on_error=False)
    assert replies[0] is True and isinstance(replies[1], redis.ResponseError) and replies[2] == b"x"


def scripts(r):
    script = "redis.call('set', KEYS[1], ARGV[1]); return {KEYS[2], redis.call('get', KEYS[1])}"
    assert r.eval(script, 2, "{tag}1", "{tag}2", "v") == [b"{tag}2", b"v"]
    import hashlib

    sha = hashlib.sha1(script.encode()).hexdigest()
    assert r.evalsha(sha, 2, "{tag}1", "{tag}3", "w") == [b"{tag}3", b"w"] and r.get("{tag}1") == b"w"
    raises(redis.exceptions.NoScriptError, "", lambda: r.evalsha("0" * 40, 1, "{tag}1"))
    assert r.eval("return 1", 0) == 1
    # Keys that differ in their beginning: fnv1a puts those that differ in their end alone side by side.
    keys = [f"{n}:apart" for n in range(50)]
    raises(redis.ResponseError, "same slot", lambda: r.eval("return 1", len(keys), *keys))
    raises(redis.ResponseError, "same slot", lambda: r.sunion(keys))


def refusals(r):
    """Each is told clearly, and the connection stays good for what follows."""
    pool = r.connection_pool
    connection = pool.get_connection("SUBSCRIBE")

    def ask(*words):
        connection.send_command(*words)
        return connection.read_response()

    for words in ["EXEC", "BLPOP 0:apart 1:apart 2:apart 3:apart 4:apart 5:apart 0", "MONITOR", "CLIENT TRACKING ON", "CONFIG SET save x",
                  "SHUTDOWN", "CLUSTER SLOTS", "REPLICAOF no one", "SWAPDB 0 1", "SELECT 16", "NONESUCH a", "GET"]:
        raises(redis.ResponseError, "", lambda: ask(*words.split()))
        assert ask("ECHO", words) == words.encode()
    pool.release(connection)
    with r.pipeline(transaction=True) as pipe:
        for n in range(50):
            pipe.set(f"{n}:apart", 1)
        raises(redis.ResponseError, "same slot", pipe.execute)
    assert r.set("k", "after") and r.get("k") == b"after" and r.exists(*(f"{n}:apart" for n in range(50))) == 0
    raises(redis.ResponseError, "DB index", connect(db=16).ping)


def connections(r):
    assert connect(db=0, client_name="tested").client_getname() == "tested"
    assert r.client_id() != connect().client_id()
    info = r.info()
    assert info["redis_version"] and info["role"] == "master" and info["loading"] == 0
    assert r.command_count() > 200 and r.time()[0] > 1_600_000_000
    assert connect(decode_responses=True).get("k") == "after"

    failed = []

    def work(number):
        try:
            mine = connect() if number % 2 else r
            for n in range(100):
                key = f"thread:{number}:{n}"
                mine.set(key, key)
                assert mine.get(key) == key.encode()
                mine.incr("thread:sum")
        except Exception as error:  # told below, in the main thread
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failed, failed
    assert r.get("thread:sum") == b"1600"


def passwords():
    assert connect(PRIVATE, password="secret").set("private", 1)
    assert connect(PRIVATE, username="default", password="secret").get("private") == b"1"
    raises(redis.AuthenticationError, "Authentication required", connect(PRIVATE).ping)
    raises(redis.AuthenticationError, "invalid username-password", connect(PRIVATE, password="wrong").ping)
    raises(redis.AuthenticationError, "", connect(PRIVATE, username="someone", password="secret").ping)
    raises(redis.AuthenticationError, "without any password", connect(password="secret").ping)


async def concurrently():
    r = redis.asyncio.Redis(host=HOST, port=PORT, **PATIENCE)
    await asyncio.gather(*(r.set(f"async:{n}", n) for n in range(300)))
    assert await asyncio.gather(*(r.get(f"async:{n}") for n in range(300))) == [str(n).encode() for n in range(300)]
    async with r.pipeline(transaction=False) as pipe:
        assert await pipe.set("async", 1).get("async").execute() == [True, b"1"]
    await r.aclose()


def main():
    r = connect()
    for part in (values, structures, pipelines, scripts, refusals, connections):
        part(r)
    passwords()
    asyncio.run(concurrently())
    print("redis-py", redis.__version__, "passed")


main()
