"""PEM files for tests of TLS, made with openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def authority(folder: Path, name: str = "ca") -> None:
    """Write NAME.pem and NAME.key, of an authority."""
    files = ("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")
    openssl("req", "-x509", *CURVE, "-subj", f"/CN={name}", *files)


def signed(folder: Path, name: str, by: str = "ca") -> None:
    """Write NAME.pem and NAME.key, for `localhost`, signed by an authority in the folder."""
    openssl(
        *("req", "-x509", *CURVE, "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost"),
        *("-CA", folder / f"{by}.pem", "-CAkey", folder / f"{by}.key"),
        *("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"),
    )
