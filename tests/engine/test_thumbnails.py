"""Thumbnails of the pictures beside LoRA files."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from sdgrpc.domain import EncodedImage
from sdgrpc.engine.thumbnails import LIMITS, Thumbnails
from sdgrpc.images.decoder_processes import LocalReader
from sdgrpc.images.reading import ReadAs, Reading


class Counting(LocalReader):
    """Counts what it reads."""

    count = 0

    def read(self, data: bytes, use: ReadAs) -> Reading:
        self.count += 1
        return super().read(data, use)


class Broken:
    """Cannot start a process."""

    def read(self, data: bytes, use: ReadAs) -> Reading:
        del data, use
        raise RuntimeError("a picture reader did not start")


def saved(path: Path, size: tuple[int, int], colour: str = "red") -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def content(path: Path):
    return lambda most: path.read_bytes()[: most + 1]


def test_a_large_picture_becomes_small(tmp_path: Path) -> None:
    """A JPEG of 256 pixels on its longer side, in its proportions and colours; a small one keeps its size."""
    thumbnails = Thumbnails(LocalReader(LIMITS))
    for size, expected in (((1024, 512), (256, 128)), ((40, 60), (40, 60))):
        path = saved(tmp_path / f"{size[0]}.png", size, "#2060c0")
        made = thumbnails.of(path, content(path))
        assert isinstance(made, EncodedImage)
        assert (made.media_type, made.width, made.height) == ("image/jpeg", *expected)
        with Image.open(io.BytesIO(made.data)) as image:
            assert image.size == expected
            red, green, blue = image.convert("RGB").tobytes()[:3]
        assert max(abs(red - 0x20), abs(green - 0x60), abs(blue - 0xC0)) <= 3


def test_each_is_made_once(tmp_path: Path) -> None:
    """Until the file changes; one that cannot be read is not tried again either."""
    reader = Counting(LIMITS)
    thumbnails = Thumbnails(reader)
    path = saved(tmp_path / "a.png", (64, 64))
    first = thumbnails.of(path, content(path))
    assert thumbnails.of(path, content(path)) is first
    assert reader.count == 1
    saved(path, (32, 64), "blue")
    os.utime(path, ns=(1, 1))
    assert thumbnails.of(path, content(path)) != first
    (tmp_path / "b.png").write_bytes(b"no picture")
    for _ in range(2):
        assert thumbnails.of(tmp_path / "b.png", content(tmp_path / "b.png")) == (
            "is not a PNG, JPEG or WebP file"
        )
    assert reader.count == 3


def test_why_there_is_none(tmp_path: Path) -> None:
    """A predicate, whatever went wrong: too large, gone, no process."""
    path = saved(tmp_path / "a.png", (8, 17000))
    assert "no side may have more than" in str(Thumbnails(LocalReader(LIMITS)).of(path, content(path)))
    gone = tmp_path / "gone.png"
    assert str(Thumbnails(LocalReader(LIMITS)).of(gone, content(gone))).startswith("cannot be read (No such")
    small = saved(tmp_path / "s.png", (8, 8))
    assert Thumbnails(Broken()).of(small, content(small)) == "cannot be read (a picture reader did not start)"


@pytest.mark.slow
def test_pictures_are_read_in_another_process(tmp_path: Path) -> None:
    """Which ends with the thumbnails."""
    path = saved(tmp_path / "a.png", (300, 300))
    thumbnails = Thumbnails()
    made = thumbnails.of(path, content(path))
    assert isinstance(made, EncodedImage)
    thumbnails.close()
    thumbnails.close()
    saved(path, (64, 300))
    assert str(thumbnails.of(path, content(path))) == "cannot be read (the picture readers are closed)"
