"""The trace that a caller names, as Trace Context spells it."""

from __future__ import annotations

import pytest

from sdgrpc.api.calls.trace_context import trace_id_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("rest", ["01", "00", "01-more"])
def test_it_is_read(rest: str) -> None:
    """Sampled or not, and of versions to come, which may say more."""
    version = "cc" if "more" in rest else "00"
    metadata = (("authorization", "Bearer x"), ("traceparent", f"{version}-{TRACE}-{SPAN}-{rest}"))
    assert trace_id_of(metadata) == TRACE


@pytest.mark.parametrize(
    "value",
    [
        "",
        TRACE,
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\nlevel=error",
    ],
)
def test_what_is_no_trace_is_none(value: str) -> None:
    """A caller can put nothing else into the log."""
    assert trace_id_of((("traceparent", value),)) == ""


def test_binary_headers_are_passed_over() -> None:
    """Headers ending in -bin hold bytes."""
    assert trace_id_of((("traceparent-bin", b"\x00"),)) == ""
