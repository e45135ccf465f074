"""Summaries of files from their headers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdgrpc.lora.bases.architectures import index
from sdgrpc.lora.bases.module_names import NameIndex
from sdgrpc.lora.bases.target import Target
from sdgrpc.lora.describing.summary import summarize
from sdgrpc.lora.dialects import adapt
from sdgrpc.lora.files import reading
from tests.support.assets import LORAS
from tests.support.loras import (
    CONVOLUTION,
    CROSS,
    LINEAR,
    adapter_of,
    every_algorithm,
    kohya,
    kohya_file,
    shape_of,
    small_shapes,
    to_file,
)

SMALL = Target(NameIndex(small_shapes()), "small")


def test_a_file_is_summarised_without_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Base, algorithms, ranks and words come from the header: nothing of the data is read or hashed."""

    def refuse(*_: object) -> None:
        raise AssertionError("the data were read")

    monkeypatch.setattr(reading, "read", refuse)
    monkeypatch.setattr(reading, "hashes", refuse)
    monkeypatch.setattr(reading, "_fill", refuse)
    found = summarize(LORAS / "flower.safetensors", "flower", sha256="abc")
    assert (found.name, found.sha256, found.base) == ("flower", "abc", "embedded")
    assert (found.algorithms, found.rank_min, found.rank_max) == (("locon", "lora"), 4, 4)
    assert found.trigger_words[0] == "flower"
    assert found.size == (LORAS / "flower.safetensors").stat().st_size
    assert found.fits
    assert not found.refusal


def test_the_smallest_and_the_largest_rank(tmp_path: Path) -> None:
    """Resized and DyLoRA files have another rank per module."""
    tensors = kohya_file(LINEAR, rank=3) | kohya_file(CROSS, rank=7)
    found = summarize(to_file(tmp_path / "a.safetensors", tensors), "a", model=SMALL)
    assert (found.rank_min, found.rank_max, found.modules, found.fits) == (3, 7, 2, True)


@pytest.mark.parametrize("path", [LINEAR, CONVOLUTION])
def test_every_algorithm_is_summarised_as_it_is_read(path: str, tmp_path: Path) -> None:
    """A summary from shapes says the same as one from the whole file."""
    for number, (label, endings) in enumerate(every_algorithm(shape_of(path)).items()):
        tensors = {kohya(path) + ending: tensor for ending, tensor in endings.items()}
        adapter = adapter_of(tensors)
        found = summarize(to_file(tmp_path / f"{number}.safetensors", tensors), label, model=SMALL)
        assert found.algorithms == tuple(sorted({module.label for module in adapter.modules})), label
        assert found.rank_max == (adapter.modules[0].rank or 0), label
        assert found.refusal == "", label


def test_what_decides_about_shapes_is_read(tmp_path: Path) -> None:
    """(IA)^3's flag says which side its vector is for, a sparse remainder's indices whether they fit."""
    out, inner = shape_of(CROSS)
    flagged = {f"{kohya(CROSS)}.weight": torch.ones(inner), f"{kohya(CROSS)}.on_input": torch.tensor(1)}
    assert summarize(to_file(tmp_path / "i.safetensors", flagged), "i", model=SMALL).fits
    flagged[f"{kohya(CROSS)}.on_input"] = torch.tensor(0)
    assert out != inner
    assert not summarize(to_file(tmp_path / "o.safetensors", flagged), "o", model=SMALL).fits
    sparse = kohya_file(LINEAR) | {
        f"{kohya(LINEAR)}.bias_indices": torch.tensor([[10_000], [0]]),
        f"{kohya(LINEAR)}.bias_values": torch.ones(1),
        f"{kohya(LINEAR)}.bias_size": torch.tensor(shape_of(LINEAR)),
    }
    found = summarize(to_file(tmp_path / "s.safetensors", sparse), "s", model=SMALL)
    assert "points outside" in found.refusal


def test_a_model_judges(tmp_path: Path) -> None:
    """With a model, the refusal is what a request would be told; without, whether any base takes the file."""
    flower = LORAS / "flower.safetensors"
    sd15 = Target(index("sd15"), "sd15")
    assert "is for the embedded model" in summarize(flower, "flower", model=sd15).refusal
    odd = to_file(tmp_path / "odd.safetensors", kohya_file(LINEAR))
    assert summarize(odd, "odd", model=SMALL).fits
    found = summarize(odd, "odd")
    assert found.base == "unknown"
    assert found.refusal == (
        "LoRA 'odd': fits no base that is known (SD1.5, SD2, SDXL or the embedded model); "
        f"{kohya(LINEAR)!r} is one of its modules"
    )


def test_refusals_keep_the_metadata(tmp_path: Path) -> None:
    """A file for another architecture, or a broken one, is summarised by its size and why it is refused."""
    tensors = {"lora_te3_x.lora_up.weight": torch.ones(2, 2)}
    path = to_file(tmp_path / "sd3.safetensors", tensors, {"ss_output_name": "x", "ssmd_cover_images": "[]"})
    found = summarize(path, "sd3")
    assert "is for Stable Diffusion 3" in found.refusal
    assert found.metadata == {"ss_output_name": "x"}
    path.write_bytes(path.read_bytes()[:-1])
    found = summarize(path, "sd3")
    assert "is truncated" in found.refusal
    assert (found.base, found.algorithms, found.metadata) == ("unknown", (), {})


def test_alpha_beside_a_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in an `adapter_config.json` belongs to the file here, too."""
    seen: list[object] = []
    original = adapt.adapt
    monkeypatch.setattr(adapt, "adapt", lambda file, config: seen.append(config) or original(file, config))
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 8}')
    summarize(to_file(tmp_path / "a.safetensors", kohya_file(LINEAR)), "a")
    assert [config.values for config in seen] == [{"": {"lora_alpha": 8}}]  # type: ignore[attr-defined]
