"""A row for each LoRA that is chosen: its words and two sliders, or why it is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from sdgrpc.web.page.loras import heading, unfit

QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


def lora_rows(parts: dict[str, Any]) -> None:
    """Render the rows anew whenever the choice or the model changes; strengths stay in their state."""
    strengths = parts["strengths"]

    @gr.render(
        inputs=[parts["loras"], parts["files"], strengths],
        triggers=[parts["loras"].change, parts["files"].change],
    )  # type: ignore[untyped-decorator]
    def rows(chosen: list[str] | None, files: dict[str, Any], now: dict[str, Any]) -> None:
        for name in chosen or ():
            file = files.get(name)
            if file is None or not file.fits:
                gr.HTML(unfit(name, file.refusal if file else "the server has no such file"), js_on_load=None)
                continue
            unet, text = now.get(name, (1.0, 1.0))
            with gr.Group(key=f"group-{name}"):
                gr.HTML(heading(file), padding=True, js_on_load=None)
                both = [_slider(f"Strength of {name}", unet), _slider(f"Text encoder of {name}", text)]
            for slider in both:
                slider.change(_kept(name), [strengths, *both], strengths, **QUIET)


def _slider(label: str, value: float) -> gr.Slider:
    return gr.Slider(-1, 2, value, step=0.05, label=label, interactive=True, key=label)


def _kept(name: str) -> Callable[..., dict[str, Any]]:
    def keep(strengths: dict[str, Any], unet: float, text: float) -> dict[str, Any]:
        return strengths | {name: (unet, text)}

    return keep
