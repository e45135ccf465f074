"""The server's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdgrpc.errors import SettingsError
from sdgrpc.settings import MIB, Settings, described_settings, sources_of
from sdgrpc.settings.groups import GROUPS


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the developer's shell do not count here."""
    for one in described_settings():
        monkeypatch.delenv(one.variable, raising=False)


def test_the_defaults_serve_the_embedded_model() -> None:
    """On loopback, with its own LoRAs, within the contract's limits."""
    settings = Settings.load()
    assert settings.listen == "127.0.0.1:50051"
    assert settings.models == (("embedded", "embedded"),)
    assert [folder.parts[-3:] for folder in settings.lora_dirs] == [("assets", "tiny", "loras")]
    assert (settings.max_steps, settings.lora_strength_min, settings.lora_strength_max) == (150, 0.0, 1.0)


def test_flags_beat_the_environment_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each source fills in what the ones before it left out; a flag of None is not given."""
    (tmp_path / "sdgrpc.toml").write_text("max_steps = 1\nmax_side = 100\nmax_loras = 3\nqueue_size = 4\n")
    monkeypatch.setenv("SDGRPC_MAX_STEPS", "2")
    monkeypatch.setenv("SDGRPC_MAX_SIDE", "200")
    settings = Settings.load(tmp_path / "sdgrpc.toml", max_steps=3, max_loras=None)
    found = (settings.max_steps, settings.max_side, settings.max_loras, settings.queue_size)
    assert found == (3, 200, 3, 4)


def test_lists_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are separated by commas, folders like a PATH; JSON lists work too; empty means not set."""
    monkeypatch.setenv("SDGRPC_MODEL", "tiny=embedded, v15=/models/v15")
    monkeypatch.setenv("SDGRPC_LORA_DIR", f"{tmp_path}:/")
    settings = Settings.load()
    assert settings.models == (("tiny", "embedded"), ("v15", "/models/v15"))
    assert settings.lora_dirs == (tmp_path, Path("/"))
    monkeypatch.setenv("SDGRPC_MODEL", '["a,b=/x"]')
    monkeypatch.setenv("SDGRPC_LORA_DIR", "")
    assert Settings.load().models == (("a,b", "/x"),)
    assert Settings.load().lora_dirs == ()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("embedded", "embedded"),
        ("/models/v15/", "v15"),
        ("/models/v15.safetensors", "v15"),
        ("runway/stable-diffusion", "stable-diffusion"),
        ("/models/a=b", "a=b"),
    ],
)
def test_a_model_without_a_name_gets_its_files(source: str, name: str) -> None:
    """The last part of the path, without the extension."""
    assert Settings.load(model=[source]).models == ((name, source),)


def test_lora_folders_of_ones_own() -> None:
    """Given folders replace the packaged one; a model of one's own brings none."""
    assert Settings.load(lora_dir=[Path("/")]).lora_dirs == (Path("/"),)
    assert Settings.load(lora_dir=[]).lora_dirs == ()
    assert Settings.load(model=["/models/v15"]).lora_dirs == ()


