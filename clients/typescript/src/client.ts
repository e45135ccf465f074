/** The client: drawing, and jobs that outlive their connection. */

import { clone, create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import type { Client as Stub, Transport } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

import { CatalogCalls, typed } from "./catalog.js";
import { errorOf, SdgrpcError } from "./errors.js";
import {
  DiffusionService,
  GenerateRequestSchema,
  InpaintRequestSchema,
  TransformRequestSchema,
} from "./gen/sdgrpc/v1/diffusion_pb.js";
import type { UpscaleEvent, UpscaleRequestSchema } from "./gen/sdgrpc/v1/diffusion_pb.js";
import { ClusterService } from "./gen/sdgrpc/v1/cluster_pb.js";
import { AttachJobRequestSchema, JobService } from "./gen/sdgrpc/v1/jobs_pb.js";
import type { Job as KeptJob } from "./gen/sdgrpc/v1/jobs_pb.js";
import { Job } from "./job.js";
import type { CallOptions } from "./job.js";
import { PATIENCE_MS } from "./resume.js";
import { jobHeaders } from "./routing.js";
import { AttachedSource, DrawnSource } from "./sources.js";

/** How a server is reached. */
export interface ClientOptions {
  /** Sent with every call as `authorization: Bearer …`. */
  readonly token?: string | undefined;
  /**
   * For how long a call is tried again that was cut once its job was accepted, by the end of its server or of the
   * connection, until a server takes it; 10,000 unless set, 0 for never. The same request is sent with the seed and
   * the id that `accepted` told, and events that were seen are left out. With a server that shares no UNet calls
   * (`--no-batching`) the pictures are the same to the byte.
   */
  readonly resumeMs?: number | undefined;
  /** What to use instead of the platform's `fetch`. */
  readonly fetch?: typeof globalThis.fetch | undefined;
  /** What to use instead of gRPC-Web over `fetch`: any of connect's transports. */
  readonly transport?: Transport | undefined;
}

/** Draws on a server that is reached by gRPC-Web, as through Envoy, and asks what it has. */
export class Client extends CatalogCalls {
  readonly #diffusion: Stub<typeof DiffusionService>;
  readonly #jobs: Stub<typeof JobService>;
  readonly #cluster: Stub<typeof ClusterService>;
  readonly #patienceMs: number;

  /**
   * `address` is `http://…`, `https://…`, or `HOST:PORT` in plain text.
   *
   * @throws TypeError the token has characters that a header cannot carry.
   */
  constructor(address: string, options: ClientOptions = {}) {
    const baseUrl = address.includes("://") ? address : `http://${address}`;
    const { token, fetch } = options;
    const transport = options.transport ?? createGrpcWebTransport({ baseUrl, ...(fetch ? { fetch } : {}) });
    super(transport, token === undefined ? {} : { authorization: `Bearer ${checked(token)}` });
    this.#diffusion = createClient(DiffusionService, transport);
    this.#jobs = createClient(JobService, transport);
    this.#cluster = createClient(ClusterService, transport);
    this.#patienceMs = options.resumeMs ?? PATIENCE_MS;
  }

  /** Draws images from a prompt. */
  generate(request: MessageInitShape<typeof GenerateRequestSchema>, options: CallOptions = {}): Job {
    const message = clone(GenerateRequestSchema, create(GenerateRequestSchema, request));
    return this.#draw(message, (call) => this.#diffusion.generate(message, call), options);
  }

  /** Redraws an image under a prompt (img2img). */
  transform(request: MessageInitShape<typeof TransformRequestSchema>, options: CallOptions = {}): Job {
    const message = clone(TransformRequestSchema, create(TransformRequestSchema, request));
    return this.#draw(message, (call) => this.#diffusion.transform(message, call), options);
  }

  /** Redraws the masked part of an image under a prompt. */
  inpaint(request: MessageInitShape<typeof InpaintRequestSchema>, options: CallOptions = {}): Job {
    const message = clone(InpaintRequestSchema, create(InpaintRequestSchema, request));
    return this.#draw(message, (call) => this.#diffusion.inpaint(message, call), options);
  }

  /**
   * Enlarges a picture by one of the server's upscalers: `accepted`, `progress` for each tile, and the `image`. Leaving
   * the loop ends the call. A call that is cut is not made again.
   */
  async *upscale(
    request: MessageInitShape<typeof UpscaleRequestSchema>,
    options: CallOptions = {},
  ): AsyncGenerator<UpscaleEvent, void> {
    const abort = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, abort.signal]) : abort.signal;
    try {
      yield* this.#diffusion.upscale(request, this.call({ ...options, signal }));
    } catch (failure) {
      throw errorOf(failure);
    } finally {
      abort.abort();
    }
  }

  /**
   * Finds a job again that was sent with `OnDisconnect.KEEP`. Its events come from the first on, or after the one of
   * `afterSequence`; leaving the loop changes nothing for the job.
   */
  attach(request: MessageInitShape<typeof AttachJobRequestSchema>, options: CallOptions = {}): Job {
    const message = clone(AttachJobRequestSchema, create(AttachJobRequestSchema, request));
    const source = new AttachedSource(
      message,
      (call, headers) => this.#jobs.attachJob(message, this.call(call, headers)),
      this.#cancelKept,
    );
    return new Job(source, options, this.#patienceMs);
  }

  /** This caller's jobs that the server keeps, the oldest first. */
  async listJobs(options: CallOptions = {}): Promise<KeptJob[]> {
    return (await typed(this.#jobs.listJobs({}, this.call(options)))).jobs;
  }

  /**
   * Lets a replica go, or all of the node of that address, once its jobs have ended: those that leave. The operator has to
   * allow it (`cluster_control`).
   */
  async drainReplicas(name: string, options: CallOptions = {}): Promise<string[]> {
    return (await typed(this.#cluster.drainReplicas({ name }, this.call(options)))).replicas;
  }

  /**
   * Keeps `least` replicas, up to `most` as the queue asks for (0 is `least`): how many there were. The operator has to
   * allow it (`cluster_control`).
   */
  async scaleReplicas(least: number, most = 0, options: CallOptions = {}): Promise<number> {
    return (await typed(this.#cluster.scaleReplicas({ least, most }, this.call(options)))).replicas;
  }

  /** Ends a job that the server keeps before its next step; what it was before. One that has ended stays as it is. */
  async cancelJob(requestId: string, options: CallOptions = {}): Promise<KeptJob | undefined> {
    const call = this.call(options, jobHeaders(requestId));
    return (await typed(this.#jobs.cancelJob({ requestId }, call))).job;
  }

  #draw(
    message: ConstructorParameters<typeof DrawnSource>[0],
    send: (call: ReturnType<Client["call"]>) => ReturnType<Stub<typeof DiffusionService>["generate"]>,
    options: CallOptions,
  ): Job {
    const open = (call: CallOptions, headers: Record<string, string>) => send(this.call(call, headers));
    return new Job(new DrawnSource(message, open, this.#cancelKept), options, this.#patienceMs);
  }

  readonly #cancelKept = async (requestId: string): Promise<void> => {
    try {
      await this.cancelJob(requestId, { timeoutMs: PATIENCE_MS });
    } catch (failure) {
      if (!(failure instanceof SdgrpcError && failure.reason === "JOB_NOT_FOUND")) {
        throw failure;
      }
    }
  };
}

/** Refuses a token that a header cannot carry, without saying it. */
function checked(token: string): string {
  if (!/^[!-~]+$/.test(token)) {
    throw new TypeError("the token must be printable ASCII without spaces");
  }
  return token;
}
