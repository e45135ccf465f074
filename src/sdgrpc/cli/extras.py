"""What only an installation with the server extra has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sdgrpc.errors import SettingsError


@contextmanager
def server_extra() -> Iterator[None]:
    """Say which extra to install where an import of the server's libraries fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "sdgrpc":
            raise
        raise SettingsError(
            f'{error.name} is missing; this command needs the server extra: pip install "sdgrpc[server]"'
        ) from None
