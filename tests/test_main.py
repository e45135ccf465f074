"""The command's entry, and how its process ends."""

from __future__ import annotations

import os
import sys

import pytest

from sdgrpc.__main__ import leave


class Left(BaseException):
    """The process would have ended with this status."""


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(status: int) -> None:
        raise Left(status)

    monkeypatch.setattr(os, "_exit", end)


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize(("code", "status"), [(None, 0), (0, 0), (70, 70)])
def test_a_process_with_torch_ends_at_once(
    code: int | None, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the status that the command chose, and everything printed."""
    monkeypatch.setitem(sys.modules, "torch", sys)
    sys.stdout.write("the last line\n")
    with pytest.raises(Left) as ended:
        leave(SystemExit(code))
    assert ended.value.args == (status,)
    assert capsys.readouterr().out == "the last line\n"


@pytest.mark.usefixtures("left")
def test_others_end_as_python_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command without torch, and one whose last word Python prints."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with pytest.raises(SystemExit):
        leave(SystemExit(0))
    monkeypatch.setitem(sys.modules, "torch", sys)
    with pytest.raises(SystemExit, match="error: why"):
        leave(SystemExit("error: why"))
