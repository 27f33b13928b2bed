// rate-limiter-flexible over ioredis and over node-redis through hotring: a script or a transaction on one key.
//
// Arguments: see `check.js`.
"use strict";

const assert = require("node:assert/strict");
const { host, port, run, end, library } = require("./check.js");
const { RateLimiterRedis } = library("rate-limiter-flexible");

function checks(storeClient, more) {
  const limiter = new RateLimiterRedis({ storeClient, points: 3, duration: 3600, keyPrefix: `rate:${Object.keys(more)}`, ...more });

  async function consume() {
    for (let user = 0; user < 20; user++) {
      for (const left of [2, 1, 0]) assert.equal((await limiter.consume(`${user}:user`)).remainingPoints, left);
      const refused = await limiter.consume(`${user}:user`).then(() => assert.fail("taken"), (refusal) => refusal);
      assert.ok(refused.msBeforeNext > 3_500_000 && refused.consumedPoints === 4, refused);
    }
  }

  async function otherCalls() {
    assert.equal((await limiter.get("3:user")).consumedPoints, 4);
    assert.equal((await limiter.reward("3:user", 2)).consumedPoints, 2);
    await limiter.block("5:user", 100);
    assert.equal((await limiter.get("5:user")).remainingPoints, 0);
    assert.equal(await limiter.delete("3:user"), true);
    assert.equal(await limiter.get("3:user"), null);
  }

  return [consume, otherCalls];
}

async function main() {
  const io = new (library("ioredis"))({ host, port, enableOfflineQueue: true, retryStrategy: null });
  io.on("error", () => {});
  await run("rate-limiter-flexible, ioredis", checks(io, {}));
  const node = library("redis6").createClient({ socket: { host, port, reconnectStrategy: false } });
  node.on("error", () => {});
  async function connecting() {
    await node.connect();
  }
  await run("rate-limiter-flexible, node-redis", [connecting, ...checks(node, { useRedisPackage: true })]);
  end();
}

main();
