"""What a connection may take: messages, streams, time; and how many there may be."""

from __future__ import annotations

from sdgrpc.settings import Settings

CALLS_BESIDE_JOBS = 128
MAX_METADATA_BYTES = 8 << 10


def server_options(settings: Settings) -> list[tuple[str, int]]:
    """GRPC's options for a port.

    A connection without calls ends after `connection_idle`. One that is `connection_age` old takes no new
    calls, and the client makes another; calls that run have `connection_age_grace` left. One that does not
    finish its handshakes, TLS's and HTTP/2's, ends after `handshake_timeout`. Beyond `max_connections` new
    ones are closed as they come. Pings find clients that vanished without closing: their jobs are cancelled.
    """
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),  # what we send is bounded by what we accept to draw
        ("grpc.so_reuseport", 0),  # a second server on the same port is a mistake, not load balancing
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA_BYTES),
        ("grpc.max_concurrent_streams", settings.queue_size + settings.max_running_jobs + CALLS_BESIDE_JOBS),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.enable_channelz", int(settings.channelz)),
        ("grpc.server_handshake_timeout_ms", _milliseconds(settings.handshake_timeout)),
        ("grpc.max_connection_idle_ms", _milliseconds(settings.connection_idle)),
        ("grpc.max_connection_age_ms", _milliseconds(settings.connection_age)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(settings.connection_age_grace)),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Clients may ping every ten seconds, with calls and without; who pings faster is sent away.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _milliseconds(seconds: float) -> int:
    """At least one: gRPC takes 0 for something else; and no more than fits its integers."""
    return min(max(1, round(1000 * seconds)), 2**31 - 1)
