"""TLS with files that are read again when they change: a renewed certificate needs no restart."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import grpc

from sdgrpc.api.access.reloaded import Reloaded
from sdgrpc.errors import SettingsError
from sdgrpc.settings import Settings

Configuration = grpc.ServerCertificateConfiguration


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """TLS as the settings ask for, None without. With a client CA, clients must show a certificate.

    New handshakes use what the files say then; connections that are open go on.

    Raises:
        SettingsError: a file cannot be read, is no PEM file, or the key is not the certificate's.

    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    paths = [settings.tls_key, settings.tls_certificate]
    paths += [settings.tls_client_ca] if settings.tls_client_ca else []
    files = Reloaded(paths, lambda contents: configuration(paths, contents))
    return grpc.dynamic_ssl_server_credentials(
        files.get(),
        files.renewed,  # type: ignore[arg-type]  # None is no change
        require_client_authentication=settings.tls_client_ca is not None,
    )


def configuration(paths: Sequence[Path], contents: Sequence[bytes]) -> Configuration:
    """Return what gRPC takes of a key, a chain and perhaps a client CA; SettingsError if they do not fit."""
    key, chain, *authority = contents
    check_pair(paths[1], chain, key)
    if authority:
        check_authority(paths[2], authority[0])
    return grpc.ssl_server_certificate_configuration([(key, chain)], *authority)


def check_pair(path: Path, chain: bytes, key: bytes) -> None:
    """Raise SettingsError unless the key is that of the chain's first certificate.

    gRPC takes any bytes and then fails each handshake, so OpenSSL looks first. It reads files only, so it is
    given one that nobody else can read, for a moment; on Linux that is memory.
    """
    with _private_file() as both:
        both.write(key.rstrip() + b"\n" + chain)
        both.flush()
        name = both.name if isinstance(both.name, str) else f"/proc/self/fd/{both.fileno()}"
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(name, password=_no_password)
        except (ssl.SSLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise SettingsError(f"{path}: the TLS certificate and its key do not fit ({reason})") from None


def check_authority(path: Path, content: bytes) -> None:
    """Raise SettingsError unless the content holds PEM certificates."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=content.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise SettingsError(f"{path}: holds no TLS certificate ({reason})") from None


def _private_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("sdgrpc-tls", os.MFD_CLOEXEC), "w+b")
    return tempfile.NamedTemporaryFile(prefix="sdgrpc-tls-")


def _no_password() -> str:
    raise ValueError("the key is encrypted; give it without a password")
