"""What the operator chooses: flags, `SDGRPC_*` environment variables, a TOML file, defaults; in this order.

A bad value fails at the start and names itself. Only the server needs this module.
"""

from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from sdgrpc.embedded import EMBEDDED
from sdgrpc.errors import SettingsError
from sdgrpc.settings_text import PREFIX, check_toml, model_entry, rows_entry, sentence, split

MIB = 1 << 20
ROWS_PER_CALL = 8

Positive = Annotated[int, Field(ge=1)]


class Settings(BaseSettings):
    """The server's settings, frozen. Sizes are pixels or bytes, times seconds.

    `model` lists NAME=SOURCE or SOURCE; `tokenizer` is a folder with CLIP's vocabulary for models that are
    single files. `resident_models` is how many models may be in memory at a time; the others are loaded when
    a task names them. `tls_certificate` with `tls_key` (PEM files) turns TLS on, and with
    `tls_client_ca` clients must show a certificate that it signed. `reflection` lets tools read the contract
    from the server.

    `upload_dir` lets clients bring LoRA files, each of at most `max_upload_bytes`, which are kept there up to
    `upload_budget_bytes`; it is a folder of its own, made if it is missing.

    `max_rows_per_call` lists N and NAME=N: the most rows of a UNet call, for every model and for one. A job
    sits out at most `max_wait_calls` calls of others, or one round of the running jobs where that is longer.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, allow_inf_nan=False, env_ignore_empty=True
    )

    listen: str = "127.0.0.1:50051"
    model: Annotated[list[str], NoDecode] = Field([EMBEDDED], min_length=1)
    lora_dir: Annotated[list[Path] | None, NoDecode] = None
    tokenizer: Path | None = None
    resident_models: Positive = 1
    upload_dir: Path | None = None
    upload_budget_bytes: Positive = 10 * 1024 * MIB
    max_upload_bytes: Positive = 1024 * MIB
    device: str = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"

    queue_size: Positive = 64
    max_running_jobs: Positive = 16
    max_rows_per_call: Annotated[list[str], NoDecode] = Field([str(ROWS_PER_CALL)], min_length=1)
    max_wait_calls: Positive = 8
    batching: bool = True
    lora_cache_bytes: Annotated[int, Field(ge=0)] = 2048 * MIB
    prompt_cache_bytes: Annotated[int, Field(ge=0)] = 64 * MIB

    max_steps: Positive = 150
    max_side: Annotated[int, Field(ge=64)] = 4096
    max_pixels: Annotated[int, Field(ge=64 * 64)] = 2048 * 2048
    max_image_count: Positive = 8
    max_prompt_chars: Positive = 4000
    max_loras: Annotated[int, Field(ge=0)] = 16
    lora_strength_min: float = 0.0
    lora_strength_max: float = 1.0
    allow_inline_loras: bool = False
    max_inline_lora_bytes: Positive = 256 * MIB
    max_image_bytes: Positive = 32 * MIB
    max_image_pixels: Positive = 32 * MIB
    max_image_side: Annotated[int, Field(ge=64)] = 16384

    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    reflection: bool = True

    drain_timeout: Annotated[float, Field(ge=0)] = 30.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def load(cls, config: Path | None = None, **flags: object) -> Self:
        """Read every source; flags that are None count as not given.

        Raises:
            SettingsError: a value is wrong or a name unknown; the message names each and its source.

        """
        given = {name: value for name, value in flags.items() if value is not None}
        if config is not None:
            check_toml(config)

        class FromFile(cls):  # type: ignore[valid-type, misc]  # one class per file: sources are the class's
            model_config = SettingsConfigDict(toml_file=config)

        FromFile.__name__ = cls.__name__
        try:
            loaded: Self = FromFile(**given)
        except ValidationError as error:
            raise SettingsError("; ".join(sentence(e, given) for e in error.errors())) from None
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
    def max_message_bytes(self) -> int:
        """The largest request that can be valid: image, mask, inline LoRAs, and a MiB for the rest."""
        loras = self.max_inline_lora_bytes if self.allow_inline_loras else 0
        return min(2 * self.max_image_bytes + loras + MIB, 2**31 - 1)

    @field_validator("model", mode="before")
    @classmethod
    def _split_models(cls, value: object) -> object:
        return split(value, ",")

    @field_validator("lora_dir", mode="before")
    @classmethod
    def _split_folders(cls, value: object) -> object:
        return split(value, os.pathsep)

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535 or (":" in host and host[0] != "["):
            raise ValueError("is not HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051")
        return value

    @field_validator("model")
    @classmethod
    def _check_models(cls, value: list[str]) -> list[str]:
        names = [model_entry(entry)[0] for entry in value]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two models are called {', '.join(repeated)}; write NAME=SOURCE")
        return value

    @field_validator("max_rows_per_call", mode="before")
    @classmethod
    def _split_rows(cls, value: object) -> object:
        parts = split(value, ",")
        listed = parts if isinstance(parts, list) else [parts]
        return [str(part) if isinstance(part, int) else part for part in listed]

    @field_validator("max_rows_per_call")
    @classmethod
    def _check_rows(cls, value: list[str]) -> list[str]:
        names = [rows_entry(entry)[0] for entry in value]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{repeated[0] or 'the number for every model'} is given twice")
        return value

    @field_validator("device")
    @classmethod
    def _check_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
            raise ValueError(f"{value!r} is not auto, cpu, mps, cuda or cuda:NUMBER")
        return value

    @field_validator("lora_dir")
    @classmethod
    def _check_folders(cls, value: list[Path] | None) -> list[Path] | None:
        for folder in value or ():
            if not folder.is_dir():
                raise ValueError(f"{folder} is not a folder")
        return value

    @field_validator("tls_certificate", "tls_key", "tls_client_ca")
    @classmethod
    def _check_file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"{value} is not a file")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together; give both or none")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        if self.lora_strength_min > self.lora_strength_max:
            raise ValueError("lora_strength_min is above lora_strength_max")
        if self.upload_dir is not None and any(_overlap(self.upload_dir, each) for each in self.lora_dirs):
            raise ValueError("upload_dir must be a folder of its own, neither in a lora_dir nor around one")
        if strangers := sorted(self.rows_by_model.keys() - {name for name, _ in self.models}):
            raise ValueError(f"max_rows_per_call names the model {strangers[0]!r}, which is not served")
        return self


def _overlap(one: Path, other: Path) -> bool:
    one, other = one.resolve(), other.resolve()
    return one.is_relative_to(other) or other.is_relative_to(one)
