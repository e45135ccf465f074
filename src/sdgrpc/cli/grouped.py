"""Options that several commands share, as one dataclass."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

_T = TypeVar("_T")


def takes(group: type[_T], name: str = "options") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace a command's parameter `name` by one option for each field of the dataclass `group`.

    The fields are annotated as Typer's parameters are: `Annotated[type, typer.Option(...)] = default`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != name]
        shared = _parameters(group)

        @functools.wraps(command)
        def run(**values: object) -> None:
            mine = {parameter.name: values[parameter.name] for parameter in own}
            command(**mine, **{name: group(**{each.name: values[each.name] for each in shared})})

        run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *shared]}
        del run.__wrapped__  # its signature is not the one to show
        return run

    return decorate


def _parameters(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(field),
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(group)
    ]


def _default(field: dataclasses.Field[Any]) -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
