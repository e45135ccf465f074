"""The same prompts in many steps, and in few with the LoRA that was distilled for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sdgrpc.client import Client, Job, Lora, Result
from sdgrpc.demo.scenes import SEED
from sdgrpc.demo.sheet import Filmstrip
from sdgrpc.domain import Scheduler
from sdgrpc.terminal.views import View, watch

MANY_STEPS, FEW_STEPS = 20, 4
DISTILLED = Lora("lcm", 1.0)
PROMPTS = (
    "a large red heart on a white background",
    "an orange star on a blue background",
    "a large green triangle on a black background",
)


@dataclass(frozen=True)
class Pair:
    """A prompt's picture in many steps and in few."""

    many: Result
    few: Result


def start_many(client: Client, prompt: str) -> Job:
    """Draw as the model is meant to be drawn with."""
    return client.generate(prompt, seed=SEED, steps=MANY_STEPS, request_id="demo-many-steps")


def start_few(client: Client, prompt: str) -> Job:
    """Draw as the LoRA is meant to be drawn with: by LCM, without guidance."""
    return client.generate(
        prompt,
        seed=SEED,
        steps=FEW_STEPS,
        guidance_scale=1.0,
        scheduler=Scheduler.LCM,
        loras=[DISTILLED],
        request_id="demo-few-steps",
    )


def draw_pairs(client: Client, view: Callable[[str], View]) -> list[Pair]:
    """Draw each prompt in many steps and in few, one after another."""
    many, few = (f"{f'in {steps} steps':<22}" for steps in (MANY_STEPS, FEW_STEPS))
    return [
        Pair(watch(start_many(client, prompt), view(many)), watch(start_few(client, prompt), view(few)))
        for prompt in PROMPTS
    ]


def times(pairs: Sequence[Pair]) -> str:
    """Say how long the steps took both ways."""
    many = sum(pair.many.finished.denoised_seconds for pair in pairs)
    few = sum(pair.few.finished.denoised_seconds for pair in pairs)
    return (
        f"{len(pairs)} pictures denoised in {many:.2f} s in {MANY_STEPS} steps, "
        f"in {few:.2f} s in {FEW_STEPS} with the LoRA {DISTILLED.name}"
    )


def filmstrip(pairs: Sequence[Pair]) -> Filmstrip:
    """Lay the pictures out in pairs, each with its steps and their seconds."""
    frames = [
        (result.images[0].open(), f"{steps} steps, {result.finished.denoised_seconds:.2f} s")
        for pair in pairs
        for steps, result in ((MANY_STEPS, pair.many), (FEW_STEPS, pair.few))
    ]
    title = f"In {MANY_STEPS} steps, and in {FEW_STEPS} without guidance, with the LoRA {DISTILLED.name}"
    return Filmstrip(title, frames)
