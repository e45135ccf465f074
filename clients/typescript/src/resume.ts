/** What of a job was seen, and how a call that was cut goes on. */

import { deadlineExceeded } from "./errors.js";
import type { SdgrpcError } from "./errors.js";
import type { JobEvent } from "./gen/sdgrpc/v1/diffusion_pb.js";

/** For how long a call that was cut is tried again until a server takes it. */
export const PATIENCE_MS = 10_000;

/** How often a job is begun anew: what ends server after server is not to end all of them. */
const MOST_RESUMPTIONS = 5;
const FIRST_WAIT_MS = 100;
const LONGEST_WAIT_MS = 2_000;
/** By what a proxy's clock may run ahead of ours: a reset so close to the deadline is it. */
const CLOCK_TOLERANCE_MS = 50;

/** Decides what is new, and whether to go on. */
export class Resumption {
  finished = false;
  readonly #seen = new Set<string>();
  readonly #deadline: number | undefined;
  #firstFailure: SdgrpcError | undefined;
  #cutAt = 0;
  #wait = FIRST_WAIT_MS;
  #count = 0;

  constructor(
    readonly patienceMs: number,
    timeoutMs: number | undefined,
    readonly now: () => number = () => performance.now(),
  ) {
    this.#deadline = timeoutMs === undefined ? undefined : now() + timeoutMs;
  }

  /** Nothing of the job was seen yet. */
  get sawNothing(): boolean {
    return this.#seen.size === 0;
  }

  /** The timeout of the next call. */
  timeLeftMs(): number | undefined {
    return this.#deadline === undefined ? undefined : Math.max(this.#deadline - this.now(), 0);
  }

  /** Takes note of an event; whether it was not seen before. */
  isNew(message: JobEvent): boolean {
    if (this.#firstFailure !== undefined) {
      this.#firstFailure = undefined; // a server has taken it up
      this.#wait = FIRST_WAIT_MS;
      this.#count++;
    }
    const key = keyOf(message);
    const isNew = !this.#seen.has(key);
    this.#seen.add(key);
    this.finished ||= message.event.case === "finished";
    return isNew;
  }

  /** In how long to call again; undefined where the job is over. */
  waitAfterMs(failure: SdgrpcError): number | undefined {
    if (this.sawNothing || this.finished || !isCut(failure) || this.#count >= MOST_RESUMPTIONS) {
      return undefined;
    }
    if (this.#firstFailure === undefined) {
      this.#firstFailure = failure;
      this.#cutAt = this.now();
    }
    const wait = Math.max(this.#wait, failure.retryAfterMs ?? 0);
    this.#wait = Math.min(2 * this.#wait, LONGEST_WAIT_MS);
    if (this.now() + wait - this.#cutAt > this.patienceMs) {
      return undefined;
    }
    const left = this.timeLeftMs();
    return left !== undefined && wait >= left ? undefined : wait;
  }

  /** What ended the job: how it was cut, where nobody took it up, rather than how that failed. */
  failureAfter(failure: SdgrpcError): SdgrpcError {
    const left = this.timeLeftMs();
    if (left !== undefined && left <= CLOCK_TOLERANCE_MS && isReset(failure)) {
      return deadlineExceeded(failure); // a proxy resets the stream then
    }
    return this.#firstFailure !== undefined && isCut(failure) ? this.#firstFailure : failure;
  }
}

/** What an event of a job is, whoever draws it. */
function keyOf({ event, sequence }: JobEvent): string {
  switch (event.case) {
    case "progress":
      return `progress ${event.value.step}`;
    case "image":
      return `image ${event.value.index}`;
    case undefined:
      return `${sequence}`; // of a newer contract
    default:
      return event.case;
  }
}

/** Whether a call ended because its server or connection did, or because there is none yet. */
function isCut(failure: SdgrpcError): boolean {
  return failure.code === "UNAVAILABLE" || failure.reason === "INCOMPLETE_ANSWER" || isReset(failure);
}

/** Whether the stream broke, which is no server's word. */
function isReset(failure: SdgrpcError): boolean {
  return (failure.code === "INTERNAL" || failure.code === "UNKNOWN") && failure.reason === undefined;
}
