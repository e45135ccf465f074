"""Pickles that become safetensors files, and those that are refused."""

from __future__ import annotations

import argparse
import io
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from sdgrpc.errors import LoraError, LoraMalformed, LoraUnsupported
from sdgrpc.lora.bases.architectures import index
from sdgrpc.lora.bases.detect import place_or_refuse
from sdgrpc.lora.describing.inspect import inspect
from sdgrpc.lora.describing.summary import summarize
from sdgrpc.lora.dialects.adapt import adapt
from sdgrpc.lora.files.convert import convert
from sdgrpc.lora.files.reading import DEFAULT_LIMITS, read
from tests.support.loras import CROSS, LINEAR, kohya_file, require_shared, to_bytes, to_file


class Code:
    """What a pickle runs where nobody stops it: it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def pickled(folder: Path, content: object, name: str = "a.pt", **options: object) -> Path:
    path = folder / name
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("ending", ["pt", "bin", "ckpt"])
def test_flat_maps_keep_every_tensor(ending: str, zipped: bool, tmp_path: Path) -> None:
    """Keys, dtypes and values are those of the pickle; the file is described like its twin."""
    tensors = kohya_file(LINEAR, dtype=torch.float16) | kohya_file(CROSS, dtype=torch.bfloat16)
    path = pickled(tmp_path, tensors, f"style.v1.{ending}", _use_new_zipfile_serialization=zipped)
    made = convert(path)
    assert made == tmp_path / "style.v1.safetensors"
    written = load_file(made)
    assert written.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert written[key].dtype == tensor.dtype
        assert torch.equal(written[key], tensor)
    twin = to_file(tmp_path / "twin.safetensors", tensors)
    assert inspect(made).modules == inspect(twin).modules
    assert {p.name for p in tmp_path.iterdir()} == {path.name, "style.v1.safetensors", "twin.safetensors"}


def test_tensors_inside_state_dict_and_parameters(tmp_path: Path) -> None:
    """A checkpoint's `state_dict` is unpacked, epochs and the like are left behind, numbers become alphas."""
    tensors = {key: nn.Parameter(tensor) for key, tensor in kohya_file(LINEAR, alpha=None).items()}
    alpha = f"{next(iter(tensors)).partition('.')[0]}.alpha"
    content = {"epoch": 3, "state_dict": {"state_dict": {**tensors, alpha: 2, "note": "x"}}}
    written = load_file(convert(pickled(tmp_path, content)))
    assert written.keys() == {*tensors, alpha}
    assert written[alpha] == 2.0


def test_views_of_one_memory_are_written_apart(tmp_path: Path) -> None:
    """Transposed and shared tensors, which safetensors does not hold, come out with their values."""
    whole = torch.arange(12.0).reshape(3, 4)
    written = load_file(convert(pickled(tmp_path, {"a": whole, "b": whole.T, "c": whole[1]})))
    assert torch.equal(written["b"], whole.T)
    assert torch.equal(written["c"], whole[1])


def test_lists_of_factors_are_numbered(tmp_path: Path) -> None:
    """A list (up, down, ...) gets cloneofsimo's keys: a text encoder's where all widths are the same."""
    text = [torch.full((8, 1), 1.0), torch.full((1, 8), 2.0)] * 2
    written = load_file(convert(pickled(tmp_path, text, "a.text_encoder.pt")))
    assert sorted(written) == [f"text_encoder:{n}:{side}" for n in (0, 1) for side in ("down", "up")]
    unet = [torch.ones(8, 1), torch.ones(1, 12)]
    assert sorted(load_file(convert(pickled(tmp_path, unet, "u.pt")))) == ["unet:0:down", "unet:0:up"]


def test_textual_inversions_are_converted_and_named(tmp_path: Path) -> None:
    """A token's embedding becomes a file too, and the service says what it is."""
    simple = convert(pickled(tmp_path, {"<s1>": torch.ones(768)}, "a.ti.pt"))
    old = convert(
        pickled(tmp_path, {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.ones(2, 768)}})
    )
    for made in (simple, old):
        assert "is a textual inversion" in summarize(made, "a").refusal
    assert load_file(old)["emb_params"].shape == (2, 768)


