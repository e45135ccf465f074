// What failures tell.

import assert from "node:assert/strict";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { test } from "node:test";

import { Code, ConnectError } from "@connectrpc/connect";

import { Client, SdgrpcError } from "../src/index.js";
import { errorOf } from "../src/errors.js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  ResourceInfoSchema,
  RetryInfoSchema,
} from "../src/gen/google/rpc/error_details_pb.js";
import { drawing } from "./fake.js";

test("every detail is told", async () => {
  const { client } = drawing(() => {
    throw new ConnectError("two fields are wrong", Code.InvalidArgument, undefined, [
      {
        desc: ErrorInfoSchema,
        value: { reason: "INVALID_REQUEST", domain: "sdgrpc", metadata: { lora: "ink" } },
      },
      {
        desc: BadRequestSchema,
        value: { fieldViolations: [{ field: "sampling.steps", description: "999 is above 150" }] },
      },
      { desc: ResourceInfoSchema, value: { resourceType: "sdgrpc.v1.Lora", resourceName: "ink" } },
      { desc: RetryInfoSchema, value: { retryDelay: { seconds: 1n, nanos: 500_000_000 } } },
    ]);
  });
  await assert.rejects(client.generate({}).images(), (error: unknown) => {
    assert.ok(error instanceof SdgrpcError);
    assert.equal(error.code, "INVALID_ARGUMENT");
    assert.equal(error.message, "two fields are wrong");
    assert.equal(error.reason, "INVALID_REQUEST");
    assert.deepEqual(error.metadata, { lora: "ink" });
    assert.deepEqual(error.violations, [{ field: "sampling.steps", description: "999 is above 150" }]);
    assert.deepEqual(error.resource, { type: "sdgrpc.v1.Lora", name: "ink" });
    assert.equal(error.retryAfterMs, 1500);
    return true;
  });
});

test("codes have gRPC's names", () => {
  const names = Object.values(Code).filter((code) => typeof code === "number");
  assert.deepEqual(
    names.map((code) => errorOf(new ConnectError("", code)).code),
    [
      ...["CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"],
      ...["PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE"],
      ...["UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"],
    ],
  );
});

test("without a server a call is unavailable, and says why", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  await assert.rejects(new Client(`127.0.0.1:${port}`).listModels(), (error: unknown) => {
    assert.ok(error instanceof SdgrpcError);
    assert.equal(error.code, "UNAVAILABLE");
    assert.match(error.message, /ECONNREFUSED/);
    return true;
  });
});

test("a token that no header carries is refused, and not quoted", () => {
  for (const token of ["", "two words", "line\nbreak", "Ä"]) {
    assert.throws(
      () => new Client("localhost:1", { token }),
      (error: unknown) => error instanceof TypeError && (token === "" || !error.message.includes(token)),
    );
  }
});
