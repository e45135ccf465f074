/** What `expect` of a case says, held against what came. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";

import { SdgrpcError } from "../../src/index.js";
import type { Event } from "../../src/index.js";
import type {
  Accepted,
  GeneratedImage,
  LoraReport,
  PlanJobResponse,
  PlannedLora,
  Prepared,
  Preview,
  Progress,
} from "../../src/v1.js";
import type { Expect } from "./table.js";

interface Told {
  readonly accepted: Accepted;
  readonly prepared: Prepared;
  readonly progress: readonly Progress[];
  readonly images: readonly GeneratedImage[];
}

/** Checks a finished job's events by the grammar and the table; returns the images by index. */
export function checkEvents(events: readonly Event[], expect: Expect): readonly GeneratedImage[] {
  checkEnvelopes(events, expect.request_id);
  const told = sorted(events);
  checkAccepted(told.accepted, expect);
  checkSteps(told);
  checkImages(told, expect);
  checkLoras(told.prepared, expect);
  checkPreviews(told, expect);
  return told.images;
}

export function hashesOf(images: readonly GeneratedImage[]): string[] {
  return images.map((image) => createHash("sha256").update(image.image!.data).digest("hex"));
}

/** Checks a failure and all of its details. */
export function checkFailure(failure: unknown, expect: Expect): asserts failure is SdgrpcError {
  assert.ok(failure instanceof SdgrpcError, `${String(failure)} instead of ${expect.outcome}`);
  assert.equal(failure.code, expect.outcome, failure.message);
  assert.notEqual(failure.message, "");
  assert.equal(failure.reason, expect.reason);
  for (const [key, value] of Object.entries(expect.metadata ?? {})) {
    assert.equal(failure.metadata[key], value);
  }
  assert.deepEqual(failure.resource, expect.resource);
  assert.equal((failure.retryAfterMs ?? 0) > 0, expect.retry ?? false);
  const fields = failure.violations.map(({ field }) => field);
  assert.deepEqual(new Set(fields), new Set(expect.violations ?? []));
  assert.ok(failure.violations.every(({ description }) => description !== ""));
}

function checkEnvelopes(events: readonly Event[], requestId: string | undefined): void {
  for (const [index, event] of events.entries()) {
    assert.equal(event.sequence, BigInt(index));
    assert.equal(event.requestId, requestId ?? events[0]!.requestId);
    assert.notEqual(event.requestId, "");
  }
}

function sorted(events: readonly Event[]): Told {
  const [accepted, prepared, ...rest] = events;
  const finished = rest.pop();
  assert.ok(accepted?.kind === "accepted" && prepared?.kind === "prepared" && finished?.kind === "finished");
  const progress: Progress[] = [];
  const images: GeneratedImage[] = [];
  for (const event of rest) {
    if (event.kind === "progress") {
      progress.push(event.value);
    } else {
      assert.ok(event.kind === "image", `${event.kind} in the middle`);
      images.push(event.value);
    }
  }
  images.sort((one, other) => one.index - other.index);
  return { accepted: accepted.value, prepared: prepared.value, progress, images };
}

function checkAccepted(accepted: Accepted, expect: Expect): void {
  for (const key of ["model", "width", "height"] as const) {
    if (expect[key] !== undefined) {
      assert.equal(accepted[key], expect[key]);
    }
  }
  if (expect.step_count !== undefined) {
    assert.equal(accepted.stepCount, expect.step_count);
  }
  const second = accepted.secondPass;
  assert.deepEqual(
    second && { width: second.width, height: second.height, strength: second.strength, steps: second.steps },
    expect.second_pass,
  );
  const fields = accepted.warnings.map((sentence) => sentence.split(":")[0]);
  assert.deepEqual(fields, expect.warnings ?? []);
}

function checkSteps({ accepted, progress }: Told): void {
  const steps = progress.map(({ step, stepCount }) => [step, stepCount]);
  const { stepCount } = accepted;
  assert.deepEqual(
    steps,
    Array.from({ length: stepCount }, (_, index) => [index + 1, stepCount]),
  );
}

function checkImages({ accepted, images }: Told, expect: Expect): void {
  assert.equal(images.length, accepted.sampling?.imageCount);
  for (const [index, { index: told, image }] of images.entries()) {
    assert.equal(told, index);
    assert.ok(image !== undefined && image.data.length > 0);
    const size = accepted.secondPass ?? accepted;
    assert.deepEqual([image.width, image.height], [size.width, size.height]);
    assert.equal(image.mediaType, expect.media_type ?? image.mediaType);
  }
  const strengths = images.flatMap(({ loraStrength }) => (loraStrength === undefined ? [] : [loraStrength]));
  assert.deepEqual(strengths, expect.lora_strengths ?? []);
  if (expect.seeds !== undefined) {
    assert.deepEqual(
      images.map(({ seed }) => Number(seed)),
      expect.seeds,
    );
    assert.equal(Number(accepted.sampling?.seed), expect.seeds[0]);
  }
}

function checkLoras(prepared: Prepared, expect: Expect): void {
  checkEach(prepared.loras, expect);
  assert.ok(prepared.loras.every(({ modules }) => Object.keys(modules).length > 0));
  assert.equal(prepared.loraSetId === "", prepared.loras.length === 0);
}

/** What reports and plans have in common. */
function checkEach(found: readonly (LoraReport | PlannedLora)[], expect: Expect): void {
  const expected = expect.loras ?? [];
  const told = found.map(({ name, strength, textEncoderStrength, steps }, index) => ({
    name,
    strength,
    text_encoder_strength: textEncoderStrength,
    ...(expected[index]?.steps && { steps: steps.map(({ first, last }) => [first, last]) }),
  }));
  assert.deepEqual(told, expected);
  assert.ok(found.every(({ sha256 }) => sha256.length === 64));
}

/** Checks what would be accepted, its steps and LoRAs. */
export function checkPlan(plan: PlanJobResponse, expect: Expect): void {
  checkAccepted(plan.accepted!, expect);
  assert.deepEqual([plan.unetSteps, plan.guidedSteps], [expect.unet_steps, expect.guided_steps]);
  checkEach(plan.loras, expect);
  assert.ok(plan.loras.every(({ refusal }) => refusal === ""));
}

function checkPreviews({ accepted, progress, images }: Told, { previews: expected }: Expect): void {
  const shown = progress.filter(({ previews }) => previews.length > 0);
  assert.equal(shown.at(-1)?.step, expected?.steps.at(-1));
  for (const { step, previews } of shown) {
    assert.ok(expected?.steps.includes(step), `previews with step ${step}`);
    assert.deepEqual(
      previews.map(({ imageIndex }) => imageIndex),
      images.map(({ index }) => index),
    );
    for (const preview of previews) {
      checkPreview(preview, expected!.content, accepted);
    }
  }
}

function checkPreview({ content }: Preview, expected: "picture" | "latent", accepted: Accepted): void {
  assert.equal(content.case, expected);
  if (content.case === "picture") {
    assert.ok(content.value.data.length > 0);
  } else if (content.case === "latent") {
    const { channels, height, width, data } = content.value;
    assert.deepEqual([8 * width, 8 * height], [accepted.width, accepted.height]);
    assert.equal(data.length, 2 * channels * height * width);
  }
}