def test_the_message_size_follows_from_what_may_be_in_it() -> None:
    """Image, mask, LoRAs where they are allowed; never more than gRPC can count."""
    assert Settings.load(max_image_bytes=3 * MIB).max_message_bytes == 7 * MIB
    inline = Settings.load(max_image_bytes=3 * MIB, allow_inline_loras=True, max_inline_lora_bytes=5 * MIB)
    assert inline.max_message_bytes == 12 * MIB
    assert Settings.load(max_image_bytes=1 << 40).max_message_bytes == 2**31 - 1


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"max_steps": 0}, "max_steps: input should be greater than or equal to 1, not 0"),
        (
            {"log_level": "loud"},
            "log_level: input should be 'debug', 'info', 'warning' or 'error', not 'loud'",
        ),
        ({"lora_strength_max": float("nan")}, "lora_strength_max: input should be a finite number, not nan"),
        ({"lora_strength_min": 2.0}, "lora_strength_min is above lora_strength_max"),
        ({"listen": "50051"}, "listen: is not HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051"),
        ({"listen": "::1:50051"}, "listen: is not HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051"),
        ({"listen": "a:99999"}, "listen: is not HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051"),
        ({"listen": "unix:s"}, "listen: 'unix:s' is not unix:/FOLDER/NAME"),
        ({"listen": "unix:/a/../s"}, "listen: 'unix:/a/../s' is not unix:/FOLDER/NAME"),
        ({"max_queued_jobs_per_token": 1}, "max_queued_jobs_per_token needs token_file"),
        ({"max_running_jobs_per_token": 1}, "max_running_jobs_per_token needs token_file"),
        ({"token_file": Path("/nope")}, "token_file: /nope is not a file"),
        ({"device": "gpu"}, "device: 'gpu' is not auto, cpu, mps, cuda or cuda:NUMBER"),
        ({"lora_dir": [Path("/nope")]}, "lora_dir: /nope is not a folder"),
        ({"model": ["=x"]}, "model: '=x' is not NAME=SOURCE or SOURCE"),
        ({"model": ["/a/v", "/b/v"]}, "model: two models are called v; write NAME=SOURCE"),
        ({"tls_key": Path("/nope.pem")}, "tls_key: /nope.pem is not a file"),
        ({"tls_key": Path(__file__)}, "tls_certificate and tls_key belong together; give both or none"),
        ({"tls_client_ca": Path(__file__)}, "tls_client_ca needs tls_certificate and tls_key"),
        ({"no_such": 1}, "no_such: there is no such setting"),
        ({"max_step": 1}, "max_step: there is no such setting; is max_steps meant?"),
        (
            {"lora_cache_bytes": "2 pounds"},
            "lora_cache_bytes: could not interpret byte unit: pounds, not '2 pounds'",
        ),
    ],
)
def test_a_bad_value_names_itself(flags: dict, sentence: str) -> None:
    """At the start, in one sentence."""
    with pytest.raises(SettingsError) as caught:
        Settings.load(**flags)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("given", "every", "by_model"),
    [
        (["4"], 4, {}),
        (["tiny=2"], 8, {"tiny": 2}),
        (["tiny=2", "6", "v=1"], 6, {"tiny": 2, "v": 1}),
        ("6, tiny=2", 6, {"tiny": 2}),
        (3, 3, {}),
        ([3, "tiny=2"], 3, {"tiny": 2}),
    ],
    ids=str,
)
def test_rows_per_call_by_model(given: object, every: int, by_model: dict[str, int]) -> None:
    """One number for all models, others for the named ones; as flags, a variable's list, TOML's numbers."""
    settings = Settings.load(model=["tiny=embedded", "v=/x"], max_rows_per_call=given)
    assert (settings.rows_per_call, settings.rows_by_model) == (every, by_model)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["0"], "max_rows_per_call: '0' is not N or NAME=N with a number from 1"),
        (["=3"], "max_rows_per_call: '=3' is not N or NAME=N with a number from 1"),
        (["embedded="], "max_rows_per_call: 'embedded=' is not N or NAME=N with a number from 1"),
        (["1", "2"], "max_rows_per_call: the number for every model is given twice"),
        (["a=1", "a=2"], "max_rows_per_call: a is given twice"),
        (["photo=4"], "max_rows_per_call names the model 'photo', which is not served"),
    ],
    ids=str,
)
def test_bad_rows_per_call_name_themselves(given: list[str], sentence: str) -> None:
    """A number that is none, one given twice, a model that is not there."""
    with pytest.raises(SettingsError) as caught:
        Settings.load(max_rows_per_call=given)
    assert str(caught.value) == sentence


