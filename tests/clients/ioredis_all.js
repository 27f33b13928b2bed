// ioredis, versions 5 and 6, through hotring: what needs a connection of its own, all shards, or RESP3.
//
// Arguments: see `check.js`.
"use strict";

const assert = require("node:assert/strict");
const { host, port, shards, cluster, run, end, until, blocked, apart, library } = require("./check.js");

function checks(name, Redis, options) {
  const connect = (more = {}) => {
    const redis = new Redis({ host, port, retryStrategy: null, ...options, ...more });
    // Failures are looked for where they are expected, by the commands they fail.
    redis.on("error", () => {});
    return redis;
  };
  const redis = connect();
  const other = connect();
  const key = (text) => `${name}:${text}`;
  const tagged = (text) => `{${name}}:${text}`;

  async function pipeline() {
    const pipe = redis.pipeline();
    for (let n = 0; n < 300; n++) pipe.set(key(`p:${n}`), n).get(key(`p:${n}`));
    assert.deepEqual(await pipe.exec(), Array.from({ length: 600 }, (_, n) => [null, n % 2 ? String(n >> 1) : "OK"]));
    await redis.hset(key("h"), { a: 1, b: 2 });
    assert.deepEqual({ ...(await redis.hgetall(key("h"))) }, { a: "1", b: "2" });
  }

  async function transactionOnOneTag() {
    const multi = redis.multi().set(tagged("a"), 1).incr(tagged("b")).mget(tagged("a"), tagged("b"));
    assert.deepEqual(await multi.exec(), [[null, "OK"], [null, 1], [null, ["1", "1"]]]);
    const failing = await redis.multi().lpush(tagged("a"), "x").get(tagged("a")).exec();
    assert.match(String(failing[0][0]), /WRONGTYPE/);
    assert.deepEqual(failing[1], [null, "1"]);
    await redis.multi({ pipeline: false });
    assert.equal(await redis.set(tagged("a"), 2), "QUEUED");
    assert.equal(await redis.discard(), "OK");
    assert.equal(await redis.get(tagged("a")), "1");
  }

  async function transactionOverShards() {
    const keys = apart(name);
    const multi = redis.multi();
    keys.forEach((one) => multi.set(one, 1));
    if (shards.length === 1) {
      assert.equal((await multi.exec()).length, keys.length);
    } else {
      const error = await multi.exec().then(() => assert.fail("no error"), (failed) => failed);
      assert.match([error, ...(error.previousErrors ?? [])].join("\n"), /CROSSSLOT/);
      assert.deepEqual(await redis.mget(keys), keys.map(() => null), "some of it was carried out");
    }
    assert.equal(await redis.echo("after"), "after");
  }

  async function watch() {
    await redis.watch(tagged("w"));
    await other.set(tagged("w"), "other");
    assert.equal(await redis.multi().set(tagged("w"), "mine").exec(), null);
    assert.equal(await redis.get(tagged("w")), "other");
    await redis.watch(tagged("w"));
    assert.deepEqual(await redis.multi().set(tagged("w"), "mine").exec(), [[null, "OK"]]);
  }

  async function blockingPop() {
    const waiting = redis.blpop(key("q"), 0);
    await until("it waits", async () => (await blocked()) === 1);
    await other.rpush(key("q"), "x");
    assert.deepEqual(await waiting, [key("q"), "x"]);
    assert.equal(await redis.brpop(key("q"), 0.01), null);
    const scored = redis.bzpopmin(key("qz"), 0);
    await until("it waits", async () => (await blocked()) === 1);
    await other.zadd(key("qz"), 2, "m");
    assert.deepEqual((await scored).map(String), [key("qz"), "m", "2"]);
  }

  async function abandonedBlockingPop() {
    const gone = connect();
    gone.blpop(key("abandoned"), 0).catch(() => {});
    await until("it waits", async () => (await blocked()) === 1);
    gone.disconnect();
    await until("nobody waits", async () => (await blocked()) === 0);
    assert.equal(await redis.rpush(key("abandoned"), "kept"), 1);
    assert.equal(await redis.lpop(key("abandoned")), "kept");
  }

  async function pubsub() {
    const listener = connect();
    const heard = [];
    listener.on("message", (channel, text) => heard.push(`message ${channel} ${text}`));
    listener.on("pmessage", (pattern, channel, text) => heard.push(`pmessage ${pattern} ${channel} ${text}`));
    assert.equal(await listener.subscribe(key("news")), 1);
    assert.equal(await listener.psubscribe(key("n*")), 2);
    // A node of a cluster counts those who listen there, and a pattern is listened to at one node.
    const count = await redis.publish(key("news"), "hello");
    assert.ok(count === 2 || (cluster && count === 1), `${count}`);
    await until("both come", async () => (await redis.ping()) && heard.length === 2);
    assert.deepEqual(heard.sort(), [`message ${key("news")} hello`, `pmessage ${key("n*")} ${key("news")} hello`]);
    assert.equal(await listener.unsubscribe(key("news")), 1);
    assert.equal(await listener.punsubscribe(key("n*")), 0);
    assert.equal(await redis.publish(key("news"), "nobody"), 0);
    // Without a subscription it is an ordinary connection again.
    assert.equal(await listener.echo("after"), "after");
    listener.disconnect();
  }

  async function scripts() {
    redis.defineCommand("grow", { numberOfKeys: 1, lua: `-- ${name}\nreturn redis.call('incrby', KEYS[1], ARGV[1])` });
    for (const [n, one] of apart(`${name}:script`).entries()) assert.equal(await redis.grow(one, n), n);
    const sha = await redis.script("LOAD", `return {KEYS[1], '${name}'}`);
    assert.deepEqual(await redis.script("EXISTS", sha, "0".repeat(40)), [1, 0]);
    for (const one of apart(`${name}:sha`)) assert.deepEqual(await redis.evalsha(sha, 1, one), [one, name]);
    await assert.rejects(redis.evalsha("0".repeat(40), 1, key("e")), /NOSCRIPT/);
    assert.equal(await redis.eval("return 'no keys'", 0), "no keys");
    const pipe = redis.pipeline().grow(key("g1"), 1).grow(key("g2"), 2);
    assert.deepEqual(await pipe.exec(), [[null, 1], [null, 2]]);
  }

  async function scan() {
    const keys = Array.from({ length: 1000 }, (_, n) => key(`scan:${n}`));
    await redis.mset(Object.fromEntries(keys.map((one) => [one, 1])));
    const found = new Set();
    for await (const some of redis.scanStream({ match: key("scan:*"), count: 100 })) some.forEach((one) => found.add(one));
    assert.deepEqual([...found].sort(), keys.sort());
    assert.equal((await redis.keys(key("scan:*"))).length, 1000);
    assert.ok((await redis.dbsize()) >= 1000);
  }

  async function manyKeys() {
    const keys = apart(`${name}:many`);
    assert.equal(await redis.mset(Object.fromEntries(keys.map((one) => [one, one]))), "OK");
    assert.deepEqual(await redis.mget(keys), keys);
    assert.equal(await redis.exists(keys), keys.length);
    assert.equal(await redis.del(keys), keys.length);
    assert.deepEqual(await redis.mget(keys), keys.map(() => null));
  }

  async function databases() {
    const one = connect({ db: 1 });
    const keys = apart(`${name}:db`);
    await redis.mset(Object.fromEntries(keys.map((each) => [each, "zero"])));
    assert.deepEqual(await one.mget(keys), keys.map(() => null));
    await one.mset(Object.fromEntries(keys.map((each) => [each, "one"])));
    assert.deepEqual(await redis.mget(keys), keys.map(() => "zero"));
    assert.equal(await one.dbsize(), keys.length);
    assert.equal(await one.flushdb(), "OK");
    assert.deepEqual([await one.dbsize(), await redis.get(keys[0])], [0, "zero"]);
    assert.equal(await one.select(0), "OK");
    assert.equal(await one.get(keys[0]), "zero");
    one.disconnect();
  }

  async function clientAndInfo() {
    const named = connect({ connectionName: `name-of-${name}` });
    assert.equal(await named.client("GETNAME"), `name-of-${name}`);
    assert.match(await redis.client("LIST"), new RegExp(` name=name-of-${name} `));
    assert.equal(await named.client("SETNAME", "another"), "OK");
    assert.equal(await named.client("GETNAME"), "another");
    assert.match(await redis.info(), /^redis_version:.*^redis_mode:standalone.*^loading:0.*^role:master/ms);
    named.disconnect();
  }

  return [
    pipeline, transactionOnOneTag, transactionOverShards, watch, blockingPop, abandonedBlockingPop, pubsub, scripts, scan,
    manyKeys, ...(cluster ? [] : [databases]), clientAndInfo,
  ];
}

async function main() {
  for (const name of ["ioredis", "ioredis6"]) {
    const { version } = library(`${name}/package.json`);
    const variants = name === "ioredis6" ? [["", {}], ["-resp2", { protocol: 2 }], ["-resp3", { protocol: 3 }]] : [["", {}]];
    for (const [suffix, options] of variants) {
      const title = `ioredis-${version}${suffix}`;
      await run(title, checks(title, library(name), options));
    }
  }
  end();
}

main();
