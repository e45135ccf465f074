"""The simulation of deadlines: it loses no request, and its orders differ where they should."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks.deadlines import ORDERS, Device, Request, main, workload
from sdgrpc.engine.scheduler import NextCall


@pytest.mark.parametrize("order", ORDERS)
def test_every_request_is_done_or_late(order: NextCall) -> None:
    """Without a deadline all are done, none after its deadline, and none in less than its calls take."""
    trace = workload(seed=3, load=1.2, requests=60, deadlines=0.5)
    Device(trace, order).run()
    for one in trace:
        assert one.done < math.inf or one.deadline < math.inf
        assert one.done == math.inf or one.done < one.deadline
        assert one.done >= one.at + one.steps * (0.19 + 2 * 0.27) - 1e-9
    assert any(one.done == math.inf for one in trace)


def test_the_tight_one_is_drawn_first_where_deadlines_count() -> None:
    """Behind a long job one with little time meets its deadline by work and by slack, not by age."""
    met = {}
    for order in ORDERS:
        trace = [Request(0.0, (256, 1), 40, math.inf), Request(0.1, (256, 2), 4, 6.0)]
        Device(trace, order).run()
        met[order] = trace[1].done <= 6.0
    assert met == {"least_work": True, "least_slack": True, "oldest": False}


def test_all_orders_see_the_same_workloads(tmp_path: Path) -> None:
    """A row for each share of deadlines, load and order; without deadlines none is missed."""
    path = tmp_path / "deadlines.json"
    main(["--workloads", "2", "--requests", "20", "--loads", "0.8", "--json", str(path)])
    rows = json.loads(path.read_text())["rows"]
    assert [row["next_call"] for row in rows] == [*ORDERS, *ORDERS]
    assert all(row["deadlines_met"] == row["done"] == 1.0 for row in rows[3:])
    assert workload(1, 0.8, 20, 0.7) == workload(1, 0.8, 20, 0.7)
