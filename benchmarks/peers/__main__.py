"""Run as a command: `python -m benchmarks.peers --peers ours,peft,openvino`.

Each side draws alone on the machine, in turn, in a process and an environment of its own, with the same
weights. `--tiny` tries the benchmark itself with a tiny model, in the running environment.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.measures import Extent, Measures, Record
from benchmarks.peers.report import table
from benchmarks.peers.sides import KINDS, Ours, Peer, PeerError, Side
from benchmarks.peers.subject import Subject
from benchmarks.tables import ROOT, results_path, write_json

SIDES = ("ours", *KINDS)
TINY = ("ours", "peft")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen sides one after the other, write after each one, print the table."""
    options = parser().parse_args(arguments)
    chosen = (options.peers or ",".join(TINY if options.tiny else SIDES)).split(",")
    if unknown := [name for name in chosen if name not in SIDES]:
        sys.exit(f"--peers: there is no peer {unknown[0]!r}; there are {', '.join(SIDES)}")
    path = options.json or results_path("peers", tiny=options.tiny)
    name = "tiny" if options.tiny else f"sd15-{options.narrower}"
    subject = Subject(options.cache / name, tiny=options.tiny, narrower=options.narrower)
    extent = Extent(
        subject.names, options.rounds, options.side, options.steps, options.clients, options.requests
    )
    found: dict[str, Record] = {}
    if options.keep and path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))["sides"]
    for name in chosen:
        print(name, flush=True)
        found[name] = measured(name, subject, extent, options, found.get("ours", {}))
        asked = {key: str(value) for key, value in vars(options).items() if key not in ("json", "cache")}
        write_json(path, {"options": asked, "sides": found})
    print(f"By the clock:\n\n{table(found)}\n\nThe processor's time, on all cores:\n")
    print(table(found, processor=True))
    return 0


def measured(
    name: str, subject: Subject, extent: Extent, options: argparse.Namespace, ours: Record
) -> Record:
    """Every row of one side."""
    try:
        side: Side = (
            Ours(subject, dtype=options.dtype)
            if name == "ours"
            else Peer(
                KINDS[name],
                subject,
                options.cache,
                dtype=options.dtype,
                limit=options.limit,
                here=options.tiny,
            )
        )
    except (PeerError, RuntimeError) as error:
        return {"load_failed": str(error)}
    try:
        pause = ours.get("trace_pause_seconds") if name != "ours" else None
        return Measures(side, extent, pause, lambda text: print(text, flush=True)).run()
    finally:
        side.close()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--peers", help=f"of {', '.join(SIDES)}; all unless --tiny")
    made.add_argument("--narrower", type=int, default=1, help="2: half of the channels, for slow machines")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--side", type=int, default=256, help="pixels")
    made.add_argument("--steps", type=int, default=4, help="of a picture")
    made.add_argument("--clients", type=int, default=8)
    made.add_argument("--requests", type=int, default=24, help="of the trace")
    made.add_argument("--dtype", default="bfloat16", help="of ours and diffusers; others choose their own")
    made.add_argument("--limit", type=float, default=600, help="seconds of one picture, then a peer has lost")
    made.add_argument("--keep", action="store_true", help="keep what the results hold of other peers")
    made.add_argument("--tiny", action="store_true", help="a tiny model: to try the benchmark itself")
    made.add_argument("--cache", type=Path, default=ROOT / "build" / "peers", help="weights, environments")
    made.add_argument("--json", type=Path, help=f"default: {results_path('peers')}; another with --tiny")
    return made


if __name__ == "__main__":
    sys.exit(main())
