/** The table of tests/contract in the repository, whose README says what each word means. */

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import { create, fromJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";

import {
  DrainReplicasRequestSchema,
  GenerateRequestSchema,
  ImageSchema,
  InpaintRequestSchema,
  ListEmbeddingsRequestSchema,
  ScaleReplicasRequestSchema,
  TransformRequestSchema,
  UpscaleRequestSchema,
} from "../../src/v1.js";
import type {
  DrainReplicasRequest,
  GenerateRequest,
  Image,
  InpaintRequest,
  ListEmbeddingsRequest,
  ScaleReplicasRequest,
  TransformRequest,
  UpscaleRequest,
} from "../../src/v1.js";

/** The root of the repository, seen from dist/tests/contract. */
export const ROOT = fileURLToPath(new URL("../../../../..", import.meta.url));

const KEYS = ["name", "kind", "method", "request", "files", "timeout_seconds", "expect", "with_replicas"];
const EXPECTED = [
  ...["outcome", "request_id", "model", "step_count", "width", "height", "seeds", "media_type", "warnings"],
  ...["second_pass", "loras", "previews", "reason", "metadata", "violations", "resource", "retry"],
  ...["lora_strengths", "upscaler", "tile_count", "embeddings", "unet_steps", "guided_steps", "replicas"],
];

export interface ExpectedLora {
  readonly name: string;
  readonly strength: number;
  readonly text_encoder_strength: number;
  readonly steps?: readonly (readonly [number, number])[];
}

export interface ExpectedEmbedding {
  readonly name: string;
  readonly base: string;
  readonly vector_count: number;
  readonly fits: boolean;
}

export interface ExpectedSecondPass {
  readonly width: number;
  readonly height: number;
  readonly strength: number;
  readonly steps: number;
}

export interface Expect {
  readonly outcome: string;
  readonly request_id?: string;
  readonly model?: string;
  readonly step_count?: number;
  readonly width?: number;
  readonly height?: number;
  readonly seeds?: readonly number[];
  readonly media_type?: string;
  readonly warnings?: readonly string[];
  readonly second_pass?: ExpectedSecondPass;
  readonly lora_strengths?: readonly number[];
  readonly upscaler?: string;
  readonly tile_count?: number;
  readonly embeddings?: readonly ExpectedEmbedding[];
  readonly unet_steps?: number;
  readonly guided_steps?: number;
  readonly replicas?: number;
  readonly loras?: readonly ExpectedLora[];
  readonly previews?: { readonly content: "picture" | "latent"; readonly steps: readonly number[] };
  readonly reason?: string;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly violations?: readonly string[];
  readonly resource?: { readonly type: string; readonly name: string };
  readonly retry?: boolean;
}

type ClusterMethod = "DrainReplicas" | "ScaleReplicas";

export interface Case {
  readonly name: string;
  readonly kind: string;
  readonly method: "Generate" | "Transform" | "Inpaint" | "Upscale" | "ListEmbeddings" | ClusterMethod;
  readonly request: JsonValue;
  readonly files?: Readonly<Record<string, string>>;
  readonly timeout_seconds?: number;
  readonly expect: Expect;
  readonly with_replicas?: Expect;
}

export interface Table {
  readonly server: { readonly arguments: readonly string[] };
  readonly cases: readonly Case[];
}

export type CaseRequest =
  | { readonly method: "Generate"; readonly message: GenerateRequest }
  | { readonly method: "Transform"; readonly message: TransformRequest }
  | { readonly method: "Inpaint"; readonly message: InpaintRequest };

export function contractFile(name: string): string {
  return `${ROOT}/tests/contract/${name}`;
}

/** An unknown key is an error. */
export async function readTable(): Promise<Table> {
  const table = JSON.parse(await readFile(contractFile("cases.json"), "utf8")) as Table;
  for (const each of table.cases) {
    const unknown = [
      ...Object.keys(each).filter((key) => !KEYS.includes(key)),
      ...Object.keys({ ...each.expect, ...each.with_replicas }).filter((key) => !EXPECTED.includes(key)),
    ];
    if (unknown.length > 0) {
      throw new Error(`${each.name}: unknown keys ${unknown.join(", ")}`);
    }
  }
  return table;
}

/** The case's message, with the content of its files. */
export async function requestOf(each: Case): Promise<CaseRequest> {
  const { method, request } = each;
  const [image, mask] = [await fileOf(each, "image"), await fileOf(each, "mask")];
  switch (method) {
    case "Generate":
      return { method, message: fromJson(GenerateRequestSchema, request) };
    case "Transform": {
      const message = fromJson(TransformRequestSchema, request);
      return { method, message: image ? { ...message, image } : message };
    }
    case "Inpaint": {
      const message = fromJson(InpaintRequestSchema, request);
      return { method, message: { ...message, ...(image && { image }), ...(mask && { mask }) } };
    }
    default:
      throw new Error(`${method} makes no job`);
  }
}

/** A picture to enlarge, with the content of its file. */
export async function upscaleOf(each: Case): Promise<UpscaleRequest> {
  const message = fromJson(UpscaleRequestSchema, each.request);
  const image = await fileOf(each, "image");
  return { ...message, ...(image && { image }) };
}

/** Which words are asked for. */
export function embeddingsOf({ request }: Case): ListEmbeddingsRequest {
  return fromJson(ListEmbeddingsRequestSchema, request);
}

/** Which replicas are to leave. */
export function drainOf({ request }: Case): DrainReplicasRequest {
  return fromJson(DrainReplicasRequestSchema, request);
}

/** How many replicas are to be kept. */
export function scaleOf({ request }: Case): ScaleReplicasRequest {
  return fromJson(ScaleReplicasRequestSchema, request);
}

async function fileOf({ files = {} }: Case, field: string): Promise<Image | undefined> {
  const path = files[field];
  return path === undefined ? undefined : create(ImageSchema, { data: await readFile(contractFile(path)) });
}
