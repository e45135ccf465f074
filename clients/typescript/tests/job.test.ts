// Jobs: their events, their ends, and calls that are cut.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Code } from "@connectrpc/connect";

import { OnDisconnect, SdgrpcError } from "../src/index.js";
import { Resumption } from "../src/resume.js";
import { cutting, drawing, hanging, read, whole } from "./fake.js";

const SEQUENCES = [0n, 1n, 2n, 3n, 4n, 5n, 6n];
const failsWith = (code: string) => (error: unknown) => error instanceof SdgrpcError && error.code === code;

test("events are typed, and a result has the images in order", async () => {
  const { client } = drawing(cutting([]));
  const job = client.generate({ prompt: "a star" });
  const steps: number[] = [];
  for await (const event of job) {
    if (event.kind === "progress") {
      steps.push(event.value.step);
    }
  }
  assert.deepEqual(steps, [1, 2]);
  const result = await job.result();
  assert.deepEqual(
    result.images.map((image) => image.index),
    [0, 1],
  );
  assert.equal(result.accepted?.sampling?.seed, 1234n);
});

test("a call that is cut goes on, and no event comes twice", async () => {
  for (const code of [Code.Unavailable, Code.Internal, undefined]) {
    for (let cut = 1; cut < SEQUENCES.length; cut++) {
      const { client, requests } = drawing(cutting([cut], code));
      const events = await read(client.generate({ prompt: "a star" }));
      assert.deepEqual(
        events.map((event) => event.sequence),
        SEQUENCES,
      );
      const [first, second] = requests;
      assert.equal(first?.sampling, undefined);
      assert.equal(second?.sampling?.seed, 1234n);
      assert.equal(second?.requestId, "made-up");
      assert.equal(second?.prompt, "a star");
    }
  }
});

test("a call that is cut often goes on", async () => {
  const { client, requests } = drawing(cutting([5, 1, 3]));
  assert.equal((await client.generate({}).images()).length, 2);
  assert.equal(requests.length, 4);
});

test("what was not accepted is not resumed, and a job that ends every server is given up", async () => {
  const refused = drawing(cutting([0], Code.Unavailable));
  await assert.rejects(client(refused).images(), failsWith("UNAVAILABLE"));
  assert.equal(refused.requests.length, 1);
  const deadly = drawing(cutting(Array<number>(20).fill(2)));
  await assert.rejects(client(deadly).images(), failsWith("DATA_LOSS"));
  assert.equal(deadly.requests.length, 6);
});

test("a refusal is believed, and resuming can be turned off", async () => {
  const full = drawing(cutting([2], Code.ResourceExhausted));
  await assert.rejects(client(full).images(), failsWith("RESOURCE_EXHAUSTED"));
  assert.equal(full.requests.length, 1);
  const off = drawing(cutting([2], Code.Unavailable), { resumeMs: 0 });
  await assert.rejects(client(off).images(), failsWith("UNAVAILABLE"));
  assert.equal(off.requests.length, 1);
});

test("leaving the loop, a signal and cancel() end the call", async () => {
  const ends = [
    async (job: ReturnType<typeof client>) => {
      for await (const _ of job) {
        break;
      }
    },
    async (job: ReturnType<typeof client>) => {
      for await (const _ of job) {
        await job.cancel();
        await assert.rejects(job.result(), failsWith("CANCELLED"));
        break;
      }
    },
  ];
  for (const end of ends) {
    const { answer, gone } = hanging();
    await end(client(drawing(answer)));
    await gone;
  }
  const { answer, gone } = hanging();
  const abort = new AbortController();
  const job = drawing(answer).client.generate({}, { signal: abort.signal });
  await assert.rejects(async () => {
    for await (const _ of job) {
      abort.abort();
    }
  }, failsWith("CANCELLED"));
  await gone;
});

test("a signal that was aborted before sends nothing, and its time-out is a deadline", async () => {
  const { client: never, requests } = drawing(cutting([]));
  await assert.rejects(never.generate({}, { signal: AbortSignal.abort() }).images(), failsWith("CANCELLED"));
  const late = never.generate({}, { timeoutMs: 0 });
  await assert.rejects(late.images(), failsWith("DEADLINE_EXCEEDED"));
  assert.equal(requests.length, 0);
  const awake = setInterval(() => undefined, 1000); // the signal's own timer keeps no process alive
  const hung = drawing(hanging().answer).client.generate({}, { signal: AbortSignal.timeout(50) });
  await assert.rejects(hung.images(), failsWith("DEADLINE_EXCEEDED"));
  clearInterval(awake);
});

test("a deadline ends a job on both sides", async () => {
  const { answer, gone } = hanging();
  const { client } = drawing(answer);
  await assert.rejects(client.generate({}, { timeoutMs: 100 }).images(), failsWith("DEADLINE_EXCEEDED"));
  await gone;
});

test("a reset at the deadline is the deadline", () => {
  let now = 0;
  const call = new Resumption(0, 1000, () => now);
  const reset = new SdgrpcError("INTERNAL", "the stream was reset");
  now = 800;
  assert.equal(call.failureAfter(reset), reset);
  now = 990;
  assert.equal(call.failureAfter(reset).code, "DEADLINE_EXCEEDED");
  const said = new SdgrpcError("INTERNAL", "a fault", { reason: "INTERNAL" });
  assert.equal(call.failureAfter(said), said);
});

test("a kept job is left, found by the id that it had from the start, and cancelled by it", async () => {
  const { client, requests, contexts } = drawing(async function* () {
    yield* whole().map((event) => ({ ...event, requestId: requests[0]!.requestId }));
  });
  const job = client.generate({ onDisconnect: OnDisconnect.KEEP });
  const id = await job.detach();
  assert.match(id, /^[0-9a-f]{32}$/);
  assert.equal(requests[0]?.requestId, id);
  await client.attach({ requestId: id, afterSequence: 3n }).images();
  await job.cancel();
  const [drawn, attached, cancelled] = contexts.map((context) => context.requestHeader.get("x-sdgrpc-job"));
  assert.ok(drawn);
  assert.deepEqual([attached, cancelled], [drawn, drawn]);
});

test("a job that is not kept cannot be left, and one whose events were all seen is over", async () => {
  const { client } = drawing(cutting([0]));
  await assert.rejects(client.generate({}).detach(), TypeError);
  assert.deepEqual(await read(client.attach({ requestId: "mine", afterSequence: 6n })), []);
});

function client(of: ReturnType<typeof drawing>) {
  return of.client.generate({});
}
