"""How jobs look while they run."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image
from rich.console import Console

from sdgrpc.client import Client, JobCancelledError, Progress
from sdgrpc.terminal.blocks import UPPER_HALF_BLOCK, half_blocks
from sdgrpc.terminal.views import LiveView, PlainView, open_view, watch
from sdgrpc.testing.server import draw_script, scripted_server


def terminal(colours: str | None = "truecolor") -> Console:
    """A console that takes itself for a terminal and writes to memory."""
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system=colours,
        width=100,
        height=40,
        legacy_windows=False,
    )


def test_half_blocks_show_two_pixels_a_character() -> None:
    """The upper pixel is the character's colour, the lower one its background's."""
    image = Image.new("RGB", (1, 2))
    image.putpixel((0, 0), (255, 0, 0))
    image.putpixel((0, 1), (0, 0, 255))
    console = terminal()
    console.print(half_blocks([image], columns=1, lines=1), end="")
    assert f"\x1b[38;2;255;0;0;48;2;0;0;255m{UPPER_HALF_BLOCK}\x1b[0m" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("count", "columns", "lines"), [(1, 36, 18), (3, 60, 10), (1, 5, 40)])
def test_half_blocks_fit(count: int, columns: int, lines: int) -> None:
    """Whatever the space, the picture fits into it and keeps its proportions."""
    segments = half_blocks([Image.new("RGB", (16, 16))] * count, columns=columns, lines=lines).segments
    drawn = "".join(segment.text for segment in segments).splitlines()
    assert 1 <= len(drawn) <= lines
    assert len(drawn[0]) <= columns
    assert abs(len(drawn[0]) - 2 * count * len(drawn)) <= 2 * count


def test_console_decides_the_view() -> None:
    """A terminal gets the live view, a pipe plain lines."""
    assert isinstance(open_view(terminal(), "x"), LiveView)
    assert isinstance(open_view(Console(file=io.StringIO()), "x"), PlainView)


def test_live_view_shows_steps_time_and_preview() -> None:
    """The bar tells step and time left, the preview is drawn in colours, and the end leaves the bar alone."""
    console = terminal()
    with scripted_server(draw_script(steps=4)) as server, Client(server.target) as client:
        job = client.generate("a [star]", loras=["[red]:1"], preview="picture")
        view = LiveView(console, "a [star]")
        with job, view:
            for event in job:
                view.show(event)
                view._live.refresh()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "a [star]" in shown
    assert "[red] 1 from the cache" in shown
    assert "step 2/4, 2.0 s left" in shown
    assert f"\x1b[38;2;200;30;30;48;2;200;30;30m{UPPER_HALF_BLOCK}" in shown
    last = shown[shown.rindex("✓") :]
    assert "drawn in 1.5 s" in last
    assert UPPER_HALF_BLOCK not in last


def test_live_view_without_colours_shows_no_preview() -> None:
    """Half blocks say nothing without colours."""
    console = terminal(colours=None)
    with scripted_server(draw_script()) as server, Client(server.target) as client:
        watch(client.generate("a star", preview="picture"), LiveView(console, "a star"))
    assert UPPER_HALF_BLOCK not in console.file.getvalue()  # type: ignore[attr-defined]


def test_plain_view_prints_few_lines() -> None:
    """Of a hundred steps ten are told; LoRAs and their cache are told once."""
    console = Console(file=io.StringIO(), width=20)
    with scripted_server(draw_script(steps=100)) as server, Client(server.target) as client:
        watch(client.generate("a star", loras=["postcard:0.8", "sepia:1"]), PlainView(console, "a star"))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[:2] == ["a star: queued behind 2", "a star: postcard 0.8 + sepia 1 from the cache"]
    assert [line.split()[3] for line in lines[2:-1]] == [f"{step}/100," for step in range(10, 101, 10)]
    assert lines[-1] == "a star: drawn in 1.5 s"


def test_watch_cancels_on_any_failure() -> None:
    """Whatever interrupts the watching also ends the job."""
    with scripted_server(draw_script()) as server, Client(server.target) as client:
        job = client.generate("a star")

        class Broken(PlainView):
            def show(self, event: object) -> None:
                raise KeyboardInterrupt(event)

        with pytest.raises(KeyboardInterrupt):
            watch(job, Broken(Console(file=io.StringIO()), "x"))
        with pytest.raises(JobCancelledError):
            job.result()


def test_no_color_shows_no_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR takes the colours away, and with them what the blocks would show."""
    monkeypatch.setenv("NO_COLOR", "1")
    console = terminal()
    with scripted_server(draw_script()) as server, Client(server.target) as client:
        watch(client.generate("a star", preview="picture"), LiveView(console, "a star"))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert UPPER_HALF_BLOCK not in shown
    assert not re.search(r"\x1b\[[0-9;]*(3[0-9]|4[0-9])[;m]", shown)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_bar_is_one_line(width: int) -> None:
    """However narrow the terminal and long the prompt, the bar is a line and says what happens."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=20, legacy_windows=False)
    view = LiveView(console, "a very long prompt that has no room in a narrow terminal")
    with scripted_server(draw_script(steps=20)) as server, Client(server.target) as client:
        job = client.generate("a star", loras=["postcard:0.8"])
        with job:
            for event in job:
                view.show(event)
                lines = console.render_lines(view._bar, pad=False)
                assert len([line for line in lines if "".join(one.text for one in line).strip()]) == 1
                (said, *_) = ["".join(one.text for one in line) for line in lines]
                assert len(said.rstrip()) <= width
                if isinstance(event, Progress):
                    assert f"step {event.step}/20" in said
