"""The environment and the file, looked through before they are read."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path

from sdgrpc.errors import SettingsError
from sdgrpc.regular_files import read_regular
from sdgrpc.settings.text import PREFIX, variable

OTHER_VARIABLES = frozenset(
    PREFIX + name
    for name in (
        # What the command line reads: where and as whom to connect, and the file of settings.
        *("CONFIG", "SERVER", "TOKEN", "CA", "CLIENT_CERTIFICATE", "CLIENT_KEY"),
        # What the tests read.
        *("REQUIRE_ALL", "REAL_LORAS", "PYTHON", "CONTRACT_SERVER", "CONTRACT_HASHES"),
    )
)
"""Variables that begin as the settings do and are none."""


MAX_FILE_BYTES = 1 << 20


def check_toml(path: Path) -> Mapping[str, object]:
    """Return a settings file's keys, or say what is wrong with it; a missing one would be passed over."""
    try:
        return tomllib.loads(read_regular(path, MAX_FILE_BYTES).decode("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None


def check_variables(names: Collection[str]) -> None:
    """Refuse variables that begin as the settings do and name none of `names`: they are slips of the pen.

    Raises:
        SettingsError: there is such a variable; the message says which is meant.

    """
    known = [*map(variable, names), *OTHER_VARIABLES]
    strangers = sorted(name for name in os.environ if name.upper().startswith(PREFIX))
    lines = []
    for name in strangers:
        if name.upper() not in known:
            close = get_close_matches(name.upper(), known, n=1)
            advice = f"; is {close[0]} meant?" if close else ""
            lines.append(f"{name}: there is no such setting{advice}")
    if lines:
        raise SettingsError("\n".join(lines))
