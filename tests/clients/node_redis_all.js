// node-redis, versions 4 and 6, through hotring: what needs a connection of its own, all shards, or RESP3.
//
// Arguments: see `check.js`.
"use strict";

const assert = require("node:assert/strict");
const { host, port, shards, run, end, until, blocked, apart, library } = require("./check.js");

async function checks(name, redis, options) {
  const connect = async (more = {}) => {
    const client = redis.createClient({ socket: { host, port, reconnectStrategy: false }, ...options, ...more });
    // Failures are looked for where they are expected, by the commands they fail.
    client.on("error", () => {});
    await client.connect();
    return client;
  };
  let client;
  let other;
  const key = (text) => `${name}:${text}`;
  const tagged = (text) => `{${name}}:${text}`;
  const scripts = { grow: redis.defineScript({
    NUMBER_OF_KEYS: 1,
    SCRIPT: `-- ${name}\nreturn redis.call('incrby', KEYS[1], ARGV[1])`,
    // Version 4 wants the arguments, later ones push them.
    transformArguments: (one, by) => [one, String(by)],
    parseCommand: (parser, one, by) => (parser.pushKey(one), parser.push(String(by))),
    transformReply: (reply) => reply,
  }) };

  async function connecting() {
    client = await connect({ scripts });
    other = await connect();
    assert.equal(await client.ping(), "PONG");
  }

  async function pipeline() {
    const numbers = Array.from({ length: 300 }, (_, n) => n);
    await Promise.all(numbers.map((n) => client.set(key(`p:${n}`), n.toString())));
    assert.deepEqual(await Promise.all(numbers.map((n) => client.get(key(`p:${n}`)))), numbers.map(String));
    await client.hSet(key("h"), { a: 1, b: 2 });
    assert.deepEqual({ ...(await client.hGetAll(key("h"))) }, { a: "1", b: "2" });
    await client.zAdd(key("z"), { score: 1.5, value: "m" });
    assert.equal(await client.zScore(key("z"), "m"), 1.5);
  }

  async function transactionOnOneTag() {
    const multi = client.multi().set(tagged("a"), "1").incr(tagged("b")).mGet([tagged("a"), tagged("b")]);
    assert.deepEqual(await multi.exec(), ["OK", 1, ["1", "1"]]);
  }

  async function transactionOverShards() {
    const keys = apart(name);
    const multi = client.multi();
    keys.forEach((one) => multi.set(one, "1"));
    if (shards.length === 1) {
      assert.equal((await multi.exec()).length, keys.length);
    } else {
      // Which of the errors is told depends on the version.
      await assert.rejects(multi.exec(), /CROSSSLOT|EXECABORT/);
      assert.deepEqual(await client.mGet(keys), keys.map(() => null), "some of it was carried out");
    }
    assert.equal(await client.echo("after"), "after");
  }

  async function watch() {
    await client.watch(tagged("w"));
    await other.set(tagged("w"), "other");
    await assert.rejects(client.multi().set(tagged("w"), "mine").exec(), redis.WatchError);
    assert.equal(await client.get(tagged("w")), "other");
    await client.watch(tagged("w"));
    assert.deepEqual(await client.multi().set(tagged("w"), "mine").exec(), ["OK"]);
  }

  async function blockingPop() {
    const waiting = client.blPop(key("q"), 0);
    await until("it waits", async () => (await blocked()) === 1);
    await other.rPush(key("q"), "x");
    assert.deepEqual({ ...(await waiting) }, { key: key("q"), element: "x" });
    assert.equal(await client.brPop(key("q"), 0.01), null);
  }

  async function abandonedBlockingPop() {
    const gone = await connect();
    gone.blPop(key("abandoned"), 0).catch(() => {});
    await until("it waits", async () => (await blocked()) === 1);
    await (gone.destroy ?? gone.disconnect).call(gone);
    await until("nobody waits", async () => (await blocked()) === 0);
    assert.equal(await client.rPush(key("abandoned"), "kept"), 1);
    assert.equal(await client.lPop(key("abandoned")), "kept");
  }

  async function pubsub() {
    const listener = await connect();
    const heard = [];
    await listener.subscribe(key("news"), (text, channel) => heard.push(`message ${channel} ${text}`));
    await listener.pSubscribe(key("n*"), (text, channel) => heard.push(`pmessage ${channel} ${text}`));
    assert.equal(await client.publish(key("news"), "hello"), 2);
    await until("both come", async () => (await client.ping()) && heard.length === 2);
    assert.deepEqual(heard.sort(), [`message ${key("news")} hello`, `pmessage ${key("news")} hello`]);
    await listener.unsubscribe(key("news"));
    await listener.pUnsubscribe(key("n*"));
    assert.equal(await client.publish(key("news"), "nobody"), 0);
    await (listener.destroy ?? listener.disconnect).call(listener);
  }

  async function scriptsOnAllShards() {
    for (const [n, one] of apart(`${name}:script`).entries()) assert.equal(await client.grow(one, n), n);
    const sha = await client.scriptLoad(`return {KEYS[1], '${name}'}`);
    for (const one of apart(`${name}:sha`)) assert.deepEqual(await client.evalSha(sha, { keys: [one] }), [one, name]);
    await assert.rejects(client.evalSha("0".repeat(40), { keys: [key("e")] }), /NOSCRIPT/);
    assert.equal(await client.eval("return ARGV[1]", { arguments: ["no keys"] }), "no keys");
  }

  async function scan() {
    const keys = Array.from({ length: 1000 }, (_, n) => key(`scan:${n}`));
    await client.mSet(keys.map((one) => [one, "1"]));
    const found = new Set();
    // One by one in version 4, in arrays later.
    for await (const some of client.scanIterator({ MATCH: key("scan:*"), COUNT: 100 })) [some].flat().forEach((one) => found.add(one));
    assert.deepEqual([...found].sort(), keys.sort());
    assert.equal((await client.keys(key("scan:*"))).length, 1000);
    assert.ok((await client.dbSize()) >= 1000);
  }

  async function manyKeys() {
    const keys = apart(`${name}:many`);
    assert.equal(await client.mSet(keys.map((one) => [one, one])), "OK");
    assert.deepEqual(await client.mGet(keys), keys);
    assert.equal(await client.exists(keys), keys.length);
    assert.equal(await client.del(keys), keys.length);
    assert.deepEqual(await client.mGet(keys), keys.map(() => null));
  }

  async function databases() {
    const one = await connect({ database: 1 });
    const keys = apart(`${name}:db`);
    await client.mSet(keys.map((each) => [each, "zero"]));
    assert.deepEqual(await one.mGet(keys), keys.map(() => null));
    await one.mSet(keys.map((each) => [each, "one"]));
    assert.deepEqual(await client.mGet(keys), keys.map(() => "zero"));
    assert.equal(await one.dbSize(), keys.length);
    assert.equal(await one.flushDb(), "OK");
    assert.deepEqual([await one.dbSize(), await client.get(keys[0])], [0, "zero"]);
    await (one.destroy ?? one.disconnect).call(one);
  }

  async function clientAndInfo() {
    const named = await connect({ name: `name-of-${name}` });
    assert.equal(await named.clientGetName(), `name-of-${name}`);
    assert.ok((await client.clientList()).some((each) => each.name === `name-of-${name}`));
    assert.equal(await named.clientSetName("another"), "OK");
    assert.equal(await named.clientGetName(), "another");
    assert.match(await client.info(), /^redis_version:.*^redis_mode:standalone.*^loading:0.*^role:master/ms);
    await (named.destroy ?? named.disconnect).call(named);
  }

  return [
    connecting, pipeline, transactionOnOneTag, transactionOverShards, watch, blockingPop, abandonedBlockingPop, pubsub,
    scriptsOnAllShards, scan, manyKeys, databases, clientAndInfo,
  ];
}

async function main() {
  for (const name of ["redis4", "redis6"]) {
    const { version } = library(`${name}/package.json`);
    const variants = name === "redis6" ? [["", {}], ["-resp2", { RESP: 2 }], ["-resp3", { RESP: 3 }]] : [["", {}]];
    for (const [suffix, options] of variants) {
      const title = `node-redis-${version}${suffix}`;
      await run(title, await checks(title, library(name), options));
    }
  }
  end();
}

main();
