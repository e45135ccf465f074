"""An HTTP door in front of a server: the OpenAI images API on our own client. It needs no torch."""

from sdgrpc.web.app import build_app

__all__ = ["build_app"]
