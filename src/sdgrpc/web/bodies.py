"""A request's body as a mapping: JSON, or a form with files, whose pictures are bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sdgrpc.web.failures import Refused

MAX_FIELDS, MAX_FILES = 100, 4
MAX_FIELD_BYTES = 1 << 20
PICTURES = ("image", "mask")


async def json_body(request: Request) -> Mapping[str, object]:
    """Read a JSON object.

    Raises:
        Refused: it is of another type, or no JSON object. Another type is what a foreign page could send.

    """
    if _media_type(request) != "application/json":
        raise Refused("the body's content-type is application/json", None, "invalid_content_type", 415)
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise Refused("the body is no JSON", None, "invalid_json") from None
    if not isinstance(body, dict):
        raise Refused("the body is no JSON object", None, "invalid_json")
    return body


async def form_body(request: Request) -> Mapping[str, object]:
    """Read a form; `image[]` is one image, `loras[]` are a list.

    Raises:
        Refused: it is of another type or broken, or a key is there twice.

    """
    if _media_type(request) != "multipart/form-data":
        raise Refused("the body's content-type is multipart/form-data", None, "invalid_content_type", 415)
    body: dict[str, Any] = {}
    try:
        limits = {"max_files": MAX_FILES, "max_fields": MAX_FIELDS, "max_part_size": MAX_FIELD_BYTES}
        async with request.form(**limits) as form:
            for name, value in form.multi_items():
                key = name.removesuffix("[]")
                one = await _value(key, value)
                if key == "loras" and name != key:
                    body.setdefault(key, []).append(one)
                elif key in body:
                    raise Refused(f"{key} is given more than once; one is drawn with", key)
                else:
                    body[key] = one
    except (HTTPException, FormParserError) as error:
        detail = error.detail if isinstance(error, HTTPException) else str(error)
        raise Refused(f"the form cannot be read: {detail}", None, "invalid_form") from None
    return body


async def _value(key: str, value: UploadFile | str) -> object:
    """Return a picture's bytes or a field's text."""
    if isinstance(value, str) == (key in PICTURES):
        raise Refused(f"{key} is {'a file' if key in PICTURES else 'no file'}", key, "invalid_type")
    return value if isinstance(value, str) else await value.read()


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
