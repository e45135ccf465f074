"""The header of a safetensors file, read for LoRAs and for models alike."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save, save_file

from sdgrpc.diffusion.checkpoints import stored
from sdgrpc.diffusion.checkpoints.stored import stored_tensors
from sdgrpc.errors import LoraError, ModelError
from sdgrpc.lora.files.reading import DEFAULT_LIMITS, read
from sdgrpc.tensor_files.faults import FileFault, PickledFile, TruncatedFile
from sdgrpc.tensor_files.header import ALL_DTYPES, ReadLimits, parse_header, read_header

TENSORS = {
    "half": torch.arange(6).half().view(2, 3),
    "count": torch.tensor(7),
    "brain": torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "none": torch.empty(0, 4),
}
GOOD = save(TENSORS, {"format": "pt"})
LIMITS = DEFAULT_LIMITS


def header_of(content: bytes, limits: ReadLimits = LIMITS):
    return read_header(io.BytesIO(content), limits)


def test_claims_are_those_of_the_format(tmp_path: Path) -> None:
    """Keys, shapes, dtypes, metadata and places are what the format's own library reads."""
    save_file(TENSORS, tmp_path / "a.safetensors", {"format": "pt"})
    content = (tmp_path / "a.safetensors").read_bytes()
    header = header_of(content)
    assert header.metadata == {"format": "pt"}
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert {claim.key for claim in header.claims} == set(file.keys())
        for claim in header.claims:
            tensor = file.get_tensor(claim.key)
            assert (claim.dtype, claim.shape) == (tensor.dtype, tuple(tensor.shape))
            raw = content[header.start + claim.begin : header.start + claim.end]
            assert raw == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    assert header.start + header.data_bytes == len(content)


def test_every_fault_is_neutral() -> None:
    """It names no LoRA and no model: a sentence without a subject, of a kind, with the key."""
    with pytest.raises(TruncatedFile, match=r"^is truncated: "):
        header_of(GOOD[:-1])
    with pytest.raises(PickledFile):
        header_of(b"PK\x03\x04" + bytes(20))
    with pytest.raises(FileFault) as caught:
        parse_header(json.dumps({"a": {"dtype": "F4"}}).encode(), 0, LIMITS)
    assert caught.value.key == "a"
    assert caught.value.sentence.startswith("tensor 'a' has the dtype 'F4'")


def test_limits_are_the_callers() -> None:
    """What a model may hold is not what a LoRA may: more tensors, a longer header, other dtypes."""
    many = save({str(number): torch.zeros(1) for number in range(LIMITS.max_tensors + 1)})
    with pytest.raises(FileFault, match="at most 16,384 are read"):
        header_of(many)
    assert len(header_of(many, stored.LIMITS).claims) == LIMITS.max_tensors + 1
    beside = save({"a": torch.zeros(2, dtype=torch.uint16), "b": torch.zeros(1, dtype=torch.complex64)})
    with pytest.raises(FileFault, match="dtype"):
        header_of(beside)
    assert len(header_of(beside, replace(LIMITS, dtypes=ALL_DTYPES)).claims) == 2
    assert stored.LIMITS.max_file_bytes > LIMITS.max_file_bytes


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_flipped_bytes_are_read_alike(data: st.DataObject) -> None:
    """Whatever a few flipped bytes make of a header, LoRAs and models take it or refuse it, both the same.

    Each with its own error, and what is taken has the tensors that the header claims. Only LoRAs are searched
    for NaN.
    """
    content = bytearray(GOOD)
    header = len(GOOD) - sum(tensor.nbytes for tensor in TENSORS.values())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, header - 1))] ^= data.draw(st.integers(1, 255))
    outcomes = [_as_lora(bytes(content)), _as_model(bytes(content))]
    assert outcomes[0] == outcomes[1] or "NaN" in str(outcomes[0])


def _as_lora(content: bytes) -> object:
    try:
        return {key: tuple(tensor.shape) for key, tensor in read(content, "a").tensors.items()}
    except LoraError as error:
        return "holds NaN" if "holds NaN" in error.message else None


def _as_model(content: bytes) -> object:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(content)
        file.flush()
        try:
            tensors, _ = stored_tensors(Path(file.name))
        except ModelError:
            return None
        return {key: one.shape for key, one in tensors.items()}
