"""A server's load on one screen."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from sdgrpc.client import ResidentLora, ResidentLoraSet, ServerStatus
from sdgrpc.terminal.load import HISTORY, Load, sparkline

MIB = 1 << 20
POSTCARD, OTHER = "a" * 64, "b" * 64


def a_set(number: int, *, in_use: bool = False) -> ResidentLoraSet:
    loras = (ResidentLora(POSTCARD, 0.8, 0.8), ResidentLora(OTHER, number / 100, 0.0))
    return ResidentLoraSet(f"{number:064x}", "photo", 3 * MIB, in_use, loras)


REPORT = ServerStatus(
    ready=True,
    running=3,
    queued=5,
    queue_size=64,
    rows_per_call=4.25,
    steps_per_second=8.5,
    estimated_wait_seconds=2.3,
    resident_models={"photo": 4096 * MIB, "a\x1b[31mred": MIB},
    lora_sets=tuple(a_set(number, in_use=number == 39) for number in range(40)),
    lora_set_bytes=120 * MIB,
    lora_set_budget_bytes=512 * MIB,
    jobs_finished=1234,
)


def drawn(load: Load, width: int, height: int = 24) -> list[str]:
    """The lines on a terminal of a size."""
    sink = StringIO()
    console = Console(
        file=sink, width=width, height=height, force_terminal=True, color_system=None, markup=False
    )
    console.print(load)
    return sink.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 100, 200])
@pytest.mark.parametrize("height", [16, 24, 60])
def test_it_fits(width: int, height: int) -> None:
    """However narrow or low the terminal is, no line breaks, and what does not fit is counted."""
    load = Load("localhost:50051")
    load.show(REPORT, {POSTCARD: "postcard"})
    lines = drawn(load, width, height)
    assert max(map(len, lines)) <= width
    assert len(lines) <= height
    assert any(line.strip().startswith("and ") for line in lines) is (height < 60)


def test_at_sixty_columns_everything_is_said() -> None:
    """State, jobs, queue, wait, rows, rate, models, and sets by their files' names, used ones first."""
    load = Load("localhost:50051")
    load.show(REPORT, {POSTCARD: "postcard", OTHER: ""})
    text = "\n".join(drawn(load, 60))
    for said in (
        "localhost:50051  ready",
        "3 running, 1234 finished",
        "5 of 64 waiting",
        "waits 2.3 s",
        "4.2 rows a call, 8.5 steps/s",
        "photo 4096 MiB",
        "120 of 512 MiB a model",
    ):
        assert said in text
    first = next(line for line in text.splitlines() if "postcard" in line)
    assert first.split() == ["postcard:0.8", "+", "bbbbbbbb:0.39", "photo", "3", "now"]


def test_names_cannot_write_to_the_terminal() -> None:
    """A model's name with control characters is shown, not obeyed."""
    load = Load("localhost:50051")
    load.show(REPORT, {POSTCARD: "post\x1b[2Jcard"})
    assert "\x1b" not in "\n".join(drawn(load, 200))


def test_without_a_report_it_says_why() -> None:
    """And with one, what was last known stays beside the problem."""
    load = Load("localhost:1")
    assert drawn(load, 60) == ["localhost:1  no report  connecting"]
    load.show(replace(REPORT, ready=False), {})
    load.fail("no server answers")
    text = "\n".join(drawn(load, 60))
    assert "not ready  no server answers" in text
    assert "3 running" in text


def test_the_last_rates_are_bars() -> None:
    """As many as there is room for; the highest of those shown is full, nothing is empty."""
    assert sparkline([], 10) == ""
    assert sparkline([0.0, 0.0], 10) == "  "
    assert sparkline([100.0, 0.0, 4.0, 8.0], 3) == " ▄█"
    load = Load("localhost:50051")
    for _ in range(2 * HISTORY):
        load.show(REPORT, {})
    assert max(line.count("█") for line in drawn(load, 300)) == HISTORY
