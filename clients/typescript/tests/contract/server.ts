/** A real server of sdgrpc, and the real Envoy before it, which speaks gRPC-Web. */

import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { once } from "node:events";
import { createInterface } from "node:readline";

import { ROOT } from "./table.js";

const START_MS = 180_000;
const LISTENING = "listening on ";

export interface Door {
  readonly address: string;
  /** Sends SIGTERM to the server; undefined where somebody else started it. */
  readonly drain: (() => void) | undefined;
  stop(): Promise<void>;
}

/** The Python with which the repository's programs run; undefined where there is none. */
export function pythonOf(): string | undefined {
  const own = `${ROOT}/.venv/bin/python`;
  return process.env["SDGRPC_PYTHON"] ?? (existsSync(own) ? own : undefined);
}

/** Opens a door to `SDGRPC_CONTRACT_SERVER`, or to a server of its own. */
export async function openDoor(python: string, serverArguments: readonly string[]): Promise<Door> {
  const theirs = process.env["SDGRPC_CONTRACT_SERVER"];
  const server =
    theirs === undefined
      ? await start(python, ["-m", "sdgrpc", "serve", "--listen", "127.0.0.1:0", ...serverArguments])
      : undefined;
  const envoy = await start(python, ["-m", "tests.support.envoy", theirs ?? server!.target]).catch(
    async (failure: unknown) => {
      await (server && end(server.process));
      throw failure;
    },
  );
  return {
    address: envoy.target,
    drain: server && (() => server.process.kill("SIGTERM")),
    async stop() {
      await end(envoy.process);
      if (server) {
        await end(server.process);
      }
    },
  };
}

/** Starts a program that prints `listening on HOST:PORT`; its log goes into the failure if it ends before. */
async function start(python: string, programArguments: readonly string[]) {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith("SDGRPC_"));
  const child = spawn(python, programArguments, {
    cwd: ROOT,
    env: Object.fromEntries(kept),
    stdio: ["ignore", "pipe", "pipe"],
  });
  let log = "";
  child.stderr.on("data", (text: Buffer) => (log += text.toString()));
  const alarm = setTimeout(() => child.kill("SIGKILL"), START_MS);
  for await (const line of createInterface(child.stdout)) {
    if (line.startsWith(LISTENING)) {
      clearTimeout(alarm);
      child.stdout.resume();
      return { process: child as ChildProcess, target: line.slice(LISTENING.length).trim() };
    }
  }
  clearTimeout(alarm);
  throw new Error(`${programArguments.join(" ")} did not start:\n${log}`);
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    await ended;
  }
}
