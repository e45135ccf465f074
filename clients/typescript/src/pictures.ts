/** Pictures for a page: files as blobs, latents as pixels. */

import type { Image, Latent, Lora } from "./gen/sdgrpc/v1/diffusion_pb.js";
import { LoraSchema } from "./gen/sdgrpc/v1/diffusion_pb.js";
import type { LatentFormat } from "./gen/sdgrpc/v1/catalog_pb.js";
import { create } from "@bufbuild/protobuf";

/** A file of the server's LoRA folder at a strength. */
export function lora(name: string, strength = 1, textEncoderStrength?: number): Lora {
  const textEncoder = textEncoderStrength === undefined ? {} : { textEncoderStrength };
  return create(LoraSchema, { source: { case: "name", value: name }, strength, ...textEncoder });
}

/** The file of a picture, for `URL.createObjectURL`. */
export function blobOf(image: Image): Blob {
  return new Blob([new Uint8Array(image.data)], { type: image.mediaType });
}

/** Pixels as `ImageData` takes them: red, green, blue and alpha of each, row by row. */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8ClampedArray<ArrayBuffer>;
}

/**
 * Decodes a latent to a small picture, one pixel per latent pixel, by its model's linear map
 * (`Model.latentFormat` of {@link Client.listModels}).
 *
 * @throws RangeError the latent and the map do not fit each other.
 */
export function latentPixels(latent: Latent, format: LatentFormat): Pixels {
  const { channels, height, width, data } = latent;
  const { rgbFactors: factors, rgbBias: bias } = format;
  const size = height * width;
  if (factors.length !== 3 * channels || bias.length !== 3 || data.length !== 2 * channels * size) {
    const sizes = `${factors.length} factors, ${bias.length} biases and ${data.length} bytes`;
    throw new RangeError(`${sizes} do not fit a latent of ${channels}x${height}x${width}`);
  }
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const pixels = new Uint8ClampedArray(4 * size).fill(255);
  for (let pixel = 0; pixel < size; pixel++) {
    for (let colour = 0; colour < 3; colour++) {
      let value = bias[colour]!;
      for (let channel = 0; channel < channels; channel++) {
        const half = view.getUint16(2 * (channel * size + pixel), true);
        value += float16(half) * factors[3 * channel + colour]!;
      }
      pixels[4 * pixel + colour] = 255 * (value / 2 + 0.5); // clamped and rounded half to even
    }
  }
  return { width, height, data: pixels };
}

/** The value of an IEEE 754 half. */
function float16(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const fraction = (bits & 1023) / 1024;
  const sign = bits >> 15 ? -1 : 1;
  if (exponent === 31) {
    return fraction ? NaN : sign * Infinity;
  }
  return sign * (exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14);
}
