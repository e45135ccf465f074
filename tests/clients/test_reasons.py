"""Every reason that a server can give has a name in the clients."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sdgrpc import errors
from tests.clients.conftest import ROOT

OF_THE_START = {"BAD_SETTINGS"}
"""Reasons that end a server before anybody can call it."""


def reasons(kind: type[errors.SdgrpcError] = errors.SdgrpcError) -> Iterator[str]:
    """Those of a failure and of all below it."""
    yield kind.reason
    for one in kind.__subclasses__():
        yield from reasons(one)


def test_typescript_names_every_reason() -> None:
    """As a type, so that an editor knows them."""
    text = (ROOT / "clients/typescript/src/errors.ts").read_text(encoding="utf-8")
    (named,) = re.findall(r"REASONS = \[(.*?)\]", text, re.DOTALL)
    assert set(reasons()) - OF_THE_START == set(re.findall(r'"([A-Z_]+)"', named))


def test_go_names_every_reason() -> None:
    """As a constant, so that a program can compare with it."""
    text = (ROOT / "clients/go/errors.go").read_text(encoding="utf-8")
    named = set(re.findall(r'Reason = "([A-Z_]+)"', text))
    assert set(reasons()) - OF_THE_START == named
