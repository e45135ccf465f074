"""A flag of `serve` for each of the server's settings, made when the command is called.

The settings need a library of the server; until `serve` itself is asked for something, nothing is imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.markup import escape
from typer.core import TyperCommand

from sdgrpc.cli.failures import failures_as_lines, server_extra

if TYPE_CHECKING:
    from sdgrpc.settings import DescribedSetting


def settings_command(run: Callable[..., None]) -> type[TyperCommand]:
    """Return the class of a command that takes `run`'s parameters and a flag for each setting.

    `run` gets the flags that were given as its parameter `flags`: a text, a list of texts or a bool for each,
    which `Settings` checks, so that a wrong value is told in the same words wherever it stands.
    """

    class SettingsCommand(TyperCommand):
        """Has the name and help of its own, and everything else of a command made from the settings."""

        @cached_property
        def _made(self) -> TyperCommand:
            with failures_as_lines(), server_extra():
                from sdgrpc.settings import described_settings

            app = typer.Typer(rich_markup_mode=self.rich_markup_mode, add_completion=False)
            app.command()(with_flags(run, described_settings()))
            return cast("TyperCommand", typer.main.get_command(app))

        # The context's class is Typer's own or Click's, as the version of Typer has it.
        def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401
            return [*self._made.get_params(ctx)]

        def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
            return self._made.invoke(ctx)

    return SettingsCommand


def with_flags(run: Callable[..., None], settings: Sequence[DescribedSetting]) -> Callable[..., None]:
    """Return `run` as a command with a flag for each setting in place of its parameter `flags`."""
    own = [
        p.replace(kind=p.KEYWORD_ONLY)
        for p in inspect.signature(run, eval_str=True).parameters.values()
        if p.name != "flags"
    ]
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [context, *own, *map(_parameter, settings)]

    def command(ctx: typer.Context, **values: object) -> None:
        flags = {one.name: values[one.name] for one in settings if _is_given(ctx, one.name)}
        run(**{each.name: values[each.name] for each in own}, flags=flags)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _parameter(setting: DescribedSetting) -> inspect.Parameter:
    option = typer.Option(
        setting.flag,
        help=escape(setting.description),
        metavar=None if setting.is_switch else setting.metavar,
        rich_help_panel=setting.group,
        show_default=setting.unset or True,
        autocompletion=_completed(setting.choices),
    )
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=list(setting.default) if isinstance(setting.default, tuple) else setting.default,
        annotation=Annotated[_type(setting), option],
    )


def _type(setting: DescribedSetting) -> object:
    if setting.is_switch:
        return bool
    one = Path if setting.is_path else str
    kind: Any = list[one] if setting.is_list else one  # type: ignore[valid-type]
    return kind | None if setting.default is None else kind


def _completed(choices: tuple[str, ...]) -> Callable[[str], list[str]] | None:
    def completed(incomplete: str) -> list[str]:
        return [one for one in choices if one.startswith(incomplete)]

    return completed if choices else None
