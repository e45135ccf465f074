"""The page's parts that need no browser: marks, restored forms, histories, stages, seeds, masks."""

from __future__ import annotations

import pytest
from PIL import Image

from sdgrpc.client import (
    EncodedImage,
    Finished,
    InvalidRequestError,
    Lora,
    SecondPass,
    UnauthenticatedError,
)
from sdgrpc.client.errors import Details
from sdgrpc.errors import FieldViolation
from sdgrpc.web.page.beside import Strength
from sdgrpc.web.page.drawing import SEEDS, Running, _seed
from sdgrpc.web.page.form import Form, Missing, painted
from sdgrpc.web.page.history import KEPT, gallery, with_result
from sdgrpc.web.page.marks import by_field, component, marked
from sdgrpc.web.page.restoring import restored
from sdgrpc.web.page.stage import Stage, empty_stage


def test_fields_of_the_contract_have_components() -> None:
    """A path leads to the field of the form, also to the editor's where the tab Mask is open."""
    assert component("sampling.image_count", "text") == "count"
    assert component("loras[1].name", "text") == "loras"
    assert component("mask_options.blur", "mask") == "mask_blur"
    assert [component("source.strength", mode) for mode in ("picture", "mask")] == [
        "strength",
        "mask_strength",
    ]


def test_failures_stand_where_they_belong() -> None:
    """Two violations of one field are joined; a token's refusal stands at the token."""
    broken = tuple(FieldViolation("width", one) for one in ("too small", "odd"))
    error = InvalidRequestError("INVALID_ARGUMENT", "bad", Details(violations=broken))
    assert by_field(error, "text") == {"width": "too small; odd"}
    assert by_field(UnauthenticatedError("UNAUTHENTICATED", "no token"), "text") == {"token": "no token"}


def test_marks_come_and_go() -> None:
    """What is wrong says so in its label or information, and what was wrong has its own words again."""
    changes = marked(
        {"width": "", "editor": "Paint", "token": "T"}, {"editor": "empty", "token": "no"}, ["width"]
    )
    assert (changes["editor"]["label"], changes["width"]["info"]) == ("⚠ empty", "")
    assert (changes["token"]["visible"], changes["width"]["elem_classes"]) == (True, [])


@pytest.mark.parametrize(
    ("seed", "locked", "shown", "kept"),
    [
        ("7", True, "7", 7),
        ("7", False, "7", None),
        ("8", False, "7", 8),
        ("", True, "", None),
        (" -3 ", True, None, -3),
    ],
)
def test_which_seed_is_drawn(seed: str, locked: bool, shown: str | None, kept: int | None) -> None:
    """One that is locked, or was typed since the last picture; else a new one."""
    drawn = _seed(Form({"seed": seed, "locked": locked, "shown_seed": shown}, {}, frozenset()))
    assert drawn == kept if kept is not None else 0 <= drawn < SEEDS


@pytest.mark.parametrize("seed", ["seven", "1.5", str(2**63)])
def test_a_seed_that_is_none(seed: str) -> None:
    """It is refused at its field."""
    with pytest.raises(Missing) as caught:
        _seed(Form({"seed": seed, "locked": True, "shown_seed": None}, {}, frozenset()))
    assert caught.value.field == "seed"


def test_parameters_become_the_form() -> None:
    """With the model and the LoRAs that are served; what is not is told."""
    said = f"Steps: 9, Sampler: DDIM, Seed: {2**60 + 1}, Model: two"
    text = f"a star <lora:night:0.5> <lora:gone:1>\n{said}"
    values, strengths, notes = restored(text, ["one", "two"], ["night"])
    assert (values["seed"], values["locked"], values["steps"]) == (str(2**60 + 1), True, 9)
    assert (values["model"], values["loras"], strengths["night"][0]) == ("two", ["night"], 0.5)
    assert any("gone" in note for note in notes)
    assert any("'two'" in note for note in restored(text, ["one"], [])[2])


