"""redis-py, version 5 or 8, of a cluster: its RedisCluster at the nodes, a plain redis.Redis through hotring. Both must be told the same.

Arguments: see `check.py`; the servers behind are the cluster's nodes. Every check is made with each protocol.
"""

import threading

import redis
from redis.cluster import ClusterNode, RedisCluster

from check import HOST, PATIENCE, PORT, SHARDS, apart, blocked, end, raises, run, until


def checks(name, **options):
    r = redis.Redis(HOST, PORT, socket_timeout=PATIENCE, **options)
    nodes = [ClusterNode(*shard.rsplit(":", 1)) for shard in SHARDS]
    direct = RedisCluster(startup_nodes=nodes, socket_timeout=PATIENCE, **options)

    def key(text):
        return f"{name}:{text}"

    def both(call):
        """What a call gets from both; each of them has keys of its own."""
        ours, theirs = (call(client, f"{name}:{which}") for which, client in (("ours", r), ("theirs", direct)))
        assert ours == theirs, f"through hotring {ours!r}, directly {theirs!r}"
        return ours

    def one_key_is_one_key():
        for n in range(300):
            r.set(key(f"k:{n}"), n)
            assert direct.get(key(f"k:{n}")) == str(n).encode()
            direct.incr(key(f"k:{n}"))
        assert r.mget([key(f"k:{n}") for n in range(300)]) == [str(n + 1).encode() for n in range(300)]

    def values_of_all_kinds():
        def call(client, prefix):
            at = lambda kind: f"{prefix}:{kind}"
            with client.pipeline(transaction=False) as pipe:
                pipe.hset(at("h"), mapping={"a": 1, "b": "two"})
                pipe.hgetall(at("h"))
                replies = pipe.execute()
            client.rpush(at("l"), *range(10))
            client.zadd(at("z"), {"one": 1.5, "two": 2})
            client.sadd(at("s"), "x", "y")
            return [
                replies, client.lrange(at("l"), 2, 4), client.zrange(at("z"), 0, -1, withscores=True),
                client.smembers(at("s")), client.type(at("z")), client.lpop(at("none")), client.zscore(at("z"), "two"),
            ]

        both(call)

    def pipeline_over_many_slots():
        def call(client, prefix):
            with client.pipeline(transaction=False) as pipe:
                for n in range(300):
                    pipe.set(f"{prefix}:{n}", n)
                    pipe.get(f"{prefix}:{n}")
                    pipe.incr(f"{prefix}:sum")
                return pipe.execute()

        replies = both(call)
        assert replies == [reply for n in range(300) for reply in (True, str(n).encode(), n + 1)], replies

    def keys_of_many_slots():
        def call(client, prefix):
            keys = apart(prefix)
            # Directly they are asked for one by one, or slot by slot.
            set_, get = (client.mset, client.mget) if client is r else (client.mset_nonatomic, client.mget_nonatomic)
            set_({one: one.split(":")[0] for one in keys})
            return [get([*keys, f"{prefix}:none"]), client.exists(*keys), client.touch(*keys), client.delete(*keys), get(keys)]

        both(call)

    def what_a_cluster_refuses():
        keys = apart(name)
        raises(redis.ResponseError, "slot", lambda: r.sunion(keys))
        raises(redis.ResponseError, "slot", lambda: r.eval("return 1", len(keys), *keys))
        raises(redis.ResponseError, "slot", lambda: r.blpop(keys, 1))
        raises(redis.ResponseError, "DB index", lambda: redis.Redis(HOST, PORT, db=1, **options).ping())
        assert r.echo("after") == b"after"

    def scripts():
        def call(client, prefix):
            script = client.register_script(f"-- {prefix}\nreturn redis.call('incrby', KEYS[1], ARGV[1])")
            told = [script(keys=[one], args=[n]) for n, one in enumerate(apart(prefix))]
            # On every node by now, whoever brought it there.
            told += [client.evalsha(script.sha, 1, one, 7) for one in apart(prefix)]
            return told, client.eval("return {KEYS[1], ARGV[1], 3}", 1, "{e}1", "x"), client.script_exists(script.sha)

        both(call)
        raises(redis.exceptions.NoScriptError, "", lambda: r.evalsha("0" * 40, 1, key("e")))

    def waiting():
        for n in range(8):
            queue, told = key(f"q:{n}"), []
            waiter = threading.Thread(target=lambda: told.append(r.blpop(queue, 0)), daemon=True)
            waiter.start()
            until("it waits", lambda: blocked() == 1)
            direct.rpush(queue, n)
            waiter.join(PATIENCE)
            assert [tuple(one) for one in told] == [(queue.encode(), str(n).encode())], told
        assert r.blpop(key("q"), 0.01) is None

    def message(listener, get):
        """The next message, as all servers word it."""
        while True:
            got = get(listener)
            assert got, "no message"
            if got["type"] in ("message", "pmessage", "smessage"):
                return got["type"], got["pattern"], got["channel"], got["data"]

    def publish_and_subscribe():
        get = lambda one: one.get_message(timeout=PATIENCE)
        ours, theirs = r.pubsub(), direct.pubsub()
        for listener in (ours, theirs):
            listener.subscribe(key("news"))
            listener.psubscribe(key("n*"))
            for _ in range(2):
                assert get(listener)["type"].endswith("subscribe")
        # Any node may be told; those who listen at others hear of it a moment later.
        for n, client in enumerate((r, direct, r, direct)):
            client.publish(key("news"), n)
            heard = [sorted([message(one, get), message(one, get)], key=str) for one in (ours, theirs)]
            assert heard[0] == heard[1], heard
            assert {(one[0], one[3]) for one in heard[0]} == {(kind, str(n).encode()) for kind in ("message", "pmessage")}, heard
        ours.close(), theirs.close()

    def sharded_publish_and_subscribe():
        listener = r.pubsub()
        channels = [key(f"{n}:shard") for n in range(20)]
        for channel in channels:
            listener.ssubscribe(channel)
            got = listener.get_message(timeout=PATIENCE)
            assert got["type"] == "ssubscribe" and got["channel"] == channel.encode(), got
        for channel in channels:
            for client in (r, direct):
                assert client.spublish(channel, "x") == 1
                assert message(listener, lambda one: one.get_message(timeout=PATIENCE))[2:] == (channel.encode(), b"x")
        listener.close()

    def scan():
        keys = {key(f"scan:{n}").encode() for n in range(500)}
        r.mset({one: 1 for one in keys})
        found = [set(client.scan_iter(match=key("scan:*"), count=50)) for client in (r, direct)]
        assert found == [keys, keys]
        assert set(r.keys(key("scan:*"))) == keys
        assert set(direct.keys(key("scan:*"), target_nodes=RedisCluster.PRIMARIES)) == keys
        assert r.dbsize() == sum(direct.dbsize(target_nodes=node) for node in direct.get_primaries())

    run(
        name, one_key_is_one_key, values_of_all_kinds, pipeline_over_many_slots, keys_of_many_slots, what_a_cluster_refuses,
        scripts, waiting, publish_and_subscribe, sharded_publish_and_subscribe, scan,
    )


def main():
    name = f"redis-py-{redis.__version__}"
    checks(f"{name}-resp2", protocol=2)
    checks(f"{name}-resp3", protocol=3)
    end()


main()
