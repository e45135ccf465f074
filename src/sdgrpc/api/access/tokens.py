"""Tokens that clients show: a file of names and secrets, which never appear in logs or messages."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdgrpc.errors import SettingsError

LINE = re.compile(r"(?P<name>[^\s:]+)(?:\s*:\s*|\s+)(?P<token>[!-~]+)")
BEARER = re.compile(r"bearer +(?P<token>[!-~]+)", re.IGNORECASE)
MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class Token:
    """A name and its secret's SHA-256, which tells nothing of the secret's length."""

    name: str
    digest: bytes = field(repr=False)


class Tokens:
    """Every token that is valid now."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tuple(tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def name_of(self, secret: str) -> str:
        """Return whose token this is, nothing if nobody's; takes as long whichever it is or is like."""
        shown, name = digest_of(secret), ""
        for token in self._tokens:
            if hmac.compare_digest(token.digest, shown):
                name = token.name
        return name


def digest_of(secret: str) -> bytes:
    """The SHA-256 of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def bearer(header: str) -> str:
    """The token of an `authorization` header, nothing if it has none."""
    found = BEARER.fullmatch(header.strip())
    return found["token"] if found else ""


def parse_tokens(path: Path, content: bytes) -> Tokens:
    """Read lines of `name: token` or `name token`; ` #` begins a comment, and a name may have several tokens.

    Raises:
        SettingsError: a line is neither, a token stands there for two names, or there is none at all.

    """
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text") from None
    names: dict[bytes, str] = {}
    for number, line in enumerate(lines, 1):
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if not text:
            continue
        found = LINE.fullmatch(text)
        if found is None or len(found["name"]) > MAX_NAME or not found["name"].isprintable():
            raise SettingsError(f"{path}, line {number}: is not `name: token`, with a token of visible ASCII")
        name, digest = found["name"], digest_of(found["token"])
        if names.setdefault(digest, name) != name:
            raise SettingsError(f"{path}, line {number}: {name} has the token of {names[digest]}")
    if not names:
        raise SettingsError(f"{path}: holds no token; nobody could call")
    return Tokens([Token(name, digest) for digest, name in names.items()])
