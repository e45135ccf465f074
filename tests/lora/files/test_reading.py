"""The reader of safetensors files that nobody vouches for."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from sdgrpc.errors import LoraError, LoraMalformed, LoraUnsupported
from sdgrpc.lora.files import reading
from sdgrpc.lora.files.reading import DEFAULT_LIMITS, read
from tests.support.loras import to_bytes, to_file

TENSORS = {
    "half": torch.arange(6).half().view(2, 3),
    "odd": torch.arange(3, dtype=torch.uint8),
    "brain": torch.randn(4, 2).bfloat16(),
    "double": torch.randn(3).double(),
    "count": torch.tensor(7),
    "eighth": torch.tensor([1.0, -2.0]).to(torch.float8_e4m3fn),
    "none": torch.empty(0, 4),
}
GOOD = to_bytes(TENSORS, {"format": "pt"})


def build(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(begin: int = 0, end: int = 8, shape: object = (2,), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_reads_what_safetensors_reads() -> None:
    """Every dtype comes back bit for bit, with metadata and the hash of the whole file."""
    file = read(GOOD, "good")
    expected = load(GOOD)
    assert file.tensors.keys() == expected.keys()
    for key, value in expected.items():
        assert file.tensors[key].dtype == value.dtype
        assert file.tensors[key].shape == value.shape
        assert torch.equal(file.tensors[key].float(), value.float())
    assert file.metadata == {"format": "pt"}
    assert file.sha256 == hashlib.sha256(GOOD).hexdigest()


def test_reading_can_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks before each piece, and what that raises is raised."""
    monkeypatch.setattr(reading, "CHUNK", 100)
    path, pieces = to_file(tmp_path / "a.safetensors", {"a": torch.zeros(1000)}), list[int]()

    def alive() -> None:
        pieces.append(len(pieces))
        if len(pieces) > 40:
            raise InterruptedError

    assert read(path, "a", alive=lambda: pieces.append(-1)).tensors["a"].shape == (1000,)
    assert pieces == [-1] * 40
    with pytest.raises(InterruptedError):
        read(path, "a", alive=alive)


def test_reads_the_same_from_a_file(tmp_path: Path) -> None:
    """A path gives what its bytes give, and its header alone the shapes."""
    path = to_file(tmp_path / "a.safetensors", TENSORS)
    file = read(path, "a")
    assert file.sha256 == reading.hashes(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert reading.read_shapes(path) == {key: tuple(value.shape) for key, value in TENSORS.items()}


def test_misaligned_numbers_are_usable() -> None:
    """A float tensor at an odd offset is moved to where kernels may read it."""
    data = b"\x00" + torch.tensor([1.5, -2.0]).numpy().tobytes()
    file = read(build({"a": tensor(0, 1, [1], "U8"), "b": tensor(1, 9)}, data), "a")
    assert file.tensors["b"].tolist() == [1.5, -2.0]
    assert file.tensors["b"].data_ptr() % 4 == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "too few"),
        (b"1234567", "too few"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "header is too large"),
        ((100).to_bytes(8, "little") + b"{}", "truncated"),
        (build(b"not json"), "not JSON"),
        (build(b"[" * 100_000), "not JSON"),
        (build(b"\xff\xfe"), "not JSON"),
        (build(b"[]"), "not a JSON object"),
        (build(b'{"a": NaN}'), "not JSON"),
        (build({"__metadata__": {"a": 1}}), "__metadata__"),
        (build({"__metadata__": []}), "__metadata__"),
        (build(b'{"a": 1, "a": 2}'), "'a' twice"),
        (build({"a": 5}), "no description"),
        (build({"a": tensor(dtype="F4")}, bytes(8)), "'F4'"),
        (build({"a": tensor(dtype=["F32"])}, bytes(8)), "dtype"),
        (build({"a": tensor(shape=[-2])}, bytes(8)), "valid shape"),
        (build({"a": tensor(shape=[True])}, bytes(8)), "valid shape"),
        (build({"a": tensor(shape=[2.0])}, bytes(8)), "valid shape"),
        (build({"a": tensor(shape=[1] * 9)}, bytes(8)), "valid shape"),
        (build({"a": tensor(shape="2")}, bytes(8)), "valid shape"),
        (build({"a": tensor(shape=[1 << 60])}, bytes(8)), "valid shape"),
        (build({"a": tensor(shape=[3])}, bytes(8)), "needs 12 bytes"),
        (build({"a": tensor(8, 0)}, bytes(8)), "needs 8 bytes"),
        (build({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}, bytes(8)), "data_offsets"),
        (build({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)), "data_offsets"),
        (build({"a": tensor(4, 12)}, bytes(12)), "gap"),
        (build({"a": tensor(0, 8), "b": tensor(4, 12)}, bytes(12)), "overlaps"),
        (build({"a": tensor(0, 8)}, bytes(4)), "truncated"),
        (build({"a": tensor(0, 8)}, bytes(12)), "belong to no tensor"),
    ],
)
def test_lies_are_named(content: bytes, words: str) -> None:
    """Each way of being broken has its own sentence."""
    with pytest.raises(LoraMalformed, match=words) as caught:
        read(content, "bad")
    assert "'bad'" in caught.value.message


