"""The page: the form on the left, the stage on the right, what the browser keeps below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from sdgrpc.client import AsyncClient
from sdgrpc.web.page import fields
from sdgrpc.web.page.form import TEXT
from sdgrpc.web.page.hands import Hands
from sdgrpc.web.page.loras import lora_rows
from sdgrpc.web.page.stage import empty_stage
from sdgrpc.web.page.wiring import wire

HEAD = (
    '<header class="page-head"><h1>sd<i>grpc</i></h1>'
    "<span>Say it, add a LoRA, watch it become a picture.</span></header>"
)
STORAGE = "sdgrpc-history"
DROPPING = Path(__file__).with_name("dropping.js")
"""Gradio takes files only where it has a field for them."""


def build_page(client: AsyncClient) -> gr.Blocks:
    """Return the page before a client's server."""
    with gr.Blocks(
        title="sdgrpc", analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600)
    ) as page:
        states: tuple[tuple[str, Any], ...] = (
            ("files", {}),
            ("thumbnails", {}),
            ("models", {}),
            ("shown_seed", None),
            ("restores", 0),
            ("mode_state", TEXT),
            ("drawn", []),
        )
        parts: dict[str, Any] = {name: gr.State(value) for name, value in states}
        # No secret: what the key hides lies in the same browser. A random one would end with the server.
        parts["strengths"] = gr.JSON({}, visible=False)
        parts["past"] = gr.BrowserState([], storage_key=STORAGE, secret="sdgrpc")  # noqa: S106
        gr.HTML(HEAD, js_on_load=DROPPING.read_text("utf-8"))
        with gr.Row(equal_height=False, elem_id="desk"):
            with gr.Column(scale=5, min_width=330, elem_id="form"):
                parts |= fields.prompts()
                with gr.Column(elem_id="lora-rows"):
                    lora_rows(parts)
                with gr.Row():
                    parts["draw"] = gr.Button("Draw", variant="primary", elem_id="draw", min_width=110)
                    parts["cancel"] = gr.Button(
                        "Cancel", variant="stop", interactive=False, elem_id="cancel", min_width=90
                    )
                    parts["strip"] = gr.Button("Strip 0 → 1", elem_id="strip", min_width=110)
                parts |= fields.sources(parts["mode_state"])
                with gr.Accordion("Size, steps, seed", open=True, elem_id="how"):
                    parts |= fields.sampling()
                    parts |= fields.seeds()
            with gr.Column(scale=7, min_width=330, elem_id="outcome"):
                _outcome(parts)
        wire(page, parts, Hands(client))
    return page  # type: ignore[no-any-return]  # the block is its own context


def _outcome(parts: dict[str, Any]) -> None:
    """Lay out the stage, the report and the history."""
    parts["stage"] = gr.HTML(empty_stage(), elem_id="stage", padding=False, js_on_load=None)
    with gr.Row(visible=False) as parts["after"]:
        parts["as_input"] = gr.Button("Use as input", size="sm", elem_id="as_input")
        parts["to_mask"] = gr.Button("Paint a mask on it", size="sm", elem_id="to_mask")
        parts["same_seed"] = gr.Button("Same seed", size="sm", elem_id="same_seed")
    parts["report"] = gr.HTML("", elem_id="report", padding=False, js_on_load=None)
    parts["text"] = gr.Textbox(
        label="Parameters", buttons=["copy"], lines=3, interactive=False, visible=False, elem_id="text"
    )
    parts["from_file"] = gr.UploadButton(
        "Bring a picture's parameters back: choose it, or drop it anywhere",
        file_types=["image"],
        type="binary",
        size="sm",
        elem_id="from_file",
    )
    parts["notes"] = gr.Markdown("", elem_id="notes")
    parts["gallery"] = gr.Gallery(
        label="Drawn in this browser",
        columns=8,
        height=170,
        allow_preview=False,
        buttons=[],
        interactive=False,
        elem_id="gallery",
    )
