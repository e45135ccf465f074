"""Write docs/settings.md from the server's settings, or with `--check` prove that it is fresh."""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

from sdgrpc.settings import DescribedSetting, described_settings

PAGE = Path(__file__).resolve().parent.parent / "docs/settings.md"

HEAD = """\
# Settings

<!-- Made from src/sdgrpc/settings/groups.py by `make gen`; change it there. -->

Each setting can be said as a flag of `sdgrpc serve`, as an environment variable or as a key of the TOML
file that `--config FILE` or `SDGRPC_CONFIG` names: `--max-steps 50`, `SDGRPC_MAX_STEPS=50`, `max_steps =
50`. A flag goes before the environment, the environment before the file, and the file before the default.
An empty variable counts as not set. Lists are flags that are repeated, TOML lists, and in a variable parts
with commas between (folders with `:`, as in PATH) or a JSON list. Sizes are bytes or have a unit: `2GiB`. A
wrong value or name ends the server at its start with a sentence that names it. `sdgrpc serve
--print-config` says every setting's value and where it was said.
"""

TAIL = """
## A new setting

A setting is one line in the class of its group in `src/sdgrpc/settings/groups.py`: a name, a kind from
`kinds.py` that checks one value, the default and a description. The flag and its help, the variable, the
TOML key and its entry here (after `make gen`) follow from that line; what several settings must satisfy
together stands in `Settings._check_together`. An engine's bound is also a field of its name in
`src/sdgrpc/engine/options.py`.
"""


def page(settings: tuple[DescribedSetting, ...]) -> str:
    """Return the whole document."""
    parts = [HEAD]
    for group, members in itertools.groupby(settings, key=lambda one: one.group):
        parts.append(f"\n## {group}\n\n")
        parts.append("| setting | variable | value | default | |\n|---|---|---|---|---|\n")
        parts += [_row(one) for one in members]
    return "".join([*parts, TAIL])


def _row(one: DescribedSetting) -> str:
    flag = f"`{one.flag}`".replace("/", "` `")
    default = f"*{one.unset}*" if one.default is None else f"`{_default(one)}`"
    return f"| {flag} | `{one.variable}` | {_values(one)} | {default} | {one.description} |\n"


def _values(one: DescribedSetting) -> str:
    if one.is_switch:
        return "`true`, `false`"
    if one.choices:
        return ", ".join(f"`{choice}`" for choice in one.choices)
    least = f" from {one.minimum:g}" if one.minimum is not None else ""
    more = ", …" if one.is_list else ""
    return f"{one.metavar.replace('|', ', ')}{least}{more}"


def _default(one: DescribedSetting) -> str:
    if isinstance(one.default, bool):
        return str(one.default).lower()
    return ", ".join(one.default) if isinstance(one.default, tuple) else str(one.default)


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the page is stale")
    fresh = page(described_settings())
    if not parser.parse_args().check:
        PAGE.write_text(fresh, encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == fresh:
        return 0
    print(f"stale {PAGE.name}, run `make gen`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
