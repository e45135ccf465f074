/** Servers in this process that answer what a test tells them. */

import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { ConnectError, createRouterTransport } from "@connectrpc/connect";
import type { Code, HandlerContext } from "@connectrpc/connect";

import { Client } from "../src/index.js";
import type { ClientOptions, Event, Job } from "../src/index.js";
import { CatalogService, ClusterService, DiffusionService, JobEventSchema, JobService } from "../src/v1.js";
import type { GenerateRequest, JobEvent } from "../src/v1.js";

export type Answer = (request: GenerateRequest, context: HandlerContext) => AsyncIterable<JobEvent>;

/** A client of a server that answers every call that draws in one way; `requests` are those that it got. */
export function drawing(
  answer: Answer,
  options: ClientOptions = {},
): { client: Client; requests: GenerateRequest[]; contexts: HandlerContext[] } {
  const requests: GenerateRequest[] = [];
  const contexts: HandlerContext[] = [];
  const all = (request: unknown, context: HandlerContext) => {
    requests.push(structuredClone(request) as GenerateRequest);
    contexts.push(context);
    return answer(request as GenerateRequest, context);
  };
  const transport = createRouterTransport(({ service }) => {
    service(DiffusionService, { generate: all, transform: all, inpaint: all });
    service(JobService, {
      attachJob: all,
      cancelJob: (_, context) => {
        contexts.push(context);
        return {};
      },
    });
    service(ClusterService, {
      drainReplicas: ({ name }) => ({ replicas: [`${name}-0`] }),
      scaleReplicas: ({ least, most }) => ({ replicas: 10 * least + most }),
    });
    service(CatalogService, {
      listLoras: ({ pageToken }) =>
        pageToken === ""
          ? { loras: [{ name: "ink" }, { name: "postcard" }], nextPageToken: "2" }
          : { loras: [{ name: "sepia" }] },
      listModels: (_, context) => {
        contexts.push(context);
        return { models: [{ name: "embedded" }], loraStrengthRange: { minimum: -0.5, maximum: 2 } };
      },
      prepareLoras: (_, context) => {
        contexts.push(context);
        return { prepared: { loraSetId: "set" } };
      },
      async *watchStatus() {
        yield { ready: false };
        yield { ready: true, running: 1 };
      },
    });
  });
  return { client: new Client("http://unused", { transport, ...options }), requests, contexts };
}

/** A job's stream: accepted, prepared, two steps, two images, finished. */
export function whole(): JobEvent[] {
  const events: MessageInitShape<typeof JobEventSchema>["event"][] = [
    { case: "accepted", value: { stepCount: 2, sampling: { seed: 1234n, imageCount: 2 } } },
    { case: "prepared", value: {} },
    { case: "progress", value: { step: 1, stepCount: 2 } },
    { case: "progress", value: { step: 2, stepCount: 2 } },
    { case: "image", value: { index: 1 } },
    { case: "image", value: { index: 0 } },
    { case: "finished", value: {} },
  ];
  return events.map((event, sequence) =>
    create(JobEventSchema, { requestId: "made-up", sequence: BigInt(sequence), event: event! }),
  );
}

/** Answers that end after so many events, one number per call, and then whole ones. */
export function cutting(cuts: number[], code?: Code): Answer {
  return async function* () {
    const cut = cuts.shift() ?? Infinity;
    for (const [count, event] of whole().entries()) {
      if (count === cut) {
        if (code !== undefined) {
          throw new ConnectError("the connection broke", code);
        }
        return;
      }
      yield event;
    }
  };
}

/** Reads a job to its end. */
export async function read(job: Job): Promise<Event[]> {
  const events: Event[] = [];
  for await (const event of job) {
    events.push(event);
  }
  return events;
}

/** An answer that accepts, and waits until its caller goes away; `gone` resolves then. */
export function hanging(): { answer: Answer; gone: Promise<void> } {
  let tell: () => void;
  const gone = new Promise<void>((resolve) => (tell = resolve));
  return {
    gone,
    answer: async function* (_, { signal }) {
      signal.addEventListener("abort", () => tell());
      yield whole()[0]!;
      await gone;
    },
  };
}