def test_every_truncation_is_named() -> None:
    """A file cut anywhere is malformed, never something else."""
    for length in range(len(GOOD)):
        with pytest.raises(LoraMalformed):
            read(GOOD[:length], "cut")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_numbers_that_are_none_are_refused(value: float, dtype: torch.dtype) -> None:
    """NaN or infinity is refused and the key named."""
    bad = torch.zeros(3, 3, dtype=dtype)
    bad[1, 2] = value
    with pytest.raises(LoraMalformed, match=r"'unet\.bad' holds NaN or infinity") as caught:
        read(to_bytes({"good": torch.ones(2), "unet.bad": bad}), "a")
    assert caught.value.key == "unet.bad"


def test_large_finite_numbers_are_not_mistaken() -> None:
    """A sum that overflows does not make a tensor infinite."""
    huge = torch.full((8,), 3e38)
    assert torch.equal(read(to_bytes({"a": huge}), "a").tensors["a"], huge)


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_pickles_are_refused_whatever_their_name(tmp_path: Path, name: str) -> None:
    """Old and new PyTorch pickles are recognised by their content."""
    torch.save({"a": torch.ones(2)}, tmp_path / name)
    with pytest.raises(LoraUnsupported, match="pickle"):
        read(tmp_path / name, name)
    for protocol in (2, 3, 4, 5):
        (tmp_path / name).write_bytes(pickle.dumps({"a": list(range(100))}, protocol=protocol))
        with pytest.raises(LoraUnsupported, match="pickle"):
            read(tmp_path / name, name)


def test_a_header_as_long_as_a_pickles_magic_is_no_pickle() -> None:
    """A length whose bytes are 80 02 looks like a pickle's start and is none."""
    text = json.dumps({"a": tensor()}).encode().ljust(0x280)
    assert read(build(text, bytes(8)), "a").tensors["a"].tolist() == [0.0, 0.0]


def test_limits_are_the_readers(tmp_path: Path) -> None:
    """The operator's limits on bytes, header and tensors hold."""
    path = to_file(tmp_path / "a.safetensors", TENSORS)
    for limits, words in (
        (replace(DEFAULT_LIMITS, max_file_bytes=100), "at most 100"),
        (replace(DEFAULT_LIMITS, max_header_bytes=100), "header is too large"),
        (replace(DEFAULT_LIMITS, max_tensors=6), "at most 6"),
    ):
        with pytest.raises(LoraMalformed, match=words):
            read(path, "a", limits)


def test_a_file_that_shrinks_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was promised by the size and is gone when read is a truncation."""

    class Shrinking(io.BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            return len(GOOD) if whence == os.SEEK_END else super().seek(offset, whence)

    for length in (len(GOOD) - 10, 100):
        monkeypatch.setattr(reading, "_open", lambda _, length=length: Shrinking(GOOD[:length]))
        with pytest.raises(LoraMalformed, match="shrank"):
            read(b"", "a")


def test_keys_are_checked_before_data_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of gigabytes is refused by its header."""
    seen: list[tuple[str, list[str]]] = []

    def refuse(name: str, keys: Iterable[str]) -> None:
        seen.append((name, sorted(keys)))
        raise LoraMalformed(name, "not wanted")

    monkeypatch.setattr(reading, "_fill", lambda *_: pytest.fail("the data was read"))
    with pytest.raises(LoraMalformed, match="not wanted"):
        read(GOOD, "a", check_keys=refuse)
    assert seen == [("a", sorted(TENSORS))]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A path that became a link since it was indexed is an OSError, not another file's content."""
    to_file(tmp_path / "a.safetensors", TENSORS)
    (tmp_path / "b.safetensors").symlink_to(tmp_path / "a.safetensors")
    with pytest.raises(OSError, match="symbolic"):
        read(tmp_path / "b.safetensors", "b")


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_flipped_bytes_never_crash(data: st.DataObject) -> None:
    """Whatever a few flipped bytes make of a file, it is read or refused with a LoraError."""
    content = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        file = read(bytes(content), "flipped")
    except LoraError:
        return
    for value in file.tensors.values():
        assert not value.is_floating_point() or torch.isfinite(value.float()).all()
