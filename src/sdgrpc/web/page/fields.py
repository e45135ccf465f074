"""The form's components, by the names that `Form` and failures have for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from sdgrpc.client import Scheduler
from sdgrpc.web.page.form import LARGEST, MASK, OWN, PICTURE, SPACINGS, TEXT

INFOS = {
    "prompt": "Enter draws.",
    "token": "This server draws for those who have one.",
    "loras": "Type a name, a trigger word or a base.",
    "steps": "0 is the model's own.",
    "seed": "Empty is a new one each time.",
    "strength": "How far to go from the picture.",
    "second_scale": "Draw on at so many times the size; 1 does not.",
    "second_strength": "How far to go from what was drawn; less than 0.5 stays blurred.",
    "mask_strength": "How far to go from what is there.",
    "mask_blur": "Pixels by which the mask's edge is softened.",
}
"""What stands at a field while nothing is wrong."""
BRUSH = "rgba(232, 89, 12, 0.6)"
"""What is painted over stays to be seen."""

Fields = dict[str, Any]


def prompts() -> Fields:
    """Return the prompts and the LoRAs, behind a token where the server wants one."""
    return {
        "token": gr.Textbox(
            label="Token",
            type="password",
            info=INFOS["token"],
            placeholder="Enter takes it",
            visible=False,
            elem_id="token",
        ),
        "prompt": gr.Textbox(
            label="Prompt",
            lines=1,
            max_lines=8,
            placeholder="a red star on a blue background",
            info=INFOS["prompt"],
            elem_id="prompt",
            autofocus=True,
        ),
        "negative_prompt": gr.Textbox(label="Negative prompt", lines=1, elem_id="negative_prompt"),
        "loras": gr.Dropdown(
            [], value=[], multiselect=True, label="LoRAs", info=INFOS["loras"], elem_id="loras"
        ),
    }


def sources(mode: gr.State) -> Fields:
    """Return the three tabs and what is in them."""
    found: Fields = {"mode": mode}
    with gr.Tabs(elem_id="sources") as tabs:
        with gr.Tab("Text", id=TEXT) as text:
            gr.Markdown("The picture is drawn from the prompt alone.")
            with gr.Accordion("Second pass", open=False, elem_id="second_pass"):
                found["second_scale"] = gr.Slider(
                    1,
                    LARGEST,
                    1,
                    step=0.25,
                    label="Enlarge",
                    info=INFOS["second_scale"],
                    elem_id="second_scale",
                )
                found["second_strength"] = gr.Slider(
                    0,
                    1,
                    0.6,
                    step=0.05,
                    label="Strength",
                    info=INFOS["second_strength"],
                    elem_id="second_strength",
                )
        with gr.Tab("Picture", id=PICTURE) as picture:
            found["image"] = gr.Image(
                label="Drop or paste a picture",
                type="pil",
                format="png",
                sources=["upload", "clipboard"],
                buttons=[],
                height=260,
                elem_id="image",
            )
            found["strength"] = gr.Slider(
                0, 1, 0.6, step=0.05, label="Strength", info=INFOS["strength"], elem_id="strength"
            )
        with gr.Tab("Mask", id=MASK) as mask:
            found["editor"] = gr.ImageEditor(
                label="Paint what is to be redrawn",
                type="pil",
                format="png",
                sources=["upload", "clipboard"],
                transforms=(),
                layers=False,
                brush=gr.Brush(default_size=24, colors=[BRUSH], color_mode="fixed"),
                eraser=gr.Eraser(default_size=24),
                buttons=[],
                height=420,
                elem_id="editor",
            )
            found["mask_strength"] = gr.Slider(
                0, 1, 0.9, step=0.05, label="Strength", info=INFOS["mask_strength"], elem_id="mask_strength"
            )
            found["mask_blur"] = gr.Slider(
                0, 32, 0, step=1, label="Blur of the edge", info=INFOS["mask_blur"], elem_id="mask_blur"
            )
    for tab, name in ((text, TEXT), (picture, PICTURE), (mask, MASK)):
        tab.select(
            _constantly(name), None, mode, queue=False, show_progress="hidden", api_visibility="private"
        )
    found["tabs"] = tabs
    return found


def sampling() -> Fields:
    """Return how it is drawn."""
    found: Fields = {"model": gr.Dropdown([], label="Model", elem_id="model")}
    with gr.Row():
        found["width"] = gr.Number(
            None, label="Width", precision=0, minimum=0, step=8, min_width=90, elem_id="width"
        )
        found["height"] = gr.Number(
            None, label="Height", precision=0, minimum=0, step=8, min_width=90, elem_id="height"
        )
        found["count"] = gr.Number(
            1, label="Pictures", precision=0, minimum=1, step=1, min_width=90, elem_id="count"
        )
    with gr.Row():
        found["steps"] = gr.Number(
            20,
            label="Steps",
            precision=0,
            minimum=0,
            step=1,
            min_width=190,
            elem_id="steps",
            info=INFOS["steps"],
        )
        found["guidance_scale"] = gr.Slider(
            0, 20, 5, step=0.5, label="Guidance", min_width=190, elem_id="guidance_scale"
        )
    with gr.Row():
        schedulers: Sequence[tuple[str, str]] = [(OWN, ""), *((one.value, one.value) for one in Scheduler)]
        found["scheduler"] = gr.Dropdown(
            schedulers, value="", label="Scheduler", min_width=190, elem_id="scheduler"
        )
        found["spacing"] = gr.Dropdown(SPACINGS, value="", label="Spacing", min_width=190, elem_id="spacing")
    return found


def seeds() -> Fields:
    """Return the seed, its die and its lock."""
    # A text: as a number, a browser would round seeds of more than 53 bits.
    seed = gr.Textbox(label="Seed", info=INFOS["seed"], max_lines=1, elem_id="seed")
    with gr.Row(elem_classes=["seeds"]):
        locked = gr.Checkbox(False, label="Keep this seed", min_width=140, elem_id="locked")
        die = gr.Button("Roll a seed", size="sm", min_width=110, elem_id="die")
    return {"seed": seed, "locked": locked, "die": die}


def _constantly(value: str) -> Any:  # noqa: ANN401 - Gradio's kind of function
    return lambda: value
