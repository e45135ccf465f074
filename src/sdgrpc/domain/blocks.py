"""How strongly a LoRA changes each block of a model, in the three forms in which people write it.

Lists and presets are those of the extension LoRA Block Weight of A1111's web UI
(https://github.com/hako-mikan/sd-webui-lora-block-weight): BASE is the text encoders, IN00 `conv_in`, then
come the layers and samplers of the down blocks, M00 the middle, OUT00 and on the layers of the up blocks,
whose samplers go with the last. A short list leaves out blocks without attention, which are 0 then. Names
are those of diffusers' `set_adapters`. What is in no block, as the time embedding, keeps its strength under
lists.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from sdgrpc.domain.bases import OWN, SD2, SD15, SDXL

UNET, TEXT_ENCODERS = "unet", ("text_encoder", "text_encoder_2")
BASE, CONV_IN, MIDDLE, REST = "BASE", "unet.conv_in", "unet.mid", "unet.rest"
MAX_NAME = 64
_IN_BLOCK = re.compile(
    r"(down|up)_blocks\.(\d+)\.(?:(?:resnets|attentions)\.(\d+)|(?:down|up)samplers)(?:\.|$)"
)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)

Factors = tuple[tuple[str, float], ...]
"""Smallest parts of a model -> what its strength is multiplied by, those aside where it is 1; sorted."""


@dataclass(frozen=True, slots=True)
class Block:
    """A number of a list: what it is called, the parts that it is for, and whether they attend."""

    name: str
    parts: tuple[str, ...]
    attends: bool


@dataclass(frozen=True)
class Layout:
    """A U-Net: layers per down block, which down blocks attend; and how many text encoders are beside it."""

    layers: int
    attends: tuple[bool, ...]
    text_encoders: int = 1

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Every block in the order of a list."""
        return (Block(BASE, TEXT_ENCODERS[: self.text_encoders], True), *self._unet())

    @property
    def short(self) -> tuple[Block, ...]:
        """Those that attend, and the text encoders."""
        return tuple(block for block in self.blocks if block.attends)

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The smallest parts that can have a strength of their own."""
        return (*(part for block in self.blocks for part in block.parts), REST)

    def _unet(self) -> Iterator[Block]:
        yield Block("IN00", (CONV_IN,), False)
        number, last = 1, len(self.attends) - 1
        for block, attends in enumerate(self.attends):
            parts = [(f"unet.down.block_{block}.{layer}", attends) for layer in range(self.layers)]
            parts += [(f"unet.down.block_{block}.sampler", False)] if block < last else []
            for part, attending in parts:
                yield Block(f"IN{number:02}", (part,), attending)
                number += 1
        yield Block("M00", (MIDDLE,), True)
        for block, attends in enumerate(reversed(self.attends)):
            for layer in range(self.layers + 1):
                sampler = (f"unet.up.block_{block}.sampler",) if layer == self.layers and block < last else ()
                number = block * (self.layers + 1) + layer
                yield Block(f"OUT{number:02}", (f"unet.up.block_{block}.{layer}", *sampler), attends)


LAYOUTS: Mapping[str, Layout] = {
    SD15: Layout(2, (True, True, True, False)),
    SD2: Layout(2, (True, True, True, False)),
    SDXL: Layout(2, (False, True, True), text_encoders=2),
    OWN: Layout(1, (False, True)),
}
WHOLE: Mapping[str, float] = {"ALL": 1.0, "ALL0.5": 0.5, "NONE": 0.0}
"""Presets of one number for all, whatever is in a block and what is in none."""
HALVES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "INS": (("IN", "first"),),
    "IND": (("IN", "second"),),
    "INALL": (("IN", "first"), ("IN", "second")),
    "MIDD": (("IN", "second"), ("M", "second"), ("OUT", "first")),
    "OUTD": (("OUT", "first"),),
    "OUTS": (("OUT", "second"),),
    "OUTALL": (("OUT", "first"), ("OUT", "second")),
}
"""Presets of BASE and halves of the blocks that attend: the deep ones are those nearer to the middle."""
PRESETS = (*WHOLE, *HALVES)


@dataclass(frozen=True, slots=True)
class BlockWeights:
    """Strengths by block as they are asked for: one of a list, a preset and names. None is 1 everywhere."""

    values: tuple[float, ...] = ()
    preset: str = ""
    blocks: tuple[tuple[str, float], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.values or self.preset or self.blocks)

    def __str__(self) -> str:
        """What `parse` reads: `1,0,0.5`, `OUTD`, `unet.down*0.5,unet.mid*0`."""
        named = ",".join(f"{name}*{_short(value)}" for name, value in self.blocks)
        return self.preset or named or ",".join(map(_short, self.values))

    @classmethod
    def parse(cls, text: str) -> BlockWeights:
        """Read a list of numbers, the name of a preset, or names with their factors; raises ValueError."""
        items = [item.strip() for item in text.split(",")]
        if "*" in text:
            pairs = [item.rpartition("*") for item in items]
            return cls(blocks=tuple(sorted((name.strip(), _number(number)) for name, _, number in pairs)))
        if len(items) == 1 and items[0].upper() in PRESETS:
            return cls(preset=items[0].upper())
        if len(items) == 1 and not _NUMBER.fullmatch(items[0]):
            raise ValueError(
                f"{items[0][:MAX_NAME]!r} is none of the presets {', '.join(PRESETS)}, and no list"
            )
        return cls(values=tuple(map(_number, items)))

    def factors(self, base: str) -> Factors:
        """Return what strengths are multiplied by in a model; raises ValueError for blocks that it lacks."""
        layout = LAYOUTS[base]
        if self.values:
            found = _listed(layout, self.values)
        elif self.blocks:
            found = _named(layout, dict(self.blocks))
        elif self.preset in WHOLE:
            found = dict.fromkeys(layout.parts, WHOLE[self.preset])
        else:
            found = _halves(layout, self.preset) if self.preset else {}
        return tuple(sorted((part, factor) for part, factor in found.items() if factor != 1.0))


NO_WEIGHTS = BlockWeights()


def part_of(component: str, path: str) -> str:
    """The smallest part of a model that a module belongs to, by its path in diffusers' names."""
    if component != UNET:
        return component
    if found := _IN_BLOCK.match(path):
        side, block, layer = found.groups()
        return f"unet.{side}.block_{block}.{layer or 'sampler'}"
    if path.startswith("mid_block."):
        return MIDDLE
    return CONV_IN if path == "conv_in" else REST


