"""How to reach a server: message sizes, TLS and its health."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from sdgrpc.client.errors import Details, UnavailableError

MAX_MESSAGE_BYTES = 128 << 20
"""Images travel whole in one message, and gRPC's own limit of 4 MiB is below that of a large PNG."""

SERVING = health_pb2.HealthCheckResponse.SERVING
HEALTH_REQUEST = health_pb2.HealthCheckRequest(service="sdgrpc.v1.DiffusionService")

ChannelOptions = Sequence[tuple[str, str | int]]


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files for a server with TLS; `Tls()` trusts the system's authorities.

    `ca` are the authorities to trust, `certificate` and `key` this client's own where the server asks for
    them, `server_name` is the name in the server's certificate if it is not the target's.
    """

    ca: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    server_name: str = ""

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files.

        Raises:
            OSError: a file cannot be read.
            ValueError: only one of `certificate` and `key` is given.

        """
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client certificate needs both `certificate` and `key`")
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca),
            private_key=_read(self.key),
            certificate_chain=_read(self.certificate),
        )


def channel_options(tls: Tls | None, extra: ChannelOptions) -> list[tuple[str, str | int]]:
    """Return the options for a channel; `extra` come last and win."""
    options: list[tuple[str, str | int]] = [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # Pings find a server that vanished while a job waits, and between calls; it takes one every 10 s.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return [*options, *extra]


def not_ready(target: str, timeout: float, *, answered: bool) -> UnavailableError:
    """Return what a wait that was in vain raises; `answered` where health said that it does not serve."""
    text = f"{target} was not ready within {timeout:g} s"
    if answered:
        return UnavailableError(
            "UNAVAILABLE", f"{text}: it is loading or stopping", Details(reason="LOADING")
        )
    return UnavailableError("UNAVAILABLE", text)


def health_watch(channel: grpc.Channel | grpc.aio.Channel) -> Any:  # noqa: ANN401 - the stub's types leave this call out
    """The health service's watch."""
    stub: Any = HealthStub(channel)
    return stub.Watch


def _read(path: str | os.PathLike[str] | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
