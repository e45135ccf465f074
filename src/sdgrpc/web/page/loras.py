"""LoRA files as the form offers them: found by name, trigger word or base; those that do not fit say why."""

from __future__ import annotations

import json
from html import escape
from typing import Any

import gradio as gr

from sdgrpc.client import AsyncClient, LoraFile
from sdgrpc.web.page.beside import HIGH, LOW, Strength, strength, within

Choices = list[tuple[str, str]]
BY_BLOCK = "OUTD, or 1,0,0.5,…, or unet.down*0.5"
WORDS = 4
"""Trigger words that are shown of a file."""
# At once and in the browser: a way over the server could be overtaken by a quick press of Draw.
_KEEP = "(kept, ...fields) => ({{ ...kept, [{name}]: fields }})"


async def found(client: AsyncClient, model: str) -> dict[str, LoraFile]:
    """Return the server's files by name, those that fit `model` first."""
    files = [one async for one in client.list_loras(model=model)]
    ordered = sorted(files, key=lambda one: (not one.fits, one.name))
    return within(ordered, await client.lora_strength_range())


def choices(files: dict[str, LoraFile]) -> Choices:
    """Return labels, which typing searches, and names."""
    return [(_label(one), one.name) for one in files.values()]


def _label(file: LoraFile) -> str:
    words = ", ".join(word for word in file.trigger_words[:WORDS] if word != file.name)
    label = " · ".join(part for part in (file.name, words, file.base) if part)
    return label if file.fits else f"⊘ {label} · does not fit"


def heading(file: LoraFile, picture: str = "") -> str:
    """Return the head of a LoRA's row; `picture` is the URL of what it draws."""
    words = ", ".join(file.trigger_words[:WORDS])
    said = [file.base_model or file.base, f"say {words}" if words else "", file.made_for]
    small = escape(" · ".join(filter(None, said)))
    shown = f'<img src="{escape(picture)}" alt="Drawn with {escape(file.name)}">' if picture else ""
    return f'<div class="lora-head">{shown}<b>{escape(file.name)}</b> <small>{small}</small></div>'


def unfit(name: str, refusal: str) -> str:
    """Return the row of a LoRA that is left out."""
    return f'<div class="unfit"><b>⊘ {escape(name)}</b> is left out: {escape(refusal)}</div>'


def lora_rows(parts: dict[str, Any]) -> None:
    """Render a row for each chosen LoRA whenever the choice, the model or what was restored changes."""
    strengths = parts["strengths"]

    @gr.render(
        inputs=[parts["loras"], parts["files"], strengths, parts["thumbnails"]],
        triggers=[parts[name].change for name in ("loras", "files", "restores", "thumbnails")],
    )  # type: ignore[untyped-decorator]
    def rows(
        chosen: list[str] | None,
        files: dict[str, Any],
        now: dict[str, Any] | None,
        pictures: dict[str, str],
    ) -> None:
        for name in chosen or ():
            file = files.get(name)
            if file is None or not file.fits:
                gr.HTML(unfit(name, file.refusal if file else "the server has no such file"), js_on_load=None)
                continue
            with gr.Group():
                gr.HTML(heading(file, pictures.get(name, "")), padding=True, js_on_load=None)
                fields = _fields(name, strength(now or {}, name, file))
            for field in fields:
                field.change(
                    None,
                    [strengths, *fields],
                    strengths,
                    js=_KEEP.format(name=json.dumps(name)),
                    show_progress="hidden",
                    api_visibility="private",
                )


def _fields(name: str, now: Strength) -> list[Any]:
    """Make the fields of a row, in the order of `Strength`."""
    return [
        _slider(f"Strength of {name}", now.unet),
        _slider(f"Text encoder of {name}", now.text),
        gr.Textbox(now.blocks, label=f"By block of {name}", placeholder=BY_BLOCK, max_lines=1),
        _slider(f"Start of {name}, of the steps", now.start, 0.0, 1.0),
        _slider(f"End of {name}, of the steps", now.end, 0.0, 1.0),
    ]


def _slider(label: str, value: float, low: float = LOW, high: float = HIGH) -> gr.Slider:
    return gr.Slider(low, high, value, step=0.05, label=label, interactive=True)
