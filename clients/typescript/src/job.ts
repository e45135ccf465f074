/** A job on the server, as the events that it tells. */

import { SdgrpcError, deadlineExceeded, errorOf, incomplete } from "./errors.js";
import { Collector, eventOf } from "./events.js";
import type { Event, Result } from "./events.js";
import type { GeneratedImage, JobEvent } from "./gen/sdgrpc/v1/diffusion_pb.js";
import { Resumption } from "./resume.js";

/** How a call is made. */
export interface CallOptions {
  /** Ends the call; a job that is not kept is cancelled by that. */
  readonly signal?: AbortSignal | undefined;
  /** The deadline, for a job in all, however often it is resumed. */
  readonly timeoutMs?: number | undefined;
}

/** What a job is read from, again where it was cut. */
export interface Source {
  open(options: CallOptions): AsyncIterable<JobEvent>;
  /** Becomes the source that goes on after this event. */
  note(message: JobEvent): void;
  /** Whether it asks for the events after one alone. */
  readonly isPartial: boolean;
  /** The id of a job that the server keeps; empty for others. */
  readonly keptId: string;
  /** Ends a job that the server keeps. */
  cancelKept(requestId: string): Promise<void>;
}

/**
 * A job: iterate its events, or wait for its images. The call is made when either begins.
 *
 * Leaving the loop cancels it, unless its request has `OnDisconnect.KEEP`. A call that is cut once its job was
 * accepted is resumed, see {@link ClientOptions.resumeMs}. Iterating and waiting reject with an
 * {@link SdgrpcError} if the call fails.
 */
export class Job implements AsyncIterable<Event> {
  readonly #source: Source;
  readonly #resumption: Resumption;
  readonly #collector = new Collector();
  readonly #abort = new AbortController();
  readonly #events: AsyncGenerator<Event, void>;

  /** @internal */
  constructor(source: Source, options: CallOptions, patienceMs: number) {
    this.#source = source;
    this.#resumption = new Resumption(patienceMs, options.timeoutMs);
    this.#events = this.#read(options.signal);
  }

  /** The events that were not read yet; there is one stream of them. */
  [Symbol.asyncIterator](): AsyncGenerator<Event, void> {
    return this.#events;
  }

  /** Waits for the end of the job; events that were read before count. */
  async result(): Promise<Result> {
    for await (const _ of this.#events) {
      continue;
    }
    const result = this.#collector.result();
    if (result === undefined) {
      throw incomplete();
    }
    return result;
  }

  /** Waits for the end of the job, and returns its images in order. */
  async images(): Promise<readonly GeneratedImage[]> {
    return (await this.result()).images;
  }

  /** Cancels the job: the server ends it before its next step. Does nothing after its end. */
  async cancel(): Promise<void> {
    this.close();
    if (this.#source.keptId !== "" && !this.#resumption.finished) {
      await this.#source.cancelKept(this.#source.keptId);
    }
  }

  /** Leaves a job that is kept, once it is accepted; the id by which {@link Client.attach} finds it. */
  async detach(): Promise<string> {
    if (this.#source.keptId === "") {
      throw new TypeError("a job that is to be left is sent with onDisconnect: OnDisconnect.KEEP");
    }
    if (this.#resumption.sawNothing) {
      await this.#events.next();
    }
    this.close();
    return this.#source.keptId;
  }

  /** Closes the call: a job that is not kept is cancelled, one that is goes on. */
  close(): void {
    this.#abort.abort();
  }

  async *#read(signal: AbortSignal | undefined): AsyncGenerator<Event, void> {
    const follow = () => this.#abort.abort(signal?.reason);
    signal?.addEventListener("abort", follow);
    try {
      if (signal?.aborted === true) {
        follow();
      }
      for (;;) {
        const failure = yield* this.#readCall();
        if (failure === undefined) {
          return;
        }
        const wait = this.#resumption.waitAfterMs(failure);
        if (wait === undefined) {
          throw this.#resumption.failureAfter(failure);
        }
        await this.#pause(wait);
      }
    } finally {
      signal?.removeEventListener("abort", follow);
      this.#abort.abort();
    }
  }

  /** Reads one call to its end; what cut it, if it is not the job's end. */
  async *#readCall(): AsyncGenerator<Event, SdgrpcError | undefined> {
    const timeoutMs = this.#resumption.timeLeftMs();
    try {
      this.#abort.signal.throwIfAborted();
      if (timeoutMs === 0) {
        throw deadlineExceeded();
      }
      for await (const message of this.#source.open({ signal: this.#abort.signal, timeoutMs })) {
        if (this.#resumption.isNew(message)) {
          this.#source.note(message);
          const event = eventOf(message);
          if (event !== undefined) {
            this.#collector.take(event);
            yield event;
          }
        }
      }
    } catch (failure) {
      return this.#abort.signal.aborted ? this.#aborted() : errorOf(failure);
    }
    const isWhole = this.#resumption.finished || (this.#source.isPartial && this.#resumption.sawNothing);
    return isWhole ? undefined : incomplete();
  }

  /** Waits, and rejects if the job is closed meanwhile. */
  async #pause(milliseconds: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const signal = this.#abort.signal;
      const end = () => {
        clearTimeout(timer);
        reject(this.#aborted());
      };
      const timer = setTimeout(() => {
        signal.removeEventListener("abort", end);
        resolve();
      }, milliseconds);
      signal.addEventListener("abort", end, { once: true });
    });
  }

  #aborted(): SdgrpcError {
    const cause: unknown = this.#abort.signal.reason;
    const isTimeout = cause instanceof Error && cause.name === "TimeoutError";
    return isTimeout
      ? deadlineExceeded(cause)
      : new SdgrpcError("CANCELLED", "cancelled by this client", { cause });
  }
}
