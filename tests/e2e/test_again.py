"""`generate --from`: the same picture again, from each format, of a picture and of what was changed in it."""

from __future__ import annotations

import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.support.server import environment

FLAGS = (
    "--lora postcard:0.7:lbw=OUTALL --lora sepia:0.3 --negative-prompt blurry,(dark:1.2) --steps 3 --seed 12 "
    "--size 64x96 --guidance-scale 3.25 --scheduler dpmpp_2m --spacing karras --clip-skip 1 --model embedded"
)
SETTINGS = FLAGS.split()


def sdgrpc(server, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in a process of its own."""
    command = [sys.executable, "-m", "sdgrpc", *map(str, arguments), "--server", server.target]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment())


def draw(server, *arguments: object) -> tuple[bytes, str]:
    """The file that a command drew, and its notes and warnings on standard error, beside the progress."""
    done = sdgrpc(server, *arguments)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith(("note: ", "warning: ", "error: "))]
    return Path(str(arguments[arguments.index("-o") + 1])).read_bytes(), "\n".join(said)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_the_same_picture_again(server, tmp_path: Path, suffix: str) -> None:
    """To the byte, its own parameters included; nothing is said."""
    first, again = tmp_path / f"first.{suffix}", tmp_path / f"again.{suffix}"
    expected, _ = draw(server, "generate", "a (red:1.3) star, [wide] BREAK é漢", *SETTINGS, "-o", first)
    assert draw(server, "generate", "--from", first, "-o", again) == (expected, "")


@pytest.mark.parametrize(
    "flags",
    [
        ["a circle"],
        ["--seed", "13"],
        ["--steps", "2"],
        ["--lora", "sepia:0.3"],
        ["--negative-prompt", ""],
        ["--clip-skip", "0"],
        ["--size", "64x64"],
        ["--guidance-scale", "1"],
        ["--scheduler", "euler"],
        ["--spacing", "default"],
        ["<lora:night:0.5> a star"],
    ],
)
def test_flags_override_the_picture(server, tmp_path: Path, flags: list[str]) -> None:
    """What a flag says is drawn as without a picture; the rest is the picture's."""
    changed = _overridden(flags)
    expected, _ = draw(server, "generate", *changed, "-o", tmp_path / "expected.png")
    draw(server, "generate", "a star", *SETTINGS, "-o", tmp_path / "first.png")
    found, _ = draw(
        server, "generate", *flags, "--from", tmp_path / "first.png", "-o", tmp_path / "again.png"
    )
    assert found == expected
    assert found != (tmp_path / "first.png").read_bytes()


def _overridden(flags: list[str]) -> list[str]:
    """The prompt and settings above with those flags in place of theirs."""
    own = list(zip(SETTINGS[::2], SETTINGS[1::2], strict=True))
    prompt, given = ("a star", flags) if flags[0].startswith("--") else (flags[0], flags[1:])
    replaced = {given[0]} if given else set()
    if "<lora:" in prompt:
        replaced.add("--lora")
    return [prompt, *(word for pair in own if pair[0] not in replaced for word in pair), *given]


def test_a_transformed_picture(server, tmp_path: Path) -> None:
    """`transform --from` takes the strength, too; `generate --from` says that it cannot."""
    source, first, again = tmp_path / "source.png", tmp_path / "first.png", tmp_path / "again.png"
    Image.new("RGB", (64, 64), "orange").save(source)
    flags = ["--strength", "0.35", "--steps", "6", "--seed", "3"]
    expected, _ = draw(server, "transform", "a star", "-i", source, *flags, "-o", first)
    assert draw(server, "transform", "--from", first, "-i", source, "-o", again) == (expected, "")
    _, said = draw(server, "generate", "--from", first, "-o", again)
    assert "Denoising strength: 0.35 is not used" in said


def test_a_picture_of_the_web_ui(server, tmp_path: Path) -> None:
    """Read as far as it is understood: the LoRA by its hash, for it has another name here; the rest said."""
    text = (
        "a red star <lora:my postcard v1:0.5>\nNegative prompt: blur\n"
        "Steps: 2, Sampler: Euler a, Schedule type: Automatic, CFG scale: 2, Seed: 5, Size: 64x64, "
        "Model hash: 6ce0161689, Model: embedded, Hires upscale: 1.5, ENSD: 31337, "
        'Lora hashes: "my postcard v1: 4d72d55ecbd1", Version: v1.10.1'
    )
    chunks = PngInfo()
    chunks.add_text("parameters", text)
    source, again = tmp_path / "a1111.png", tmp_path / "again.png"
    Image.new("RGB", (8, 8)).save(source, pnginfo=chunks)
    found, said = draw(server, "generate", "--from", source, "-o", again)
    flags = (
        "--lora postcard:0.5 --negative-prompt blur --steps 2 --scheduler euler_ancestral "
        "--guidance-scale 2 --seed 5 --size 64x64 --second-pass 1.5:0.7:3"
    )
    expected, _ = draw(server, "generate", "a red star", *flags.split(), "-o", tmp_path / "expected.png")
    assert found == expected
    for words in ("ENSD: 31337", "v1.10.1 drew it", "called 'postcard' here", "another file"):
        assert words in said


@pytest.mark.parametrize(
    ("chunks", "sentence"),
    [
        ({}, "holds no generation parameters"),
        ({"workflow": json.dumps({"nodes": []})}, "a workflow of ComfyUI"),
    ],
)
def test_a_picture_without_parameters(server, tmp_path: Path, chunks: dict, sentence: str) -> None:
    """The file is named, and why it does not help."""
    info, buffer = PngInfo(), BytesIO()
    for key, value in chunks.items():
        info.add_text(key, value)
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    (tmp_path / "bare.png").write_bytes(buffer.getvalue())
    done = sdgrpc(server, "generate", "--from", tmp_path / "bare.png")
    assert done.returncode == 1
    assert "bare.png" in done.stderr
    assert sentence in done.stderr


def test_neither_a_prompt_nor_a_picture(server) -> None:
    """One of both is needed."""
    done = sdgrpc(server, "generate")
    assert (done.returncode, "--from" in done.stderr) == (1, True)


@pytest.mark.parametrize("flags", [[], ["--mask-blur", "2.5"], ["--crop-padding", "8", "--size", "64x64"]])
def test_an_inpainted_picture(server, tmp_path: Path, flags: list[str]) -> None:
    """`inpaint --from` takes strength, blur and crop; a picture that kept its own size keeps it again."""
    source, mask = tmp_path / "source.png", tmp_path / "mask.png"
    Image.new("RGB", (100, 75), "orange").save(source)
    white = Image.new("L", (100, 75))
    white.paste(255, (30, 20, 60, 50))
    white.save(mask)
    of = ["-i", source, "--mask", mask]
    first, again = tmp_path / "first.png", tmp_path / "again.png"
    wanted = ["--steps", "3", "--seed", "3", "--strength", "0.9", *flags]
    expected, _ = draw(server, "inpaint", "a star", *of, *wanted, "-o", first)
    assert draw(server, "inpaint", "--from", first, *of, "-o", again) == (expected, "")


def test_a_resized_picture(server, tmp_path: Path) -> None:
    """`transform --from` takes the resize mode."""
    source, first, again = tmp_path / "source.png", tmp_path / "first.png", tmp_path / "again.png"
    Image.linear_gradient("L").resize((128, 64)).convert("RGB").save(source)
    flags = ["--size", "64x64", "--resize-mode", "crop", "--steps", "4", "--seed", "3"]
    expected, _ = draw(server, "transform", "a star", "-i", source, *flags, "-o", first)
    assert draw(server, "transform", "--from", first, "-i", source, "-o", again) == (expected, "")


def test_a_word_that_is_not_here_is_said(server, tmp_path: Path) -> None:
    """The picture is drawn all the same, with the word as text."""
    picture, info = tmp_path / "word.png", PngInfo()
    values = 'Steps: 2, Seed: 3, TI hashes: "face: abababababab", Version: v1.10.0'
    info.add_text("parameters", f"a face\n{values}")
    Image.new("RGB", (64, 64)).save(picture, pnginfo=info)
    _, said = draw(server, "generate", "--from", picture, "--size", "64x64", "-o", tmp_path / "again.png")
    assert "the server has no textual inversion 'face' (abababababab); it is drawn as text" in said