def test_several_bad_values_are_named_at_once() -> None:
    """As with requests."""
    with pytest.raises(SettingsError, match=r"queue_size: .*; max_steps: "):
        Settings.load(max_steps=0, queue_size=0)


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nobody looks for it among the flags."""
    monkeypatch.setenv("SDGRPC_QUEUE_SIZE", "many")
    with pytest.raises(SettingsError, match=r"queue_size \(SDGRPC_QUEUE_SIZE\): .* not 'many'"):
        Settings.load()
    assert Settings.load(queue_size=3).queue_size == 3
    monkeypatch.delenv("SDGRPC_QUEUE_SIZE")
    monkeypatch.setenv("SDGRPC_MODEL", "[1")
    with pytest.raises(SettingsError, match=r"model \(SDGRPC_MODEL\): starts like a JSON list but is none"):
        Settings.load()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"max_steps =", "Invalid value"),
        (b"\xff", "can't decode"),
        (b"max_step = 3", "max_step: there is no such setting"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    """Broken TOML and misspelt names, with the path of the file."""
    path = tmp_path / "sdgrpc.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=sentence):
        Settings.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """It is not passed over."""
    with pytest.raises(SettingsError, match=r"nope\.toml: .*No such file"):
        Settings.load(tmp_path / "nope.toml")


def test_settings_are_frozen() -> None:
    """Nobody changes them under a running server."""
    with pytest.raises(ValueError, match="frozen"):
        Settings.load().max_steps = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", ["SDGRPC_MAX_STEP", "sdgrpc_max_step"])
def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A slip of the pen does not pass silently; whichever case it is in, as with those that count."""
    monkeypatch.setenv(name, "3")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert str(caught.value) == f"{name}: there is no such setting; is SDGRPC_MAX_STEPS meant?"


def test_the_clients_variables_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that is set up for the client, or for the tests, can start a server too."""
    for name in ("SERVER", "TOKEN", "CONFIG", "REQUIRE_ALL", "REAL_LORAS"):
        monkeypatch.setenv(f"SDGRPC_{name}", "x")
    assert Settings.load().max_steps == 150


@pytest.mark.parametrize(("text", "size"), [("2GiB", 2 << 30), ("3 MiB", 3 << 20), ("512", 512), (7, 7)])
def test_sizes_have_units(text: object, size: int) -> None:
    """As well as being numbers of bytes."""
    assert Settings.load(lora_cache_bytes=text).lora_cache_bytes == size


def test_every_value_has_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag, a variable, the file, or nobody; all settings, and values as TOML says them."""
    path = tmp_path / "sdgrpc.toml"
    path.write_text("max_steps = 1\nmax_side = 100\nmax_loras = 3\n")
    monkeypatch.setenv("SDGRPC_MAX_STEPS", "2")
    monkeypatch.setenv("sdgrpc_max_side", "200")
    monkeypatch.setenv("SDGRPC_DEVICE", "")
    flags = {"max_steps": 3, "batching": False}
    found = {one.name: one for one in sources_of(Settings.load(path, **flags), path, flags)}
    assert found.keys() == Settings.model_fields.keys()
    names = ("max_steps", "max_side", "max_loras", "device", "batching", "model", "tls_key")
    assert [(found[name].value, found[name].source) for name in names] == [
        ("3", "--max-steps"),
        ("200", "SDGRPC_MAX_SIDE"),
        ("3", str(path)),
        ('"auto"', "default"),
        ("false", "--no-batching"),
        ('["embedded"]', "default"),
        ("", "default"),
    ]


def test_every_setting_is_described() -> None:
    """Each is in one group, has a description and a name for its value, and says what None means."""
    found = described_settings()
    assert {one.name for one in found} == set(Settings.model_fields)
    assert len(found) == len({one.name for one in found})
    assert len({one.group for one in found}) == len(GROUPS)
    for one in found:
        assert one.description.endswith("."), one.name
        assert one.metavar or one.is_switch, one.name
        assert (one.default is None) == bool(one.unset), one.name


