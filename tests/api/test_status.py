"""Failures as google.rpc.Status."""

from __future__ import annotations

import grpc
import pytest

from sdgrpc import errors
from sdgrpc.api.status import cut, internal, status_of
from sdgrpc.errors import FieldViolation, InvalidRequest, SdgrpcError
from tests.support.api import unpacked


def subclasses(kind: type) -> set[type]:
    return {kind}.union(*(subclasses(each) for each in kind.__subclasses__()))


@pytest.mark.parametrize("kind", sorted(subclasses(SdgrpcError), key=lambda kind: kind.__name__))  # type: ignore[attr-defined]
def test_every_failure_has_a_code_and_a_reason(kind: type[SdgrpcError]) -> None:
    """Each class of the tree names a code that gRPC knows, and a reason in capitals."""
    assert grpc.StatusCode[kind.code]
    assert kind.reason == kind.reason.upper() != ""


@pytest.mark.parametrize(
    ("error", "code", "reason", "kinds"),
    [
        (errors.InvalidRequest([FieldViolation("a", "b")]), 3, "INVALID_REQUEST", {"BadRequest"}),
        (errors.ModelNotFound("m", "no m"), 5, "MODEL_NOT_FOUND", {"ResourceInfo"}),
        (errors.LoraNotFound("l", "no l"), 5, "LORA_NOT_FOUND", {"ResourceInfo"}),
        (errors.LoraIncompatible("l", "is for SDXL"), 9, "LORA_INCOMPATIBLE", set()),
        (errors.LoraMalformed("l", "is broken", key="k"), 9, "LORA_MALFORMED", set()),
        (errors.NotAnInpaintingModel("cannot"), 9, "NOT_AN_INPAINTING_MODEL", set()),
        (errors.QueueFull("full", retry_after=2.5), 8, "QUEUE_FULL", {"RetryInfo"}),
        (errors.OutOfMemory("small device"), 8, "OUT_OF_MEMORY", set()),
        (errors.Draining("bye"), 14, "DRAINING", {"RetryInfo"}),
        (errors.Loading("soon", retry_after=1), 14, "LOADING", {"RetryInfo"}),
    ],
)
def test_each_failure_has_its_details(error, code: int, reason: str, kinds: set[str]) -> None:
    """The table of ARCHITECTURE, line by line."""
    status = status_of(error)
    details = unpacked(status)
    assert (status.code, status.message) == (code, error.message)
    assert (details["ErrorInfo"].domain, details["ErrorInfo"].reason) == ("sdgrpc", reason)
    assert set(details) == {"ErrorInfo"} | kinds


def test_the_details_say_what() -> None:
    """Fields, resources, keys and delays are in them."""
    bad = unpacked(status_of(InvalidRequest([FieldViolation("loras[1].strength", "1.5 is above 1.0")])))
    assert [(v.field, v.description) for v in bad["BadRequest"].field_violations] == [
        ("loras[1].strength", "1.5 is above 1.0")
    ]
    missing = unpacked(status_of(errors.LoraNotFound("inks", "no LoRA inks")))["ResourceInfo"]
    assert (missing.resource_type, missing.resource_name) == ("sdgrpc.v1.Lora", "inks")
    broken = unpacked(status_of(errors.LoraMalformed("inks", "has NaN", key="a.b")))["ErrorInfo"]
    assert dict(broken.metadata) == {"lora": "inks", "key": "a.b"}
    retry = unpacked(status_of(errors.QueueFull("full", retry_after=2.5)))["RetryInfo"]
    assert retry.retry_delay.ToTimedelta().total_seconds() == 2.5


def test_very_many_violations_fit_into_a_trailer() -> None:
    """The first ones are sent, and how many more there are; gRPC would drop a status of more than 8 KiB."""
    violations = [FieldViolation(f"loras[{n}].strength", "1.5 is above 1.0") for n in range(500)]
    status = status_of(InvalidRequest(violations))
    shown = unpacked(status)["BadRequest"].field_violations
    assert 20 < len(shown) < 500
    assert shown[0].field == "loras[0].strength"
    assert unpacked(status)["ErrorInfo"].metadata["violations"] == "500"
    assert len(status.SerializeToString()) * 4 / 3 + 3 * len(status.message.encode()) < 8000


def test_long_texts_are_cut() -> None:
    """Between characters, with an ellipsis."""
    assert cut("short") == "short"
    assert cut("ä" * 600) == "ä" * 510 + "…"
    assert len(status_of(errors.ModelNotFound("x" * 9999, "y" * 9999)).SerializeToString()) < 3000


def test_internal_names_the_log_entry() -> None:
    """And nothing else."""
    status = internal("abc123")
    assert (status.code, unpacked(status)["ErrorInfo"].metadata["error_id"]) == (13, "abc123")
    assert "abc123" in status.message


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("/srv/models/photo.safetensors was changed", "photo.safetensors was changed"),
        (
            "the model x cannot be loaded: OSError('/srv/a b.bin')",
            "the model x cannot be loaded: OSError('a b.bin')",
        ),
        (
            "unet/config.json (/srv/m/unet/config.json) is missing",
            "unet/config.json (config.json) is missing",
        ),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
    ],
)
def test_a_models_failure_does_not_tell_where_it_is(message: str, shown: str) -> None:
    """The file's name is enough for a client; the log has the folder."""
    assert status_of(errors.ModelError(message)).message == shown
