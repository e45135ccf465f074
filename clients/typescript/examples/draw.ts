/**
 * Draws with two LoRAs, shows the progress, and saves every preview and the picture.
 *
 *     npm run build && node dist/examples/draw.js http://localhost:50051 drawn
 */

import { mkdir, writeFile } from "node:fs/promises";

import { Client, PreviewKind, SdgrpcError, lora } from "../src/index.js";

const [server = "http://localhost:50051", folder = "drawn"] = process.argv.slice(2);
const client = new Client(server, { token: process.env["SDGRPC_TOKEN"] });
const abort = new AbortController();
process.once("SIGINT", () => abort.abort()); // Ctrl-C cancels the job

async function draw(): Promise<void> {
  await mkdir(folder, { recursive: true });
  const request = {
    prompt: "a red star on a blue background",
    loras: [lora("postcard", 0.75), lora("sepia", 0.5)],
    sampling: { steps: 20, seed: 7n },
    output: { preview: { kind: PreviewKind.PICTURE, everyNSteps: 5, maxSide: 128 } },
  };
  for await (const event of client.generate(request, { signal: abort.signal })) {
    switch (event.kind) {
      case "accepted":
        console.log(`accepted: ${event.value.stepCount} steps, ${event.value.queuePosition} jobs before it`);
        break;
      case "prepared":
        for (const { name, strength, relativeNorm } of event.value.loras) {
          console.log(
            `LoRA ${name} at ${strength} changes its weights by ${(100 * relativeNorm).toFixed(1)} %`,
          );
        }
        break;
      case "progress":
        console.log(`step ${event.value.step} of ${event.value.stepCount}`);
        for (const { imageIndex, content } of event.value.previews) {
          if (content.case === "picture") {
            await writeFile(`${folder}/preview-${imageIndex}-${event.value.step}.png`, content.value.data);
          }
        }
        break;
      case "image":
        await writeFile(`${folder}/picture-${event.value.seed}.png`, event.value.image?.data ?? "");
        break;
      case "finished":
        console.log("drawn");
        break;
    }
  }
}

try {
  await draw();
} catch (error) {
  if (!(error instanceof SdgrpcError)) {
    throw error;
  }
  console.error(`${error.reason ?? error.code}: ${error.message}`);
  for (const { field, description } of error.violations) {
    console.error(`  ${field}: ${description}`);
  }
  process.exitCode = 1;
}
