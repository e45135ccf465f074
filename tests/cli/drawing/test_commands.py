"""`generate`, `transform` and `inpaint` against a scripted server."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from google.rpc import code_pb2, error_details_pb2
from PIL import Image

from sdgrpc.cli.drawing.parsing import parse_size
from sdgrpc.testing.server import draw_script, fail_script, hang_script, invalid_script, png, scripted_server
from sdgrpc.v1 import diffusion_pb2 as pb


def test_generate_saves_the_picture(run, server, tmp_path: Path) -> None:
    """One picture lands in the default file, named by its seed, and the lines say so."""
    result = run("generate", "a red circle", "--server", server.target, "--seed", 7)
    assert (result.exit_code, result.stdout) == (0, "saved sdgrpc-7.png (seed 7)\n")
    assert "a red circle: step 20/20, 0.0 s left" in result.stderr
    assert (tmp_path / "sdgrpc-7.png").read_bytes() == png()


def test_generate_sends_every_option(run, server) -> None:
    """Each flag lands in its field of the request."""
    flags = (
        "--lora postcard:0.8 --lora styles/a:b:-0.5 --lora sepia --negative-prompt blur --steps 9 --seed -3 "
        "--count 2 --size 96x64 --guidance-scale 2.5 --scheduler unipc --spacing karras --clip-skip 1 "
        "--guidance-interval 0.1:0.8 --reuse 2 --second-pass 1.5:0.6:12:pixel "
        "--model embedded -o out/x.webp --quality 70 --omit-metadata --preview decoded"
    )
    result = run("generate", "a star", "--server", server.target, *flags.split())
    assert result.exit_code == 0, result.output
    assert server.requests == [
        pb.GenerateRequest(
            model="embedded",
            prompt="a star",
            negative_prompt="blur",
            loras=[
                pb.Lora(name="postcard", strength=0.8),
                pb.Lora(name="styles/a:b", strength=-0.5),
                pb.Lora(name="sepia"),
            ],
            sampling=pb.Sampling(
                steps=9,
                guidance_scale=2.5,
                scheduler=pb.SCHEDULER_UNIPC,
                sigma_spacing=pb.SIGMA_SPACING_KARRAS,
                seed=-3,
                image_count=2,
                clip_skip=1,
                guidance_interval=pb.GuidanceInterval(start=0.1, end=0.8),
                step_reuse=pb.StepReuse(every=2, order=1),
            ),
            output=pb.Output(
                media_type="image/webp",
                quality=70,
                omit_metadata=True,
                preview=pb.PreviewOptions(kind=pb.PREVIEW_KIND_DECODED, every_n_steps=1, max_side=64),
            ),
            width=96,
            height=64,
            second_pass=pb.SecondPass(scale=1.5, strength=0.6, steps=12, mode=pb.SECOND_PASS_MODE_PIXEL),
        )
    ]


def test_several_pictures_get_several_files(run, server, tmp_path: Path) -> None:
    """A plain file name gets an index for each of several pictures, and folders are made."""
    result = run("generate", "a star", "--server", server.target, "--count", 3, "-o", "new/star.png")
    assert result.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        f"star-{index}.png" for index in range(3)
    ]


def test_lora_warnings_are_shown(run, server) -> None:
    """What the server warns of is said on standard error."""
    result = run("generate", "a star", "--server", server.target, "--lora", "postcard:0.8")
    assert "warning: LoRA postcard: alpha is 0" in result.stderr


def test_transform_and_inpaint(run, server, tmp_path: Path) -> None:
    """Pictures and masks are read from files, and what is not given is not sent."""
    (tmp_path / "in.png").write_bytes(png(16))
    Image.new("L", (16, 16), 255).save(tmp_path / "mask.png")
    base = ["--server", server.target, "-i", "in.png"]
    assert (
        run(
            "transform", "a star", *base, "--strength", 0.5, "--size", "64x", "--resize-mode", "pad"
        ).exit_code
        == 0
    )
    flags = ["--mask", "mask.png", "--mask-blur", 2, "--crop-padding", 8]
    assert run("inpaint", "a star", *base, *flags).exit_code == 0
    transform, inpaint = server.requests
    assert (transform.image.data, transform.strength) == (png(16), 0.5)
    assert (transform.width, transform.height, transform.resize_mode) == (64, 0, pb.RESIZE_MODE_PAD)
    assert inpaint.image.data == png(16)
    assert Image.open(io.BytesIO(inpaint.mask.data)).mode == "L"
    assert inpaint.mask_options == pb.MaskOptions(blur=2, crop_padding=8)
    assert not inpaint.HasField("strength")


def test_every_violation_is_a_line(run) -> None:
    """An invalid request prints one line per violation and exits with 1."""
    with scripted_server(invalid_script()) as server:
        result = run("generate", "", "--server", server.target)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "error: sampling.steps: 999 is above 150",
        "error: loras[1].strength: 1.5 is above 1.0",
    ]


def test_failures_are_one_line(run) -> None:
    """A failure prints the server's sentence and when to try again."""
    details = [error_details_pb2.ErrorInfo(reason="QUEUE_FULL"), error_details_pb2.RetryInfo()]
    details[1].retry_delay.FromMilliseconds(2500)
    with scripted_server(fail_script(code_pb2.RESOURCE_EXHAUSTED, "the queue is full", details)) as server:
        result = run("generate", "a star", "--server", server.target)
    assert (result.exit_code, result.stderr) == (1, "error: the queue is full (try again in 2.5 s)\n")


