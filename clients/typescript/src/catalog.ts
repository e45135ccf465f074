/** What a server has. */

import { createClient } from "@connectrpc/connect";
import type { Client as Stub, Transport } from "@connectrpc/connect";
import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";

import { SdgrpcError, errorOf } from "./errors.js";
import {
  CatalogService,
  ListLorasRequestSchema,
  PlanJobRequestSchema,
  PrepareLorasRequestSchema,
} from "./gen/sdgrpc/v1/catalog_pb.js";
import type {
  Embedding,
  GetLoraRequestSchema,
  GetLoraResponse,
  ListEmbeddingsRequestSchema,
  LoraFile,
  LoraStrengthRange,
  Model,
  PlanJobResponse,
  WatchStatusResponse,
  Upscaler,
} from "./gen/sdgrpc/v1/catalog_pb.js";
import type { Prepared } from "./gen/sdgrpc/v1/diffusion_pb.js";
import type { CallOptions } from "./job.js";
import { loraSetHeaders } from "./routing.js";

const POLL_MS = 200;
/** The header takes eight digits. */
const LONGEST_TIMEOUT_MS = 99_999_999;

/** The catalog's calls. Each rejects with an {@link SdgrpcError} if it fails. */
export abstract class CatalogCalls {
  readonly #catalog: Stub<typeof CatalogService>;

  constructor(
    transport: Transport,
    protected readonly headers: Readonly<Record<string, string>>,
  ) {
    this.#catalog = createClient(CatalogService, transport);
  }

  /** The models that requests can name, the default first. */
  async listModels(options: CallOptions = {}): Promise<Model[]> {
    return (await typed(this.#catalog.listModels({}, this.call(options)))).models;
  }

  /** What `UpscaleRequest` and `SecondPass` can name, the default first. */
  async listUpscalers(options: CallOptions = {}): Promise<Upscaler[]> {
    return (await typed(this.#catalog.listModels({}, this.call(options)))).upscalers;
  }

  /** The strengths of LoRAs that the server takes, both ends included. */
  async loraStrengthRange(options: CallOptions = {}): Promise<LoraStrengthRange | undefined> {
    return (await typed(this.#catalog.listModels({}, this.call(options)))).loraStrengthRange;
  }

  /** The LoRA files by name; the next page is asked for when it is needed. */
  async *listLoras(
    request: MessageInitShape<typeof ListLorasRequestSchema> = {},
    options: CallOptions = {},
  ): AsyncGenerator<LoraFile, void> {
    let pageToken = request.pageToken ?? "";
    do {
      const page = await typed(
        this.#catalog.listLoras(
          create(ListLorasRequestSchema, { ...request, pageToken } as typeof request),
          this.call(options),
        ),
      );
      yield* page.loras;
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
  }

  /** The textual inversions, whose names are words of prompts, by name. */
  async listEmbeddings(
    request: MessageInitShape<typeof ListEmbeddingsRequestSchema> = {},
    options: CallOptions = {},
  ): Promise<Embedding[]> {
    return (await typed(this.#catalog.listEmbeddings(request, this.call(options)))).embeddings;
  }

  /** Describes one LoRA file. */
  getLora(
    request: MessageInitShape<typeof GetLoraRequestSchema>,
    options: CallOptions = {},
  ): Promise<GetLoraResponse> {
    return typed(this.#catalog.getLora(request, this.call(options)));
  }

  /** Fuses a LoRA set ahead of its first use; what a job with it will be told. */
  async prepareLoras(
    request: MessageInitShape<typeof PrepareLorasRequestSchema>,
    options: CallOptions = {},
  ): Promise<Prepared> {
    const message = create(PrepareLorasRequestSchema, request);
    const headers = loraSetHeaders(message.model, message.loras);
    const { prepared } = await typed(this.#catalog.prepareLoras(message, this.call(options, headers)));
    if (prepared === undefined) {
      throw new SdgrpcError("DATA_LOSS", "the answer has no `prepared`", { reason: "INCOMPLETE_ANSWER" });
    }
    return prepared;
  }

  /** What a request would do, without drawing it. */
  async planJob(
    request: MessageInitShape<typeof PlanJobRequestSchema>,
    options: CallOptions = {},
  ): Promise<PlanJobResponse> {
    const message = create(PlanJobRequestSchema, request);
    const drawn = message.request.value;
    const headers = drawn === undefined ? {} : loraSetHeaders(drawn.model, drawn.loras, drawn.prompt);
    return typed(this.#catalog.planJob(message, this.call(options, headers)));
  }

  /** The server's state now and whenever it changes; leaving the loop ends the call. */
  async *watchStatus(
    options: CallOptions & { readonly minIntervalMs?: number } = {},
  ): AsyncGenerator<WatchStatusResponse, void> {
    const { minIntervalMs: interval, ...call } = options;
    const abort = new AbortController();
    const signal = call.signal ? AbortSignal.any([call.signal, abort.signal]) : abort.signal;
    const request = interval === undefined ? {} : { minInterval: durationFromMs(interval) };
    try {
      yield* this.#catalog.watchStatus(request, this.call({ ...call, signal }));
    } catch (failure) {
      throw errorOf(failure);
    } finally {
      abort.abort();
    }
  }

  /** Resolves once the server takes jobs; until then it may refuse connections, answer, or break off. */
  async waitUntilReady(options: CallOptions = {}): Promise<void> {
    const { timeoutMs = 60_000, signal } = options;
    const until = performance.now() + timeoutMs;
    for (let left = timeoutMs; left > 0; left = until - performance.now()) {
      try {
        for await (const { ready } of this.watchStatus({ signal, timeoutMs: left })) {
          if (ready) {
            return;
          }
        }
      } catch (failure) {
        const { code } = errorOf(failure);
        if (code !== "UNAVAILABLE" && code !== "DEADLINE_EXCEEDED") {
          throw failure;
        }
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    throw new SdgrpcError("UNAVAILABLE", `the server was not ready within ${timeoutMs / 1000} s`);
  }

  /**
   * Always rejects: gRPC-Web has no streams from the client. Bring LoRA files by `sdgrpc loras upload` or one of the
   * other clients; requests name them by hash, or hold small ones themselves.
   */
  uploadLora(): Promise<never> {
    const how = "use `sdgrpc loras upload` or the client for Python, Go or Rust";
    const why = "UploadLora is a stream from the client, which gRPC-Web does not have";
    return Promise.reject(new SdgrpcError("UNIMPLEMENTED", `${why}: ${how}`));
  }

  /** What connect is told. */
  protected call(options: CallOptions, more: Readonly<Record<string, string>> = {}) {
    const { signal, timeoutMs } = options;
    return {
      headers: { ...this.headers, ...more },
      ...(signal === undefined ? {} : { signal }),
      ...(timeoutMs === undefined ? {} : { timeoutMs: Math.min(Math.ceil(timeoutMs), LONGEST_TIMEOUT_MS) }),
    };
  }
}

/** Types the failure of a call. */
export async function typed<Answer>(call: Promise<Answer>): Promise<Answer> {
  try {
    return await call;
  } catch (failure) {
    throw errorOf(failure);
  }
}
