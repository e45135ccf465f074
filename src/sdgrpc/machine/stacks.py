"""Where every thread is now, for a log that has to be read after the process has gone."""

from __future__ import annotations

import sys
import threading
import traceback
from types import FrameType

DEPTH = 12
"""Calls of a thread that are told, the innermost first: what lies outside of them is how it was started."""


def every_stack() -> str:
    """Return every thread's stack in one line: `NAME: FILE:LINE FUNCTION < CALLER < ...; NAME: ...`.

    Takes no lock but, for a moment, the interpreter's own of its threads' names.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    return "; ".join(f"{names.get(ident, ident)}: {_stack(frame)}" for ident, frame in frames.items())


def _stack(frame: FrameType) -> str:
    # Without looking lines up: nothing is read from a disk that may be what hangs.
    calls = traceback.StackSummary.extract(traceback.walk_stack(frame), limit=DEPTH, lookup_lines=False)
    return " < ".join(f"{_short(call.filename)}:{call.lineno} {call.name}" for call in calls)


def _short(filename: str) -> str:
    """The last two parts of a path, which tell one `loop.py` from another."""
    return "/".join(filename.split("/")[-2:])


def origin(error: BaseException) -> str:
    """Return an error's class and where it was raised, without its text, which may quote a request."""
    calls = traceback.extract_tb(error.__traceback__)
    place = f" at {_short(calls[-1].filename)}:{calls[-1].lineno} {calls[-1].name}" if calls else ""
    return f"{type(error).__name__}{place}"
