/**
 * A client of sdgrpc: Stable Diffusion with LoRA files, over gRPC-Web, for Node and browsers.
 *
 * @packageDocumentation
 */

export { Client } from "./client.js";
export type { ClientOptions } from "./client.js";
export { REASONS, SdgrpcError } from "./errors.js";
export type { CodeName, Reason, Resource, Violation } from "./errors.js";
export type { Event, Result } from "./events.js";
export type { CallOptions, Job } from "./job.js";
export { blobOf, latentPixels, lora } from "./pictures.js";
export type { Pixels } from "./pictures.js";

/** The contract's messages and enums. */
export * as v1 from "./v1.js";
export {
  OnDisconnect,
  PreviewKind,
  ResizeMode,
  Scheduler,
  SigmaSpacing,
  TimestepSpacing,
} from "./gen/sdgrpc/v1/diffusion_pb.js";
