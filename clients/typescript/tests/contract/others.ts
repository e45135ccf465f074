/** What came of calls that draw nothing, held against the table. */

import assert from "node:assert/strict";

import type { Embedding, Image, UpscaleEvent } from "../../src/v1.js";
import type { Expect } from "./table.js";

/** Checks the events of an upscaled picture by the grammar and the table; returns the picture. */
export function checkUpscaled(events: readonly UpscaleEvent[], expect: Expect): Image {
  const count = expect.tile_count!;
  assert.equal(events.length, count + 2);
  for (const [index, { sequence, requestId }] of events.entries()) {
    assert.equal(sequence, BigInt(index));
    assert.equal(requestId, expect.request_id ?? events[0]!.requestId);
    assert.notEqual(requestId, "");
  }
  const [accepted, ...rest] = events.map(({ event }) => event);
  const image = rest.pop();
  assert.ok(accepted?.case === "accepted" && image?.case === "image");
  const { upscaler, width, height, tileCount } = accepted.value;
  assert.deepEqual(
    { upscaler, width, height, tile_count: tileCount },
    { upscaler: expect.upscaler, width: expect.width, height: expect.height, tile_count: count },
  );
  for (const [index, event] of rest.entries()) {
    assert.ok(event.case === "progress");
    assert.deepEqual([event.value.tile, event.value.tileCount], [index + 1, count]);
  }
  assert.deepEqual([image.value.width, image.value.height], [expect.width, expect.height]);
  assert.equal(image.value.mediaType, expect.media_type);
  assert.ok(image.value.data.length > 0);
  return image.value;
}

/** Checks that every learned word is there, in order. */
export function checkEmbeddings(found: readonly Embedding[], expect: Expect): void {
  const listed = found.map(({ name, base, vectorCount, fits }) => ({
    name,
    base,
    vector_count: vectorCount,
    fits,
  }));
  assert.deepEqual(listed, expect.embeddings);
  for (const { sha256, refusal, fits } of found) {
    assert.equal(sha256.length, 64);
    assert.equal(refusal === "", fits);
  }
}
