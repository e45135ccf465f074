"""What is secret is written nowhere: not in the log, metrics, spans and statuses, at no failpoint."""

from __future__ import annotations

import base64
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest

from sdgrpc.v1 import catalog_pb2 as cat
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.faults.conftest import FaultyServer, faulty_server
from tests.faults.launcher import PLACES
from tests.support.api import png, transform
from tests.support.otlp import Receiver, receiving

PROMPT, NEGATIVE, TOKEN = "canary-Prompt \u00e9\nof 'two' lines", "canary-Negative", "canary-Token-0123456789"
SECRETS = (PROMPT, NEGATIVE, TOKEN, "canary-", "canary-Prompt")
PICTURE = png(64, 64, colour=(17, 171, 34))
HEADERS = (("authorization", f"Bearer {TOKEN}"),)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """Who is sent the spans of all servers here."""
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module", params=["text", "json"])
def server(request, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    """A server that logs all it can, with a token, metrics and traces; it has sent all spans at its end."""
    folder = tmp_path_factory.mktemp("canary")
    (folder / "tokens").write_text(f"ann: {TOKEN}\n")
    (folder / "tokens").chmod(0o600)
    flags = ("--token-file", str(folder / "tokens"), "--metrics", "127.0.0.1:0", "--log-level", "debug")
    traces = ("--traces", f"http://{receiver.address}")
    with faulty_server(folder, *flags, *traces, "--log-format", request.param) as server:
        yield server
        server.signal(signal.SIGTERM)
        server.wait()
    assert {"queue", "encode", "denoise", "decode"} < {span.name for span in receiver.spans}
    assert not [secret for secret in secrets() if secret in receiver.text]


def secrets() -> tuple[str, ...]:
    """All that must be nowhere: words, and a picture as bytes, hexadecimal or base64 would show it."""
    encoded = base64.b64encode(PICTURE[16:64]).decode()
    pixels = repr(bytes((17, 171, 34)) * 4)[2:-1]
    return (*SECRETS, repr(PICTURE[16:40])[2:-1], encoded, PICTURE[16:40].hex(), pixels)


def sinks(server: FaultyServer, error: grpc.RpcError | None) -> dict[str, str]:
    """All that an operator or another client may read."""
    address = re.search(r"metrics on http://(\S+)/metrics", server.log_text()).group(1)
    with urlopen(f"http://{address}/metrics", timeout=30) as answer:
        metrics = answer.read().decode()
    report = next(server.catalog.WatchStatus(cat.WatchStatusRequest(), metadata=HEADERS))
    failed = "" if error is None else f"{error.details()} {error.trailing_metadata()} {error}"
    return {"log": server.log_text(), "metrics": metrics, "status": failed, "watch": str(report)}


@pytest.mark.parametrize("where", sorted(set(PLACES) - {"load", "list", "describe", "choose"}))
@pytest.mark.parametrize("what", ["quote", "oom1"])
def test_secrets_are_in_no_sink(server: FaultyServer, where: str, what: str) -> None:
    """An error that quotes all that a function was given, or a shortage of memory, at each place of a job."""
    server.order(where, what)
    preview = pb.PreviewOptions(kind=pb.PREVIEW_KIND_PICTURE)
    request = transform(prompt=PROMPT, negative_prompt=NEGATIVE, image=pb.Image(data=PICTURE))
    request.loras.add(name="sepia", strength=0.5)
    request.output.preview.CopyFrom(preview)
    error = None
    try:
        list(server.stub.Transform(request, metadata=HEADERS))
    except grpc.RpcError as failed:
        error = failed
    server.heal()
    for name, text in sinks(server, error).items():
        assert not [secret for secret in secrets() if secret in text], name
    if (where, what) == ("encode", "quote"):
        assert "<prompt>" in server.log_text(), "the error did quote it"
    assert "rpc=Transform" in server.log_text() or '"rpc": "Transform"' in server.log_text()


def test_a_wrong_token_is_written_nowhere(server: FaultyServer, tmp_path: Path) -> None:
    """Neither as it was sent nor in another scheme."""
    del tmp_path
    for header in ("Bearer canary-wrong", "Basic canary-basic", "canary-alone"):
        with pytest.raises(grpc.RpcError) as caught:
            list(server.stub.Transform(transform(), metadata=(("authorization", header),)))
        assert not [name for name, text in sinks(server, caught.value).items() if "canary-" in text]
