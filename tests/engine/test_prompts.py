"""Prompts on their way through the engine: encoded once, with the tokens of the job's LoRAs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.domain import ImageReady, LoraRef, Output, Prepared, Task
from sdgrpc.engine.local import LocalEngine
from sdgrpc.errors import InvalidRequest
from sdgrpc.lora.store.library import LoraLibrary
from tests.support.models import save_sdxl_model
from tests.support.tasks import task

ONE = LoraRef(0.8, 0.8, name="one")
BARE = Output(omit_metadata=True)


async def draw(engine, asked: Task) -> bytes:
    """The picture of a task, without the text that says how it was made."""
    events = [event async for event in engine.submit(replace(asked, output=BARE))]
    return next(event.image.data for event in events if isinstance(event, ImageReady))


@contextmanager
def counted(model: Model) -> Iterator[list[int]]:
    """How many chunks each call of the text encoder has."""
    calls: list[int] = []
    encoder = model.text_encoders["text_encoder"]
    hook = encoder.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    try:
        yield calls
    finally:
        hook.remove()


async def test_a_prompt_is_encoded_once(open_tiny, tiny_model) -> None:
    """The second request makes no call; its picture is the first one's and that of no cache, to the bit."""
    async with open_tiny(prompt_cache_bytes=0) as engine:
        expected = await draw(engine, task())
    async with open_tiny() as engine:
        with counted(tiny_model) as calls:
            assert await draw(engine, task()) == expected
            assert calls == [1, 1]
            assert await draw(engine, task()) == expected
            assert calls == [1, 1]
        status = engine.status()
        assert (status.prompts, status.prompt_bytes) == (2, 2 * 77 * 32 * 4)


async def test_without_memory_each_request_encodes(open_tiny, tiny_model) -> None:
    """A setting of 0 keeps nothing."""
    async with open_tiny(prompt_cache_bytes=0) as engine:
        with counted(tiny_model) as calls:
            for _ in range(2):
                await draw(engine, task())
            assert calls == [1, 1, 1, 1]
        assert engine.status().prompt_bytes == 0


async def test_the_negative_prompt_is_shared(open_tiny, tiny_model) -> None:
    """Other prompts, seeds, sizes and lengths come with the same one, which is encoded and kept once."""
    async with open_tiny() as engine:
        with counted(tiny_model) as calls:
            await draw(engine, task())
            await draw(engine, task(prompt="a dog", seed=9, width=96))
            assert calls == [1, 1, 1]
            await draw(engine, task(prompt="cat " * 80))  # two chunks, and an empty one for the negative
            assert calls == [1, 1, 1, 2, 1]
            await draw(engine, task(prompt="dog " * 80))
            assert calls == [1, 1, 1, 2, 1, 2]


async def test_clip_skip_is_of_the_key(open_tiny, tiny_model) -> None:
    """The positive prompt with other layers is another; the negative one has none left out."""
    async with open_tiny() as engine:
        with counted(tiny_model) as calls:
            plain, skipped = await draw(engine, task()), await draw(engine, task(clip_skip=1))
        assert calls == [1, 1, 1]
        assert plain != skipped


async def test_the_text_encoders_part_of_the_set_is_of_the_key(open_tiny, tiny_model) -> None:
    """Sets that differ in the UNet's strength alone share their prompts; others must not."""
    async with open_tiny() as engine:
        with counted(tiny_model) as calls:
            await draw(engine, task())
            await draw(engine, task(loras=(ONE,)))
            assert calls == [1] * 4
            await draw(engine, task(loras=(replace(ONE, strength=0.3),)))
            assert calls == [1] * 4
            await draw(engine, task(loras=(replace(ONE, text_encoder_strength=0.0),)))
            assert calls == [1] * 4
            await draw(engine, task(loras=(replace(ONE, text_encoder_strength=0.3),)))
            assert calls == [1] * 6


async def test_cached_prompts_of_sets_do_not_mix(open_tiny) -> None:
    """In any order each job draws what it draws without a cache."""
    asked = [task(), task(loras=(ONE,)), task(loras=(replace(ONE, text_encoder_strength=0.3),))]
    async with open_tiny(prompt_cache_bytes=0) as engine:
        expected = [await draw(engine, one) for one in asked]
    async with open_tiny() as engine:
        for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
            drawn = {number: await draw(engine, asked[number]) for number in order}
            assert [drawn[number] for number in range(3)] == expected
    assert len(set(expected)) == 3


