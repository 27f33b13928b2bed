// BullMQ through hotring: jobs there and back, delayed, failing and with children. All keys have the hash tag of the prefix.
//
// Arguments: see `check.js`.
"use strict";

const assert = require("node:assert/strict");
const { host, port, PATIENCE, run, end, library } = require("./check.js");
const { FlowProducer, Queue, QueueEvents, Worker } = library("bullmq");

async function main() {
  const options = { connection: { host, port }, prefix: "{bull}" };
  const queue = new Queue("tests", options);
  const events = new QueueEvents("tests", options);
  const flows = new FlowProducer(options);
  const worker = new Worker("tests", async (job) => {
    if (job.data.fail && job.attemptsMade < 2) throw new Error("on purpose");
    return job.data.a + job.data.b + Object.values(await job.getChildrenValues()).reduce((sum, one) => sum + one, 0);
  }, options);
  for (const each of [queue, events, flows, worker]) each.on("error", () => {});

  async function job() {
    await Promise.all([events.waitUntilReady(), worker.waitUntilReady()]);
    assert.equal(await (await queue.add("sum", { a: 2, b: 3 })).waitUntilFinished(events, PATIENCE), 5);
  }

  async function manyJobs() {
    const jobs = await queue.addBulk(Array.from({ length: 8 }, (_, n) => ({ name: "sum", data: { a: n, b: n } })));
    const results = await Promise.all(jobs.map((one) => one.waitUntilFinished(events, PATIENCE)));
    assert.deepEqual(results, jobs.map((_, n) => 2 * n));
  }

  async function delayedJob() {
    assert.equal(await (await queue.add("sum", { a: 1, b: 1 }, { delay: 50 })).waitUntilFinished(events, PATIENCE), 2);
  }

  async function failingJob() {
    const retried = await queue.add("sum", { a: 1, b: 2, fail: true }, { attempts: 3 });
    assert.equal(await retried.waitUntilFinished(events, PATIENCE), 3);
    const failed = await queue.add("sum", { fail: true });
    await assert.rejects(failed.waitUntilFinished(events, PATIENCE), /on purpose/);
    assert.deepEqual((await queue.getFailed()).map((one) => one.id), [failed.id]);
  }

  async function flow() {
    const children = [1, 2].map((n) => ({ name: "sum", queueName: "tests", data: { a: n, b: n } }));
    const tree = await flows.add({ name: "sum", queueName: "tests", data: { a: 1, b: 0 }, children });
    assert.equal(await tree.job.waitUntilFinished(events, PATIENCE), 7);
  }

  async function counts() {
    assert.equal((await queue.getJobCounts("completed")).completed, 14);
    await queue.obliterate({ force: true });
    assert.equal((await queue.getJobCounts("completed")).completed, 0);
  }

  await run("bullmq", [job, manyJobs, delayedJob, failingJob, flow, counts]);
  end();
}

main();
