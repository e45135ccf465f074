/** What a runner does with a case of each kind. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { clone } from "@bufbuild/protobuf";

import { Client } from "../../src/index.js";
import type { CallOptions, Event, Job } from "../../src/index.js";
import { GenerateRequestSchema } from "../../src/v1.js";
import type { GenerateRequest, UpscaleEvent } from "../../src/v1.js";
import { checkEvents, checkFailure, checkPlan, hashesOf } from "./check.js";
import type { Door } from "./server.js";
import { checkEmbeddings, checkUpscaled } from "./others.js";
import { drainOf, embeddingsOf, requestOf, scaleOf, upscaleOf } from "./table.js";
import type { Case, CaseRequest, Expect } from "./table.js";

const MOST_CALLS = 64;
const MOST_REFUSALS = 60;

/** What the cases share. */
export interface Runner {
  readonly client: Client;
  readonly door: Door;
  readonly hashes: Map<string, string[]>;
}

/** Runs a case; the reason where it had to be left out. */
type Kind = (runner: Runner, each: Case) => Promise<string | undefined | void>;

export const KINDS: Readonly<Record<string, Kind>> = {
  call,
  keep,
  exists,
  attach,
  upscale,
  embeddings,
  plan,
  cluster,
  unreachable,
  cancel,
  deadline,
  fill,
  drain,
};

function start(client: Client, request: CaseRequest, options: CallOptions = {}): Job {
  switch (request.method) {
    case "Generate":
      return client.generate(request.message, options);
    case "Transform":
      return client.transform(request.message, options);
    case "Inpaint":
      return client.inpaint(request.message, options);
  }
}

async function read(job: Job): Promise<Event[]> {
  const events: Event[] = [];
  for await (const event of job) {
    events.push(event);
  }
  return events;
}

/** How a job fails. */
async function failureOf(job: Job): Promise<unknown> {
  return read(job).then(
    () => undefined,
    (failure: unknown) => failure,
  );
}

async function call({ client, hashes }: Runner, each: Case): Promise<void> {
  const job = start(client, await requestOf(each));
  if (each.expect.outcome === "OK") {
    hashes.set(each.name, hashesOf(checkEvents(await read(job), each.expect)));
  } else {
    checkFailure(await failureOf(job), each.expect);
  }
}

async function keep({ client }: Runner, each: Case): Promise<void> {
  const { message } = (await requestOf(each)) as { message: GenerateRequest };
  let pictures: string[] | undefined;
  for (let cut = 1, count = Infinity; cut <= count; cut++) {
    const requestId = `${message.requestId} ${cut}`;
    const seen = await readSome(client.generate({ ...message, requestId }), cut);
    const afterSequence = seen.at(-1)!.sequence;
    const events = [...seen, ...(await read(client.attach({ requestId, afterSequence })))];
    const hashes = hashesOf(checkEvents(events, { ...each.expect, request_id: requestId } as Expect));
    assert.deepEqual(hashes, pictures ?? hashes);
    const again = await read(client.attach({ requestId }));
    assert.deepEqual(again.map(bare), events.map(bare));
    [pictures, count] = [hashes, events.length];
  }
}

/** Reads so many events and leaves the call. */
async function readSome(job: Job, count: number): Promise<Event[]> {
  const events: Event[] = [];
  for await (const event of job) {
    if (events.push(event) === count) {
      break;
    }
  }
  return events;
}

/** An event without its previews, which only a reader that waits for it gets. */
function bare(event: Event): Event {
  return event.kind === "progress" ? { ...event, value: { ...event.value, previews: [] } } : event;
}

async function exists({ client }: Runner, each: Case): Promise<void> {
  const { message } = (await requestOf(each)) as { message: GenerateRequest };
  await client.generate(message).images();
  const other = clone(GenerateRequestSchema, message);
  other.prompt += " and another";
  checkFailure(await failureOf(client.generate(other)), each.expect);
}

async function attach({ client }: Runner, each: Case): Promise<void> {
  const { message } = await requestOf(each);
  checkFailure(await failureOf(client.attach({ requestId: message.requestId })), each.expect);
}

async function upscale({ client, hashes }: Runner, each: Case): Promise<void> {
  const request = await upscaleOf(each);
  const events: UpscaleEvent[] = [];
  const failure = await (async () => {
    for await (const event of client.upscale(request)) {
      events.push(event);
    }
  })().catch((failure: unknown) => failure);
  if (each.expect.outcome === "OK") {
    assert.equal(failure, undefined);
    const { data } = checkUpscaled(events, each.expect);
    hashes.set(each.name, [createHash("sha256").update(data).digest("hex")]);
  } else {
    checkFailure(failure, each.expect);
  }
}

