"""Small files that are read again when they change."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from sdgrpc.api.access.reloaded import MAX_BYTES, Reloaded, read_whole
from sdgrpc.errors import SettingsError


def parse(contents: Sequence[bytes]) -> str:
    """The contents in capitals; `bad` is broken."""
    text = b"+".join(contents).decode()
    if "bad" in text:
        raise SettingsError("it is bad")
    return text.upper()


def age(path: Path, seconds: float = 60.0) -> None:
    """Let the file look as if it was written a while ago."""
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_change_is_seen_at_the_next_look(tmp_path: Path) -> None:
    """Written over in place or replaced, of the same size, within the clock's tick."""
    path = tmp_path / "file"
    path.write_text("one")
    reloaded = Reloaded([path], parse)
    assert (reloaded.get(), reloaded.renewed()) == ("ONE", None)
    for text in ("two", "six", "ten"):
        path.write_text(text)
        assert reloaded.get() == text.upper()
    (tmp_path / "new").write_text("new")
    (tmp_path / "new").replace(path)
    assert (reloaded.renewed(), reloaded.renewed()) == ("NEW", None)


def test_what_is_old_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at a file that does not change costs a stat."""
    path = tmp_path / "file"
    path.write_text("one")
    monkeypatch.setattr("sdgrpc.api.access.reloaded.SETTLED_SECONDS", -1.0)
    reloaded = Reloaded([path], parse)
    monkeypatch.setattr("sdgrpc.api.access.reloaded.read_whole", lambda _: pytest.fail("was read"))
    assert reloaded.get() == "ONE"


@pytest.mark.parametrize("broken", ["bad", None])
def test_what_is_broken_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str | None
) -> None:
    """Broken or gone: what held goes on, the log says so once; and the next good file is taken."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("one")
    other.write_text("x")
    reloaded = Reloaded([one, other], parse)
    if broken is None:
        one.unlink()
    else:
        one.write_text(broken)
    with caplog.at_level(logging.INFO):
        assert [reloaded.get() for _ in range(3)] == ["ONE+X"] * 3
        assert len(caplog.records) == 1
        assert "stays in force" in caplog.text
        one.write_text("two")
        assert reloaded.get() == "TWO+X"
        assert f"read again: {one}, {other}" in caplog.text


def test_the_same_content_again_is_no_news(tmp_path: Path) -> None:
    """A file that was only touched."""
    path = tmp_path / "file"
    path.write_text("one")
    reloaded = Reloaded([path], parse)
    age(path)
    assert reloaded.renewed() is None


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    """A FIFO does not hold the server up, and a file without an end is not read to it."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(bytes(MAX_BYTES + 1))
    for name, words in (
        ("fifo", "regular"),
        ("large", "larger"),
        ("nope", "No such file"),
        (".", "directory"),
    ):
        with pytest.raises(SettingsError, match=words):
            read_whole(tmp_path / name)
        with pytest.raises(SettingsError, match=words):
            Reloaded([tmp_path / name], parse)
