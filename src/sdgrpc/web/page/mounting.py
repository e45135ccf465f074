"""The page on the door's app, and its theme: warm greys, one accent, fonts of the machine that looks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

# Read when the library is imported: no versions asked for, nothing told.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
from starlette.applications import Starlette

from sdgrpc.client import AsyncClient
from sdgrpc.web.page.layout import build_page

SANS = ["Inter", "Segoe UI", "Roboto", "Helvetica Neue", "DejaVu Sans", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "DejaVu Sans Mono", "monospace"]
MAX_FILE = "32mb"
"""What a server takes of a picture."""


def mount_page(app: Starlette, client: AsyncClient) -> None:
    """Serve the page at `/` of an app, behind the routes that it has."""
    gr.mount_gradio_app(
        cast("Any", app),
        build_page(client),
        path="",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        pwa=False,
        show_error=False,
        max_file_size=MAX_FILE,
        theme=theme(),
        css_paths=[Path(__file__).with_name("page.css")],
    )
    # Each open page holds a stream that tells when it is gone, and that would hold the door's end.
    mounted: Any = app.routes[-1]
    app.state.ending.append(mounted.app.stop_event.set)


def theme() -> gr.themes.Base:
    """Return the theme, for light and dark."""
    base = gr.themes.Base(
        primary_hue=gr.themes.colors.orange,
        secondary_hue=gr.themes.colors.stone,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_lg,
        font=SANS,
        font_mono=MONO,
    )
    return base.set(
        body_background_fill="#f6f4f0",
        body_background_fill_dark="#151311",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1f1c19",
        block_border_width="1px",
        block_border_color="#e5e0d8",
        block_border_color_dark="#332e29",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_title_text_weight="600",
        block_title_text_color="#3b352e",
        block_title_text_color_dark="#e8e2d9",
        block_info_text_color="#6f675d",
        block_info_text_color_dark="#a89f93",
        body_text_color_subdued="#6f675d",
        body_text_color_subdued_dark="#a89f93",
        button_secondary_background_fill="#ebe6de",
        button_secondary_background_fill_dark="#2b2723",
        input_background_fill="#faf8f5",
        input_background_fill_dark="#171512",
        input_border_color="#d8d1c6",
        input_border_color_dark="#3d3731",
        button_primary_background_fill="#b4430d",
        button_primary_background_fill_hover="#963709",
        button_primary_background_fill_dark="#c2500f",
        button_primary_background_fill_hover_dark="#d95f1a",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
    )
