"""What stands in the form -> what the client's calls take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageChops

from sdgrpc.client import (
    AsyncClient,
    AsyncJob,
    Lora,
    Options,
    PreviewKind,
    PreviewOptions,
    SecondPass,
    SigmaSpacing,
    TimestepSpacing,
)
from sdgrpc.web.page.beside import Strength, strength

LARGEST = 4.0
"""Times as large as the first pass that the second may be here."""
TEXT, PICTURE, MASK = "text", "picture", "mask"
OWN = "the model's own"
SPACINGS = [
    (OWN, ""),
    *(
        (f"{one.value} (noise levels)", f"sigma:{one.value}")
        for one in SigmaSpacing
        if one.value != "default"
    ),
    *((f"{one.value} (timesteps)", f"timestep:{one.value}") for one in TimestepSpacing),
]
Strengths = Mapping[str, Sequence[float | str]]
"""What the page keeps of each LoRA, by its name: a `Strength`, or the beginning of one."""


class Missing(ValueError):
    """A field of the form that is needed is empty: `field` is its name."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Form:
    """The form, by the names of its components; `unfit` are the chosen LoRAs that the model cannot take."""

    values: Mapping[str, Any]
    strengths: Strengths
    unfit: frozenset[str]

    def loras(self) -> list[Lora]:
        """Return the LoRAs that fit, with their strengths.

        Raises:
            Missing: strengths by block are not to be read.

        """
        files = self.values.get("files") or {}
        chosen = [name for name in self.values["loras"] or () if name not in self.unfit]
        return [self._lora(name, strength(self.strengths, name, files.get(name))) for name in chosen]

    def _lora(self, name: str, asked: Strength) -> Lora:
        start, end = asked.start or None, None if asked.end == 1 else asked.end
        weights = asked.blocks.strip() or None
        try:
            return Lora(name, asked.unet, asked.text, block_weights=weights, start=start, end=end)
        except ValueError as error:
            raise Missing("loras", f"{name} by block: {error}") from None

    def options(self) -> Options:
        """Return what all calls take; what is empty is the model's own."""
        values = self.values
        options: dict[str, Any] = {
            "loras": self.loras(),
            "preview": PreviewOptions(PreviewKind.PICTURE, every_n_steps=1),
            "image_count": int(values["count"] or 1),
        }
        for name in ("negative_prompt", "model", "steps", "guidance_scale", "scheduler", "width", "height"):
            if values[name] not in (None, "", 0) or (name == "guidance_scale" and values[name] == 0):
                options[name] = values[name]
        for name in ("steps", "width", "height"):
            if name in options:
                options[name] = int(options[name])
        kind, _, spacing = (values["spacing"] or "").partition(":")
        if spacing:
            options[f"{kind}_spacing"] = spacing
        return options  # type: ignore[return-value]  # built key by key

    def second_pass(self) -> SecondPass | None:
        """Return what the fold says; None where nothing is to be enlarged."""
        scale = float(self.values["second_scale"] or 1)
        if scale <= 1:
            return None
        return SecondPass(scale, strength=float(self.values["second_strength"] or 0))

    def start(self, client: AsyncClient, options: Options | None = None) -> AsyncJob:
        """Begin to draw what the open tab says.

        Raises:
            Missing: there is no prompt, picture or mask where one is needed.

        """
        values, options = self.values, options or self.options()
        prompt = (values["prompt"] or "").strip()
        if not prompt:
            raise Missing("prompt", "say what to draw")
        if values["mode"] == PICTURE:
            if not isinstance(values["image"], Image.Image):
                raise Missing("image", "drop or paste a picture here first")
            return client.transform(prompt, values["image"], strength=values["strength"], **options)
        if values["mode"] == MASK:
            found = painted(values["editor"])
            if found is None:
                raise Missing("editor", "put a picture here and paint what is to be redrawn")
            return client.inpaint(
                prompt,
                *found,
                strength=values["mask_strength"],
                mask_blur=values["mask_blur"] or 0.0,
                **options,
            )
        return client.generate(prompt, second_pass=self.second_pass(), **options)


def painted(value: Mapping[str, Any] | None) -> tuple[Image.Image, Image.Image] | None:
    """Return picture and mask of an ImageEditor's value; None without a picture or a stroke.

    A mask is 255 wherever a layer was painted on at all: a brush's soft edge is the mask's blur to make.
    """
    if not value or not isinstance(value.get("background"), Image.Image):
        return None
    picture = value["background"].convert("RGB")
    mask = Image.new("L", picture.size, 0)
    for layer in value.get("layers") or ():
        alpha = layer.convert("RGBA").getchannel("A")
        if alpha.size != picture.size:
            alpha = alpha.resize(picture.size, Image.Resampling.NEAREST)
        mask = ImageChops.lighter(mask, alpha.point(lambda one: 255 if one > 0 else 0))
    return (picture, mask) if mask.getbbox() else None
