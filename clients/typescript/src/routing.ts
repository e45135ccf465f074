/**
 * What calls tell of themselves so that a proxy before several servers can bring them where they belong: to a
 * server that has the LoRA set fused, and to the one that keeps the job. Servers read neither.
 */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";

import { OnDisconnect } from "./gen/sdgrpc/v1/diffusion_pb.js";
import type {
  GenerateRequest,
  InpaintRequest,
  Lora,
  TransformRequest,
} from "./gen/sdgrpc/v1/diffusion_pb.js";

const LORA_SET = "x-sdgrpc-lora-set";
const JOB = "x-sdgrpc-job";
const FORM = "sdgrpc lora set 1";
const DIGITS = 32;

/** A request that draws. */
export type Drawing = GenerateRequest | TransformRequest | InpaintRequest;

/** The metadata of a call that draws. */
export function drawingHeaders(request: Drawing): Record<string, string> {
  const keeps = request.onDisconnect === OnDisconnect.KEEP;
  return {
    ...loraSetHeaders(request.model, request.loras, request.prompt),
    ...(keeps ? jobHeaders(request.requestId) : {}),
  };
}

/** The metadata of a call about a LoRA set; none without LoRAs. */
export function loraSetHeaders(model: string, loras: readonly Lora[], prompt = ""): Record<string, string> {
  const tags = [...prompt.matchAll(/<lora:([^>]*)>/g)].map((found) => `tag ${found[1]}`);
  const lines = [...loras.map(lineOf), ...tags];
  if (lines.length === 0) {
    return {};
  }
  const sorted = lines
    .map(utf8ToBytes)
    .sort(compare)
    .map((line) => new TextDecoder().decode(line));
  return { [LORA_SET]: hashed([FORM, model, ...sorted].join("\n")) };
}

/** The metadata of a call about a kept job; none without an id. */
export function jobHeaders(requestId: string): Record<string, string> {
  return requestId === "" ? {} : { [JOB]: hashed(requestId) };
}

function lineOf(lora: Lora): string {
  const strength = lora.strength ?? 1;
  const textEncoder = lora.textEncoderStrength ?? strength;
  return `${bits(strength)} ${bits(textEncoder)} ${blocksOf(lora)}${sourceOf(lora)}`;
}

/** Strengths by block as a text; nothing where there are none. */
function blocksOf({ blockWeights }: Lora): string {
  if (blockWeights === undefined) {
    return "";
  }
  const named = Object.entries(blockWeights.blocks).map(([name, value]) => `${name}*${bits(value)}`);
  const numbers = [...blockWeights.values.map(bits), ...named.sort()];
  return `lbw ${blockWeights.preset} ${numbers.join(",")} `;
}

function sourceOf({ source }: Lora): string {
  switch (source.case) {
    case "sha256":
      return `sha256 ${source.value.toLowerCase()}`;
    case "safetensors":
      return `sha256 ${bytesToHex(sha256(source.value))}`;
    default:
      return `name ${(source.value ?? "").replace(/\.safetensors$/, "")}`;
  }
}

/** Of a float32, in hex. */
function bits(value: number): string {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setFloat32(0, value);
  return bytesToHex(bytes);
}

function compare(one: Uint8Array, other: Uint8Array): number {
  const length = Math.min(one.length, other.length);
  for (let at = 0; at < length; at++) {
    const difference = one[at]! - other[at]!;
    if (difference !== 0) {
      return difference;
    }
  }
  return one.length - other.length;
}

function hashed(text: string): string {
  return bytesToHex(sha256(utf8ToBytes(text))).slice(0, DIGITS);
}
