"""The page on the door's app."""

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
from sdgrpc.web.page.theme import theme

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
