"""What every peer's process does: requests in JSON, a line each on standard input, and answers likewise.

`{"do": "load", "model": folder, "file": path, "loras": folder, "dtype": name}` answers once a picture could
be drawn; `{"do": "draw", "loras": [[name, strength], …], "steps": n, "side": pixels, "seed": n}` once it is
there; `{"do": "memory"}` with the peak of resident memory. An answer holds `seconds`, or `error`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

PROMPT = "a red cat on a blue chair, oil on canvas"
NEGATIVE = "blurred"
GUIDANCE = 7.5
STATUS = Path("/proc/self/status")


class Drawing(NamedTuple):
    """One picture that a peer is asked for; `loras` are names of files and strengths."""

    loras: tuple[tuple[str, float], ...] = ()
    steps: int = 1
    side: int = 256
    seed: int = 0


class Place(NamedTuple):
    """Where the weights are, as a folder and as one file, where LoRA files are, and what to compute in."""

    model: Path
    file: Path
    loras: Path
    dtype: str


class Peer(Protocol):
    """A way to draw."""

    def load(self, place: Place) -> None:
        """Get ready to draw."""
        ...

    def draw(self, asked: Drawing) -> None:
        """Draw one picture to the end, its pixels included."""
        ...


def serve(peer: Peer) -> None:
    """Answer until the input ends; what the peer prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        began = time.perf_counter()
        try:
            told: dict[str, Any] = answer(peer, json.loads(line))
        except Exception as error:  # whatever a peer meets is its row's answer
            told = {"error": f"{type(error).__name__}: {error}"[:600]}
        answers.write(json.dumps({"seconds": time.perf_counter() - began} | told) + "\n")
        answers.flush()


def answer(peer: Peer, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Do what was asked."""
    if asked["do"] == "memory":
        return {"bytes": peak_memory()}
    if asked["do"] == "load":
        model, file, loras_folder = (Path(asked[key]) for key in ("model", "file", "loras"))
        peer.load(Place(model, file, loras_folder, asked["dtype"]))
    else:
        loras: Sequence[Sequence[Any]] = asked["loras"]
        named = tuple((str(name), float(strength)) for name, strength in loras)
        peer.draw(Drawing(named, asked["steps"], asked["side"], asked["seed"]))
    return {}


def peak_memory(status: Path = STATUS) -> int:
    """Return the most bytes that were resident at a time; 0 where the system does not tell."""
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
