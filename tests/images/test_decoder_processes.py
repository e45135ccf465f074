"""Files read in processes: the same pixels, and an end to what takes too long."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from sdgrpc.images import ImageError, ImageLimits, ReadAs, read
from sdgrpc.images.decoder_processes import PictureReaders
from tests.support.bites import exchanged_profile, jpeg_of_scans, jpeg_with, png_with

SLOW = jpeg_of_scans(100, 5792)
"""Takes seconds to decode, and is within every bound."""


@contextmanager
def readers(seconds: float = 60.0, **options) -> Iterator[PictureReaders]:
    opened = PictureReaders(ImageLimits(), seconds=seconds, **options)
    try:
        yield opened
    finally:
        opened.close()


def children() -> set[int]:
    """The processes that this one started and that are not over."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(number) for each in tasks for number in each.read_text().split()}


@pytest.mark.parametrize("use", ReadAs)
def test_the_same_pixels_and_sentences(use: ReadAs) -> None:
    """Another process reads what this one does, warnings and refusals too."""
    clear = BytesIO()
    Image.new("RGBA", (16, 16), (10, 20, 30, 0)).save(clear, "PNG", icc_profile=exchanged_profile())
    with readers() as opened:
        for data in (png_with(), jpeg_with(b""), clear.getvalue()):
            assert opened.read(data, use) == read(data, use)
        for data in (b"", b"GIF89a", png_with()[:100], jpeg_of_scans(101)):
            with pytest.raises(ImageError) as theirs:
                opened.read(data, use)
            with pytest.raises(ImageError) as ours:
                read(data, use)
            assert str(theirs.value) == str(ours.value)


def test_one_process_serves_many_files() -> None:
    """It is there already for the next."""
    before = children()
    with readers() as opened:
        opened.warm_up()
        (process,) = children() - before
        for _ in range(5):
            opened.read(png_with(), ReadAs.IMAGE)
        assert children() - before == {process}
    assert children() <= before


def test_what_takes_too_long_is_ended_and_the_next_is_read() -> None:
    """The process goes, the field's sentence says why, and another takes its place."""
    before = children()
    with readers(seconds=0.5) as opened:
        with pytest.raises(ImageError, match=r"takes longer than 0.5 s to decode"):
            opened.read(SLOW, ReadAs.IMAGE)
        assert children() <= before
    with readers() as opened:
        opened.read(png_with(), ReadAs.IMAGE)


def test_a_decoder_that_crashes_costs_one_file() -> None:
    """A signal from outside stands for a fault in its C."""
    before = children()
    with readers() as opened:
        opened.warm_up()
        (process,) = children() - before
        failed: list[BaseException] = []

        def work() -> None:
            try:
                opened.read(SLOW, ReadAs.IMAGE)
            except ImageError as error:
                failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        while not opened.busy:
            pass
        os.kill(process, signal.SIGSEGV)
        thread.join(60)
        (error,) = failed
        assert str(error) == "cannot be read: its decoder crashed; save it again as an ordinary file"
        assert opened.read(png_with(), ReadAs.IMAGE).picture.width == 64


def test_a_process_that_died_idle_is_replaced() -> None:
    """Nobody notices."""
    before = children()
    with readers() as opened:
        opened.warm_up()
        (process,) = children() - before
        os.kill(process, signal.SIGKILL)
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        assert opened.read(png_with(), ReadAs.IMAGE).picture.width == 64


def test_closing_ends_a_file_that_is_read() -> None:
    """A server that stops does not wait for a decoder."""
    with readers() as opened:
        opened.warm_up()
        failed: list[BaseException] = []

        def work() -> None:
            try:
                opened.read(SLOW, ReadAs.IMAGE)
            except (RuntimeError, ImageError) as error:
                failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        while not opened.busy and thread.is_alive():
            pass
        opened.close()
        thread.join(10)
        assert not thread.is_alive()
        assert [type(error) for error in failed] == [RuntimeError]
    with pytest.raises(RuntimeError, match="closed"):
        opened.read(png_with(), ReadAs.IMAGE)


def test_the_process_has_a_bound_of_memory() -> None:
    """Whatever a decoder does: the operating system refuses it more."""
    before = children()
    with readers() as opened:
        opened.read(png_with(), ReadAs.IMAGE)
        (process,) = children() - before
        limits = Path(f"/proc/{process}/limits").read_text()
    line = next(line for line in limits.splitlines() if line.startswith("Max address space"))
    assert int(line.split()[3]) < 8 << 30