def test_code_is_refused_by_name_and_not_run(tmp_path: Path) -> None:
    """A pickle that asks for more than weights is refused with what it asks for, and writes nothing."""
    code = Code(tmp_path / "ran")
    cases = [
        ({"a": code}, "mkdir"),
        ([torch.ones(1), code], "mkdir"),
        ({"state_dict": {"a": torch.ones(1)}, "hyper": argparse.Namespace(x=1)}, "argparse.Namespace"),
    ]
    for content, named in cases:
        path = pickled(tmp_path, content)
        with pytest.raises(LoraUnsupported, match=rf"holds code \('[^']*{named}'\).*nothing of it was run"):
            convert(path)
        assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_a_bare_pickle_with_code_is_refused(tmp_path: Path) -> None:
    """So is one that no torch wrote, which would run its code where it is simply unpickled."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        ran, path = tmp_path / f"ran{protocol}", tmp_path / f"{protocol}.pt"
        path.write_bytes(pickle.dumps({"a": Code(ran)}, protocol=protocol))
        with pytest.raises(LoraError):
            convert(path)
        assert not ran.exists()
        pickle.loads(path.read_bytes())  # noqa: S301 - the test's own
        assert ran.exists()


def test_what_is_no_lora_is_refused(tmp_path: Path) -> None:
    """The sentence says what was there instead."""
    cases: dict[str, object] = {
        "holds Tensor, no map": torch.ones(2),
        "holds list, no map": [],
        "list of 3 tensors": [torch.ones(2, 2)] * 3,
        "list of 2 tensors": [torch.ones(2), torch.ones(2)],
        "holds no tensors": {"epoch": 3},
        "torch.complex64": {"a": torch.ones(2, dtype=torch.complex64)},
        "torch.sparse_coo": {"a": torch.eye(2).to_sparse()},
    }
    for number, (words, content) in enumerate(cases.items()):
        with pytest.raises(LoraUnsupported, match=words):
            convert(pickled(tmp_path, content, f"{number}.pt"))


def test_broken_content_is_refused(tmp_path: Path) -> None:
    """NaN, a size that no file has, a truncated archive and other bytes are refused, each with its fault."""
    cases = {
        "'a' holds NaN": pickled(tmp_path, {"a": torch.tensor(float("nan"))}, "nan.pt"),
        "have more than 4,294,967,296 bytes": pickled(
            tmp_path, {"a": torch.ones(1).expand(1 << 40)}, "big.pt"
        ),
    }
    cut = tmp_path / "cut.pt"
    cut.write_bytes(cases["'a' holds NaN"].read_bytes()[:-200])
    for words, path in {**cases, "can be read": cut}.items():
        with pytest.raises(LoraMalformed, match=words):
            convert(path)
    other = tmp_path / "other.pt"
    other.write_bytes(b"hello")
    with pytest.raises(LoraUnsupported, match="is no PyTorch pickle, and no safetensors file"):
        convert(other)
    other.write_bytes(to_bytes(kohya_file(LINEAR)))
    with pytest.raises(LoraUnsupported, match="is a safetensors file already"):
        convert(other)
    with pytest.raises(LoraMalformed, match="at most 10 are read"):
        convert(cases["'a' holds NaN"], limits=replace(DEFAULT_LIMITS, max_file_bytes=10))


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    """A target that is there stays as it is, and is replaced whole where that is wanted."""
    path = pickled(tmp_path, {"a": torch.ones(2)})
    target = tmp_path / "kept.safetensors"
    target.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        convert(path, target)
    assert target.read_bytes() == b"mine"
    assert convert(path, target, overwrite=True) == target
    assert load_file(target)["a"].tolist() == [1.0, 1.0]
    with pytest.raises(LoraUnsupported, match=r"ends in \.safetensors"):
        convert(path, tmp_path / "out.pt")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 4095), bit=st.integers(0, 7), cut=st.integers(0, 2000))
def test_bytes_that_were_hit_are_read_or_refused(place: int, bit: int, cut: int, tmp_path: Path) -> None:
    """Whatever becomes of a pickle's bytes, it is converted or refused by name, and never run."""
    buffer = io.BytesIO()
    torch.save(kohya_file(LINEAR), buffer)
    content = bytearray(buffer.getvalue())
    content[place % len(content)] ^= 1 << bit
    path = tmp_path / "hit.pt"
    path.write_bytes(content[: len(content) - cut] if cut % 3 == 0 else content)
    try:
        made = convert(path, overwrite=True)
    except LoraError:
        return
    read(made, made.name, DEFAULT_LIMITS)


@pytest.mark.parametrize(
    ("name", "base", "modules"),
    [
        ("catundchat_pytorch_lora_weights.bin", "sd15", 128),
        ("cloneofsimo_lora_disney.pt", "sd2", 128),
        ("cloneofsimo_lora_kiriko.text_encoder.pt", "sd2", 92),
    ],
)
def test_real_pickles(name: str, base: str, modules: int, tmp_path: Path) -> None:
    """Published pickles are converted, and every tensor finds its place in the base they are for."""
    made = convert(require_shared("loras") / name, tmp_path / "made.safetensors")
    adapter = adapt(read(made, "made"))
    placement = place_or_refuse(adapter, index(base), base)
    assert (len(placement.placed), placement.unmatched(adapter)) == (modules, [])
    found = inspect(made)
    assert (found.base, found.refusal, found.unmatched) == (base, "", ())


def test_a_real_pickle_and_its_published_twin(tmp_path: Path) -> None:
    """A LoRA published as pickle and (trained for longer) as safetensors: the same modules, its own norms."""
    name = "catundchat_pytorch_lora_weights"
    pickle_path = require_shared("loras") / f"{name}.bin"
    made = inspect(convert(pickle_path, tmp_path / "made.safetensors")).modules
    twin = inspect(pickle_path.with_suffix(".safetensors")).modules
    assert [module.path for module in made] == [module.path for module in twin]
    raw = torch.load(pickle_path, map_location="cpu", weights_only=True)
    ups = [key for key in raw if key.endswith(".up.weight")]
    norms = [(raw[up].double() @ raw[up.replace(".up.", ".down.")].double()).norm().item() for up in ups]
    assert sorted(module.delta_norm for module in made) == pytest.approx(sorted(norms), rel=1e-6)