def counts(base: str) -> tuple[int, int]:
    """How many numbers a list may have: of the blocks that attend, and of all."""
    return len(LAYOUTS[base].short), len(LAYOUTS[base].blocks)


def names(base: str) -> tuple[str, ...]:
    """What strengths by name may name, from the largest to the smallest."""
    found = dict.fromkeys(
        name
        for part in LAYOUTS[base].parts
        for name in _around(part)
        if not name.endswith(("sampler", "conv_in", "rest"))
    )
    return tuple(sorted(found, key=lambda name: (name.count("."), name)))


def _listed(layout: Layout, values: tuple[float, ...]) -> dict[str, float]:
    chosen = next((some for some in (layout.short, layout.blocks) if len(some) == len(values)), None)
    if chosen is None:
        short, full = len(layout.short), len(layout.blocks)
        raise ValueError(
            f"has {len(values)} numbers; this model takes {short} "
            f"({', '.join(block.name for block in layout.short)}) or {full} (all blocks)"
        )
    given = {block.name: value for block, value in zip(chosen, values, strict=True)}
    return {part: given.get(block.name, 0.0) for block in layout.blocks for part in block.parts}


def _halves(layout: Layout, preset: str) -> dict[str, float]:
    chosen = {BASE}
    for side, half in HALVES[preset]:
        inside = [block.name for block in layout.short if block.name.startswith(side)]
        first = slice(0, len(inside) // 2) if half == "first" else slice(len(inside) // 2, None)
        chosen.update(inside[first])
    return {part: float(block.name in chosen) for block in layout.blocks for part in block.parts}


def _named(layout: Layout, given: Mapping[str, float]) -> dict[str, float]:
    known = {name for part in layout.parts for name in _around(part)}
    for name in given:
        if name not in known or name.endswith(("sampler", "conv_in", "rest")):
            raise ValueError(f"{name[:MAX_NAME]!r} is no block of this model")
    found = {}
    for part in layout.parts:
        # Samplers go with the first layer of their block, as in diffusers.
        around = _around(part.replace("sampler", "0"))
        found[part] = next((given[name] for name in reversed(around) if name in given), 1.0)
    return found


def _around(part: str) -> list[str]:
    """`unet`, `unet.down`, `unet.down.block_1`, `unet.down.block_1.0`."""
    levels = part.split(".")
    return [".".join(levels[:end]) for end in range(1, len(levels) + 1)]


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text.strip()):
        raise ValueError(f"{text.strip()[:MAX_NAME]!r} is no number (R, U and X are not read)")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text.strip()[:MAX_NAME]!r} is too large")
    return value


def _short(value: float) -> str:
    return repr(float(value)).removesuffix(".0")
