"""Thousands of mixed requests under faults: what they leave in a server, which should be nothing.

`python -m benchmarks.soak` sends 10,000 calls to a real server: jobs of all kinds, cancelled, cut off, late,
with nonsense in them, read slowly, by clients that are killed, while parts of the engine fail now and then.
It prints what leaked, which pictures were wrong, whether the server crashed, and its memory, threads and open
files.
`--requests 300` is a short run, `--tiny` one of the smallest pictures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from rich.console import Console

from benchmarks.soak.report import Report, tables
from benchmarks.soak.run import run


def main() -> int:
    """Run as a command; 1 if anything was not as it should be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000, help="calls to send")
    parser.add_argument("--clients", type=int, default=16, help="how many at a time")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is left to chance")
    parser.add_argument("--tiny", action="store_true", help="pictures of 64x64 and two steps")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    report: Report = asyncio.run(
        run(calls=options.requests, clients=options.clients, seed=options.seed, tiny=options.tiny)
    )
    console = Console(width=120)
    for table in tables(report):
        console.print(table)
    if options.json:
        options.json.write_text(json.dumps(report.figures(), indent=2) + "\n")
    return 1 if report.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
