"""Strengths by block: message <-> domain, and what is wrong with them for a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sdgrpc.api.rules import Complaint, Rule, given, items, number, one_of
from sdgrpc.domain.blocks import MAX_NAME, NO_WEIGHTS, PRESETS, BlockWeights
from sdgrpc.domain.decimals import shortest
from sdgrpc.domain.tasks import DEFAULT_LORA_STRENGTH
from sdgrpc.v1 import diffusion_pb2 as pb

FORMS = ("values", "preset", "blocks")
LARGEST = 1e6
MOST = 64
"""Blocks that strengths may name or number; no model has as many."""


def by_name(values: Mapping[str, float]) -> Iterator[Complaint]:
    """Names with finite numbers."""
    if len(values) > MOST:
        yield "", f"has {len(values)} entries; the most is {MOST}"
        return
    for key in sorted(values):
        for _, sentence in number(-LARGEST, LARGEST)(values[key]):
            yield f"[{shown(key)}]", sentence


BLOCK_TABLE: Mapping[str, Rule] = {
    "values": items(number(-LARGEST, LARGEST), at_most=MOST),
    "preset": one_of(PRESETS),
    "blocks": by_name,
}


def one_form(message: pb.BlockWeights) -> Iterator[Complaint]:
    """A list, a preset, or names."""
    if sum(map(bool, (message.values, message.preset, message.blocks))) != 1:
        yield "", f"set one of {', '.join(FORMS)}"


def block_weights(message: pb.Lora) -> BlockWeights:
    """Read the strengths by block of a LoRA whose fields have been judged."""
    if not message.HasField("block_weights"):
        return NO_WEIGHTS
    asked = message.block_weights
    return BlockWeights(
        values=tuple(map(shortest, asked.values)),
        preset=asked.preset,
        blocks=tuple(sorted((name, shortest(value)) for name, value in asked.blocks.items())),
    )


def told(weights: BlockWeights) -> pb.BlockWeights | None:
    """The message of strengths by block; None where there are none."""
    return block_message(weights) if weights else None


def block_message(weights: BlockWeights) -> pb.BlockWeights:
    """The message of strengths by block."""
    return pb.BlockWeights(values=weights.values, preset=weights.preset, blocks=dict(weights.blocks))


def block_faults(lora: pb.Lora, base: str, strengths: Rule) -> Iterator[Complaint]:
    """Say what does not fit a model of that base: counts, names, and products out of the operator's range.

    Silent where the fields themselves are wrong already. `strengths` is the rule of a strength.
    """
    weights = block_weights(lora)
    form = next((form for form in FORMS if getattr(weights, form)), "")
    if not form:
        return
    try:
        weights.factors(base)
    except ValueError as error:
        yield f".block_weights.{form}", str(error)
        return
    strength = given(lora, "strength", DEFAULT_LORA_STRENGTH)
    text_encoder = given(lora, "text_encoder_strength", strength)
    for path, weight, of_text in _numbers(weights):
        used = text_encoder if of_text else strength
        product = float(f"{used * weight:.7g}")
        for _, sentence in strengths(product) if product else ():
            yield f".block_weights.{form}{path}", f"{weight} times the strength {used}: {sentence}"


def _numbers(weights: BlockWeights) -> Iterable[tuple[str, float, bool]]:
    """Each number with its path, and whether it is for a text encoder."""
    for index, value in enumerate(weights.values):
        yield f"[{index}]", value, index == 0
    for name, value in weights.blocks:
        yield f"[{shown(name)}]", value, name.startswith("text_encoder")


def shown(name: str) -> str:
    """A name of a client, cut and printable."""
    return "".join(sign if sign.isprintable() else "?" for sign in name[:MAX_NAME])
