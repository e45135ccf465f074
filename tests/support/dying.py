"""A scripted server as a process of its own, to be killed in mid-job: `python -m tests.support.dying`.

It prints its HOST:PORT, and `begun` for each call whose first step is done; then it draws no further.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice

import grpc

from sdgrpc.testing import Request, draw_script, scripted_server
from sdgrpc.v1 import diffusion_pb2 as pb

BEFORE = 3  # accepted, prepared, one step


def hang(request: Request, context: grpc.ServicerContext) -> Iterator[pb.JobEvent]:
    """Draw a step, and no more."""
    yield from islice(draw_script(3)(request, context), BEFORE)
    print("begun", flush=True)  # noqa: T201 - its only way to tell
    threading.Event().wait()


if __name__ == "__main__":
    with scripted_server(hang, workers=8) as server:
        server.serve()
        print(server.target, flush=True)  # noqa: T201
        threading.Event().wait()
