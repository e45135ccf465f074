"""A server without a model, for the tests of programs that call sdgrpc.

>>> from sdgrpc.client import Client
>>> from sdgrpc.testing import draw_script, scripted_server
>>> with scripted_server(draw_script(steps=2)) as server, Client(server.target) as client:
...     images = client.generate("a red star", seed=7).images()
>>> [(image.seed, image.open().size) for image in images]
[(7, (8, 8))]
>>> server.requests[0].prompt
'a red star'
"""

from sdgrpc.testing.scripted_catalog import Catalog, scripted_catalog
from sdgrpc.testing.server import (
    Request,
    Script,
    ScriptedServer,
    draw_script,
    fail_script,
    hang_script,
    invalid_script,
    scripted_server,
)

__all__ = [
    "Catalog",
    "Request",
    "Script",
    "ScriptedServer",
    "draw_script",
    "fail_script",
    "hang_script",
    "invalid_script",
    "scripted_catalog",
    "scripted_server",
]
