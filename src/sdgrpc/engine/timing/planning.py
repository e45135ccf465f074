"""What a task would do, from what is known without drawing: its files, memory, measured calls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sdgrpc.domain import JobPlan, LoraRef, ModelState, PlannedLora, StepRange, Task, TimestepSpacing
from sdgrpc.domain.phases import phases, ranges
from sdgrpc.engine.loop import EngineLoop
from sdgrpc.engine.models.served_models import ServedModels
from sdgrpc.engine.prompts.checking import check_words
from sdgrpc.engine.timing.estimates import Estimates
from sdgrpc.engine.timing.rows import rows_of_steps
from sdgrpc.errors import LoraError
from sdgrpc.lora.bases.detect import place_or_refuse
from sdgrpc.lora.bases.target import Target
from sdgrpc.lora.dialects.tokens import NO_TOKENS, Vocabulary
from sdgrpc.lora.embeddings.library import EmbeddingLibrary
from sdgrpc.lora.fusing.fuser import Member
from sdgrpc.lora.fusing.lora_set import LoraSet
from sdgrpc.lora.fusing.placed_file import PlacedFile
from sdgrpc.lora.fusing.reports import warnings
from sdgrpc.lora.headers.made_for import made_for
from sdgrpc.lora.store.library import FoundLora, LoraLibrary
from sdgrpc.prompting.composition import read_parts

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class _Judged:
    """A file of a task: placed in the model, or why it cannot be."""

    file: FoundLora
    ref: LoraRef
    placed: PlacedFile | None
    refusal: str = ""

    @property
    def vocabulary(self) -> Vocabulary:
        """What it brings for prompts; nothing where it has no strength."""
        asked = self.ref.strength or self.ref.text_encoder_strength
        return self.placed.vocabulary if self.placed is not None and asked else NO_TOKENS


class Planner:
    """Plans tasks for an engine. `plan` reads files that nobody read yet: call it in a thread."""

    def __init__(
        self,
        loop: EngineLoop,
        models: ServedModels,
        library: LoraLibrary,
        embeddings: EmbeddingLibrary,
        estimates: Estimates,
    ) -> None:
        self._loop, self._models, self._library = loop, models, library
        self._embeddings, self._estimates = embeddings, estimates

    def plan(self, task: Task) -> JobPlan:
        """See `Engine.plan`."""
        files = self._library.find_all(task.loras)
        with self._library.in_use(files):
            plans = [self._plan(one, files) for one in task.pictures]
        return plans[0] if len(plans) == 1 else together(task, plans, self._shared_bytes(task))

    def _shared_bytes(self, task: Task) -> int:
        """What a call takes, and the model where it is not in memory."""
        state = next(one for one in self._models.states() if one.info.name == task.model)
        return self._estimates.step_bytes(task) + (0 if state.resident else state.size_bytes)

    def _plan(self, task: Task, files: Sequence[FoundLora]) -> JobPlan:
        state = next(one for one in self._models.states() if one.info.name == task.model)
        target = self._models.target(task.model)
        judged = [_judged(file, ref, target) for file, ref in zip(files, task.loras, strict=True)]
        if not any(one.refusal for one in judged):  # or that is what the job would end with
            check_words(task, self._embeddings, target.names.token_widths, [one.vocabulary for one in judged])
        planned, element = phases(task), BYTES.get(state.dtype, 4)
        resident = {one.set_id for one in self._models.resident_sets() if one.model == task.model}
        ids = [LoraSet.of([(files[at], task.loras[at]) for at in phase.loras]).set_id for phase in planned]
        sets = [
            0 if set_id in resident else _set_bytes([judged[at] for at in phase.loras], target, element)
            for set_id, phase in zip(ids, planned, strict=True)
        ]
        rows, cost = rows_of_steps(task), self._estimates.alone(task)
        alone = task.sampling.image_count * len(read_parts(task.prompt))
        # A set is used while the next one is made.
        needed = self._shared_bytes(task) + max(sum(pair) for pair in zip(sets, [*sets[1:], 0], strict=True))
        loras = zip(judged, ranges(task, planned), strict=True)
        return JobPlan(
            task=task,
            queue_position=self._loop.queue.counts()[1],
            unet_steps=sum(count > 0 for count in rows),
            guided_steps=sum(count > alone for count in rows),
            loras=tuple(_planned(one, task, state, steps) for one, steps in loras),
            lora_set_id=ids[0],
            lora_set_resident=ids[0] in resident,
            model_resident=state.resident,
            wait_seconds=self._loop.queue.estimated_wait(),
            step_seconds=None if cost is None else cost.steps,
            decoding_seconds=None if cost is None or not cost.images else cost.images,
            memory_bytes=needed,
        )


def together(task: Task, plans: Sequence[JobPlan], shared_bytes: int) -> JobPlan:
    """The plan of a grid: each LoRA once, the grid's at each strength; memory is shared but for the sets."""
    loras: list[PlannedLora] = []
    for place, ref in enumerate(task.loras):
        loras += [plan.loras[place] for plan in (plans if ref.strength_grid else plans[:1])]
    seconds = plans[0].step_seconds, plans[0].decoding_seconds
    steps, decoding = (None if one is None else one * len(plans) for one in seconds)
    return replace(
        plans[0],
        task=task,
        unet_steps=sum(plan.unet_steps for plan in plans),
        guided_steps=sum(plan.guided_steps for plan in plans),
        loras=tuple(loras),
        lora_set_resident=all(plan.lora_set_resident for plan in plans),
        step_seconds=steps,
        decoding_seconds=decoding,
        memory_bytes=shared_bytes + sum(plan.memory_bytes - shared_bytes for plan in plans),
    )


