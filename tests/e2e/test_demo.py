"""`sdgrpc demo` as a user runs it: a process that starts a server process."""

from __future__ import annotations

import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image, ImageChops, ImageStat

from sdgrpc.demo.scenes import SCENES, STEPS

LIMIT_SECONDS, CORES = 60, 2


def start_demo(folder: Path) -> subprocess.Popen[str]:
    """Start the demonstration in a folder of its own."""
    command = [sys.executable, "-m", "sdgrpc", "demo", "--output", str(folder / "demo")]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


def is_closed(target: str) -> bool:
    """Whether nobody listens there."""
    host, port = target.rsplit(":", 1)
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, float]:
    """One whole run: its folder, all that it said, and the processor's seconds for it and its server."""
    folder = tmp_path_factory.mktemp("run")
    before = computed()
    process = start_demo(folder)
    output, errors = process.communicate(timeout=250)
    assert process.returncode == 0, errors
    assert not re.search(r"step \d", output)  # progress is on standard error
    return folder / "demo", output + errors, computed() - before


def computed() -> float:
    """Seconds that processes took which this one started, waited for, and they did; waiting is not in it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def opened(folder: Path, name: str) -> Image.Image:
    """A picture of the run, decoded."""
    with Image.open(folder / f"{name}.png") as image:
        return image.convert("RGB")


def test_writes_every_picture(run) -> None:
    """Each scene has its PNG with its parameters; the sheet and the animation are there."""
    folder, output, _ = run
    for scene in SCENES:
        with Image.open(folder / f"{scene.name}.png") as image:
            assert image.size == (128, 128)
            assert scene.prompt in image.text["parameters"]  # type: ignore[attr-defined]
    assert opened(folder, "contact-sheet").width > 1000
    with Image.open(folder / "denoising.webp") as animation:
        assert 2 < animation.n_frames <= STEPS  # type: ignore[attr-defined]
    assert "Where the time went" in output
    assert "denoised" in output


def test_ends_in_time(run) -> None:
    """Within a minute of two cores, as the README says, whatever else they do meanwhile."""
    assert run[2] < LIMIT_SECONDS * CORES


def test_pictures_differ_as_they_should(run) -> None:
    """Each LoRA and each RPC changes the plain picture."""
    plain = opened(run[0], "plain")
    for name in ("style", "concept", "stacked", "transform", "inpaint"):
        assert ImageChops.difference(plain, opened(run[0], name)).getbbox() is not None, name


def test_inpaint_keeps_what_the_mask_keeps(run) -> None:
    """Where the mask is black the pixels are the plain picture's."""
    difference = ImageChops.difference(opened(run[0], "plain"), opened(run[0], "inpaint"))
    kept = opened(run[0], "mask").convert("L").point(lambda value: 255 if value == 0 else 0)
    assert ImageStat.Stat(kept).sum[0] > 0
    assert ImageStat.Stat(difference, kept).extrema == [(0, 0)] * 3


def test_stops_its_server(run) -> None:
    """After the run nobody listens where the server was."""
    target = re.search(r"ready at (\S+)", run[1])
    assert target is not None
    assert is_closed(target[1])


def test_ctrl_c_stops_the_server(tmp_path: Path) -> None:
    """Interrupted while drawing, the demonstration takes its server with it and says so in one line."""
    process = start_demo(tmp_path)
    lines = iter(process.stderr)
    ready = next(line for line in lines if line.startswith("ready at"))
    next(line for line in lines if "step" in line)
    (server,) = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.splitlines()[-1]) == (130, "cancelled")
    assert "Traceback" not in errors
    assert not server.is_running()
    assert is_closed(ready.split()[2])


def test_being_killed_while_starting_stops_the_server(tmp_path: Path) -> None:
    """A polite kill before the server is ready ends it too."""
    process = start_demo(tmp_path)
    next(line for line in process.stderr if line.startswith("starting"))
    log = tmp_path / "demo/server.log"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and "loading on" in log.read_text("utf-8")):
        time.sleep(0.05)
    (server,) = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.splitlines()[-1]) == (130, "cancelled")
    assert "Traceback" not in errors
    assert not server.is_running()
