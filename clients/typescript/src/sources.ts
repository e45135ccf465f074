/** What jobs are read from: a request that draws, or a job that is kept. */

import { create } from "@bufbuild/protobuf";
import { bytesToHex, randomBytes } from "@noble/hashes/utils.js";

import { OnDisconnect, SamplingSchema } from "./gen/sdgrpc/v1/diffusion_pb.js";
import type { JobEvent } from "./gen/sdgrpc/v1/diffusion_pb.js";
import type { AttachJobRequest } from "./gen/sdgrpc/v1/jobs_pb.js";
import type { CallOptions, Source } from "./job.js";
import { drawingHeaders, jobHeaders } from "./routing.js";
import type { Drawing } from "./routing.js";

type Open = (options: CallOptions, headers: Record<string, string>) => AsyncIterable<JobEvent>;
type CancelKept = (requestId: string) => Promise<void>;

/** A request that draws; it becomes the one that goes on. */
export class DrawnSource implements Source {
  readonly isPartial = false;

  constructor(
    private readonly request: Drawing,
    private readonly send: Open,
    readonly cancelKept: CancelKept,
  ) {
    if (this.#keeps && request.requestId === "") {
      request.requestId = bytesToHex(randomBytes(16)); // proxies find the job by it
    }
  }

  get keptId(): string {
    return this.#keeps ? this.request.requestId : "";
  }

  open(options: CallOptions): AsyncIterable<JobEvent> {
    return this.send(options, drawingHeaders(this.request));
  }

  note({ requestId, event }: JobEvent): void {
    const seed = event.case === "accepted" ? event.value.sampling?.seed : undefined;
    if (seed !== undefined) {
      this.request.requestId = requestId;
      this.request.sampling ??= create(SamplingSchema);
      this.request.sampling.seed = seed;
    }
  }

  get #keeps(): boolean {
    return this.request.onDisconnect === OnDisconnect.KEEP;
  }
}

/** A job that the server keeps. */
export class AttachedSource implements Source {
  constructor(
    private readonly request: AttachJobRequest,
    private readonly send: Open,
    readonly cancelKept: CancelKept,
  ) {}

  get isPartial(): boolean {
    return this.request.afterSequence !== undefined;
  }

  get keptId(): string {
    return this.request.requestId;
  }

  open(options: CallOptions): AsyncIterable<JobEvent> {
    return this.send(options, jobHeaders(this.request.requestId));
  }

  note({ sequence }: JobEvent): void {
    this.request.afterSequence = sequence;
  }
}
