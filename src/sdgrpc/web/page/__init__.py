"""The page where people draw, made with Gradio and mounted on the door's app; it asks no other host."""

from sdgrpc.web.page.mounting import mount_page

__all__ = ["mount_page"]
