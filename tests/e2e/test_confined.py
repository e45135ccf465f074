"""What the container may do is enough: a read-only root, no capabilities, no way to gain any."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sdgrpc.client import Client, Tls
from tests.support.certificates import authority, signed
from tests.support.server import environment, target_of

CONFINE = """set -e
mount --make-rprivate /
mount -o remount,bind,ro /
mount -o remount,bind,ro "$1"
mount -t tmpfs tmpfs "$2"
shift 2
exec setpriv --bounding-set -all --inh-caps -all --no-new-privs "$@"
"""
"""In a mount namespace; the temporary folder may be a mount of its own. A tmpfs is for scratch."""


def confined(folder: Path, *command: str) -> list[str]:
    """The command without rights and with nowhere to write but the folder's `scratch`."""
    mount = next(str(parent) for parent in (folder, *folder.parents) if parent.is_mount())
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return ["unshare", "--mount", "sh", "-c", CONFINE, "sh", mount, str(scratch), *command]


def can_confine(folder: Path) -> bool:
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return False
    return subprocess.run(confined(folder, "true"), capture_output=True, check=False).returncode == 0


def test_it_serves_without_rights_and_without_a_root_to_write(tmp_path: Path) -> None:
    """With TLS and tokens, from files that it can read alone; it draws, and ends by SIGTERM with 0."""
    if not can_confine(tmp_path):
        pytest.skip("needs the right to make a mount namespace")
    touched = subprocess.run(
        confined(tmp_path, "sh", "-c", f"grep CapEff /proc/self/status; touch {tmp_path}/x"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (touched.returncode, touched.stdout.split()[1].strip("0")) == (1, ""), touched
    assert "Read-only" in touched.stderr
    authority(tmp_path)
    signed(tmp_path, "server")
    (tmp_path / "tokens").write_text("ann: s3cret\n")
    files = {"tls-certificate": "server.pem", "tls-key": "server.key", "token-file": "tokens"}
    flags = [part for flag, file in files.items() for part in (f"--{flag}", str(tmp_path / file))]
    command = [sys.executable, "-m", "sdgrpc", "serve", "--listen", "127.0.0.1:0", *flags]
    log = tmp_path / "log"
    with (
        log.open("w", encoding="utf-8") as sink,
        subprocess.Popen(
            confined(tmp_path, *command),
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
            env={
                **environment(),
                "HOME": "/nonexistent",
                "TMPDIR": str(tmp_path / "scratch"),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        ) as process,
    ):
        try:
            target = target_of(process, log).replace("127.0.0.1", "localhost")
            with Client(target, tls=Tls(ca=tmp_path / "ca.pem"), token="s3cret") as client:
                images = client.generate("a star", loras=["postcard:0.5"], steps=2).images()
                assert len(images) == 1
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text("utf-8")
        finally:
            process.kill()
    assert "Traceback" not in log.read_text("utf-8")
