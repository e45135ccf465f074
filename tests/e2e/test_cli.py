"""The command line against a real server, and `serve` as a process."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageDraw
from typer.testing import CliRunner

from sdgrpc.cli import build_app
from sdgrpc.client import AsyncClient, Client, InvalidRequestError, LoraNotFoundError, Progress
from sdgrpc.terminal.blocks import UPPER_HALF_BLOCK
from tests.support.server import of_one_engine


@pytest.fixture
def sdgrpc(server, tmp_path, monkeypatch):
    """Run a command in an empty folder, told where the server is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDGRPC_SERVER", server.target)
    return lambda *arguments: CliRunner().invoke(build_app(), [str(each) for each in arguments])


def opened(name: str) -> Image.Image:
    """A picture in the current folder."""
    with Image.open(name) as image:
        image.load()
        return image


def test_generate_twice_alike(sdgrpc) -> None:
    """The same seed gives the same file; a LoRA another one, named in the file's parameters."""
    for name in ("a.png", "b.png"):
        result = sdgrpc("generate", "a red circle", "--seed", 5, "--steps", 4, "-o", name)
        assert result.exit_code == 0, result.output
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    flags = ["--seed", 5, "--steps", 4, "--lora", "postcard:0.75", "-o", "c.png"]
    result = sdgrpc("generate", "a red circle", *flags)
    assert "postcard 0.75" in result.output
    assert ImageChops.difference(opened("a.png"), opened("c.png")).getbbox() is not None
    assert "<lora:postcard:0.75>" in opened("c.png").text["parameters"]  # type: ignore[attr-defined]


def test_formats_sizes_and_counts(sdgrpc) -> None:
    """The suffix, the size and the count are what comes out; image i is the single image of seed + i."""
    flags = ["--steps", 2, "--size", "96x64", "--scheduler", "euler", "--spacing", "karras"]
    assert (
        sdgrpc("generate", "a star", *flags, "--seed", 5, "--count", 2, "-o", "x-{seed}.webp").exit_code == 0
    )
    assert sdgrpc("generate", "a star", *flags, "--seed", 6, "-o", "single.webp").exit_code == 0
    assert sorted(path.name for path in Path().iterdir()) == ["single.webp", "x-5.webp", "x-6.webp"]
    assert (opened("x-5.webp").format, opened("x-5.webp").size) == ("WEBP", (96, 64))
    assert sdgrpc("generate", "a star", *flags, "-o", "x.jpg", "--quality", 50).exit_code == 0
    assert opened("x.jpg").format == "JPEG"


def test_transform_and_inpaint(sdgrpc) -> None:
    """A picture goes through both; black in the mask is kept to the bit."""
    sdgrpc("generate", "a red circle on a white background", "--seed", 5, "--steps", 4, "-o", "a.png")
    mask = Image.new("L", (128, 128), 0)
    ImageDraw.Draw(mask).rectangle((64, 0, 127, 127), fill=255)
    mask.save("mask.png")
    flags = ["--image", "a.png", "--steps", 4]
    assert sdgrpc("transform", "a blue star", *flags, "--strength", 0.5, "-o", "t.png").exit_code == 0
    assert sdgrpc("inpaint", "a blue star", *flags, "--mask", "mask.png", "-o", "i.png").exit_code == 0
    assert ImageChops.difference(opened("a.png"), opened("t.png")).getbbox() is not None
    changed = ImageChops.difference(opened("a.png"), opened("i.png")).getbbox()
    assert changed is not None
    assert changed[0] >= 64


def test_violations_are_lines(sdgrpc) -> None:
    """All of them at once, each with its field."""
    result = sdgrpc(
        "generate", "x", "--steps", 999, "--size", "100x64", "--lora", "sepia", "--lora", "postcard:1.5"
    )
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    fields = {line.split(": ")[1] for line in lines}
    assert fields == {"sampling.steps", "width", "loras[1].strength"}


def test_unknown_lora_suggests_names(sdgrpc) -> None:
    """A slip in a name is one line with the name that was meant."""
    result = sdgrpc("generate", "x", "--lora", "postcrad")
    assert result.exit_code == 1
    assert re.fullmatch(r"error: .*'postcrad'.*did you mean 'postcard'\?\n", result.stderr)


