"""Fixtures: a scripted server and a client of it."""

from __future__ import annotations

import pytest

from sdgrpc.client import Client
from sdgrpc.testing.server import (
    draw_script,
    scripted_server,
)


@pytest.fixture
def server():
    with scripted_server(draw_script()) as running:
        yield running


@pytest.fixture
def client(server):
    with Client(server.target) as opened:
        yield opened
