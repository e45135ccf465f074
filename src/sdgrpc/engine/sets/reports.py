"""What the LoRAs of a job do, and in which of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sdgrpc.diffusion.model import Model
from sdgrpc.domain import LoraReport, Phase, Prepared, Task
from sdgrpc.domain.phases import ranges, steps_before
from sdgrpc.lora.fusing.cache import FusedSets, Lease
from sdgrpc.lora.store.contents import FoundLora

UNUSED = "none of the steps that run is between its start and its end, so that it changes nothing"


def reported(
    task: Task, model: Model, sets: FusedSets, files: Sequence[FoundLora], phase: Phase, lease: Lease
) -> Prepared:
    """Report every LoRA of a task, those of the phase whose set was just acquired and the others.

    The others' files are read and placed for it, so that one that cannot be used fails here.

    Raises:
        LoraMalformed, LoraUnsupported, LoraIncompatible: one cannot be used, or `strict` was asked for and a
            tensor finds no place.

    """
    others = [at for at in range(len(files)) if at not in phase.loras]
    told = sets.describe([(files[at], task.loras[at]) for at in others])
    found = dict(zip([*phase.loras, *others], [*lease.reports, *told], strict=True))
    reports = tuple(_judged(found[at], task, model) for at in range(len(files)))
    return Prepared(reports, lease.set_id, lease.cached, lease.fuse_seconds)


def with_steps(report: Prepared, task: Task, planned: Sequence[Phase]) -> Prepared:
    """Say which steps have which LoRA, and from which share of the schedule on they would have it again."""
    first, loras = task.passes[0], []
    for one, ref, steps in zip(report.loras, task.loras, ranges(task, planned), strict=True):
        start, warnings = ref.start, one.warnings
        if not steps and task.step_count:
            warnings = (*warnings, UNUSED)
        begun = first.sampling.steps - first.step_count + steps[0].first - 1 if steps else 0
        if steps and planned[0].loras == () and steps_before(start, first.sampling.steps) < begun:
            start = float(f"{begun / first.sampling.steps:.7g}")
        loras.append(replace(one, steps=steps, start=start, end=ref.end, warnings=warnings))
    return replace(report, loras=tuple(loras))


def _judged(report: LoraReport, task: Task, model: Model) -> LoraReport:
    """A file's report with what of the task does not fit what the file was made for."""
    if report.recommended is None:
        return report
    trails = model.scheduler_config.get("timestep_spacing") == "trailing"
    unfit = report.recommended.warnings(task.sampling, model.info.prediction_type, trails=trails)
    return replace(report, warnings=report.warnings + unfit)
