// What calls take along, and the catalog's.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { fromJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";

import { SdgrpcError, latentPixels, lora } from "../src/index.js";
import { GenerateRequestSchema, InpaintRequestSchema, TransformRequestSchema } from "../src/v1.js";
import type { Latent, LatentFormat } from "../src/v1.js";
import { cutting, drawing, read } from "./fake.js";
import { contractFile } from "./contract/table.js";

const NAMES = ["x-sdgrpc-lora-set", "x-sdgrpc-job"];

interface Line {
  readonly name: string;
  readonly request: JsonValue;
  readonly metadata: Readonly<Record<string, string>>;
}

/** What of a call's headers is about routing. */
function told(headers: Headers): Record<string, string> {
  return Object.fromEntries(NAMES.flatMap((name) => (headers.has(name) ? [[name, headers.get(name)!]] : [])));
}

test("calls tell where they belong, as in every language", async () => {
  const lines = JSON.parse(await readFile(contractFile("routing.json"), "utf8")) as Line[];
  for (const { name, request, metadata } of lines) {
    const { client, contexts } = drawing(cutting([]));
    await read(client.generate(fromJson(GenerateRequestSchema, request)));
    await read(client.transform(fromJson(TransformRequestSchema, request)));
    await read(client.inpaint(fromJson(InpaintRequestSchema, request)));
    for (const context of contexts) {
      assert.deepEqual(told(context.requestHeader), metadata, name);
    }
    assert.equal(contexts.length, 3);
  }
});

test("preparing goes where the jobs will, and a token goes with every call", async () => {
  const { client, contexts } = drawing(cutting([]), { token: "s3cret" });
  assert.equal((await client.prepareLoras({ loras: [lora("postcard", 0.75)] })).loraSetId, "set");
  await client.listModels();
  const [prepared, listed] = contexts.map((context) => context.requestHeader);
  assert.deepEqual(told(prepared!), { "x-sdgrpc-lora-set": "0ac6d11f55877e080b950120876286d9" });
  assert.deepEqual(told(listed!), {});
  assert.equal(prepared?.get("authorization"), "Bearer s3cret");
  assert.equal(listed?.get("authorization"), "Bearer s3cret");
});

test("a request that was sent is not changed", async () => {
  const { client } = drawing(cutting([3]));
  const request = fromJson(GenerateRequestSchema, { prompt: "a star" });
  await client.generate(request).images();
  assert.deepEqual(request, fromJson(GenerateRequestSchema, { prompt: "a star" }));
});

test("pages are turned until the last one", async () => {
  const names: string[] = [];
  for await (const file of drawing(cutting([])).client.listLoras({ pageSize: 2 })) {
    names.push(file.name);
  }
  assert.deepEqual(names, ["ink", "postcard", "sepia"]);
});

test("models, strengths, the status, and waiting for it", async () => {
  const { client } = drawing(cutting([]));
  assert.deepEqual(
    (await client.listModels()).map((model) => model.name),
    ["embedded"],
  );
  assert.equal((await client.loraStrengthRange())?.minimum, -0.5);
  for await (const status of client.watchStatus({ minIntervalMs: 100 })) {
    assert.equal(status.ready, false);
    break;
  }
  await client.waitUntilReady({ timeoutMs: 5_000 });
});

test("an upload is refused, with what to do", async () => {
  await assert.rejects(drawing(cutting([])).client.uploadLora(), (error: unknown) => {
    assert.ok(error instanceof SdgrpcError);
    assert.equal(error.code, "UNIMPLEMENTED");
    assert.match(error.message, /sdgrpc loras upload/);
    return true;
  });
});

test("a latent becomes pixels by the model's map", () => {
  // One channel of 1 and -2, and 0.5 as a half of its own; red follows it, green is its opposite, blue is the bias.
  const halves = Uint8Array.from([0x00, 0x3c, 0x00, 0xc0, 0x00, 0x38, 0x01, 0x00]);
  const latent = { channels: 1, height: 1, width: 4, data: halves } as Latent;
  const format = { rgbFactors: [1, -1, 0], rgbBias: [0, 0, 0.5] } as LatentFormat;
  const { data, width, height } = latentPixels(latent, format);
  assert.deepEqual([width, height], [4, 1]);
  assert.deepEqual([...data], [255, 0, 191, 255, 0, 255, 191, 255, 191, 64, 191, 255, 128, 127, 191, 255]);
  assert.throws(() => latentPixels({ ...latent, width: 5 }, format), RangeError);
});

test("replicas are drained by name and scaled between two numbers", async () => {
  const { client } = drawing(cutting([]));
  assert.deepEqual(await client.drainReplicas("node"), ["node-0"]);
  assert.equal(await client.scaleReplicas(2, 5), 25);
});
