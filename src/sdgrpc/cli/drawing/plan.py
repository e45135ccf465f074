"""What `--dry-run` prints: a job that is not drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import typer

from sdgrpc.cli.as_json import print_json
from sdgrpc.client import Plan, PlannedLora
from sdgrpc.terminal.console import MIB
from sdgrpc.terminal.text import printable


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """Print a plan for people, or in the contract's words."""
    if as_json:
        print_json(asdict(plan))
        return
    for line in _lines(plan):
        typer.echo(printable(line))


def _lines(plan: Plan) -> Iterator[str]:
    accepted = plan.accepted
    there = "in memory" if plan.model_resident else "not in memory, will be read"
    yield f"model     {accepted.model} ({there})"
    count = accepted.sampling.image_count
    yield f"pictures  {count} of {accepted.width}x{accepted.height}, seed {accepted.sampling.seed}"
    yield f"steps     {_steps(plan)}"
    yield f"sampling  {_sampling(plan)}"
    for number, lora in enumerate(plan.loras):
        yield f"{'loras' if number == 0 else '':<9} {_lora(lora)}"
    if plan.lora_set_id:
        held = "fused already" if plan.lora_set_resident else "to be fused"
        yield f"set       {plan.lora_set_id[:12]}, {held}"
    yield f"time      {_time(plan)}"
    yield f"memory    {plan.memory_bytes / MIB:.1f} MiB more than is used now"
    for lora in plan.loras:
        yield from (f"warning   LoRA {lora.name}: {warning}" for warning in lora.warnings)
    yield from (f"warning   {warning}" for warning in accepted.warnings)


def _steps(plan: Plan) -> str:
    total, steps, second = plan.accepted.step_count, plan.accepted.sampling.steps, plan.accepted.second_pass
    told = [f"{total} of {steps}"]
    if second is not None:  # the first pass of two is whole
        told = [f"{steps}, then {total - steps} of {second.steps} at {second.width}x{second.height}"]
    if plan.unet_steps != plan.accepted.step_count:
        told.append(f"{plan.unet_steps} ask the model")
    if plan.guided_steps != plan.unet_steps:
        told.append(f"{plan.guided_steps} are guided")
    return ", ".join(told)


def _sampling(plan: Plan) -> str:
    """What is not the scheduler's own."""
    sampling: Any = plan.accepted.sampling
    told = [sampling.scheduler.value, f"guidance {sampling.guidance_scale:g}"]
    if sampling.sigma_spacing.value != "default":
        told.append(sampling.sigma_spacing.value)
    if sampling.timestep_spacing is not None:
        told.append(sampling.timestep_spacing.value)
    return ", ".join(told)


def _lora(lora: PlannedLora) -> str:
    strengths = f"{lora.strength:g}"
    if lora.text_encoder_strength != lora.strength:
        strengths += f" (text encoder {lora.text_encoder_strength:g})"
    if lora.block_weights:
        strengths += f" (by block {lora.block_weights})"
    if lora.steps:
        strengths += f" in steps {', '.join(map(str, lora.steps))}"
    refusal = f", REFUSED: {lora.refusal}" if lora.refusal else ""
    return f"{lora.name or '(inline)'} at {strengths}, {lora.sha256[:12]}{refusal}"


def _time(plan: Plan) -> str:
    wait = f"waits {plan.estimated_wait_seconds:.1f} s"
    if plan.estimated_steps_seconds is None:
        return f"{wait}; nothing of this size was drawn lately"
    decoding = plan.estimated_decoding_seconds
    decoded = "" if decoding is None else f", decodes in {decoding:.2f} s"
    return f"{wait}, draws for {plan.estimated_steps_seconds:.2f} s{decoded}"
