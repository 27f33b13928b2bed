// ioredis through hotring, used as applications use it.
//
// Arguments: where ioredis is, host and port of a pool over several shards with hash tags in braces, port of one like it with
// the password `secret`. Ends with an error at the first thing that is not as with one server, or not refused as documented.
"use strict";

const assert = require("node:assert/strict");
const [, , library, host, port, guarded] = process.argv;
const Redis = require(library);

// Only a run that fails lasts so long.
setTimeout(() => {
  console.error("no end within ten minutes");
  process.exit(1);
}, 600_000).unref();

const open = [];
const connect = (options = {}) => {
  const redis = new Redis({ host, port: Number(port), retryStrategy: null, ...options });
  // Failures are looked for where they are expected, by the commands they fail.
  redis.on("error", () => {});
  open.push(redis);
  return redis;
};

async function values(redis) {
  assert.equal(await redis.ping(), "PONG");
  assert.equal(await redis.set("k", "v"), "OK");
  assert.equal(await redis.get("k"), "v");
  const keys = Array.from({ length: 200 }, (_, n) => `js:${n}`);
  assert.equal(await redis.mset(Object.fromEntries(keys.map((key) => [key, `of ${key}`]))), "OK");
  assert.deepEqual(await redis.mget(keys), keys.map((key) => `of ${key}`));
  assert.equal(await redis.del(keys), 200);
  const big = Buffer.alloc(1 << 20, "\u0000\u00ff\r\n", "latin1");
  assert.equal(await redis.set("js:big", big), "OK");
  assert.ok(big.equals(await redis.getBuffer("js:big")));
  assert.deepEqual(await Promise.all(keys.map((key) => redis.incr("js:sum"))), keys.map((_, n) => n + 1));
}

async function structures(redis) {
  assert.equal(await redis.hset("js:hash", { a: 1, b: "two" }), 2);
  assert.deepEqual(await redis.hgetall("js:hash"), { a: "1", b: "two" });
  assert.equal(await redis.rpush("js:list", 1, 2, 3), 3);
  assert.deepEqual(await redis.lrange("js:list", 0, -1), ["1", "2", "3"]);
  assert.equal(await redis.zadd("js:sorted", 1, "one", 2, "two"), 2);
  assert.deepEqual(await redis.zrange("js:sorted", 0, -1, "WITHSCORES"), ["one", "1", "two", "2"]);
  const id = await redis.xadd("js:stream", "*", "f", "v");
  assert.deepEqual(await redis.xread("STREAMS", "js:stream", 0), [["js:stream", [[id, ["f", "v"]]]]]);
  await assert.rejects(redis.incr("js:list"), /^ReplyError: WRONGTYPE/);
}

async function pipelines(redis) {
  const pipeline = redis.pipeline();
  for (let n = 0; n < 500; n++) pipeline.set(`js:pipe:${n}`, n).get(`js:pipe:${n}`);
  const replies = await pipeline.exec();
  assert.deepEqual(replies, Array.from({ length: 1000 }, (_, n) => [null, n % 2 ? String(n >> 1) : "OK"]));
  const automatic = connect({ enableAutoPipelining: true });
  const sums = await Promise.all(Array.from({ length: 300 }, () => automatic.incr("js:automatic")));
  assert.deepEqual(sums, Array.from({ length: 300 }, (_, n) => n + 1));
}

async function scripts(redis) {
  redis.defineCommand("swap", {
    numberOfKeys: 2,
    lua: "redis.call('set', KEYS[1], ARGV[1]); return redis.call('getset', KEYS[2], ARGV[2])",
  });
  // EVALSHA, which the shard does not know, then EVAL; then EVALSHA.
  assert.equal(await redis.swap("{js}a", "{js}b", "1", "2"), null);
  assert.equal(await redis.swap("{js}a", "{js}b", "3", "4"), "2");
  assert.equal(await redis.get("{js}a"), "3");
  // Keys that differ in their beginning: fnv1a puts those that differ in their end alone side by side.
  const keys = Array.from({ length: 50 }, (_, n) => `${n}:js:apart`);
  await assert.rejects(redis.eval("return 1", keys.length, ...keys), /CROSSSLOT/);
}

async function refusals(redis) {
  // Each is told clearly, and the connection stays good for what follows.
  const apart = Array.from({ length: 50 }, (_, n) => `${n}:js:apart`);
  const transaction = redis.multi();
  apart.forEach((key) => transaction.set(key, 1));
  await assert.rejects(transaction.exec(), /EXECABORT/);
  assert.equal(await redis.exists(...apart), 0);
  assert.equal(await redis.ping("still"), "still");
  for (const [command, ...rest] of [["monitor"], ["swapdb", 0, 1], ["shutdown"], ["replicaof", "no", "one"]]) {
    await assert.rejects(redis.call(command, ...rest), /^ReplyError: ERR /, command);
    assert.equal(await redis.ping(command), command);
  }
}

async function passwords() {
  const guard = { port: Number(guarded) };
  assert.equal(await connect({ ...guard, password: "secret" }).set("js:private", 1), "OK");
  assert.equal(await connect({ ...guard, username: "default", password: "secret" }).get("js:private"), "1");
  await assert.rejects(connect({ ...guard, password: "wrong" }).ping(), /NOAUTH|WRONGPASS/);
  await assert.rejects(connect(guard).ping(), /NOAUTH/);
}

async function main() {
  const redis = connect({ connectionName: "js" });
  for (const part of [values, structures, pipelines, scripts, refusals]) await part(redis);
  assert.equal(await redis.client("GETNAME"), "js");
  await passwords();
  open.forEach((one) => one.disconnect());
  console.log("ioredis passed");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