def test_terminal_shows_bar_and_preview(server, tmp_path: Path) -> None:
    """In a real terminal the bar, the time left and the coloured preview appear."""
    own, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "sdgrpc",
        "generate",
        "a red circle",
        "--server",
        server.target,
        "--steps",
        "20",
    ]
    terminal = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "90", "LINES": "40"}
    process = subprocess.Popen(
        command, stdout=theirs, stderr=theirs, stdin=theirs, cwd=tmp_path, env={**os.environ, **terminal}
    )
    os.close(theirs)
    shown = read_all(own)
    assert process.wait(timeout=60) == 0
    assert "left" in shown
    assert re.search(rf"\x1b\[38;2;\d+;\d+;\d+;48;2;\d+;\d+;\d+m{UPPER_HALF_BLOCK}", shown)
    assert "drawn in" in shown
    assert "saved sdgrpc-" in shown


def read_all(descriptor: int) -> str:
    """What is written to a terminal until its other side is closed."""
    chunks = []
    while select.select([descriptor], [], [], 60)[0]:
        try:
            chunk = os.read(descriptor, 1 << 16)
        except OSError:  # Linux says so at the end of a terminal
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(descriptor)
    return b"".join(chunks).decode("utf-8")


def test_client_cancels_and_goes_on(server) -> None:
    """A job that is left in the middle is dropped, and the server draws the next one."""
    with Client(server.target) as client:
        with client.generate("a star", steps=150, seed=1) as job:
            step = next(event.step for event in job if isinstance(event, Progress))
        assert step == 1
        assert len(client.generate("a star", steps=1).images()) == 1


def test_large_images_travel(server) -> None:
    """An image above gRPC's own limit of 4 MiB goes to the server."""
    noise = Image.frombytes("RGB", (1600, 1200), os.urandom(3 * 1600 * 1200))
    with Client(server.target) as client:
        job = client.transform("a star", noise, steps=1, width=64, height=64)
        assert job.images()[0].open().size == (64, 64)


@of_one_engine
async def test_async_client_runs_side_by_side(server) -> None:
    """Two jobs at once share calls of the UNet; errors are typed."""
    import asyncio

    async with AsyncClient(server.target) as client:
        await client.wait_until_ready()
        jobs = [client.generate("a star", steps=30, seed=seed) for seed in (1, 2)]
        results = await asyncio.gather(*(job.result() for job in jobs))
        assert [result.images[0].seed for result in results] == [1, 2]
        assert max(result.finished.largest_batch for result in results) == 2
        with pytest.raises(InvalidRequestError) as invalid:
            await client.generate("", steps=-1).result()
        assert {violation.field for violation in invalid.value.violations} == {"sampling.steps"}
        with pytest.raises(LoraNotFoundError) as missing:
            await client.generate("a star", loras=["none"]).result()
        assert missing.value.resource.name == "none"


def test_serve_says_one_line_and_drains(tmp_path: Path) -> None:
    """Standard output is the one line, flags hold, and SIGINT ends the process with 0."""
    command = [sys.executable, "-m", "sdgrpc", "serve", "--listen", "127.0.0.1:0", "--model", "tiny=embedded"]
    process = subprocess.Popen([*command, "--lora-dir", tmp_path], stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    target = re.fullmatch(r"listening on (127\.0\.0\.1:\d+)\n", line)[1]
    with Client(target) as client:
        accepted = client.generate("a star", steps=1).result().accepted
        assert accepted.model == "tiny"
        with pytest.raises(LoraNotFoundError):
            client.generate("a star", loras=["postcard"]).result()
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, "")


def test_serve_explains_why_it_cannot_start(server, tmp_path: Path) -> None:
    """A taken port and a folder without a model are one line each, and exit status 1."""
    cases = [
        (["--listen", server.target], f"error: cannot listen on {server.target}"),
        (["--listen", "127.0.0.1:0", "--model", str(tmp_path)], f"error: {tmp_path} has no model_index.json"),
    ]
    command = [sys.executable, "-m", "sdgrpc", "serve"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, *flags], **pipes) for flags, _ in cases]  # type: ignore[call-overload]
    for process, (_, message) in zip(processes, cases, strict=True):
        output, errors = process.communicate(timeout=120)
        assert (process.returncode, output) == (1, "")
        assert errors.splitlines()[-1].startswith(message)


def test_loras_and_models_agree_with_the_server(sdgrpc, server) -> None:
    """What `loras list` and `models list` name can be asked for."""
    (model,) = json.loads(sdgrpc("models", "list", "--json").output)
    names = sdgrpc("loras", "list", "--names").output.split()
    with Client(server.target) as client:
        loras = [(name, 0.5) for name in names]
        result = client.generate("a star", model=model["name"], loras=loras, steps=1).result()
    assert [report.name for report in result.prepared.loras] == names
    assert (result.accepted.width, result.accepted.height) == (
        model["default_width"],
        model["default_height"],
    )