def test_defaults_as_shown_are_the_defaults() -> None:
    """What help and documents show as a default is read as the default."""
    shown = {one.name: one.default for one in described_settings() if one.default is not None}
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in shown.items()}
    assert Settings.load(None, **given).model_dump() == Settings().model_dump()


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:1", "127.9.9.9:0", "localhost:1", "LOCALHOST.:1", "[::1]:1", "unix:/a/s"]
)
def test_an_address_of_this_machine_alone_needs_no_tls(listen: str) -> None:
    """Loopback addresses and sockets."""
    settings = Settings.load(listen=listen)
    assert settings.is_local
    assert (settings.socket_path is not None) == listen.startswith("unix:")


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:1", "[::]:1", "10.1.2.3:1", "example.org:1", "[::ffff:10.0.0.1]:1"]
)
def test_an_address_that_others_reach_needs_tls_or_a_word(listen: str) -> None:
    """Nobody serves the world in plain text by accident; the message names both ways out."""
    with pytest.raises(
        SettingsError, match=r"listen: other machines may reach .*tls_certificate.*--insecure"
    ):
        Settings.load(listen=listen)
    Settings.load(listen=listen, insecure=True)
    Settings.load(listen=listen, tls_certificate=Path(__file__), tls_key=Path(__file__))


def test_vaes_of_models(tmp_path: Path) -> None:
    """NAME=PATH, as flags, a variable's list and TOML's."""
    place = tmp_path / "a=b"
    place.mkdir()
    settings = Settings.load(model=["tiny=embedded", "v=/x"], vae=[f"v={place}"])
    assert settings.vaes == {"v": place}
    assert Settings.load().vaes == {}


def test_upscalers(tmp_path: Path) -> None:
    """Names with files, in their order; names that mean something else are refused."""
    place = tmp_path / "x4.safetensors"
    place.touch()
    settings = Settings.load(upscaler=[f"large={place}", f"a={place}"])
    assert list(settings.upscalers.items()) == [("large", place), ("a", place)]
    assert Settings.load().upscalers == {}
    for name, sentence in (("Lanczos", "without an upscaler"), ("latent x", "without"), ("a:b", "colon")):
        with pytest.raises(SettingsError, match=sentence):
            Settings.load(upscaler=[f"{name}={place}"])
    with pytest.raises(SettingsError, match="is no file"):
        Settings.load(upscaler=[f"large={tmp_path}"])
    with pytest.raises(SettingsError, match="given twice"):
        Settings.load(upscaler=[f"a={place}", f"a={place}"])


def test_tiny_vaes_of_models() -> None:
    """Folders, files, a hub's names and the embedded model's own; of models that are served."""
    assert Settings.load(tiny_vae=["embedded=owner/name"]).tiny_vaes == {"embedded": "owner/name"}
    with pytest.raises(SettingsError, match="tiny_vae names the model 'photo', which is not served"):
        Settings.load(tiny_vae=["photo=embedded"])
    with pytest.raises(SettingsError, match="tiny_vae: embedded is given twice"):
        Settings.load(tiny_vae=["embedded=a/b", "embedded=c/d"])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["embedded"], "vae: 'embedded' is not NAME=PATH with a model's name"),
        (["=/tmp"], "vae: '=/tmp' is not NAME=PATH with a model's name"),
        (["embedded=/nowhere/at/all"], "vae: /nowhere/at/all is no folder or file"),
        (["embedded=/", "embedded=/"], "vae: embedded is given twice"),
        (["photo=/"], "vae names the model 'photo', which is not served"),
    ],
    ids=str,
)
def test_bad_vaes_name_themselves(given: list[str], sentence: str) -> None:
    """What is no pair, a path that is not there, a name given twice, a model that is not there."""
    with pytest.raises(SettingsError) as caught:
        Settings.load(vae=given)
    assert str(caught.value) == sentence
