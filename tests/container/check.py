"""Build the Dockerfile and use the image as an operator would, with buildah and no container engine.

On demand, as root: `python -m tests.container.check --base IMAGE` builds on IMAGE (any Debian, such as one
that debootstrap made); `--image IMAGE` checks one that was built before. It prints what it saw, or fails.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from sdgrpc.client import Client

ROOT = Path(__file__).resolve().parents[2]
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
UID = 10001
PROMPT = "a red star on a blue background"


class Buildah:
    """buildah with its storage in one folder or its usual place, without an engine or namespaces."""

    def __init__(self, storage: Path | None) -> None:
        folders = (
            [] if storage is None else ["--root", str(storage / "storage"), "--runroot", str(storage / "run")]
        )
        self.command = ["buildah", "--storage-driver", "vfs", *folders]

    def __call__(self, *arguments: str) -> str:
        return subprocess.run(
            [*self.command, *arguments], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()

    def build(self, base: str, variant: str, tag: str) -> None:
        """Build as the README says; pip trusts this machine's authorities."""
        arguments = {"BASE_IMAGE": base, "VARIANT": variant, "PIP_CERT": "/etc/ssl/host.crt"}
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        mounted = f"--volume={CERTIFICATES}:/etc/ssl/host.crt:ro"
        isolated = ["--isolation", "chroot", "--format", "docker", "--layers=false"]
        subprocess.run([*self.command, "bud", *isolated, *given, mounted, "-t", tag, str(ROOT)], check=True)

    @contextmanager
    def container(self, image: str) -> Iterator[str]:
        """A container of the image, gone with the block."""
        name = self("from", image)
        try:
            yield name
        finally:
            self("rm", name)


@contextmanager
def served(
    buildah: Buildah, container: str, command: list[str]
) -> Iterator[tuple[str, psutil.Process, subprocess.Popen[str]]]:
    """Run the image's own entrypoint and command; yield where it listens, its process and buildah's."""
    run = ["run", "--isolation", "chroot", "--env", "SDGRPC_LISTEN=127.0.0.1:0", container, "--", *command]
    with subprocess.Popen([*buildah.command, *run], stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("listening on "), line
            yield line.split()[-1], server_below(process.pid), process
        finally:
            if process.poll() is None:
                process.terminate()


def server_below(pid: int) -> psutil.Process:
    """Find the process that runs the entrypoint, below buildah's own."""
    for process in psutil.Process(pid).children(recursive=True):
        if any(part.endswith("/sdgrpc") for part in process.cmdline()) and "buildah" not in process.name():
            return process
    raise AssertionError("no server runs below buildah")


def check(buildah: Buildah, image: str) -> None:
    """Serve, draw from outside, ask for its health from inside, stop it."""
    settings = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
    command = [*settings["Entrypoint"], *settings["Cmd"]]
    print(f"{size_of(buildah, image)}; runs {command} as {settings['User']!r}")
    print(f"volumes {sorted(settings['Volumes'])}; health check {settings['Healthcheck']['Test']}")
    with (
        buildah.container(image) as container,
        served(buildah, container, command) as (target, server, process),
    ):
        assert server.uids().effective == UID, server.uids()
        with Client(target) as client:
            (picture,) = client.generate(PROMPT, loras=["postcard:0.8"], seed=7).images()
        picture.save("container.png")
        print(f"drew container.png, {picture.open().size}, for a client outside, as uid {UID}")
        health = ["run", "--isolation", "chroot", container, "--", "sdgrpc", "health", "--server", target]
        print(f"health from inside: {buildah(*health)}")
        started = time.monotonic()
        server.send_signal(signal.SIGTERM)
        status = process.wait(60)
        print(f"SIGTERM: ended after {time.monotonic() - started:.1f} s with status {status}")
        assert status == 0


def size_of(buildah: Buildah, image: str) -> str:
    """The image's size as buildah lists it."""
    images = json.loads(buildah("images", "--json"))
    return next(
        entry["size"] for entry in images if f"{image}:latest" in entry["names"] or image in entry["names"]
    )


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", help="build on this image")
    parser.add_argument("--image", default="localhost/sdgrpc:check")
    parser.add_argument("--variant", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--storage", type=Path, help="where buildah keeps images")
    arguments = parser.parse_args()
    buildah = Buildah(arguments.storage)
    if arguments.base:
        buildah.build(arguments.base, arguments.variant, arguments.image)
    check(buildah, arguments.image)
    return 0


if __name__ == "__main__":
    sys.exit(main())
