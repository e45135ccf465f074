/** Failures of calls, with all that the server says of them. */

import { Code, ConnectError } from "@connectrpc/connect";

import {
  BadRequestSchema,
  ErrorInfoSchema,
  ResourceInfoSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.js";

/** The reasons that a server gives, more closely than its code. */
export const REASONS = [
  "DEADLINE_TOO_SOON",
  "DRAINING",
  "ENGINE_FAILED",
  "INTERNAL",
  "INVALID_REQUEST",
  "JOB_CANCELLED",
  "JOB_EXISTS",
  "JOB_NOT_FOUND",
  "KEEPING_FULL",
  "KEEPING_LOST",
  "KEEPING_OFF",
  "LOADING",
  "LORA_INCOMPATIBLE",
  "LORA_MALFORMED",
  "LORA_NOT_FOUND",
  "LORA_UNSUPPORTED",
  "LORA_UNUSABLE",
  "MODEL_NOT_FOUND",
  "MODEL_UNUSABLE",
  "NOT_AN_INPAINTING_MODEL",
  "NO_CLUSTER",
  "OUT_OF_MEMORY",
  "QUEUE_FULL",
  "READER_STALLED",
  "REPLICA_NOT_FOUND",
  "REQUEST_INTERRUPTED",
  "STORAGE_FULL",
  "TOKEN_QUEUE_FULL",
  "TOO_MANY_CALLS",
  "UNAUTHENTICATED",
  "UPLOADS_OFF",
  "UPLOAD_INTERRUPTED",
] as const;

/** One of {@link REASONS}, or one of a newer server. */
export type Reason = (typeof REASONS)[number] | (string & {});

/** gRPC's names of its status codes. */
export type CodeName =
  | "CANCELLED"
  | "UNKNOWN"
  | "INVALID_ARGUMENT"
  | "DEADLINE_EXCEEDED"
  | "NOT_FOUND"
  | "ALREADY_EXISTS"
  | "PERMISSION_DENIED"
  | "RESOURCE_EXHAUSTED"
  | "FAILED_PRECONDITION"
  | "ABORTED"
  | "OUT_OF_RANGE"
  | "UNIMPLEMENTED"
  | "INTERNAL"
  | "UNAVAILABLE"
  | "DATA_LOSS"
  | "UNAUTHENTICATED";

/** One field that is wrong: `loras[1].strength`, `1.5 is above 1.0`. */
export interface Violation {
  readonly field: string;
  readonly description: string;
}

/** Something that the request names: `sdgrpc.v1.Lora`, `styles/ink`. */
export interface Resource {
  readonly type: string;
  readonly name: string;
}

interface Details {
  readonly reason?: Reason | undefined;
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  readonly violations?: readonly Violation[];
  readonly resource?: Resource | undefined;
  readonly retryAfterMs?: number | undefined;
  readonly cause?: unknown;
}

/** A call that failed. */
export class SdgrpcError extends Error {
  readonly code: CodeName;
  /** Undefined if the failure did not come from an sdgrpc server, say without a connection. */
  readonly reason: Reason | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  /** All fields of the request that are wrong. */
  readonly violations: readonly Violation[];
  /** What was not found. */
  readonly resource: Resource | undefined;
  /** After how long trying again may help, if the server said so. */
  readonly retryAfterMs: number | undefined;

  constructor(code: CodeName, message: string, details: Details = {}) {
    super(message, { cause: details.cause });
    this.name = "SdgrpcError";
    this.code = code;
    this.reason = details.reason;
    this.metadata = details.metadata ?? {};
    this.violations = details.violations ?? [];
    this.resource = details.resource;
    this.retryAfterMs = details.retryAfterMs;
  }
}

/** A stream without its last event. */
export function incomplete(): SdgrpcError {
  return new SdgrpcError("DATA_LOSS", "the stream ended before `finished`", { reason: "INCOMPLETE_ANSWER" });
}

/** The deadline of a call or job passed. */
export function deadlineExceeded(cause?: unknown): SdgrpcError {
  return new SdgrpcError("DEADLINE_EXCEEDED", "the job's deadline passed", { cause });
}

/** Types whatever a call failed with. */
export function errorOf(failure: unknown): SdgrpcError {
  if (failure instanceof SdgrpcError) {
    return failure;
  }
  const error = ConnectError.from(failure);
  if (error.cause instanceof TypeError) {
    // What `fetch` throws where there is no connection, or no more.
    const why = error.cause.cause instanceof Error ? `: ${error.cause.cause.message}` : "";
    return new SdgrpcError("UNAVAILABLE", `${error.rawMessage}${why}`, { cause: error });
  }
  return new SdgrpcError(nameOf(error.code), error.rawMessage, { ...detailsOf(error), cause: error });
}

function detailsOf(error: ConnectError): Details {
  const [info] = error.findDetails(ErrorInfoSchema);
  const [resource] = error.findDetails(ResourceInfoSchema);
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const wrong = error.findDetails(BadRequestSchema).flatMap((each) => each.fieldViolations);
  return {
    reason: info?.reason,
    metadata: info?.metadata,
    violations: wrong.map(({ field, description }) => ({ field, description })),
    resource: resource && { type: resource.resourceType, name: resource.resourceName },
    retryAfterMs: delay && Number(delay.seconds) * 1000 + delay.nanos / 1e6,
  };
}

function nameOf(code: Code): CodeName {
  if (code === Code.Canceled) {
    return "CANCELLED";
  }
  return Code[code].replace(/(?<=[a-z])[A-Z]/g, "_$&").toUpperCase() as CodeName;
}
