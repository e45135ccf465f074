"""Each setting as help and documents show it, read off the fields of `groups.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args, get_origin

from annotated_types import Ge
from pydantic.fields import FieldInfo

from sdgrpc.settings.groups import GROUPS
from sdgrpc.settings.kinds import Metavar, Unset
from sdgrpc.settings.text import size_text, variable


@dataclass(frozen=True, slots=True)
class DescribedSetting:
    """A setting: `default` is None where `unset` says in words what not giving it means.

    `metavar` stands for its value in help, `minimum` is the least number, `choices` are the only words.
    """

    name: str
    group: str
    description: str
    metavar: str
    default: bool | str | tuple[str, ...] | None
    unset: str
    minimum: float | None
    choices: tuple[str, ...]
    is_list: bool
    is_path: bool

    @property
    def is_switch(self) -> bool:
        """Whether it is `--x` or `--no-x` on the command line."""
        return isinstance(self.default, bool)

    @property
    def flag(self) -> str:
        """`--max-steps`; `--batching/--no-batching` for a switch."""
        flag = self.name.replace("_", "-")
        return f"--{flag}/--no-{flag}" if self.is_switch else f"--{flag}"

    @property
    def variable(self) -> str:
        """`SDGRPC_MAX_STEPS`."""
        return variable(self.name)


def described_settings() -> tuple[DescribedSetting, ...]:
    """Return every setting in the order of `groups.py`."""
    return tuple(
        _described(name, str(group.__doc__).rstrip("."), field)
        for group in GROUPS
        for name, field in group.model_fields.items()
    )


def _described(name: str, group: str, field: FieldInfo) -> DescribedSetting:
    types, marks = _parts(field.annotation)
    marks = [*field.metadata, *marks]
    choices = tuple(str(word) for one in types if get_origin(one) is Literal for word in get_args(one))
    minimum = next((float(str(mark.ge)) for mark in marks if isinstance(mark, Ge)), None)
    metavar = next((mark.text for mark in marks if isinstance(mark, Metavar)), "|".join(choices))
    return DescribedSetting(
        name=name,
        group=group,
        description=field.description or "",
        metavar=metavar,
        default=_default(field.default, metavar),
        unset=next((mark.text for mark in marks if isinstance(mark, Unset)), ""),
        minimum=minimum,
        choices=choices,
        is_list=any(get_origin(one) is list for one in types),
        is_path=Path in types,
    )


def _parts(annotation: object) -> tuple[list[object], list[object]]:
    """The types that an annotation is made of, and what `Annotated` notes anywhere in it."""
    marks: list[object] = list(getattr(annotation, "__metadata__", ()))
    types: list[object] = [annotation]
    inner = get_args(annotation)[:1] if marks else get_args(annotation)
    for one in inner if get_origin(annotation) is not Literal else ():
        more_types, more_marks = _parts(one)
        types, marks = [*types, *more_types], [*marks, *more_marks]
    return types, marks


def _default(value: object, metavar: str) -> bool | str | tuple[str, ...] | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, list):
        return tuple(map(str, value))
    if metavar == "BYTES" and isinstance(value, int):
        return size_text(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
