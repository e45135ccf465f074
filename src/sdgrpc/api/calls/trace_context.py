"""Which trace a call belongs to, by its caller's word: W3C Trace Context, read without OpenTelemetry.

The log's lines name it though no spans are made here, so that a caller's trace leads to them.
"""

from __future__ import annotations

import re

from sdgrpc.api.calls.call import Metadata

TRACEPARENT = "traceparent"
_VERSIONED = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})"
    r"-(?!0{32})(?P<trace>[0-9a-f]{32})"
    r"-(?!0{16})(?P<span>[0-9a-f]{16})"
    r"-[0-9a-f]{2}(?P<more>-.*)?"
)
"""Versions to come may say more; ids of zeros alone are none.

Source: Trace Context, section 3.2, https://www.w3.org/TR/trace-context/.
"""


def text_headers(metadata: Metadata) -> dict[str, str]:
    """Return the headers that are text, the last of each name, as propagators want them."""
    return {key: value for key, value in metadata if isinstance(value, str)}


def trace_id_of(metadata: Metadata) -> str:
    """Return the caller's trace id in hexadecimal; nothing where it names none, or not rightly."""
    found = _VERSIONED.fullmatch(text_headers(metadata).get(TRACEPARENT, ""))
    if found is None or (found["version"] == "00" and found["more"]):
        return ""
    return found["trace"]
