"""valkey-glide through hotring: RESP3 by default, and INFO REPLICATION on connecting.

Arguments: see `check.py`.
"""

import asyncio
import functools

import glide
from glide import Batch, GlideClient, GlideClientConfiguration, NodeAddress, ProtocolVersion, Script

from check import HOST, PATIENCE, PORT, SHARDS, apart, blocked, end, run, until


def checks(name, **options):
    def configuration(**more):
        return GlideClientConfiguration(
            [NodeAddress(HOST, PORT)], request_timeout=PATIENCE * 1000, **options, **more
        )

    def key(text):
        return f"{name}:{text}"

    def tagged(text):
        return f"{{{name}}}:{text}"

    def check(body):
        """A check that has two connections for as long as it runs."""

        @functools.wraps(body)
        def whole():
            async def connected():
                g, other = await GlideClient.create(configuration()), await GlideClient.create(configuration())
                try:
                    await asyncio.wait_for(body(g, other), PATIENCE)
                finally:
                    await g.close()
                    await other.close()

            asyncio.run(connected())

        return whole

    async def waiting(call):
        task = asyncio.create_task(call)
        await asyncio.to_thread(until, "it waits", lambda: blocked() == 1)
        return task

    @check
    async def pipeline(g, other):
        batch = Batch(is_atomic=False)
        for n in range(300):
            batch.set(key(f"p:{n}"), str(n))
            batch.get(key(f"p:{n}"))
        replies = await g.exec(batch, raise_on_error=True)
        assert replies == [reply for n in range(300) for reply in ("OK", str(n).encode())]
        await g.hset(key("h"), {"a": "1"})
        assert await g.hgetall(key("h")) == {b"a": b"1"}
        await g.zadd(key("z"), {"m": 1.5})
        assert await g.zscore(key("z"), "m") == 1.5

    @check
    async def transaction_on_one_tag(g, other):
        batch = Batch(is_atomic=True)
        batch.set(tagged("a"), "1")
        batch.incr(tagged("b"))
        batch.mget([tagged("a"), tagged("b")])
        assert await g.exec(batch, raise_on_error=True) == ["OK", 1, [b"1", b"1"]]

    @check
    async def transaction_over_shards(g, other):
        keys, batch = apart(name), Batch(is_atomic=True)
        for one in keys:
            batch.set(one, "1")
        try:
            replies = await g.exec(batch, raise_on_error=True)
            assert len(SHARDS) == 1 and len(replies) == len(keys), replies
        except glide.GlideError as error:
            assert len(SHARDS) > 1, error
            assert "slot" in str(error).lower() or "execabort" in str(error).lower(), error
            assert await g.mget(keys) == [None] * len(keys), "some of it was carried out"
        assert await g.echo("after") == b"after"

    @check
    async def watch(g, other):
        await g.watch([tagged("w")])
        await other.set(tagged("w"), "other")
        batch = Batch(is_atomic=True)
        batch.set(tagged("w"), "mine")
        assert await g.exec(batch, raise_on_error=True) is None
        assert await g.get(tagged("w")) == b"other"
        await g.watch([tagged("w")])
        assert await g.exec(batch, raise_on_error=True) == ["OK"]

    @check
    async def blocking_pop(g, other):
        waits = await waiting(g.blpop([key("q")], 0))
        await other.rpush(key("q"), ["x"])
        assert await waits == [key("q").encode(), b"x"]
        waits = await waiting(g.bzpopmin([key("qz")], 0))
        await other.zadd(key("qz"), {"m": 2})
        assert await waits == [key("qz").encode(), b"m", 2.0]

    @check
    async def abandoned_blocking_pop(g, other):
        gone = await GlideClient.create(configuration())
        waits = await waiting(gone.blpop([key("abandoned")], 0))
        await gone.close()
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)
        await asyncio.to_thread(until, "nobody waits", lambda: blocked() == 0)
        assert await g.rpush(key("abandoned"), ["kept"]) == 1
        assert await g.lpop(key("abandoned")) == b"kept"

    @check
    async def pubsub(g, other):
        if "protocol" in options:
            return  # The library refuses subscriptions in RESP2 by itself.
        modes = GlideClientConfiguration.PubSubChannelModes
        channels = {modes.Exact: {key("news")}, modes.Pattern: {key("n*")}}
        subscriptions = GlideClientConfiguration.PubSubSubscriptions(channels, callback=None, context=None)
        listener = await GlideClient.create(configuration(pubsub_subscriptions=subscriptions))
        assert await g.publish("hello", key("news")) == 2
        heard = [await listener.get_pubsub_message() for _ in range(2)]
        told = sorted((one.message, one.channel, one.pattern or b"") for one in heard)
        channel = key("news").encode()
        assert told == [(b"hello", channel, b""), (b"hello", channel, key("n*").encode())], told
        await listener.close()

    @check
    async def scripts(g, other):
        script = Script(f"-- {name}\nreturn redis.call('incrby', KEYS[1], ARGV[1])")
        for n, one in enumerate(apart(name + ":script")):
            assert await g.invoke_script(script, keys=[one], args=[str(n)]) == n
        assert await g.script_exists([script.get_hash()]) == [True]
        assert await g.custom_command(["EVAL", "return ARGV[1]", "0", "no keys"]) == b"no keys"

    @check
    async def scan(g, other):
        keys = {key(f"scan:{n}").encode() for n in range(1000)}
        await g.mset({one: b"1" for one in keys})
        cursor, found = b"0", set()
        while True:
            cursor, some = await g.scan(cursor, match=key("scan:*"), count=100)
            found.update(some)
            if cursor == b"0":
                break
        assert found == keys
        assert await g.dbsize() >= 1000

    @check
    async def many_keys(g, other):
        keys = apart(name + ":many")
        assert await g.mset({one: one for one in keys}) == "OK"
        assert await g.mget(keys) == [one.encode() for one in keys]
        assert await g.exists(keys) == len(keys) and await g.delete(keys) == len(keys)
        assert await g.mget(keys) == [None] * len(keys)

    @check
    async def databases(g, other):
        one = await GlideClient.create(configuration(database_id=1))
        keys = apart(name + ":db")
        await g.mset({each: "zero" for each in keys})
        assert await one.mget(keys) == [None] * 50
        await one.mset({each: "one" for each in keys})
        assert await g.mget(keys) == [b"zero"] * 50 and await one.dbsize() == 50
        assert await one.flushdb() == "OK" and await one.dbsize() == 0 and await g.get(keys[0]) == b"zero"
        await one.close()

    @check
    async def client_and_info(g, other):
        named = await GlideClient.create(configuration(client_name=f"name-of-{name}"))
        assert await named.client_getname() == f"name-of-{name}".encode()
        assert f" name=name-of-{name} ".encode() in await g.custom_command(["CLIENT", "LIST"])
        assert b"redis_version:" in await named.info() and await named.client_id() != await g.client_id()
        await named.close()

    run(
        name, pipeline, transaction_on_one_tag, transaction_over_shards, watch, blocking_pop, abandoned_blocking_pop, pubsub,
        scripts, scan, many_keys, databases, client_and_info,
    )


checks("glide")
checks("glide-resp2", protocol=ProtocolVersion.RESP2)
end()
