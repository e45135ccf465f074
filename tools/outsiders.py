"""Draw with each program that others bring, and check every picture.

`python -m tools.outsiders` starts a server with the embedded model and the HTTP door, and draws with grpcurl,
curl (the commands of docs/openai.md), the `openai` client and the page in Chromium; ghz puts calls on
it, whose pictures it does not keep. What is missing on this machine is said, and is no failure.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops

from sdgrpc.demo.server import running_server
from tools import ghz, grpcurl

PROMPT = "a red star on a blue background"
SEED, STEPS, SIDE = 7, 20, 128
DOCUMENT = grpcurl.ROOT / "docs/openai.md"
DOCUMENTED_DOOR = "http://127.0.0.1:8080"
MOST_ROUGH = 12.0
"""Mean difference of neighbouring pixels, of 255: drawings have some 4, noise some 60."""


class Unfit(Exception):
    """A picture is not what was asked for."""


class Missing(Exception):
    """The program is not on this machine."""


@dataclass(frozen=True)
class Addresses:
    """Where the server and the door before it are."""

    grpc: str
    door: str


def checked(data: bytes) -> bytes:
    """Return a picture that is one: of the size that was asked for, and not noise.

    Raises:
        Unfit: it is not, and why.

    """
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    if picture.size != (SIDE, SIDE):
        raise Unfit(f"it is {picture.width} x {picture.height}, not {SIDE} x {SIDE}")
    if picture.convert("L").getextrema()[0] == picture.convert("L").getextrema()[1]:
        raise Unfit("it is of one colour")
    if (rough := roughness(picture)) > MOST_ROUGH:
        raise Unfit(f"it is noise: neighbours differ by {rough:.1f} of 255")
    return data


def roughness(picture: Image.Image) -> float:
    """Return the mean difference of pixels from their right neighbours, of 255."""
    width, height = picture.size
    left = picture.crop((0, 0, width - 1, height))
    difference = ImageChops.difference(left, picture.crop((1, 0, width, height))).convert("L").tobytes()
    return sum(difference) / len(difference)


def with_grpcurl(at: Addresses, _: Path) -> bytes:
    """Draw as docs/clients.md shows."""
    request = json.dumps({"prompt": PROMPT, "sampling": {"seed": SEED, "steps": STEPS}})
    words = ["-plaintext", "-max-time", "60", "-d", request, at.grpc, "sdgrpc.v1.DiffusionService/Generate"]
    done = subprocess.run([_built(grpcurl.install), *words], capture_output=True, text=True, check=True)  # noqa: S603
    found = re.search(r'"data":\s*"(iVBOR[^"]+)"', done.stdout)  # as every PNG begins
    if found is None:
        raise Unfit("there is no image in the answer")
    return checked(base64.b64decode(found[1]))


def with_ghz(at: Addresses, _: Path) -> None:
    """Put twenty calls on the server."""
    report = json.loads(ghz.load(_built(ghz.install), at.grpc, calls=20, at_once=4))
    if report["statusCodeDistribution"] != {"OK": 20}:
        raise Unfit(f"not all calls ended well: {report['statusCodeDistribution']}")


def with_openai(at: Addresses, _: Path) -> bytes:
    """Draw with OpenAI's own client."""
    try:
        from openai import OpenAI
    except ModuleNotFoundError as error:
        raise Missing(error.name) from None
    with OpenAI(base_url=f"{at.door}/v1", api_key="unused") as client:
        answer = client.images.generate(prompt=PROMPT, extra_body={"seed": SEED, "steps": STEPS})
    return checked(base64.b64decode((answer.data or [])[0].b64_json or ""))


def with_curl(at: Addresses, folder: Path) -> bytes:
    """Run the document's commands as they stand, but for the door's address: star.png and others."""
    for program in ("bash", "curl", "jq", "base64"):
        if shutil.which(program) is None:
            raise Missing(program)
    for command in documented(DOCUMENT.read_text("utf-8")):
        script = "set -euo pipefail\n" + command.replace(DOCUMENTED_DOOR, at.door)
        subprocess.run(["bash", "-c", script], cwd=folder, check=True, capture_output=True)  # noqa: S603, S607
    for name in ("heart.png", "streamed.png"):
        checked((folder / name).read_bytes())
    return checked((folder / "star.png").read_bytes())


def documented(text: str) -> list[str]:
    """Return the document's blocks of shell commands that use curl."""
    return [block for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "curl " in block]


def with_the_page(at: Addresses, _: Path) -> bytes:
    """Type the prompt, the seed and the steps, press Enter, and take the picture off the page."""
    path = shutil.which("chromium")
    if path is None:
        raise Missing("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError as error:
        raise Missing(error.name) from None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(at.door)
        page.wait_for_function("document.querySelector('#model input')?.value")
        page.fill("#steps input", str(STEPS))
        page.fill("#seed input", str(SEED))
        page.fill("#prompt textarea", PROMPT)
        page.press("#prompt textarea", "Enter")
        page.wait_for_selector("#stage [data-state=done]")
        source = page.get_attribute("#stage figure img", "src") or ""
        browser.close()
    return checked(base64.b64decode(source.partition(",")[2]))


Program = Callable[[Addresses, Path], bytes | None]
PROGRAMS: dict[str, Program] = {
    "grpcurl": with_grpcurl,
    "ghz": with_ghz,
    "openai": with_openai,
    "curl": with_curl,
    "the page": with_the_page,
}


def _built(install: Callable[[], Path]) -> Path:
    try:
        return install()
    except FileNotFoundError as error:
        raise Missing(str(error)) from None


@contextmanager
def served() -> Iterator[Addresses]:
    """Run a server and the door before it for the block."""
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder) / "server.log") as target:
        command = [sys.executable, "-m", "sdgrpc", "web", "--server", target, "--listen", "127.0.0.1:0"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SDGRPC_")}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as door:  # noqa: S603
            try:
                assert door.stdout  # noqa: S101 - it is a pipe
                yield Addresses(target, door.stdout.readline().split()[-1])
            finally:
                door.terminate()


def main() -> int:
    """Run as a command."""
    failed, first = 0, None
    with served() as at:
        for name, draw in PROGRAMS.items():
            with tempfile.TemporaryDirectory() as folder:
                try:
                    data = draw(at, Path(folder))
                    if data is not None and data != (first := first or data):
                        raise Unfit("the same seed gave other bytes than with the program before")
                    said = f"{len(data)} bytes, as the others" if data else "all calls ended with OK"
                except Missing as missing:
                    said = f"left out: {missing} is missing"
                except (Unfit, OSError, subprocess.CalledProcessError) as error:
                    failed += 1
                    said = f"FAILED: {error}"
            print(f"{name:10}{said}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
