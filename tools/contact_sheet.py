"""Draw the sheet of docs/features.webp: what requests can ask besides a prompt, with the embedded model.

    sdgrpc serve --tiny-vae embedded=embedded
    python -m tools.contact_sheet localhost:50051 docs/features.webp

Every picture is a job of that server; a row shows one feature.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from sdgrpc.client import AsyncClient, AsyncJob, Lora, Margins, Variation

SIDE, GAP, HEAD, LABEL = 128, 10, 190, 18
PROMPT = "a large red star on a blue background"
SEED = 7


@dataclass(frozen=True)
class Row:
    """A feature's name, and its pictures with a label each."""

    name: str
    pictures: Sequence[tuple[str, Image.Image]]


async def drawn(job: AsyncJob) -> list[Image.Image]:
    """The pictures of a job."""
    result = await job.result()
    return [Image.open(io.BytesIO(image.image.data)).convert("RGB") for image in result.images]


def png(picture: Image.Image) -> bytes:
    """The bytes of a picture."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def ramp() -> Image.Image:
    """A mask from black on the left to white on the right."""
    return Image.linear_gradient("L").rotate(90).resize((SIDE, SIDE))


def disc() -> Image.Image:
    """A mask with a white disc in its middle."""
    mask = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(mask).ellipse((34, 34, 94, 94), fill=255)
    return mask


async def rows(client: AsyncClient) -> list[Row]:
    """Draw every row."""
    plain = (await drawn(client.generate(PROMPT, seed=SEED)))[0]
    first = (await drawn(client.generate("a star", seed=SEED)))[0]
    varied = [("seed 7", first)]
    for strength in (0.2, 0.5, 0.9):
        job = client.generate("a star", seed=SEED, variation=Variation(strength, 99))
        varied.append((f"variation {strength:g}", (await drawn(job))[0]))
    found = [Row("Variation seed", varied), await tiles(client)]
    found += [await masked_contents(client, plain), await soft_and_wide(client, plain)]
    tiny = (await drawn(client.generate(PROMPT, seed=SEED, decoder="tiny")))[0]
    found.append(Row("Tiny decoder", [("VAE", plain), ("tiny", tiny)]))
    found += [
        await by_block(client),
        await by_step(client),
        await strip(client),
        await in_turn(client),
        await joined(client),
        await two_passes(client),
    ]
    return found


async def two_passes(client: AsyncClient) -> Row:
    """Small pictures drawn on at the model's own size."""
    pictures = []
    for label, second in (
        ("96 x 96", None),
        ("latent, 0.6", "128x128:0.6"),
        ("pixel, 0.4", "128x128:0.4:pixel"),
    ):
        job = client.generate(PROMPT, seed=SEED, width=96, height=96, second_pass=second)
        pictures.append((label, (await drawn(job))[0]))
    return Row("A second pass to 128", pictures)


async def in_turn(client: AsyncClient) -> Row:
    """A prompt that changes as the steps go, sooner and later, and one that says two things in turn."""
    pictures = []
    for label, shape in (
        ("[star:circle:0.5]", "[red star:green circle:0.5]"),
        ("[star:circle:0.75]", "[red star:green circle:0.75]"),
        ("[star:circle:0.9]", "[red star:green circle:0.9]"),
        ("[star|circle]", "[red star|green circle]"),
    ):
        job = client.generate(f"a large {shape} on a blue background", seed=SEED)
        pictures.append((label, (await drawn(job))[0]))
    return Row("Prompts that change", pictures)


async def joined(client: AsyncClient) -> Row:
    """Prompts that add to each other, that stand in each other's place, and one that is kept away from."""
    white = "on a white background"
    star, circle = PROMPT, "a large green circle on a blue background"
    pictures = []
    for label, prompt in (
        ("star AND yellow", "a red star AND a yellow background"),
        ("heart AND square", f"a large green heart {white} :0.5 AND a small red square {white} :0.5"),
        ("star:0.7 AND circle:0.3", f"{star} :0.7 AND {circle} :0.3"),
        ("circle AND star:-0.4", f"{circle} AND {star} :-0.4"),
    ):
        pictures.append((label, (await drawn(client.generate(prompt, seed=SEED)))[0]))
    return Row("Prompts joined by AND", pictures)


