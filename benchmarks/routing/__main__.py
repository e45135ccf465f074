"""`python -m benchmarks.routing`: simulate, print the tables, write JSON and plots."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.routing import report
from benchmarks.routing.rules import rules
from benchmarks.routing.simulation import DRAW_SECONDS, moves, simulate
from benchmarks.routing.trace import trace

CALLS = {10: 20_000, 100: 50_000, 1000: 100_000}
UTILIZATION = 0.5
"""Of the replicas, if every set were there already."""


def measure(count: int, calls: int, name: str) -> dict[str, Any]:
    """Run one rule with one number of replicas."""
    names = [f"r{number}" for number in range(count)]
    made = rules(names)[name]
    asked = trace(calls, UTILIZATION * count / DRAW_SECONDS)
    row: dict[str, Any] = {"replicas": count, "rule": name} | simulate(asked, made(), names)
    for change, joins in (("join", True), ("death", False)):
        affine = name.startswith(("router", "consistent"))  # with the others no set has a place
        row[f"moved_by_{change}"] = moves(asked, made(), names, joins=joins) if affine else None
    return row


def main() -> None:
    """Measure every rule at every size, two at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, nargs="+", default=list(CALLS))
    parser.add_argument("--calls", type=int, help="of each run (default: more for more replicas)")
    parser.add_argument("--json", type=Path, default=Path("build/routing.json"))
    parser.add_argument("--plots", type=Path, default=Path("build"), metavar="FOLDER")
    chosen = parser.parse_args()
    runs = [
        (count, chosen.calls or CALLS.get(count, 50_000), name)
        for count in chosen.replicas
        for name in rules([])
    ]
    with ProcessPoolExecutor(2) as pool:
        rows = list(pool.map(measure, *zip(*runs, strict=True)))
    for path in (chosen.json.parent, chosen.plots):
        path.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(report.table(rows))
    report.plot(rows, chosen.plots / "routing.svg")


if __name__ == "__main__":
    main()
