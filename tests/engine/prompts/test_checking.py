"""What a plan refuses of prompts' words is what the job would refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdgrpc.diffusion.model import Model
from sdgrpc.domain import JobPlan, LoraRef, Task
from sdgrpc.engine.local import LocalEngine
from sdgrpc.errors import InvalidRequest
from sdgrpc.lora.embeddings.library import EmbeddingLibrary
from sdgrpc.lora.store.library import LoraLibrary
from tests.support.loras import to_file
from tests.support.tasks import task

LARGE = "uses the textual inversion 'large', which this model cannot: it is for SDXL"
BROKEN = "uses the textual inversion 'broken', which this model cannot"


@pytest.fixture
def speaking(tmp_path: Path, lora_dir: Path) -> Path:
    """Two LoRAs that bring the word `large`, each with vectors of its own."""
    folder = tmp_path / "loras"
    for number, name in enumerate(("one", "two"), start=1):
        tensors = load_file(lora_dir / f"{name}.safetensors")
        tensors["bundle_emb.large.string_to_param.*"] = torch.full((1, 32), float(number))
        to_file(folder / f"{name}.safetensors", tensors)
    return folder


@pytest.fixture
async def engine(folder: Path, speaking: Path, tiny_model: Model) -> AsyncIterator[LocalEngine]:
    made = LocalEngine([tiny_model], LoraLibrary([speaking]), embeddings=EmbeddingLibrary([folder]))
    yield made
    await made.close()


async def drawn(engine: LocalEngine, asked: Task) -> None:
    async for _ in engine.submit(asked):
        pass


async def refusal(doing) -> dict[str, str]:
    """The violations of what is done; none where it succeeds."""
    try:
        await doing
    except InvalidRequest as error:
        return {each.field: each.description for each in error.violations}
    return {}


def by(name: str, **changes) -> LoraRef:
    return LoraRef(0.1, 0.1, name=name, **changes)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"prompt": "a blob and a larger one"}, {}),
        (
            {"prompt": "a (LARGE:1.2) blob", "negative_prompt": "broken"},
            {"prompt": LARGE, "negative_prompt": BROKEN},
        ),
        ({"negative_prompt": "broken", "guidance_scale": 1.0}, {}),
        ({"prompt": "[a cat:a large cat:0.5]"}, {"prompt": LARGE}),
        ({"prompt": "[a cat:a large cat:4]"}, {}),
        ({"negative_prompt": "[|broken]"}, {"negative_prompt": BROKEN}),
        ({"prompt": "a cat (built: 1648)"}, {"prompt": "weighs words with 1648"}),
        ({"prompt": "a cat AND a (blob:1.2) :0.5"}, {}),
        ({"prompt": "a cat AND [a large cat:a dog:0.5] :0.5"}, {"prompt": LARGE}),
        (
            {"prompt": "a AND b", "negative_prompt": "broken", "guidance_scale": 1.0},
            {"negative_prompt": BROKEN},
        ),
        ({"prompt": "a:0.5 AND b:0.5", "negative_prompt": "broken", "guidance_scale": 1.0}, {}),
        ({"prompt": "a cat AND a large cat", "loras": (by("one"),)}, {}),
        ({"prompt": "a large cat", "loras": (by("one"),)}, {}),
        ({"prompt": "a large cat", "loras": (by("one", start=0.5),)}, {"prompt": LARGE}),
        ({"prompt": "[a cat:a large cat:0.5]", "loras": (by("one", start=0.5),)}, {}),
        ({"prompt": "a large cat", "loras": (LoraRef(0.0, 0.0, name="one"),)}, {"prompt": LARGE}),
        (
            {"prompt": "a large cat", "loras": (by("one"), by("two"))},
            {"prompt": "uses the token 'large', which two"},
        ),
    ],
)
async def test_words_are_judged_as_the_job_judges_them(
    engine: LocalEngine, changes: dict, refused: dict[str, str]
) -> None:
    """By field and sentence: a folder's words, those of LoRAs and of their steps, and weights."""
    asked = task(steps=4, **changes)
    planned = await refusal(engine.plan(asked))
    assert planned == await refusal(drawn(engine, asked))
    assert planned.keys() == refused.keys()
    assert all(planned[field].startswith(words) for field, words in refused.items())


async def test_a_file_that_does_not_fit_is_told_first(engine: LocalEngine, speaking: Path) -> None:
    """The job would end with it before it reads a prompt; the plan says so of the file, without failing."""
    to_file(speaking / "odd.safetensors", {"lora_unet_nothing_like_it.lora_down.weight": torch.zeros(2, 2)})
    plan = await engine.plan(task(prompt="a large cat", loras=(by("odd"),)))
    assert isinstance(plan, JobPlan)
    assert plan.loras[0].refusal