def test_no_server_says_how_to_start_one(run) -> None:
    """Where nobody listens the message says what to do."""
    result = run("generate", "a star", "--server", "127.0.0.1:1")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no server answers at 127.0.0.1:1; start one with `sdgrpc serve`")


def test_timeout_is_said(run) -> None:
    """A job that takes too long is given up with a sentence."""
    with scripted_server(hang_script(threading.Event())) as server:
        result = run("generate", "a star", "--server", server.target, "--timeout", 0.2)
        assert server.cancelled.wait(timeout=10)
    assert result.exit_code == 1
    assert result.stderr.endswith("error: not drawn within --timeout; the server has dropped the job\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--size", "12"], "--size 12: write WIDTHxHEIGHT"),
        (["--guidance-interval", "0.5"], "--guidance-interval 0.5: write START:END"),
        (["--reuse", "two"], "--reuse two: write EVERY or EVERY:ORDER"),
        (["--lora", "postcard:"], "'postcard:': the strength '' is no number"),
        (["--format", "gif"], "--format gif: it is png, jpeg or webp"),
        (["-o", "."], "--output .: the name must end in"),
        (["-o", "taken.png"], "taken.png: Is a directory"),
        (["-o", "file/x.png"], "file: Not a directory"),
        (["-o", "-", "--count", "2"], "--output -: standard output takes one picture"),
        (["-o", "-", "--json"], "--output -: standard output takes the picture or --json, not both"),
        (["--server", "ftp://x"], "'ftp://x' is not HOST, HOST:PORT"),
        (["--token", "two words"], "the token must be printable ASCII"),
        (["-o", "x.gif"], "--output x.gif: the name must end in .png, .jpg, .jpeg, .webp"),
    ],
)
def test_wrong_flags_are_named(run, server, tmp_path: Path, flags: list[str], message: str) -> None:
    """A flag that cannot be read, or a file that cannot be written, fails before anything is sent."""
    (tmp_path / "taken.png").mkdir()
    (tmp_path / "file").touch()
    result = run("generate", "a star", "--server", server.target, *flags)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {message}")
    assert server.requests == []


def test_missing_files_are_named(run, server) -> None:
    """A picture that is not there is named."""
    result = run("transform", "a star", "-i", "none.png", "--server", server.target)
    assert (result.exit_code, result.stderr) == (1, "error: none.png: No such file or directory\n")


def test_a_picture_on_standard_output(run, server, tmp_path: Path) -> None:
    """`-o -` writes the file there and nothing else; the progress is on standard error."""
    result = run("generate", "a star", "--server", server.target, "-o", "-", "--format", "webp")
    assert (result.exit_code, result.stdout_bytes) == (0, png())
    assert "a star: step 20/20" in result.stderr
    assert server.requests[0].output.media_type == "image/webp"
    assert list(tmp_path.iterdir()) == []


def test_draw_as_json(run, server, tmp_path: Path) -> None:
    """One record with the request as it was drawn, the LoRAs' reports, the files and the times."""
    flags = ["--count", "2", "--seed", "5", "--lora", "postcard:0.8", "-o", "{index}.png", "--json"]
    found = json.loads(run("generate", "a star", "--server", server.target, *flags).stdout)
    assert [(one["path"], one["seed"], one["media_type"]) for one in found["images"]] == [
        ("0.png", 5, "image/png"),
        ("1.png", 6, "image/png"),
    ]
    assert (found["accepted"]["width"], found["prepared"]["loras"][0]["name"]) == (128, "postcard")
    assert found["finished"]["denoised_seconds"] == 1.5
    assert (tmp_path / "1.png").read_bytes() == png()


def test_a_loading_server_is_waited_for(run) -> None:
    """A draw goes on when the model is there: it asks again when the server says, and says so once."""
    asked = []
    info = error_details_pb2.ErrorInfo(reason="LOADING")
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(10)
    refuse, draw = fail_script(code_pb2.UNAVAILABLE, "still loading", [info, retry]), draw_script(steps=2)

    def script(request, context):
        asked.append(request)
        return (refuse if len(asked) < 4 else draw)(request, context)

    with scripted_server(script) as server:
        result = run("generate", "a star", "--server", server.target, "-o", "star.png")
        assert (result.exit_code, len(asked)) == (0, 4)
        assert result.stderr.count("the server is loading its model; waiting") == 1
        asked.clear()
        result = run("generate", "a star", "--server", server.target, "--wait", "0")
    assert (result.exit_code, len(asked)) == (1, 1)
    assert "error: loading: still loading" in result.stderr


def test_parse_size() -> None:
    """Both letters work, one side is enough, and no size is the model's own."""
    texts = ("512x768", "8X16", "512x", "x512", None)
    assert [parse_size(text) for text in texts] == [(512, 768), (8, 16), (512, 0), (0, 512), (0, 0)]
    for text in ("x", "", "8", "8x8x8", "-8x8"):
        with pytest.raises(ValueError, match="WIDTHxHEIGHT"):
            parse_size(text)


def test_ctrl_c_cancels_the_job(tmp_path: Path) -> None:
    """SIGINT ends the server's job and the command, without a traceback."""
    started = threading.Event()
    with scripted_server(hang_script(started)) as server:
        command = [sys.executable, "-m", "sdgrpc", "generate", "a star", "--server", server.target]
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, cwd=tmp_path, text=True, env={**os.environ, "COLUMNS": "80"}
        )
        assert started.wait(timeout=60)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert server.cancelled.wait(timeout=10)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "cancelled"
    assert "Traceback" not in errors
