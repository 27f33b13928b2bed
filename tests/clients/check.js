// What the scripts for Node share: their arguments, a way to run checks, and a look at the shards.
//
// Every script is called with the directory of the libraries, the host and port of what it talks to and the addresses of
// the servers behind. A redis-server of its own is a pool of one: then both are the same address, and a check over several
// shards has nothing to refuse.
"use strict";

const net = require("node:net");
const path = require("node:path");
const [, , libraries, host, port, ...shards] = process.argv;

// Whether those are the nodes of a cluster, which has one database only.
const cluster = "HOTRING_CLUSTER" in process.env;

// Only a run that fails waits so long.
const PATIENCE = 60_000;
let failures = 0;
setTimeout(() => (console.log("no end"), process.exit(1)), 10 * PATIENCE).unref();

/** Runs each check and prints a line for it: `NAME: CHECK passed`, or what went wrong. The next one is tried anyway. */
async function run(name, checks) {
  for (const check of checks) {
    const title = check.name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
    let timer;
    try {
      const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error("no end")), PATIENCE);
      });
      await Promise.race([check(), late]);
      console.log(`${name}: ${title} passed`);
    } catch (error) {
      failures++;
      console.log(`${name}: ${title} FAILED`, error);
    }
    clearTimeout(timer);
  }
}

/** Ends the script: well if all checks passed. */
function end() {
  process.exit(failures ? 1 : 0);
}

/** Asks until the answer is yes. What is asked goes through a socket, so that others get their turn meanwhile. */
async function until(what, isSo) {
  const deadline = Date.now() + PATIENCE;
  while (!(await isSo())) if (Date.now() > deadline) throw new Error(`still not so: ${what}`);
}

/** How many connections wait in a blocking command, as the shards themselves say. */
async function blocked() {
  const count = async (shard) => {
    const [name, number] = shard.split(":");
    const socket = net.connect(Number(number), name);
    socket.write("INFO clients\r\nQUIT\r\n");
    let info = "";
    for await (const chunk of socket) info += chunk;
    return Number(/^blocked_clients:(\d+)/m.exec(info)[1]);
  };
  return (await Promise.all(shards.map(count))).reduce((sum, one) => sum + one, 0);
}

/** Keys on all shards. They differ in their beginning: some hashes put those that differ in their end side by side. */
const apart = (prefix) => Array.from({ length: 50 }, (_, n) => `${n}:${prefix}:apart`);

/** A library by the name of its directory. */
const library = (name) => require(path.join(libraries, name));

module.exports = { host, port: Number(port), shards, cluster, PATIENCE, run, end, until, blocked, apart, library };
