"""A request's prompts as they will be drawn, and the LoRAs that its prompt names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sdgrpc.api.codec import Request, lora_ref
from sdgrpc.api.field_rules import lora_strength, lora_table
from sdgrpc.api.loras.block_weights import block_faults, block_message
from sdgrpc.api.loras.grids import counted
from sdgrpc.api.loras.steps import rising
from sdgrpc.api.rules import Complaint, fields, first
from sdgrpc.domain import BlockWeights, Task
from sdgrpc.prompting.composition import composition_faults
from sdgrpc.prompting.tags import LoraTag, shown, take_tags
from sdgrpc.settings import Settings
from sdgrpc.v1 import diffusion_pb2 as pb


@dataclass(frozen=True, slots=True)
class Wording:
    """The prompt without its tags, the LoRAs that these name, and what is wrong with either prompt."""

    prompt: str
    loras: tuple[pb.Lora, ...] = ()
    complaints: tuple[Complaint, ...] = ()
    base: str = ""

    def of(self, task: Task) -> Task:
        """The task with this prompt, and with the LoRAs of its tags where it has some."""
        loras = tuple(lora_ref(lora, self.base) for lora in self.loras) or task.loras
        return counted(replace(task, prompt=self.prompt, loras=loras))


NO_WORDING = Wording("")


def read_wording(request: Request, settings: Settings, base: str = "") -> Wording:
    """Read both prompts of a request for a model; one that is too long is judged by that alone.

    `base` is the model's, and empty where it is not known.
    """
    faults: dict[str, Sequence[str]] = {}
    prompt = request.prompt
    loras: tuple[pb.Lora, ...] = ()
    if len(request.prompt) <= settings.max_prompt_chars:
        tagged = take_tags(request.prompt)
        prompt, (loras, unread) = tagged.text, _messages(tagged.loras)
        faults[".prompt"] = [
            *tagged.faults,
            *composition_faults(tagged.text),
            *unread,
            *_tag_faults(request, loras, settings, base),
        ]
    if len(request.negative_prompt) <= settings.max_prompt_chars:
        faults[".negative_prompt"] = [*_negative_faults(request.negative_prompt)]
    complaints = tuple((path, "; ".join(said)) for path, said in faults.items() if said)
    return Wording(prompt, loras, complaints, base)


def _messages(tags: Sequence[LoraTag]) -> tuple[tuple[pb.Lora, ...], list[str]]:
    """The entries of `loras` that tags mean, so that both are judged alike; and what is not read of them."""
    loras, faults = [], []
    for tag in tags:
        lora = pb.Lora(
            name=tag.name,
            strength=tag.strength,
            text_encoder_strength=tag.text_encoder_strength,
            start=tag.start,
            end=tag.end,
        )
        if tag.block_weights:
            try:
                lora.block_weights.CopyFrom(block_message(BlockWeights.parse(tag.block_weights)))
            except ValueError as error:
                faults.append(f"holds {shown(tag.name)}, of which lbw is not read: {error}")
        loras.append(lora)
    return tuple(loras), faults


def _tag_faults(request: Request, loras: tuple[pb.Lora, ...], settings: Settings, base: str) -> Iterator[str]:
    if loras and request.loras:
        yield "names LoRAs by <lora:…> while `loras` does too; use one of both"
    if len(loras) > settings.max_loras:
        yield f"names {len(loras)} LoRAs; the most is {settings.max_loras}"
        return
    rule = first(fields(lora_table(settings)), rising)
    for lora in loras:
        faults = [*rule(lora)]
        if base and not faults:
            faults += block_faults(lora, base, lora_strength(settings))
        said = {sentence: path.lstrip(".").replace("_", " ") for path, sentence in reversed(faults)}
        yield from (f"holds {shown(lora.name)}, whose {what} {sentence}" for sentence, what in said.items())


def _negative_faults(text: str) -> Iterator[str]:
    tagged = take_tags(text)
    if tagged.loras:
        yield (
            "holds <lora:…>, which is read in `prompt` alone: there it changes the model for both. "
            r"Write \< for a bracket that is text"
        )
    yield from tagged.faults
