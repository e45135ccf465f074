"""What every failure is made of, and those that are of no one thing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


class SdgrpcError(Exception):
    """A failure with a name. `retry_after` (seconds) is set where trying again may help."""

    code: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Callable[..., SdgrpcError], tuple[Any, ...]]:
        """Cross processes by class and content: what it was raised from, and where, stays here."""
        return _remade, (type(self), self.args, dict(vars(self)))


def _remade(kind: type[SdgrpcError], args: tuple[Any, ...], content: dict[str, Any]) -> SdgrpcError:
    """Put a failure together again without its constructor, whose arguments are not those of `args`."""
    made = kind.__new__(kind, *args)
    made.args = args
    vars(made).update(content)
    return made


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that is wrong: `loras[1].strength`, `1.5 is above 1.0`."""

    field: str
    description: str


class InvalidRequest(SdgrpcError):
    """A request with every violation that was found in it."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_REQUEST"

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = tuple(violations)


class ResourceMissing(SdgrpcError):
    """Something the request names does not exist."""

    code = "NOT_FOUND"
    resource_type: ClassVar[str] = ""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Unexpected(SdgrpcError):
    """A failure without a name; the log has its cause under `error_id`."""

    def __init__(self, error_id: str) -> None:
        super().__init__(f"an unexpected failure; the server's log has its cause under {error_id}")
        self.error_id = error_id


class SettingsError(SdgrpcError):
    """The server cannot start as it was configured; the message names the setting."""

    code = "FAILED_PRECONDITION"
    reason = "BAD_SETTINGS"
