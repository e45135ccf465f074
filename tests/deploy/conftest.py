"""Two scripted servers behind the real Envoy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sdgrpc.client import Client
from sdgrpc.testing import Script, ScriptedServer, scripted_server
from tests.support.envoy import Envoy, program, running_envoy

WORKERS = 32


@dataclass(frozen=True)
class Front:
    """Servers, the Envoy before them, and a client of it."""

    servers: Sequence[ScriptedServer]
    envoy: Envoy
    client: Client

    def counts(self) -> list[int]:
        """Calls that each server has got."""
        return [len(server.requests) for server in self.servers]


Fronted = Callable[..., Front]


@pytest.fixture
def fronted(tmp_path: Path) -> Iterator[Fronted]:
    """Put as many servers as there are scripts behind Envoy."""
    program()
    with ExitStack() as held:

        def front(*scripts: Script) -> Front:
            return held.enter_context(_front(tmp_path, scripts))

        yield front


@contextmanager
def _front(folder: Path, scripts: Sequence[Script]) -> Iterator[Front]:
    with ExitStack() as held:
        servers = [held.enter_context(scripted_server(script, workers=WORKERS)) for script in scripts]
        for server in servers:
            server.serve()
        envoy = held.enter_context(running_envoy(folder, [server.target for server in servers]))
        client = held.enter_context(Client(envoy.target, resume_seconds=0))
        yield Front(servers, envoy, client)
