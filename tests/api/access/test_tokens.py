"""The file of tokens, and whose a token is."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdgrpc.api.access.tokens import bearer, parse_tokens
from sdgrpc.errors import SettingsError

FILE = Path("/tokens")


def test_lines_comments_and_both_ways_to_write() -> None:
    """`name: token`, `name token`, comments, empty lines, a byte order mark; a name may have two tokens."""
    text = "\ufeff# who\n\nann: s3cret-A\nbob\ts3cret-B  # until May\n ann : s3cret#C\neve:x:y\r\n"
    tokens = parse_tokens(FILE, text.encode())
    shown = ("s3cret-A", "s3cret-B", "s3cret#C", "x:y", "s3cret-", "s3cret-AA", "", "ann")
    assert [tokens.name_of(secret) for secret in shown] == ["ann", "bob", "ann", "eve", "", "", "", ""]
    assert len(tokens) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no token"),
        ("# ann: s3cret\n", "holds no token"),
        ("ann: s3cret\nbob\n", "line 2: is not `name: token`"),
        ("ann: s3cret more\n", "line 1"),
        ("ann: s\u00e9cret\n", "line 1"),
        (": s3cret\n", "line 1"),
        (f"{'a' * 101}: s3cret\n", "line 1"),
        ("ann\x1b: s3cret\n", "line 1"),
        ("ann: s3cret\nbob: s3cret\n", "line 2: bob has the token of ann"),
    ],
)
def test_a_broken_file_is_refused_without_quoting_it(text: str, words: str) -> None:
    """The line is named; a token never is."""
    with pytest.raises(SettingsError, match=words) as caught:
        parse_tokens(FILE, text.encode())
    assert "cret" not in str(caught.value)
    assert str(caught.value).startswith("/tokens")


def test_what_is_no_text_is_refused() -> None:
    """A certificate in binary, say."""
    with pytest.raises(SettingsError, match="UTF-8"):
        parse_tokens(FILE, b"\xff\xfe\x00")


def test_tokens_show_no_secret() -> None:
    """Neither they nor what is kept of them, wherever they are printed."""
    tokens = parse_tokens(FILE, b"ann: s3cret")
    assert "s3cret" not in repr(tokens.__dict__)


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("BEARER a/b+c==", "a/b+c=="),
        ("Bearer", ""),
        ("Bearer ", ""),
        ("Basic abc", ""),
        ("abc", ""),
        ("Bearer a b", ""),
        ("", ""),
    ],
)
def test_the_header(header: str, token: str) -> None:
    """`Bearer TOKEN`, the word in any case."""
    assert bearer(header) == token
