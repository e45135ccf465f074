"""Places and bytes of requests that are on their way."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from sdgrpc.api.traffic.holding import MOST_RETURNING, Holding
from sdgrpc.errors import QueueFull
from tests.support.engine import FakeEngine


def test_few_requests_are_received_without_room() -> None:
    """Of callers with a kept job, as long as they send; nobody else's is."""
    holding, engine = Holding(1 << 20), FakeEngine()
    engine.queue_size = 0
    with pytest.raises(QueueFull), holding.place_or_return(engine, "", may_return=False):
        pass
    for _ in range(2):  # what was received is given back
        with ExitStack() as inside:
            for _ in range(MOST_RETURNING):
                inside.enter_context(holding.place_or_return(engine, "", may_return=True))
            with pytest.raises(QueueFull), holding.place_or_return(engine, "", may_return=True):
                pass
