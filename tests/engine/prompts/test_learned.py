"""Words of prompts from a folder of textual inversions, drawn with the embedded model."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.conditioning import encode
from sdgrpc.domain import Event, ImageReady, Task
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.prompts.learned import context_of, learned_words, widths_of
from sdgrpc.errors import InvalidRequest
from sdgrpc.lora.embeddings.files import read_embedding
from sdgrpc.lora.embeddings.library import EmbeddingLibrary, Learned
from sdgrpc.lora.fusing.prompt_part import NO_PROMPT_PART, PromptPart
from sdgrpc.lora.store.library import LoraLibrary
from sdgrpc.parameters import read_parameters, text_of_picture
from tests.support.loras import to_file
from tests.support.oracle import conditioning_of, pipeline_with_its_own_words
from tests.support.tasks import task


def test_only_what_is_used_is_read(folder: Path, tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole words in either prompt, weighed or not, in upper or lower case."""
    library, model = EmbeddingLibrary([folder]), tiny_model
    opened: list[str] = []
    monkeypatch.setattr(
        "sdgrpc.lora.embeddings.library.read_embedding",
        lambda path, name: opened.append(name) or read_embedding(path, name),
    )
    assert widths_of(model) == {"text_encoder": 32}
    assert learned_words(library, widths_of(model), ("a blobs, a larger one", None)).tokens == {}
    assert opened == []
    for prompts in (("a (BLOB:1.2)", None), ("a", "no blob"), ("[blob] and BREAK blob", "")):
        found = learned_words(library, widths_of(model), prompts)
        assert [name for name, _ in found.hashes] == ["Blob"]
        assert list(found.tokens) == ["blob"]
    assert opened == ["Blob"]
    assert set(learned_words(library, widths_of(model), ("large blob broken", None)).refused) == {
        "large",
        "broken",
    }


@pytest.mark.parametrize("key", ["emb_params", "<cat-toy>"])
def test_a_file_is_read_as_diffusers_reads_it(tmp_path: Path, tiny_model: Model, key: str) -> None:
    """What prompts are encoded to is what `load_textual_inversion` makes of the same file."""
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    path = to_file(tmp_path / "blob.safetensors", {key: vectors})
    theirs = pipeline_with_its_own_words(tiny_model, task())
    theirs.load_textual_inversion(str(path), token="blob")
    asked = task(prompt="a red blob and a dog", negative_prompt="blob")
    prompts = (asked.prompt, asked.negative_prompt)
    learned = learned_words(EmbeddingLibrary([tmp_path]), widths_of(tiny_model), prompts)
    context = context_of(NO_PROMPT_PART, learned, lambda: None)
    ours = encode(tiny_model, asked.prompt, asked.negative_prompt, context=context)
    expected = conditioning_of(theirs, asked)
    torch.testing.assert_close(ours.positive, expected.positive)
    torch.testing.assert_close(ours.negative, expected.negative)
    plain = encode(tiny_model, asked.prompt, asked.negative_prompt)
    assert ours.positive.shape != plain.positive.shape or not torch.equal(ours.positive, plain.positive)


def test_a_lora_s_word_goes_first() -> None:
    """Whether the folder's can be used or not."""
    mine, folders = {"text_encoder": torch.ones(1, 4)}, {"text_encoder": torch.zeros(1, 4)}
    part = PromptPart("key", {"a": mine}, frozenset({"b"}))
    learned = Learned({"a": folders, "b": folders, "c": folders}, {"d": "no"})
    found = context_of(part, learned, lambda: None)
    assert found.tokens == {"a": mine, "c": folders}
    assert (found.text_encoders, found.disputed, found.refused) == ("key", frozenset({"b"}), {"d": "no"})
    assert context_of(part, Learned({}, {"a": "no"}), lambda: None).refused == {}


async def drawn(engine: LocalEngine, asked: Task) -> bytes:
    events: list[Event] = [event async for event in engine.submit(asked)]
    return next(event.image.data for event in events if isinstance(event, ImageReady))


async def test_a_word_draws_what_its_vectors_are(folder: Path, tiny_model: Model, lora_dir: Path) -> None:
    """To the pixel, in prompt and negative prompt; its hash stands in the parameters, and it is listed."""
    library = EmbeddingLibrary([folder])
    engine = LocalEngine([tiny_model], LoraLibrary([lora_dir]), embeddings=library)
    try:
        await engine.warm_up()
        sized = {"width": 64, "height": 64, "steps": 2, "guidance_scale": 3.0}
        plain = await drawn(engine, task(prompt="a red heart", negative_prompt="red heart", **sized))
        word = await drawn(engine, task(prompt="a blob", negative_prompt="blob", **sized))
        assert pixels(plain) == pixels(word)
        ((_, sha256),) = library.learned(["blob"], {"text_encoder": 32}).hashes
        text = text_of_picture(word)
        assert f'TI hashes: "Blob: {sha256[:12]}", ' in text
        assert f'TI SHA-256: "Blob: {sha256}"' in text
        assert read_parameters(text).notes == ()
        assert "TI" not in text_of_picture(plain)
        listed = {one.name: one for one in await engine.list_embeddings(tiny_model.info.name)}
        assert listed["Blob"].fits
        assert "is for SDXL" in listed["large"].refusal
        with pytest.raises(InvalidRequest) as caught:
            await drawn(engine, task(prompt="a large heart", negative_prompt="broken", **sized))
        assert {one.field: one.description.partition(":")[0] for one in caught.value.violations} == {
            "prompt": "uses the textual inversion 'large', which this model cannot",
            "negative_prompt": "uses the textual inversion 'broken', which this model cannot",
        }
        unguided = task(prompt="a blob", negative_prompt="broken", **{**sized, "guidance_scale": 1.0})
        await drawn(engine, unguided)
    finally:
        await engine.close()


async def test_a_file_that_changes_is_encoded_anew(tmp_path: Path, tiny_model: Model) -> None:
    """The cache of prompts keeps what was drawn with the old vectors apart."""
    path = to_file(tmp_path / "blob.safetensors", {"emb_params": torch.ones(1, 32)})
    engine = LocalEngine([tiny_model], LoraLibrary([]), embeddings=EmbeddingLibrary([tmp_path]))
    try:
        await engine.warm_up()
        asked = task(prompt="a blob", width=64, height=64, steps=2)
        first = await drawn(engine, asked)
        assert pixels(await drawn(engine, asked)) == pixels(first)
        to_file(path, {"emb_params": -torch.ones(2, 32)})
        second = await drawn(engine, asked)
        assert pixels(second) != pixels(first)
        path.unlink()
        assert pixels(await drawn(engine, asked)) not in (pixels(first), pixels(second))
    finally:
        await engine.close()


def pixels(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB").tobytes()
