"""The ways to name a LoRA in a call."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sdgrpc.client.drawing.blocks import BlockWeightsLike, block_weights, block_weights_message
from sdgrpc.v1 import diffusion_pb2 as pb

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_OPTION = re.compile(r"(?P<rest>.*):(?P<key>lbw|start|end|grid)=(?P<value>[^:]*)")
_STRENGTH = re.compile(r"(?P<name>.*):(?P<strength>[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?)", re.IGNORECASE)
_AIR = re.compile(r"(?:[\w-]+:)*civitai:[0-9]+@[0-9]+(?:\+[0-9]+)?(?:\.\w+)?", re.IGNORECASE)
"""An id of CivitAI's with a version, which needs no strength to be told from one."""


@dataclass(frozen=True, slots=True)
class Lora:
    """One LoRA of a call, by exactly one of `name`, `sha256` (hex) or `content` (a safetensors file's bytes).

    `strength` None is the server's default (1), `text_encoder_strength` None is `strength`. Both are
    multiplied by `block_weights` in each block of the model: a list, a preset's name, or a dictionary as
    diffusers' `set_adapters` takes it. The steps from the share `start` of the schedule to the share `end`
    have it; None are 0 and 1, all of them. `strength_grid` are strengths in place of `strength`, one for each
    picture of the call.

    Raises:
        ValueError: none or several of `name`, `sha256` and `content` are given, or `block_weights` are not
            to be read.

    """

    name: str = ""
    strength: float | None = None
    text_encoder_strength: float | None = None
    sha256: str = ""
    content: bytes = field(default=b"", repr=False)
    strict: bool = False
    block_weights: BlockWeightsLike = field(default=None, repr=False)
    start: float | None = field(default=None, repr=False)
    end: float | None = field(default=None, repr=False)
    strength_grid: Sequence[float] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "block_weights", block_weights(self.block_weights) or None)
        if sum(map(bool, (self.name, self.sha256, self.content))) != 1:
            raise ValueError("a LoRA needs exactly one of name, sha256 and content")

    @classmethod
    def parse(cls, text: str) -> Lora:
        """Read `NAME`, `NAME:STRENGTH` or `NAME:STRENGTH:TEXT_ENCODER_STRENGTH`, and options after each.

        Names may hold colons. `lbw` are strengths by block: `NAME:0.8:lbw=OUTD`, `NAME:lbw=1,0,0,1,1`;
        `start` and `end` are shares of the schedule: `NAME:0.8:start=0.2:end=0.8`; `grid` is a strength for
        each picture: `NAME:grid=0,0.5,1`.

        Strengths are the numbers at the end, at most two: a name that ends in `:1` itself is given one more.

        >>> Lora.parse("styles/a:b:0.8:0.4")
        Lora(name='styles/a:b', strength=0.8, text_encoder_strength=0.4, sha256='', strict=False)

        Raises:
            ValueError: the name is empty, or what follows the last colon or an option is no number.

        """
        whole = text
        text, options = _options(text)
        name, strengths = text, list[float]()
        while len(strengths) < 2 and (found := _STRENGTH.fullmatch(name)):
            name = found["name"]
            strengths.insert(0, float(found["strength"]))
        head, colon, tail = text.rpartition(":")
        if colon and not strengths and "/" not in tail and not _AIR.fullmatch(name):
            hint = (
                f"write {head or 'NAME'}:0.8, or {text}:1 if that is the whole name" if tail else "write 0.8"
            )
            raise ValueError(f"{text!r}: the strength {tail!r} is no number; {hint}")
        if not name:
            raise ValueError(f"{text!r} is not NAME, NAME:STRENGTH or NAME:STRENGTH:TEXT_ENCODER_STRENGTH")
        both: list[float | None] = [*strengths, None, None]
        blocks, shares = options.pop("lbw", None), {}
        if blocks == "":
            raise ValueError(f"{whole!r}: lbw is empty")
        grid = _numbers(whole, options.pop("grid", None))
        for key, value in options.items():
            if not _NUMBER.fullmatch(value):
                raise ValueError(f"{whole!r}: {key} is {value!r}; write a share of the steps, as {key}=0.5")
            shares[key] = float(value)
        weights = block_weights(blocks)
        return cls(
            name,
            strength=both[0],
            text_encoder_strength=both[1],
            block_weights=weights,
            start=shares.get("start"),
            end=shares.get("end"),
            strength_grid=grid,
        )


LoraLike = Lora | str | tuple[str, float] | tuple[str, float, float]
"""A Lora, `"name"`, `"name:0.8"`, `("name", 0.8)` or `("name", 0.8, text_encoder_strength)`."""


def _numbers(whole: str, text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    parts = text.split(",")
    if not all(map(_NUMBER.fullmatch, parts)):
        raise ValueError(f"{whole!r}: grid is {text!r}; write strengths, as grid=0,0.5,1")
    return tuple(map(float, parts))


def _options(text: str) -> tuple[str, dict[str, str]]:
    """Take `:lbw=…`, `:start=…`, `:end=…` and `:grid=…` off the end of a text, in any order."""
    options: dict[str, str] = {}
    while found := _OPTION.fullmatch(text):
        if found["key"] in options:
            raise ValueError(f"{text!r}: {found['key']} is there twice")
        text, options[found["key"]] = found["rest"], found["value"]
    return text, options


def lora_messages(loras: Iterable[LoraLike]) -> list[pb.Lora]:
    """Return the contract's messages for `loras`, in their order."""
    return [_message(_lora(lora)) for lora in loras]


def _lora(lora: LoraLike) -> Lora:
    if isinstance(lora, Lora):
        return lora
    if isinstance(lora, str):
        return Lora.parse(lora)
    return Lora(*lora)


def _message(lora: Lora) -> pb.Lora:
    message = pb.Lora(strength=lora.strength, strict=lora.strict, start=lora.start, end=lora.end)
    message.strength_grid.extend(lora.strength_grid)
    if lora.text_encoder_strength is not None:
        message.text_encoder_strength = lora.text_encoder_strength
    if weights := block_weights(lora.block_weights):
        message.block_weights.CopyFrom(block_weights_message(weights))
    if lora.name:
        message.name = lora.name
    elif lora.sha256:
        message.sha256 = lora.sha256
    else:
        message.safetensors = lora.content
    return message
