"""TLS whose files are renewed under a running server."""

from __future__ import annotations

import asyncio
import logging
import shutil
import ssl
from pathlib import Path

import grpc
import pytest
from grpc import aio

from sdgrpc.api.access.certificates import server_credentials
from sdgrpc.errors import SettingsError
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.support.api import Api, events_of, generate, make_settings, running_api
from tests.support.certificates import authority, openssl, signed
from tests.support.engine import FakeEngine


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities; two server certificates of the first, a client's of each."""
    folder = tmp_path_factory.mktemp("pem")
    for name in ("ca", "new-ca"):
        authority(folder, name)
    for name, by in (("server", "ca"), ("renewed", "ca"), ("client", "ca"), ("other", "new-ca")):
        signed(folder, name, by)
    return folder


@pytest.fixture
def pem(made: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "pem"))


def files(pem: Path, *, mutual: bool = False) -> dict[str, Path]:
    plain = {"tls_certificate": pem / "server.pem", "tls_key": pem / "server.key"}
    return {**plain, "tls_client_ca": pem / "ca.pem"} if mutual else plain


def renew(pem: Path, old: str, new: str, *endings: str) -> None:
    """Put another file's content into one, as tools do: replaced, or written over."""
    for ending in endings:
        shutil.copyfile(pem / f"{new}{ending}", pem / f"{old}{ending}")


async def served_certificate(api: Api) -> str:
    """The certificate that a new connection is shown, as PEM."""
    host, _, port = api.server.address.rpartition(":")
    return await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)), timeout=10)


async def draws(api: Api, pem: Path, client: str = "") -> bool:
    """Whether a client, with a certificate or without, gets its picture."""
    own = {}
    if client:
        own = {
            "private_key": (pem / f"{client}.key").read_bytes(),
            "certificate_chain": (pem / f"{client}.pem").read_bytes(),
        }
    credentials = grpc.ssl_channel_credentials((pem / "ca.pem").read_bytes(), **own)
    # Without a pool of its own it would share the connection of another client in this process.
    options = [("grpc.use_local_subchannel_pool", 1)]
    target = api.server.address.replace("127.0.0.1", "localhost")
    async with aio.secure_channel(target, credentials, options) as channel:
        try:
            return bool(await events_of(pb_grpc.DiffusionServiceStub(channel).Generate(generate())))
        except aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False


async def test_a_renewed_certificate_is_shown_without_a_restart(pem: Path) -> None:
    """The next handshake uses it; a connection that is open goes on."""
    engine = FakeEngine()
    async with running_api(engine, **files(pem)) as api:
        first = await served_certificate(api)
        assert first.strip() in (pem / "server.pem").read_text()
        engine.gate.clear()
        running = asyncio.ensure_future(draws(api, pem))
        renew(pem, "server", "renewed", ".pem", ".key")
        second = await served_certificate(api)
        assert second != first
        assert second.strip() in (pem / "renewed.pem").read_text()
        engine.gate.set()
        assert await running
        assert await draws(api, pem)


async def test_half_a_renewal_and_broken_files_change_nothing(
    pem: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A certificate whose key has not come yet, one that is none: the old pair serves, the log says why."""
    async with running_api(FakeEngine(), **files(pem)) as api:
        first = await served_certificate(api)
        with caplog.at_level(logging.INFO):
            renew(pem, "server", "renewed", ".pem")
            assert await served_certificate(api) == first
            assert "do not fit" in caplog.text
            (pem / "server.pem").write_text("no certificate")
            assert await served_certificate(api) == first
            (pem / "server.key").unlink()
            assert await served_certificate(api) == first
            renew(pem, "server", "renewed", ".pem", ".key")
            assert await served_certificate(api) != first
            assert "PRIVATE" not in caplog.text
        assert await draws(api, pem)


async def test_a_renewed_client_authority_decides_who_may_connect(
    pem: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Those whom the new one signed may, the others no longer; the log names the clients."""
    with caplog.at_level(logging.INFO):
        async with running_api(FakeEngine(), **files(pem, mutual=True)) as api:
            shutil.copyfile(pem / "ca.pem", pem / "trusted.pem")
            assert [await draws(api, pem, name) for name in ("client", "other", "")] == [True, False, False]
            shutil.copyfile(pem / "new-ca.pem", pem / "ca.pem")
            shutil.copyfile(pem / "trusted.pem", pem / "ca-of-server.pem")
            assert [await draws_with(api, pem, name) for name in ("client", "other")] == [False, True]
    assert "client='client'" in caplog.text
    assert "client='other'" in caplog.text


async def draws_with(api: Api, pem: Path, client: str) -> bool:
    """As `draws`, where ca.pem is no longer the authority of the server's certificate."""
    copy = pem.with_name(f"with-{client}")
    shutil.copytree(pem, copy)
    shutil.copyfile(pem / "ca-of-server.pem", copy / "ca.pem")
    return await draws(api, copy, client)


@pytest.mark.parametrize("broken", ["certificate", "key", "client_ca"])
@pytest.mark.parametrize("content", ["no certificate", "", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_broken_files_stop_the_start(pem: Path, broken: str, content: str) -> None:
    """The file is named."""
    settings = make_settings(**files(pem, mutual=True))
    path = getattr(settings, f"tls_{broken}")
    path.write_text(content)
    with pytest.raises(SettingsError, match="TLS"):
        server_credentials(settings)


def test_keys_of_others_and_encrypted_keys_stop_the_start(pem: Path) -> None:
    """A pair that does not fit; a key with a password, which nobody could type."""
    with pytest.raises(SettingsError, match="do not fit"):
        server_credentials(make_settings(tls_certificate=pem / "server.pem", tls_key=pem / "client.key"))
    openssl("ec", "-in", pem / "server.key", "-aes256", "-passout", "pass:x", "-out", pem / "locked.key")
    with pytest.raises(SettingsError, match="without a password"):
        server_credentials(make_settings(tls_certificate=pem / "server.pem", tls_key=pem / "locked.key"))