def test_a_lora_in_some_of_the_steps() -> None:
    """It is asked for as its sliders stand, comes back as it was drawn, and in all steps by default."""
    text = "a star <lora:night:0.5:start=0.25:end=0.75>\nSteps: 9, Seed: 1, Version: sdgrpc 1"
    values, strengths, notes = restored(text, [], ["night"])
    assert (strengths["night"], notes) == (Strength(0.5, 0.5, "", 0.25, 0.75), [])
    form = Form(values, strengths, frozenset())
    assert form.loras() == [Lora("night", 0.5, 0.5, start=0.25, end=0.75)]
    every: list[list[float | str]] = [[0.5, 0.5], [0.5, 0.5, ""], [0.5, 0.5, "", 0, 1]]
    for kept in every:
        assert Form(values, {"night": kept}, frozenset()).loras() == [Lora("night", 0.5, 0.5)]
    assert component("loras[0].end", "text") == "loras"


def test_a_second_pass_is_asked_for_and_comes_back() -> None:
    """A scale of 1 is none; what the fold has no field for is told, and errors stand at it."""
    asked = {"second_scale": 1.5, "second_strength": 0.6}
    assert Form(asked, {}, frozenset()).second_pass() == SecondPass(1.5, strength=0.6)
    assert Form({**asked, "second_scale": 1}, {}, frozenset()).second_pass() is None
    assert component("second_pass.scale", "text") == "second_scale"
    said = "a\nSteps: 9, Sampler: DDIM, Seed: 1, Size: 64x64, Denoising strength: 0.4, Hires steps: 9, {}"
    ours = "Version: sdgrpc 1"
    values, _, notes = restored(said.format(f"Hires upscale: 1.5, {ours}"), [], [])
    assert (values["second_scale"], values["second_strength"], notes) == (1.5, 0.4, [])
    values, _, notes = restored(
        said.format(f"Hires resize: 512x512, Hires upscaler: Lanczos, {ours}"), [], []
    )
    assert values["second_scale"] == 4
    assert "pixel" in notes[0]
    assert restored("a\nSteps: 9, Seed: 1, Size: 64x64", [], [])[0]["second_scale"] == 1


def test_a_mask_is_what_was_painted() -> None:
    """Any stroke counts wholly, a layer of another size is fitted, and without a stroke there is none."""
    picture = Image.new("RGBA", (32, 32), "red")
    layer = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    assert painted({"background": picture, "layers": [layer]}) is None
    layer.putpixel((4, 4), (255, 255, 255, 3))
    found = painted({"background": picture, "layers": [layer]})
    assert found
    assert found[0].mode == "RGB"
    assert found[1].getbbox() == (8, 8, 10, 10)
    assert set(found[1].tobytes()) == {0, 255}


def test_a_stage_escapes_what_it_shows() -> None:
    """A prompt is a text for it, wherever it stands; figures tell how far it is."""
    stage = Stage(prompt='"><script>', captions=["<b>"], step=2, step_count=5)
    stage.pictures[0] = EncodedImage(b"x", "image/png", 1, 1)
    html = stage.html()
    assert "<script>" not in html
    assert "<b>" not in html
    assert 'data-step="2" data-steps="5"' in html
    assert 'data-state="empty"' in empty_stage()


def test_the_history_keeps_the_newest() -> None:
    """No more than a browser's storage bears, the newest first; the gallery opens them."""
    buffer = Image.new("RGB", (300, 200), "blue")

    class Drawn:
        def __init__(self, seed: int) -> None:
            self.seed, self.image = seed, EncodedImage(b"no parameters", "image/png", 1, 1)

        def open(self) -> Image.Image:
            return buffer

    class Result:
        images = tuple(Drawn(seed) for seed in range(KEPT))

    past = with_result([{"seed": -1, "src": "", "text": ""}], Result)
    assert [one["seed"] for one in past] == list(range(KEPT))
    shown = gallery(past[:1])
    assert shown[0][0].size == (208, 139)
    assert shown[0][1] == "0"


def test_only_a_pages_own_jobs_are_cancelled() -> None:
    """Those of its session, and each is closed once it is no longer held."""

    class Job:
        cancelled = closed = 0

        def cancel(self) -> None:
            self.cancelled += 1

        def close(self) -> None:
            self.closed += 1

    running, mine, other = Running(), Job(), Job()
    with running.holding("me", mine), running.holding("you", other):
        assert running.cancel("me") == 1
    assert (mine.cancelled, other.cancelled, mine.closed, other.closed) == (1, 0, 1, 1)
    assert running.cancel("me") == 0


def test_times_make_the_end() -> None:
    """`Finished` says done and how long it took."""
    stage = Stage()
    stage.take(Finished(0.0, 0.5, 1.0, 0.25, 1))
    assert (stage.state, stage.aside) == ("done", "1.75 s")
