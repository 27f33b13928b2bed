"""redis-py, version 5 or 8, through hotring: what needs a connection of its own, all shards, or RESP3.

Arguments: see `check.py`. Every check is made with the library's defaults and with each protocol named.
"""

import asyncio
import threading

import redis
import redis.asyncio

from check import CLUSTER, HOST, PATIENCE, PORT, SHARDS, apart, blocked, end, raises, run, until


class Waiter(threading.Thread):
    """A call that is made in a thread of its own, since it waits."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self.call, self.result, self.error = call, None, None
        self.start()

    def run(self):
        try:
            self.result = self.call()
        except Exception as error:
            self.error = error

    def get(self):
        self.join(PATIENCE)
        assert not self.is_alive(), "it still waits"
        if self.error:
            raise self.error
        return self.result


def checks(name, **options):
    def connect(**more):
        return redis.Redis(HOST, PORT, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE, **options, **more)

    r, other = connect(), connect()
    proto = options.get("protocol") or (3 if int(redis.__version__.split(".")[0]) >= 8 else 2)

    def key(text):
        return f"{name}:{text}"

    def tagged(text):
        return f"{{{name}}}:{text}"

    def protocol():
        hello = r.execute_command("HELLO")
        if isinstance(hello, list):
            hello = dict(zip(hello[::2], hello[1::2]))
        assert hello[b"proto"] == proto, hello
        r.hset(key("h"), mapping={"a": 1, "b": 2})
        assert r.hgetall(key("h")) == {b"a": b"1", b"b": b"2"}
        r.zadd(key("z"), {"one": 1.5})
        assert r.zscore(key("z"), "one") == 1.5 and r.get(key("none")) is None
        assert r.zrange(key("z"), 0, -1, withscores=True) in ([(b"one", 1.5)], [[b"one", 1.5]])
        r.sadd(key("s"), "x", "y")
        assert set(r.smembers(key("s"))) == {b"x", b"y"}

    def pipeline():
        with r.pipeline(transaction=False) as pipe:
            for n in range(300):
                pipe.set(key(f"p:{n}"), n).get(key(f"p:{n}"))
            assert pipe.execute() == [reply for n in range(300) for reply in (True, str(n).encode())]

    def transaction_on_one_tag():
        with r.pipeline() as pipe:
            pipe.set(tagged("a"), 1).incr(tagged("b")).hset(tagged("c"), "f", "v").mget(tagged("a"), tagged("b"))
            pipe.lpush(tagged("a"), "x").get(tagged("a"))
            replies = pipe.execute(raise_on_error=False)
        assert replies[:4] == [True, 1, 1, [b"1", b"1"]] and replies[5] == b"1", replies
        assert isinstance(replies[4], redis.ResponseError) and "WRONGTYPE" in str(replies[4]), replies

    def transaction_over_shards():
        keys = apart(name)
        with r.pipeline() as pipe:
            for one in keys:
                pipe.set(one, 1)
            if len(SHARDS) == 1:
                assert pipe.execute() == [True] * len(keys)
            else:
                raises(redis.ResponseError, "slot", pipe.execute)
                assert r.mget(keys) == [None] * len(keys), "some of it was carried out"
        assert r.echo("after") == b"after"

    def watch():
        with r.pipeline() as pipe:
            pipe.watch(tagged("w"))
            assert pipe.get(tagged("w")) is None
            other.set(tagged("w"), "other")
            pipe.multi()
            pipe.set(tagged("w"), "mine")
            raises(redis.WatchError, "", pipe.execute)
        assert r.get(tagged("w")) == b"other"
        with r.pipeline() as pipe:
            pipe.watch(tagged("w"))
            pipe.unwatch()
            other.set(tagged("w"), "again")
            pipe.multi()
            pipe.set(tagged("w"), "mine")
            assert pipe.execute() == [True]
        r.set(tagged("n"), 5)
        r.transaction(lambda pipe: (count := int(pipe.get(tagged("n"))), pipe.multi(), pipe.set(tagged("n"), count + 1)), tagged("n"))
        assert r.get(tagged("n")) == b"6"

    def blocking_commands():
        for wait, push, expected in [
            (lambda: r.blpop([tagged("q1"), tagged("q2")], 0), lambda: other.rpush(tagged("q2"), "x"), (tagged("q2").encode(), b"x")),
            (lambda: r.brpop(key("q"), 0), lambda: other.rpush(key("q"), "x"), (key("q").encode(), b"x")),
            (lambda: r.blmove(tagged("q3"), tagged("q4"), 0), lambda: other.rpush(tagged("q3"), "x"), b"x"),
            (lambda: r.bzpopmin(key("qz"), 0), lambda: other.zadd(key("qz"), {"m": 2}), (key("qz").encode(), b"m", 2.0)),
        ]:
            waiter = Waiter(wait)
            until("it waits", lambda: blocked() == 1)
            push()
            got = waiter.get()
            assert (tuple(got) if isinstance(got, list) else got) == expected, got
        waiter = Waiter(lambda: r.xread({key("qs"): "$"}, block=0))
        until("it waits", lambda: blocked() == 1)
        added = other.xadd(key("qs"), {"f": "v"})
        got = waiter.get()
        entries = list(got.values())[0] if isinstance(got, dict) else got[0][1]
        assert (added, {b"f": b"v"}) in [tuple(entry) for entry in (entries[0] if isinstance(entries[0], list) else entries)], got
        assert r.blpop(key("q"), 0.01) is None

    def abandoned_blocking_pop():
        gone = connect().connection_pool.get_connection("BLPOP")
        gone.send_command("BLPOP", key("abandoned"), 0)
        until("it waits", lambda: blocked() == 1)
        gone.disconnect()
        until("nobody waits", lambda: blocked() == 0)
        assert r.rpush(key("abandoned"), "kept") == 1
        assert r.lpop(key("abandoned")) == b"kept"

    def pubsub():
        listener = other.pubsub()
        listener.subscribe(key("news"))
        listener.psubscribe(key("n*"))

        def message():
            got = listener.get_message(timeout=PATIENCE)
            assert got, "no message"
            return got["type"], got["pattern"], got["channel"], got["data"]

        channel, pattern = key("news").encode(), key("n*").encode()
        assert message() == ("subscribe", None, channel, 1)
        assert message() == ("psubscribe", None, pattern, 2)
        # A node of a cluster counts those who listen there, and a pattern is listened to at one node.
        assert r.publish(key("news"), "hello") in ([1, 2] if CLUSTER else [2])
        assert sorted([message(), message()]) == [("message", None, channel, b"hello"), ("pmessage", pattern, channel, b"hello")]
        assert r.publish(key("nothing"), "x") in ([0, 1] if CLUSTER else [1])
        got = message()
        assert got == ("pmessage", pattern, key("nothing").encode(), b"x"), got
        listener.unsubscribe()
        listener.punsubscribe()
        assert [message()[0], message()[0]] == ["unsubscribe", "punsubscribe"]
        assert r.publish(key("news"), "nobody") == 0
        listener.close()

    def scripts():
        script = r.register_script(f"-- {name}\nreturn redis.call('incrby', KEYS[1], ARGV[1])")
        keys = apart(name + ":script")
        # Unknown to the shards at first, so EVALSHA, SCRIPT LOAD, EVALSHA; and every shard must know it from then on.
        assert [script(keys=[one], args=[n]) for n, one in enumerate(keys)] == list(range(len(keys)))
        assert r.script_exists(script.sha) == [True]
        assert r.evalsha(script.sha, 1, keys[0], 7) == 7
        assert r.eval("return {KEYS[1], ARGV[1], 3}", 1, key("e"), "x") == [key("e").encode(), b"x", 3]
        assert r.eval("return 'no keys'", 0) == b"no keys"
        with r.pipeline(transaction=False) as pipe:
            script(keys=[keys[1]], args=[1], client=pipe)
            script(keys=[keys[2]], args=[1], client=pipe)
            assert pipe.execute() == [2, 3]
        raises(redis.exceptions.NoScriptError, "", lambda: r.evalsha("0" * 40, 1, key("e")))

    def lock():
        mine, theirs = r.lock(key("lock"), timeout=30), other.lock(key("lock"), timeout=30)
        assert mine.acquire() and not theirs.acquire(blocking=False)
        assert mine.extend(30) and mine.reacquire() and mine.owned()
        mine.release()
        assert theirs.acquire(blocking_timeout=PATIENCE)
        theirs.release()
        raises(redis.exceptions.LockError, "", theirs.release)

    def scan():
        keys = {key(f"scan:{n}").encode() for n in range(1000)}
        r.mset({one: 1 for one in keys})
        assert set(r.scan_iter(match=key("scan:*"))) == keys
        assert set(r.scan_iter(match=key("scan:*"), count=500)) == keys
        assert keys <= set(r.scan_iter()) and set(r.keys(key("scan:*"))) == keys
        assert r.dbsize() >= 1000 and r.randomkey() is not None

    def many_keys():
        keys = apart(name + ":many")
        assert r.mset({one: one for one in keys})
        assert r.mget(keys) == [one.encode() for one in keys]
        assert r.exists(*keys) == len(keys) and r.touch(*keys) == len(keys)
        assert r.delete(*keys) == len(keys) and r.mget(keys) == [None] * len(keys)

    def databases():
        one = connect(db=1)
        keys = apart(name + ":db")
        r.mset({each: "zero" for each in keys})
        one.mset({each: "one" for each in keys[:25]})
        assert r.mget(keys) == [b"zero"] * 50 and one.mget(keys) == [b"one"] * 25 + [None] * 25
        assert set(one.scan_iter(match="*:db:*")) == {each.encode() for each in keys[:25]}
        with one.pipeline() as pipe:
            assert pipe.incr(tagged("db1")).incr(tagged("db1")).execute() == [1, 2]
        assert r.exists(tagged("db1")) == 0
        assert one.flushdb() and one.dbsize() == 0 and r.mget(keys) == [b"zero"] * 50

    def client_and_info():
        def getname():
            got = named.client_getname()
            return got.decode() if isinstance(got, bytes) else got

        named = connect(client_name=f"name-of-{name}")
        assert getname() == f"name-of-{name}"
        assert any(each["name"] == f"name-of-{name}" for each in r.client_list())
        assert named.client_setname("another") and getname() == "another"
        info = r.info()
        assert info["redis_version"] and info["role"] == "master" and info["loading"] == 0
        assert r.info("server")["redis_mode"] == "standalone"
        assert named.client_info()["name"] == "another"

    def asynchronous():
        async def together():
            a = redis.asyncio.Redis(host=HOST, port=PORT, socket_timeout=PATIENCE, **options)
            async with a.pubsub() as listener:
                await listener.subscribe(key("async"))
                assert (await listener.get_message(timeout=PATIENCE))["type"] == "subscribe"
                assert await a.publish(key("async"), "x") == 1
                assert (await listener.get_message(timeout=PATIENCE))["data"] == b"x"
            async with a.pipeline() as pipe:
                assert await pipe.set(tagged("async"), 1).incr(tagged("async")).execute() == [True, 2]
            waiting = asyncio.create_task(a.blpop(key("asyncq"), 0))
            await asyncio.to_thread(until, "it waits", lambda: blocked() == 1)
            await a.rpush(key("asyncq"), "x")
            assert list(await waiting) == [key("asyncq").encode(), b"x"]
            async with a.lock(key("asynclock"), timeout=30):
                assert not await a.lock(key("asynclock")).acquire(blocking=False)
            await a.aclose()

        asyncio.run(together())

    run(
        name, protocol, pipeline, transaction_on_one_tag, transaction_over_shards, watch, blocking_commands,
        abandoned_blocking_pop, pubsub, scripts, lock, scan, many_keys, *([] if CLUSTER else [databases]), client_and_info, asynchronous,
    )


def main():
    name = f"redis-py-{redis.__version__}"
    checks(name)
    checks(f"{name}-resp2", protocol=2)
    checks(f"{name}-resp3", protocol=3)
    end()


main()