async def by_block(client: AsyncClient) -> Row:
    """A LoRA everywhere, in the second half of the U-Net, in its first half, and nowhere."""
    pictures = []
    for label, blocks in (
        ("a LoRA", None),
        ("up alone", {"unet": {"down": 0, "mid": 0}}),
        ("down and mid alone", {"unet": {"up": 0}}),
        ("NONE", "NONE"),
    ):
        job = client.generate(PROMPT, seed=SEED, loras=[Lora("postcard", 1.0, block_weights=blocks)])
        pictures.append((label, (await drawn(job))[0]))
    return Row("Strengths by block", pictures)


async def by_step(client: AsyncClient) -> Row:
    """A LoRA in every step, and in some alone."""
    pictures = []
    for label, start, end in (
        ("all steps", 0, 1),
        ("the first 0.3", 0, 0.3),
        ("from 0.3 on", 0.3, 1),
        ("from 0.6 on", 0.6, 1),
    ):
        job = client.generate(PROMPT, seed=SEED, loras=[Lora("postcard", 1.0, start=start, end=end)])
        pictures.append((label, (await drawn(job))[0]))
    return Row("Strength by step", pictures)


async def strip(client: AsyncClient) -> Row:
    """One LoRA at a strength for each picture of a request."""
    strengths = (0.0, 0.4, 0.7, 1.0)
    job = client.generate(PROMPT, seed=SEED, loras=[Lora("postcard", strength_grid=strengths)])
    result = await job.result()
    pictures = {image.index: Image.open(io.BytesIO(image.image.data)) for image in result.images}
    labels = [f"strength {strength:g}" for strength in strengths]
    return Row("Strength grid", [(label, pictures[at].convert("RGB")) for at, label in enumerate(labels)])


async def tiles(client: AsyncClient) -> Row:
    """Four of a picture beside and under each other."""
    tiles = []
    for tiling in (None, "horizontal", "both"):
        tile = (await drawn(client.generate(PROMPT, seed=SEED, width=64, height=64, tiling=tiling)))[0]
        tiles.append((f"tiling {tiling or 'none'}, 2 x 2", repeated(tile)))
    return Row("Tiling", tiles)


async def masked_contents(client: AsyncClient, plain: Image.Image) -> Row:
    """What the masked part starts from."""
    masked = []
    for content in ("original", "fill", "noise", "nothing"):
        prompt = "a large yellow heart on a blue background"
        job = client.inpaint(
            prompt, png(plain), png(disc()), seed=3, strength=0.8, mask_blur=2, masked_content=content
        )
        masked.append((content, (await drawn(job))[0]))
    return Row("Masked content", masked)


async def soft_and_wide(client: AsyncClient, plain: Image.Image) -> Row:
    """Greys that blend and greys that follow the noise level; margins around a picture."""
    pictures = [("the mask", ramp().convert("RGB"))]
    for label, soft in (("blend", False), ("soft", True)):
        prompt = "a large green cross on a yellow background"
        job = client.inpaint(prompt, png(plain), png(ramp()), seed=3, soft=soft)
        pictures.append((f"ramp, {label}", (await drawn(job))[0]))
    small, margins = png(plain.resize((64, 64))), Margins(32, 32, 32, 32)
    wide = client.inpaint(PROMPT, small, seed=5, mask_blur=3, masked_content="fill", margins=margins)
    return Row("Soft masks, margins", [*pictures, ("margins of 32", (await drawn(wide))[0])])


def repeated(tile: Image.Image) -> Image.Image:
    """Four of a tile."""
    sheet = Image.new("RGB", (2 * tile.width, 2 * tile.height))
    for x in (0, tile.width):
        for y in (0, tile.height):
            sheet.paste(tile, (x, y))
    return sheet


def sheet(rows: Sequence[Row]) -> Image.Image:
    """Lay the rows out under each other."""
    most = max(len(row.pictures) for row in rows)
    size = (HEAD + most * (SIDE + GAP) + GAP, GAP + len(rows) * (SIDE + LABEL + GAP))
    page, font = Image.new("RGB", size, "white"), ImageFont.load_default(size=13)
    draw = ImageDraw.Draw(page)
    for number, row in enumerate(rows):
        top = GAP + number * (SIDE + LABEL + GAP)
        draw.text((GAP, top + SIDE // 2 - 8), row.name, "black", font=ImageFont.load_default(size=15))
        for column, (label, picture) in enumerate(row.pictures):
            left = HEAD + column * (SIDE + GAP)
            page.paste(picture.resize((SIDE, SIDE)), (left, top))
            draw.text((left, top + SIDE + 2), label, "black", font=font)
    return page


async def main(server: str, target: Path) -> None:
    """Draw on a server and write the sheet."""
    async with AsyncClient(server) as client:
        made = sheet(await rows(client))
    made.save(target, "WEBP", quality=82, method=6)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
