"""The rules of the catalog's requests, field by field, and how they fail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from sdgrpc.api.field_rules import MAX_NAME, SHA256, Table, lora_table, unset_lora_strength
from sdgrpc.api.rules import (
    Complaint,
    Rule,
    anything,
    every,
    exactly_one,
    fields,
    first,
    items,
    name,
    number,
    one_of,
    refused,
    zero_or,
)
from sdgrpc.domain import ModelInfo
from sdgrpc.domain.bases import BASES, UNKNOWN
from sdgrpc.errors import FieldViolation, InvalidRequest, ModelNotFound
from sdgrpc.settings import Settings
from sdgrpc.v1 import catalog_pb2 as pb

MAX_PAGE = 1000
MAX_UPLOAD_NAME = 200
MAX_INTERVAL = 3600.0
ONE_OF: Mapping[type[Message], str] = {pb.GetLoraRequest: "source", pb.PlanJobRequest: "request"}
"""Requests that need one of several fields, and what these are called together."""


def upload_name(value: str) -> Iterator[Complaint]:
    """Letters, digits, `.`, `_`, `-` and spaces: nothing that leads anywhere or cannot be read."""
    stem = value.removesuffix(".safetensors")
    if not all(sign.isalnum() or sign in "._- " for sign in value):
        yield "", "holds other signs than letters, digits, `.`, `_`, `-` and spaces"
    elif not any(sign.isalnum() for sign in stem) or stem != stem.strip():
        yield "", "needs a letter or digit, and no space at its ends"


def interval(value: Duration) -> Iterator[Complaint]:
    """A time of 0 to an hour."""
    yield from number(0.0, MAX_INTERVAL)(value.seconds + value.nanos / 1e9)


def not_empty(values: Sequence[object]) -> Iterator[Complaint]:
    """At least one entry."""
    if not values:
        yield "", "is required and is empty"


def loras(settings: Settings) -> Rule:
    """LoRAs as in a job, whose unset strength is 1: that must be in the operator's range too."""
    each = every(exactly_one("source"), fields(prepared_table(settings)), unset_lora_strength(settings))
    return every(not_empty, items(each, at_most=settings.max_loras))


def prepared_table(settings: Settings) -> Table:
    """The rules of the fields of a Lora whose set is prepared: one, which all steps and pictures have."""
    no = refused("a job makes the sets of its steps itself; prepare those of one of them without it")
    one = items(anything, at_most=0)
    return {**lora_table(settings), "start": no, "end": no, "strength_grid": one}


def catalog_tables(settings: Settings) -> Mapping[type[Message], Table]:
    """The rules of every request of the catalog."""
    model = name(MAX_NAME)
    return {
        pb.ListModelsRequest: {},
        pb.ListLorasRequest: {
            "page_size": zero_or(number(1, MAX_PAGE)),
            "page_token": name(4096),
            "base": one_of((*BASES, UNKNOWN)),
            "model": model,
            "fitting_only": anything,
        },
        pb.ListEmbeddingsRequest: {"model": model, "fitting_only": anything},
        pb.GetLoraRequest: {
            "name": name(MAX_NAME, needed=True),
            "sha256": SHA256,
            "model": model,
            "include_modules": anything,
        },
        pb.UploadLoraHeader: {
            "name": first(name(MAX_UPLOAD_NAME, needed=True), upload_name),
            "sha256": SHA256,
            "size_bytes": number(1, settings.max_upload_bytes),
        },
        pb.PrepareLorasRequest: {"model": model, "loras": loras(settings)},
        # What is inside is judged as the request itself, by its own names of fields.
        pb.PlanJobRequest: dict.fromkeys(("generate", "transform", "inpaint"), anything),
        pb.WatchStatusRequest: {"min_interval": interval},
    }


def judge(request: Message, tables: Mapping[type[Message], Table], *, below: str = "") -> None:
    """Raise InvalidRequest with every violation; `below` is the path of the message."""
    rule = fields(tables[type(request)])
    chosen = ONE_OF.get(type(request), "")
    if chosen:
        rule = every(exactly_one(chosen), rule)
    refuse(((path or chosen, text) for path, text in rule(request)), below=below)


def refuse(complaints: Iterable[Complaint], *, below: str = "") -> None:
    """Raise InvalidRequest with every complaint; `below` is the path of what they are about."""
    found = [FieldViolation(f"{below}{path}".lstrip("."), text) for path, text in complaints]
    if found:
        raise InvalidRequest(found)


def model_of(wanted: str, models: Sequence[ModelInfo]) -> ModelInfo:
    """The model of that name, the first for none; raises ModelNotFound."""
    for model in models:
        if model.name == (wanted or models[0].name):
            return model
    raise ModelNotFound.among(wanted, [model.name for model in models])