@pytest.fixture(scope="session")
def token_dir(lora_dir: Path, tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of `lora_dir`, each with a token `pet`: the first with the vector of `dog`, the other not."""
    folder = tmp_path_factory.mktemp("tokens")
    words = tiny_model.text_encoders["text_encoder"].get_input_embeddings().weight.detach()
    (dog,) = tiny_model.tokenizers["tokenizer"]("dog", add_special_tokens=False).input_ids
    for name, vectors in {"one": words[dog], "two": torch.ones(2, 32)}.items():
        tensors = load_file(lora_dir / f"{name}.safetensors")
        save_file(
            tensors | {"bundle_emb.Pet.string_to_param.*": vectors.contiguous()},
            folder / f"{name}.safetensors",
        )
    return folder


async def test_a_bundled_token_is_a_word_of_its_job(open_tiny, token_dir: Path) -> None:
    """With the vector of a word it draws that word; for jobs without the LoRA it is what it was."""
    async with open_tiny(loras=token_dir) as engine:
        plain = await draw(engine, task(prompt="a red pet"))
        learned = await draw(engine, task(prompt="a red pet", negative_prompt="PET", loras=(ONE,)))
        word = await draw(engine, task(prompt="a red dog", negative_prompt="dog", loras=(ONE,)))
        assert learned == word
        off = replace(ONE, strength=0.0, text_encoder_strength=0.0)
        assert await draw(engine, task(prompt="a red pet", loras=(off,))) == plain
        assert await draw(engine, task(prompt="a red pet")) == plain


async def test_the_report_names_the_tokens(open_tiny, token_dir: Path) -> None:
    """Of a set that was there already, too."""
    async with open_tiny(loras=token_dir) as engine:
        for _ in range(2):
            events = [event async for event in engine.submit(task(loras=(ONE,)))]
            (prepared,) = [event for event in events if isinstance(event, Prepared)]
            assert prepared.loras[0].warnings == ("brings the token 'Pet' for the prompt (1 vector)",)


async def test_other_vectors_are_another_prompt(open_tiny, token_dir: Path) -> None:
    """LoRAs that leave the text encoder alone share prompts, but not those with tokens of their own."""
    one, two = (LoraRef(0.001, 0.0, name=name) for name in ("one", "two"))
    async with open_tiny(loras=token_dir, prompt_cache_bytes=0) as engine:
        expected = [await draw(engine, task(prompt="a pet", loras=(each,))) for each in (one, two)]
    async with open_tiny(loras=token_dir) as engine:
        assert [await draw(engine, task(prompt="a pet", loras=(each,))) for each in (one, two)] == expected


async def test_a_disputed_token_ends_only_the_job_that_uses_it(open_tiny, token_dir: Path) -> None:
    """Both LoRAs work together as long as the prompt does not say the word that both define."""
    both = (ONE, LoraRef(0.5, 0.5, name="two"))
    async with open_tiny(loras=token_dir) as engine:
        assert await draw(engine, task(loras=both))
        with pytest.raises(InvalidRequest, match="negative_prompt: uses the token 'pet', which two LoRAs"):
            await draw(engine, task(negative_prompt="a pet", loras=both))
        assert await draw(engine, task(loras=both))


async def test_sdxl_has_a_vector_for_each_text_encoder(tmp_path: Path) -> None:
    """`clip_l` and `clip_g` of a file go to the first and the second; the picture is that of their word."""
    model = load("tiny", save_sdxl_model(tmp_path / "model"), device=torch.device("cpu"), dtype=None)
    tensors = {}
    for part, name in (("clip_l", "text_encoder"), ("clip_g", "text_encoder_2")):
        (dog,) = model.tokenizer_of(name)("dog", add_special_tokens=False).input_ids
        rows = model.text_encoders[name].get_input_embeddings().weight.detach()
        tensors[f"bundle_emb.pet.{part}"] = rows[dog].clone()
    path, layer = next((path, m) for path, m in model.unet.named_modules() if path.endswith("attn1.to_q"))
    key = f"lora_unet_{path.replace('.', '_')}"
    tensors[f"{key}.lora_down.weight"] = torch.ones(1, layer.weight.shape[1])
    tensors[f"{key}.lora_up.weight"] = torch.ones(layer.weight.shape[0], 1)
    (tmp_path / "loras").mkdir()
    save_file(tensors, tmp_path / "loras" / "one.safetensors")
    engine = LocalEngine([model], LoraLibrary([tmp_path / "loras"]))
    try:
        word, token = [
            await draw(engine, task(prompt=f"a red {noun}", loras=(ONE,))) for noun in ("dog", "pet")
        ]
        assert word == token
        assert await draw(engine, task(prompt="a red pet")) != await draw(engine, task(prompt="a red dog"))
    finally:
        await engine.close()
