"""What the operator chooses: flags, `SDGRPC_*` environment variables, a TOML file, defaults; in this order.

`groups.py` says each setting once, with its type, default and description; the command line, its help, the
names of the variables and `docs/settings.md` are made from there. A bad value fails at the start and names
itself. Only the server needs this room.
"""

from sdgrpc.settings.described import DescribedSetting, described_settings
from sdgrpc.settings.groups import ROWS_PER_CALL
from sdgrpc.settings.kinds import MIB
from sdgrpc.settings.settings import Settings
from sdgrpc.settings.sources import ValueWithSource, sources_of

__all__ = [
    "MIB",
    "ROWS_PER_CALL",
    "DescribedSetting",
    "Settings",
    "ValueWithSource",
    "described_settings",
    "sources_of",
]
