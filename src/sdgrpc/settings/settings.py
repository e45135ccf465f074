"""The settings as a whole: what they must satisfy together, and what follows from them."""

from __future__ import annotations

from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from pydantic import ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from sdgrpc.embedded import EMBEDDED
from sdgrpc.errors import SettingsError
from sdgrpc.settings.environment import check_toml, check_variables
from sdgrpc.settings.groups import (
    ROWS_PER_CALL,
    DrawingSettings,
    KeepingSettings,
    LoraSettings,
    ModelSettings,
    RequestLimits,
)
from sdgrpc.settings.groups_serving import (
    ClusterSettings,
    ConnectionSettings,
    ObservingSettings,
    ServingSettings,
    TlsSettings,
    TokenSettings,
)
from sdgrpc.settings.kinds import MIB, UNIX
from sdgrpc.settings.text import PREFIX, model_entry, replica_range, rows_entry, sentence, vae_entry


class Settings(
    RequestLimits,
    KeepingSettings,
    DrawingSettings,
    LoraSettings,
    ModelSettings,
    ClusterSettings,
    ConnectionSettings,
    TokenSettings,
    TlsSettings,
    ObservingSettings,
    ServingSettings,
    BaseSettings,
):
    """The server's settings, frozen; `groups.py` says what each means."""

    # The bases' order is reversed, so that the fields, and what is wrong with them, come in groups.py's.

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, allow_inf_nan=False, env_ignore_empty=True
    )

    @classmethod
    def load(cls, config: Path | None = None, **flags: object) -> Self:
        """Read every source; flags that are None count as not given.

        Raises:
            SettingsError: a value is wrong or a name unknown; the message names each and its source.

        """
        given = {name: value for name, value in flags.items() if value is not None}
        check_variables(cls.model_fields)
        if config is not None:
            check_toml(config)

        class FromFile(cls):  # type: ignore[valid-type, misc]  # one class per file: sources are the class's
            model_config = SettingsConfigDict(toml_file=config)

        FromFile.__name__ = cls.__name__
        try:
            loaded: Self = FromFile(**given)
        except ValidationError as error:
            raise SettingsError(
                "; ".join(sentence(e, given, cls.model_fields) for e in error.errors())
            ) from None
        return loaded

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags before environment before file; no dotenv and no secrets folder."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def models(self) -> tuple[tuple[str, str], ...]:
        """The models to serve as (name, source); a source without a name gets its file's or folder's."""
        return tuple(model_entry(entry) for entry in self.model)

    @property
    def vaes(self) -> dict[str, Path]:
        """The VAEs of models that are given one of its own."""
        return dict(map(vae_entry, self.vae or ()))

    @property
    def tiny_vaes(self) -> dict[str, str]:
        """The sources of the tiny decoders that models are given."""
        entries = (entry.partition("=") for entry in self.tiny_vae or ())
        return {name.strip(): source.strip() for name, _, source in entries}

    @property
    def upscalers(self) -> dict[str, Path]:
        """The files of upscalers by their names; the first is the default."""
        return dict(map(vae_entry, self.upscaler or ()))

    @property
    def lora_dirs(self) -> tuple[Path, ...]:
        """The LoRA folders; without any given, the packaged ones if the embedded model is served."""
        if self.lora_dir is not None:
            return tuple(self.lora_dir)
        embedded = any(source == EMBEDDED for _, source in self.models)
        return (Path(str(files("sdgrpc") / "assets/tiny/loras")),) if embedded else ()

    @property
    def rows_per_call(self) -> int:
        """The most rows of a UNet call, for models that `rows_by_model` does not name."""
        plain = (number for name, number in map(rows_entry, self.max_rows_per_call) if not name)
        return next(plain, ROWS_PER_CALL)

    @property
    def rows_by_model(self) -> dict[str, int]:
        """The most rows of a UNet call for the models that have a number of their own."""
        return {name: number for name, number in map(rows_entry, self.max_rows_per_call) if name}

    @property
    def host(self) -> str:
        """The host part of `listen`, with the brackets of an IPv6 address."""
        return self.listen.rpartition(":")[0]

    @property
    def socket_path(self) -> Path | None:
        """Where the Unix socket is that `listen` names; None for HOST:PORT."""
        return Path(self.listen.removeprefix(UNIX)) if self.listen.startswith(UNIX) else None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach `listen`."""
        return self.socket_path is not None or is_loopback(self.host.strip("[]"))

    @property
    def replica_range(self) -> tuple[int, int]:
        """The least and the most replicas of a cluster."""
        return replica_range(self.replicas)

    @property
    def max_message_bytes(self) -> int:
        """The largest request that can be valid: image, mask, inline LoRAs, and a MiB for the rest."""
        loras = self.max_inline_lora_bytes if self.allow_inline_loras else 0
        return min(2 * self.max_image_bytes + loras + MIB, 2**31 - 1)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together; give both or none")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        if not (self.is_local or self.insecure or self.tls_certificate is not None):
            raise ValueError(
                f"listen: other machines may reach {self.listen}, and there is no TLS; give tls_certificate "
                "and tls_key, or --insecure (SDGRPC_INSECURE=true) where something else protects it"
            )
        for name in ("max_running_jobs_per_token", "max_queued_jobs_per_token"):
            if getattr(self, name) is not None and self.token_file is None:
                raise ValueError(f"{name} needs token_file")
        if self.lora_strength_min > self.lora_strength_max:
            raise ValueError("lora_strength_min is above lora_strength_max")
        if self.upload_dir is not None and any(_overlap(self.upload_dir, each) for each in self.lora_dirs):
            raise ValueError("upload_dir must be a folder of its own, neither in a lora_dir nor around one")
        served = {name for name, _ in self.models}
        named: dict[str, set[str]] = {
            "max_rows_per_call": set(self.rows_by_model),
            "vae": set(self.vaes),
            "tiny_vae": set(self.tiny_vaes),
        }
        for setting, models in named.items():
            if strangers := sorted(models - served):
                raise ValueError(f"{setting} names the model {strangers[0]!r}, which is not served")
        return self


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone; a name other than localhost may mean anything."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _overlap(one: Path, other: Path) -> bool:
    one, other = one.resolve(), other.resolve()
    return one.is_relative_to(other) or other.is_relative_to(one)
