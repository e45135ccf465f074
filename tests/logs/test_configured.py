"""The log's lines, for people and for programs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from sdgrpc.api.calls.call import Call
from sdgrpc.api.calls.log import CallLog
from sdgrpc.logs.configured import configure_logging, json_formatter
from sdgrpc.v1 import catalog_pb2 as cat
from tests.support.api import events_of, failure_of, generate, running_api
from tests.support.engine import FakeEngine
from tests.support.jobs import make_task


@pytest.fixture
def levels() -> Iterator[None]:
    """Put the loggers' levels back."""
    loggers = [logging.getLogger(), logging.getLogger("sdgrpc")]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.mark.usefixtures("levels")
def test_logging_is_quiet_but_for_us() -> None:
    """Other libraries' information is not the operator's."""
    configure_logging("debug")
    assert logging.getLogger("sdgrpc.api").isEnabledFor(logging.DEBUG)
    configure_logging("error")
    assert not logging.getLogger("sdgrpc.api").isEnabledFor(logging.WARNING)


class Lines(logging.Handler):
    """Keeps what the formatter for programs makes of each record."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(json_formatter())
        self.lines: list[dict] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        assert "\n" not in text
        self.lines.append(json.loads(text))

    def calls(self) -> list[dict]:
        return [line for line in self.lines if line["event"] == "call"]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What is logged at info, as JSON."""
    logger, handler = logging.getLogger("sdgrpc"), Lines()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


async def test_every_call_is_one_object(lines: Lines) -> None:
    """Drawn, refused, of the catalog; with fields of their own types, and health not at this level."""
    async with running_api(FakeEngine()) as api:
        await events_of(api.stub.Generate(generate(request_id="one two")))
        await failure_of(api.stub.Generate(generate(width=-1)))
        await api.catalog.ListLoras(cat.ListLorasRequest())
        await api.channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
    drawn, refused, listed = lines.calls()
    assert (drawn["rpc"], drawn["request_id"], drawn["steps"], drawn["code"]) == (
        "Generate",
        "one two",
        3,
        "OK",
    )
    assert (drawn["level"], drawn["logger"]) == ("info", "sdgrpc.api.calls.log")
    assert drawn["peer"].startswith("ipv4:127.0.0.1:")
    assert isinstance(drawn["seconds"], float)
    assert (refused["code"], refused["outcome"]) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert (listed["rpc"], listed["code"]) == ("ListLoras", "OK")


ALLOWED = {
    *(
        "time",
        "level",
        "logger",
        "event",
        "rpc",
        "peer",
        "token",
        "client",
        "request_id",
        "trace_id",
        "model",
    ),
    *("size", "steps", "images", "loras", "upload_bytes", "queue_seconds", "code", "outcome", "seconds"),
}


def test_only_fields_of_the_list_are_written(lines: Lines) -> None:
    """A call that has everything, its headers and prompt included."""
    task = make_task(prompt="a s3cret")
    call = Call("a.B/C", (("authorization", "Bearer s3cret"),), "ipv4:1.2.3.4:5", "ann", "node", "OK")
    call.request_id, call.trace_id, call.task, call.upload_bytes = "r", "ab" * 16, task, 7
    call.queue_seconds = 0.25
    CallLog().end(call)
    (line,) = lines.calls()
    assert set(line) == ALLOWED
    assert "s3cret" not in json.dumps(line)
    assert (line["token"], line["queue_seconds"], line["upload_bytes"]) == ("ann", 0.25, 7)


def test_an_error_is_one_line_too(lines: Lines) -> None:
    """Its traceback is a field; what a library hangs on a record is not."""
    try:
        raise ValueError("wrong")
    except ValueError:
        logging.getLogger("sdgrpc.x").exception("it %s", "failed", extra={"prompt": "s3cret"})
    (line,) = lines.lines
    assert (line["event"], line["level"]) == ("it failed", "error")
    assert "ValueError: wrong" in line["exception"]
    assert "s3cret" not in json.dumps(line)
