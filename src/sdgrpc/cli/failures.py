"""How commands end when something goes wrong: one clear line per fault, no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from sdgrpc.client import (
    DeadlineExceededError,
    InvalidRequestError,
    SdgrpcServerError,
    UnauthenticatedError,
    UnavailableError,
)
from sdgrpc.errors import SdgrpcError, SettingsError
from sdgrpc.terminal.text import printable

CANCELLED = 130  # what shells report for a command that Ctrl-C ended


@contextmanager
def failures_as_lines(server: str = "") -> Iterator[None]:
    """Turn the failures that a user can meet into lines on standard error and exit status 1.

    Ctrl-C says "cancelled" and exits with 130. `server` is named where nobody answers there.
    """
    try:
        yield
    except BaseException as error:
        if is_interrupt(error):
            typer.echo("cancelled", err=True)
            raise typer.Exit(CANCELLED) from None
        if not isinstance(error, (SdgrpcServerError, SdgrpcError, ValueError, OSError)):
            raise
        for line in _lines(error, server):
            typer.echo(f"error: {printable(line)}", err=True)
        raise typer.Exit(1) from None


def must_exist(path: Path | None, *, folder: bool = False) -> None:
    """Look for a path before what takes long: importing torch, connecting. None is none to look for.

    Raises:
        OSError: it is not there, or no folder where it should be one, or one where it should not.

    """
    if path is None:
        return
    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    if folder and not path.is_dir():
        raise NotADirectoryError(20, "is not a folder", str(path))
    if not folder and path.is_dir():
        raise IsADirectoryError(21, "is a folder", str(path))


def is_interrupt(error: BaseException | None) -> bool:
    """Tell whether Ctrl-C is behind an error.

    Where it hits a thread in a condition's own bookkeeping, grpc's for one, the lock that is not held then
    makes a RuntimeError of it, "release unlocked lock", with the KeyboardInterrupt as its context.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _lines(error: Exception, server: str) -> list[str]:
    if isinstance(error, InvalidRequestError) and error.violations:
        return [f"{violation.field}: {violation.description}" for violation in error.violations]
    if isinstance(error, UnavailableError) and not error.reason and server:
        advice = "start one with `sdgrpc serve`, or name one with --server"
        return [f"no server answers at {server}; {advice} ({error.message})"]
    if isinstance(error, UnavailableError) and error.reason == "LOADING":
        return [f"loading: {error.message}"]
    if isinstance(error, UnauthenticatedError):
        return [f"{error.message} (give the token with --token, or in SDGRPC_TOKEN)"]
    if isinstance(error, DeadlineExceededError):
        return ["not drawn within --timeout; the server has dropped the job"]
    if isinstance(error, SdgrpcServerError):
        wait = f" (try again in {error.retry_after:.1f} s)" if error.retry_after else ""
        return [f"{error.message}{wait}"]
    if isinstance(error, OSError) and error.filename and error.strerror:
        return [f"{error.filename}: {error.strerror}"]
    return str(error).splitlines() or [type(error).__name__]


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
