"""The simulation of routing: its trace is as published, its clock adds up, its tables have every rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.routing import __main__ as command
from benchmarks.routing import report
from benchmarks.routing.rules import rules
from benchmarks.routing.simulation import DRAW_SECONDS, FUSE_SECONDS, simulate
from benchmarks.routing.trace import Call, trace, weights
from sdgrpc.engine.cluster.routing.holdings import Wanted

NAMES = ["r0", "r1"]


def test_loras_are_as_popular_as_published() -> None:
    """99.8 % of 6,980 have less than 1 % of the calls each."""
    shares = weights()
    assert len(shares) == 6980
    assert round(sum(share < 0.01 for share in shares) / len(shares), 3) == 0.998
    assert sum(shares) == pytest.approx(1)


def test_calls_come_at_the_rate_that_is_asked_for() -> None:
    """In order, most with one or two LoRAs, the same ones each time; bursts make the rate vary."""
    calls = trace(20_000, 10.0)
    assert [call.time for call in calls] == sorted(call.time for call in calls)
    assert len(calls) / calls[-1].time == pytest.approx(10, rel=0.2)
    assert sum(len(call.wanted.files) <= 2 for call in calls) / len(calls) == pytest.approx(0.9, abs=0.05)
    assert calls[:50] == trace(20_000, 10.0)[:50]


@pytest.mark.parametrize("rule", rules([]))
def test_waits_are_those_of_the_queue(rule: str) -> None:
    """Two calls far apart miss once where the set has a place; neither waits for the other."""
    wanted = Wanted("sd15", "a", frozenset({"a"}))
    calls = [Call(100.0 * number, wanted) for number in range(1, 101)]
    row = simulate(calls, rules(NAMES)[rule](), NAMES)
    assert row["hit_rate"] == 1.0
    assert row["p95_wait_seconds"] == 0
    assert row["imbalance"] == len(NAMES)


def test_who_comes_at_once_waits_in_turn() -> None:
    """One replica, ten sets at the same time: each waits for those before it and its own fusing."""
    calls = [Call(0.0, Wanted("sd15", str(number), frozenset({str(number)}))) for number in range(10)]
    row = simulate(calls, rules(["r0"])["random"](), ["r0"])
    each = FUSE_SECONDS + DRAW_SECONDS
    assert row["hit_rate"] == 0
    assert row["mean_wait_seconds"] == pytest.approx(sum(n * each + FUSE_SECONDS for n in range(10)) / 10)


def test_every_rule_is_in_the_tables(tmp_path: Path) -> None:
    """And in the plot; only rules with affinity move sets."""
    rows = [command.measure(2, 400, name) for name in rules([])]
    assert len(report.table(rows).splitlines()) == 2 + len(rows)
    assert [row["rule"] for row in rows if row["moved_by_join"] is None] == [
        "random",
        "round robin",
        "least load",
    ]
    assert all(row["moved_by_death"] == 0 for row in rows if row["rule"] == "consistent hashing")
    report.plot(rows, tmp_path / "routing.svg")
    drawn = (tmp_path / "routing.svg").read_text("utf-8")
    assert drawn.count('<g id="axes_') == len(report.PLOTTED)