def _judged(file: FoundLora, ref: LoraRef, target: Target) -> _Judged:
    try:
        adapter = file.adapter()
        placement = place_or_refuse(adapter, target.names, target.base)
    except LoraError as error:
        return _Judged(file, ref, None, str(error))
    placed = PlacedFile.of(adapter, placement, target.names.token_widths)
    refusal = ""
    if ref.strict and placed.unmatched:
        refusal = f"{len(placed.unmatched)} of its tensors find no place, and strict is asked for"
    return _Judged(file, ref, placed, refusal)


def _set_bytes(judged: Sequence[_Judged], target: Target, element: int) -> int:
    """What the fused copies of all touched weights take."""
    touched = set()
    for one in judged:
        if one.placed is not None:
            member = Member.of(one.placed, one.ref)
            touched |= {parameter for placed in member.active() for parameter in placed.parameters}
    total = 0
    for component, name in touched:
        path, _, kind = name.rpartition(".")
        module = target.names.modules[component, path]
        total += math.prod(module.weight if kind == "weight" else module.bias or ())
    return total * element


def _planned(one: _Judged, task: Task, state: ModelState, steps: tuple[StepRange, ...]) -> PlannedLora:
    return PlannedLora(
        name=one.file.name,
        sha256=one.file.sha256,
        strength=one.ref.strength,
        text_encoder_strength=one.ref.text_encoder_strength,
        block_weights=one.ref.block_weights,
        steps=steps,
        refusal=one.refusal,
        warnings=() if one.placed is None else tuple(_warnings(one.file, one.placed, task, state)),
    )


def _warnings(file: FoundLora, placed: PlacedFile, task: Task, state: ModelState) -> Iterator[str]:
    if placed.unmatched:
        yield f"{len(placed.unmatched)} of its tensors find no place, such as {placed.unmatched[0]}"
    yield from warnings(placed.placement, placed.norms, placed.vocabulary)
    recommended = placed.recommended or made_for(file.name)
    if recommended is not None:
        trails = state.info.timestep_spacing is TimestepSpacing.TRAILING
        yield from recommended.warnings(task.sampling, state.info.prediction_type, trails=trails)
