"""What the demonstration draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from PIL import Image, ImageDraw

from sdgrpc.client import Client, Job, Lora, Options, PreviewKind, PreviewOptions

SEED = 7
STEPS = 24
SIDE = 128


class StartsFrom(Enum):
    """What a scene begins with."""

    NOISE = "noise"
    PICTURE = "picture"
    MASKED_PICTURE = "masked picture"


@dataclass(frozen=True)
class Scene:
    """One job: its file name's stem, its caption, and what to ask for.

    `source` names the scene whose picture it starts from.
    """

    name: str
    title: str
    prompt: str
    loras: tuple[Lora, ...] = ()
    start: StartsFrom = StartsFrom.NOISE
    source: str = ""
    strength: float | None = None

    @property
    def chips(self) -> list[str]:
        """The LoRAs as labels."""
        return [f"{lora.name} {lora.strength:g}" for lora in self.loras if lora.strength is not None]


STYLE = Lora("postcard", 0.8)
CONCEPT = Lora("flower", 1.0)

SCENES: Sequence[Scene] = (
    Scene("plain", "Generate", "a purple star on a green background"),
    Scene("style", "The same seed, a style", "a purple star on a green background", (STYLE,)),
    Scene("concept", "A new concept", "a purple flower on a green background", (CONCEPT,)),
    Scene("stacked", "Both stacked", "a purple flower on a green background", (STYLE, CONCEPT)),
    Scene(
        "transform",
        "Transform, strength 0.5",
        "an orange star on a blue background",
        start=StartsFrom.PICTURE,
        source="plain",
        strength=0.5,
    ),
    Scene(
        "inpaint",
        "Inpaint, half of it",
        "a purple star on a pink background",
        start=StartsFrom.MASKED_PICTURE,
        source="plain",
    ),
)


STRENGTHS = tuple(step / 5 for step in range(6))
STRIP_PROMPT = "a purple flower on a green background"


def start_strip_job(client: Client) -> Job:
    """Draw what the concept's LoRA makes of its word at each of its strengths, in one call."""
    return client.generate(
        STRIP_PROMPT,
        seed=SEED,
        steps=STEPS,
        loras=[Lora(CONCEPT.name, strength_grid=STRENGTHS)],
        request_id="demo-strip",
    )


def draw_mask() -> Image.Image:
    """A mask as large as the pictures: the right half white, to be redrawn, the left black, to be kept."""
    mask = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(mask).rectangle((SIDE // 2, 0, SIDE - 1, SIDE - 1), fill=255)
    return mask


def start_job(client: Client, scene: Scene, pictures: Mapping[str, bytes], mask: Image.Image) -> Job:
    """Start a scene's call; `pictures` holds the files of the scenes before it, by name."""
    options = Options(
        seed=SEED,
        steps=STEPS,
        loras=scene.loras,
        preview=PreviewOptions(PreviewKind.DECODED, max_side=SIDE),
        request_id=f"demo-{scene.name}",
    )
    match scene.start:
        case StartsFrom.NOISE:
            return client.generate(scene.prompt, **options)
        case StartsFrom.PICTURE:
            source = pictures[scene.source]
            return client.transform(scene.prompt, source, strength=scene.strength, **options)
        case StartsFrom.MASKED_PICTURE:
            source = pictures[scene.source]
            return client.inpaint(scene.prompt, source, mask, strength=scene.strength, **options)
