"""A job in a Jupyter notebook: its previews become its pictures while the cell runs; needs IPython."""

from sdgrpc.client.notebook.showing import show, show_async

__all__ = ["show", "show_async"]