async function embeddings({ client }: Runner, each: Case): Promise<void> {
  const asked = client.listEmbeddings(embeddingsOf(each));
  if (each.expect.outcome === "OK") {
    checkEmbeddings(await asked, each.expect);
  } else {
    checkFailure(await asked.catch((failure: unknown) => failure), each.expect);
  }
}

async function plan({ client }: Runner, each: Case): Promise<void> {
  const asked = client.planJob({ request: await plannedOf(each) });
  if (each.expect.outcome === "OK") {
    checkPlan(await asked, each.expect);
  } else {
    checkFailure(await asked.catch((failure: unknown) => failure), each.expect);
  }
}

async function plannedOf(each: Case) {
  const { method, message } = await requestOf(each);
  switch (method) {
    case "Generate":
      return { case: "generate" as const, value: message };
    case "Transform":
      return { case: "transform" as const, value: message };
    case "Inpaint":
      return { case: "inpaint" as const, value: message };
  }
}

async function cluster({ client }: Runner, each: Case): Promise<void> {
  const { with_replicas: other } = each;
  const expect = other !== undefined && (await hasReplicas(client)) ? other : each.expect;
  const asked = changeReplicas(client, each);
  if (expect.outcome === "OK") {
    assert.equal(await asked, expect.replicas);
  } else {
    checkFailure(await asked.catch((failure: unknown) => failure), expect);
  }
}

/** Returns how many replicas the server told of. */
async function changeReplicas(client: Client, each: Case): Promise<number> {
  if (each.method === "DrainReplicas") {
    return (await client.drainReplicas(drainOf(each).name)).length;
  }
  const { least, most } = scaleOf(each);
  return client.scaleReplicas(least, most);
}

/** Whether several draw behind the server. */
async function hasReplicas(client: Client): Promise<boolean> {
  for await (const { replicas } of client.watchStatus()) {
    return replicas.length > 0;
  }
  return assert.fail("WatchStatus ended");
}

async function unreachable(_: Runner, each: Case): Promise<void> {
  checkFailure(await failureOf(start(new Client("127.0.0.1:1"), await requestOf(each))), each.expect);
}

async function cancel({ client }: Runner, each: Case): Promise<void> {
  const before = await untilIdle(client);
  const abort = new AbortController();
  const job = start(client, await requestOf(each), { signal: abort.signal });
  checkFailure(await failureAfterProgress(job, () => abort.abort()), each.expect);
  assert.equal(await untilIdle(client), before);
}

async function deadline({ client }: Runner, each: Case): Promise<void> {
  const before = await untilIdle(client);
  const job = start(client, await requestOf(each), { timeoutMs: 1000 * each.timeout_seconds! });
  checkFailure(await failureOf(job), each.expect);
  assert.equal(await untilIdle(client), before);
}

async function fill({ client }: Runner, each: Case): Promise<void> {
  const request = await requestOf(each);
  let refusal = await fillQueue(client, request);
  for (let count = 0; count < MOST_REFUSALS; count++) {
    checkFailure(refusal, each.expect);
    await sleep(refusal.retryAfterMs);
    try {
      await readSome(start(client, request), 1);
      return;
    } catch (failure) {
      refusal = failure;
    }
  }
  assert.fail(`refused ${MOST_REFUSALS} times`);
}

/** Opens calls until one fails, cancels the others, and returns the failure. */
async function fillQueue(client: Client, request: CaseRequest): Promise<unknown> {
  const jobs: Job[] = [];
  try {
    while (jobs.length < MOST_CALLS) {
      const job = start(client, request);
      jobs.push(job);
      await job[Symbol.asyncIterator]().next();
    }
  } catch (failure) {
    return failure;
  } finally {
    jobs.forEach((job) => job.close());
  }
  return assert.fail(`${MOST_CALLS} calls, and none was refused`);
}

async function drain({ client, door }: Runner, each: Case): Promise<string | void> {
  if (door.drain === undefined) {
    return "the server belongs to somebody else: SDGRPC_CONTRACT_SERVER is set";
  }
  checkFailure(await failureAfterProgress(start(client, await requestOf(each)), door.drain), each.expect);
}

/** Does something at a job's first progress, and reads on to its failure. */
async function failureAfterProgress(job: Job, then: () => void): Promise<unknown> {
  let done = false;
  try {
    for await (const event of job) {
      if (event.kind === "progress" && !done) {
        done = true;
        then();
      }
    }
  } catch (failure) {
    return failure;
  }
  return undefined;
}

/** Waits until no job is there, and returns how many were finished so far. */
async function untilIdle(client: Client): Promise<bigint> {
  for await (const status of client.watchStatus({ minIntervalMs: 100 })) {
    if (status.ready && status.running === 0 && status.queued === 0) {
      return BigInt(status.jobsFinished);
    }
  }
  return assert.fail("WatchStatus ended");
}
