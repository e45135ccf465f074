"""Plans say what the job then does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from safetensors.torch import save_file
from torch import zeros

from sdgrpc.domain import (
    Accepted,
    Finished,
    GuidanceInterval,
    LoraRef,
    Prepared,
    Scheduler,
    SecondPass,
    StepReuse,
    TaskKind,
)
from sdgrpc.domain.phases import shown
from sdgrpc.engine.timing.estimates import ENOUGH
from sdgrpc.engine.timing.rows import rows_of_steps
from sdgrpc.errors import LoraNotFound, ModelNotFound
from tests.support.tasks import task

ONE = LoraRef(0.8, 0.4, name="one")


async def drawn(engine, asked):
    return [event async for event in engine.submit(asked)]


async def test_the_job_does_what_was_planned(open_tiny) -> None:
    """The same set, held only afterwards; the bytes of it are what the plan said; seconds once measured."""
    asked = task(loras=(ONE,), steps=max(5, ENOUGH))
    async with open_tiny() as engine:
        before = await engine.plan(asked)
        assert (before.lora_set_resident, before.step_seconds) == (False, None)
        events = await drawn(engine, asked)
        prepared = next(event for event in events if isinstance(event, Prepared))
        after = await engine.plan(asked)
        held = engine.status().lora_set_bytes
    report = prepared.loras[0]
    assert before.lora_set_id == after.lora_set_id == prepared.lora_set_id
    assert [(one.name, one.sha256, one.strength, one.text_encoder_strength) for one in before.loras] == [
        (report.name, report.sha256, 0.8, 0.4)
    ]
    assert before.memory_bytes == held
    assert (after.lora_set_resident, after.memory_bytes, after.wait_seconds) == (True, 0, 0.0)
    assert after.step_seconds is not None
    accepted = next(event for event in events if isinstance(event, Accepted))
    assert (before.task, before.queue_position) == (accepted.task, accepted.queue_position)


async def test_sets_that_come_one_after_the_other(open_tiny) -> None:
    """Their steps are told; two of them are in memory at a time, and the first is the one that is named."""
    loras = (replace(ONE, end=0.5), LoraRef(name="two", start=0.5), LoraRef(name="two", start=0.75))
    asked = task(loras=loras, steps=4)
    async with open_tiny() as engine:
        plan = await engine.plan(asked)
        whole = [await engine.plan(replace(asked, loras=(replace(one, start=0, end=1),))) for one in loras]
        events = await drawn(engine, asked)
    prepared = next(event for event in events if isinstance(event, Prepared))
    assert [shown(one.steps) for one in plan.loras] == ["1 to 2", "3 to 4", "4"]
    assert [one.steps for one in plan.loras] == [one.steps for one in prepared.loras]
    assert plan.lora_set_id == prepared.lora_set_id == whole[0].lora_set_id
    assert plan.memory_bytes == whole[0].memory_bytes + whole[1].memory_bytes


REUSE, STEPS = StepReuse(3), 12
EARLY, LATER = replace(ONE, end=0.4), LoraRef(name="two", start=0.4)
LARGER = SecondPass(width=96, height=96, strength=0.7, steps=10)


@pytest.mark.parametrize(
    ("changes", "unet_steps"),
    [
        ({}, 6),
        ({"guidance_interval": GuidanceInterval(0.4, 0.9)}, 9),
        ({"prompt": "[a cat:a dog:0.5]"}, 7),
        ({"prompt": "[a cat:a dog:0.5]", "negative_prompt": "[x:y:10]"}, 8),
        ({"prompt": "[a cat|a dog]"}, 12),
        ({"negative_prompt": "[x|y]"}, 12),
        ({"negative_prompt": "[x|y]", "guidance_scale": 1.0}, 6),
        ({"loras": (EARLY,)}, 7),
        ({"loras": (EARLY, LATER), "prompt": "[a cat:a dog:8]"}, 8),
        ({"loras": (EARLY, LATER), "prompt": "[a cat:a dog:8]", "step_reuse": None}, 12),
        ({"loras": (ONE,), "late_start": 0.5}, 6),
        ({"second_pass": LARGER}, 10),
        ({"second_pass": LARGER, "prompt": "[a cat:a dog:1.6]", "loras": (LATER,)}, 13),
        ({"kind": TaskKind.TRANSFORM, "strength": 0.75, "prompt": "[a cat:a dog:8]"}, 6),
    ],
)
async def test_steps_are_those_that_ask(open_tiny, changes: dict, unet_steps: int) -> None:
    """Forecast steps ask nothing, and nothing is forecast over a change: as many calls as the job makes."""
    asked = task(**{"steps": STEPS, "step_reuse": REUSE, **changes})
    async with open_tiny() as engine:
        plan = await engine.plan(asked)
        if asked.sampling.late_start:  # a plan cannot know when a file will have been read
            await drawn(engine, replace(asked, sampling=replace(asked.sampling, late_start=0.0)))
        finished = next(event for event in await drawn(engine, asked) if isinstance(event, Finished))
    assert plan.unet_steps == finished.unet_calls == unet_steps
    assert plan.guided_steps == (plan.unet_steps if asked.sampling.guidance_interval is None else 4) * (
        asked.sampling.guidance_scale > 1
    )


HALVES = "a cat:0.5 AND a dog:0.5"


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({}, [3] * 4),
        ({"guidance_scale": 1.0}, [3] * 4),
        ({"guidance_scale": 1.0, "prompt": HALVES}, [2] * 4),
        ({"prompt": HALVES, "guidance_interval": GuidanceInterval(0.25, 0.75)}, [2, 3, 3, 2]),
        ({"image_count": 2}, [6] * 4),
    ],
)
async def test_each_part_of_a_prompt_is_a_row(open_tiny, tiny_model, changes: dict, rows: list[int]) -> None:
    """Beside one for the negative prompt where that is asked about: as many as the job's calls have."""
    asked = task(**{"prompt": "a cat AND a dog", "steps": 4, **changes})
    calls: list[int] = []
    hook = tiny_model.unet.register_forward_pre_hook(lambda _, args: calls.append(args[0].shape[0]))
    async with open_tiny(max_rows_per_call=8) as engine:
        plan = await engine.plan(asked)
        await drawn(engine, asked)
    hook.remove()
    assert calls == rows == rows_of_steps(asked)
    assert plan.guided_steps == sum(row > 2 * asked.sampling.image_count for row in rows)


async def test_a_step_of_second_order_asks_twice_or_not_at_all(open_tiny) -> None:
    """But once in the last one."""
    asked = task(steps=STEPS, step_reuse=REUSE, prompt="[a cat:a dog:0.5]", scheduler=Scheduler.HEUN)
    async with open_tiny() as engine:
        plan = await engine.plan(asked)
        finished = next(event for event in await drawn(engine, asked) if isinstance(event, Finished))
    assert finished.unet_calls == 2 * plan.unet_steps - 1


async def test_a_file_that_does_not_fit_is_refused_in_the_plan(open_tiny, tmp_path) -> None:
    """As the job would refuse it, without failing; one that is not there fails at the door."""
    save_file({"lora_unet_nothing_like_it.lora_down.weight": zeros(2, 2)}, tmp_path / "odd.safetensors")
    async with open_tiny(loras=tmp_path) as engine:
        plan = await engine.plan(task(loras=(LoraRef(name="odd"),)))
        assert plan.loras[0].refusal
        with pytest.raises(LoraNotFound):
            await engine.plan(task(loras=(LoraRef(name="absent"),)))
        with pytest.raises(ModelNotFound):
            await engine.plan(replace(task(), model="absent"))
