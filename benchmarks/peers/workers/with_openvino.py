"""OpenVINO GenAI: adapters applied in each step (`dynamic`), or fused into a pipeline for each set (`fuse`).

The folder is converted here, with OpenVINO's own converter, to the files that the pipeline reads; that is not
part of what is timed as loading. A pipeline has to be told its adapters when it is made.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.workers.loop import GUIDANCE, NEGATIVE, PROMPT, Drawing, Place, serve

DEVICE = "CPU"


class WithOpenvino:
    """A pipeline of GenAI's; `way` is dynamic or fuse."""

    def __init__(self, way: str) -> None:
        self._genai: Any = importlib.import_module("openvino_genai")
        self._way = way
        self._fused: tuple[tuple[str, float], ...] = ()

    def load(self, place: Place) -> None:
        """See `Peer.load`."""
        self._folder = converted_folder(place.model)
        paths = sorted(place.loras.glob("*.safetensors"))
        self._adapters = {path.stem: self._genai.Adapter(path) for path in paths}
        self._pipe = self._made(())

    def _made(self, loras: tuple[tuple[str, float], ...]) -> Any:  # noqa: ANN401 - it has no types
        config = self._genai.AdapterConfig
        if self._way == "fuse":
            chosen = [(self._adapters[name], strength) for name, strength in loras]
            if not chosen:
                return self._genai.Text2ImagePipeline(self._folder, DEVICE)
            adapters = config(chosen, mode=config.Mode.MODE_FUSE)
        else:
            adapters = config(list(self._adapters.values()), mode=config.Mode.MODE_DYNAMIC)
        return self._genai.Text2ImagePipeline(self._folder, DEVICE, adapters=adapters)

    def draw(self, asked: Drawing) -> None:
        """See `Peer.draw`."""
        options: dict[str, Any] = {}
        if self._way == "fuse":
            if asked.loras != self._fused:
                del self._pipe  # two of them would need twice the memory
                self._pipe, self._fused = self._made(asked.loras), asked.loras
        else:
            config = self._genai.AdapterConfig()
            for name, strength in asked.loras:
                config.add(self._adapters[name], strength)
            options["adapters"] = config
        self._pipe.generate(
            PROMPT,
            negative_prompt=NEGATIVE,
            width=asked.side,
            height=asked.side,
            num_inference_steps=asked.steps,
            guidance_scale=GUIDANCE,
            rng_seed=asked.seed,
            **options,
        )


def converted_folder(model: Path) -> Path:
    """Where the conversion of a model is."""
    return model.with_name(f"{model.name}-openvino")


def convert(model: Path) -> None:
    """Write the folder that GenAI reads, unless it is there."""
    target = converted_folder(model)
    if (target / "model_index.json").exists():
        return
    torch, diffusers = importlib.import_module("torch"), importlib.import_module("diffusers")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(
        model, torch_dtype=torch.float32, safety_checker=None
    )
    width, channels = pipe.unet.config.cross_attention_dim, pipe.unet.config.in_channels
    examples = {
        "text_encoder": (_last_state(pipe.text_encoder), {"input_ids": torch.ones(1, 77, dtype=torch.int64)}),
        "unet": (
            _first(pipe.unet),
            {
                "sample": torch.randn(2, channels, 32, 32),
                "timestep": torch.tensor([5]),
                "encoder_hidden_states": torch.randn(2, 77, width),
            },
        ),
        "vae_decoder": (_decoder(pipe.vae), {"latent_sample": torch.randn(1, channels, 32, 32)}),
    }
    openvino = importlib.import_module("openvino")
    for name, (module, inputs) in examples.items():
        if (target / name / "config.json").exists():
            continue
        with torch.inference_mode():
            made = openvino.convert_model(module, example_input=inputs)
        for port, key in zip(made.inputs, inputs, strict=True):
            port.get_tensor().set_names({key})
        openvino.save_model(made, target / name / "openvino_model.xml")
        source = "vae" if name == "vae_decoder" else name
        shutil.copy(model / source / "config.json", target / name / "config.json")
    _write_rest(model, target, pipe.tokenizer, openvino)


def _write_rest(model: Path, target: Path, tokenizer: Any, openvino: Any) -> None:  # noqa: ANN401
    """Write the tokenizer, the scheduler and, last, the index."""
    tokenizers = importlib.import_module("openvino_tokenizers")
    made = tokenizers.convert_tokenizer(tokenizer, with_detokenizer=False)
    openvino.save_model(made, target / "tokenizer" / "openvino_tokenizer.xml")
    shutil.copytree(model / "tokenizer", target / "tokenizer", dirs_exist_ok=True)
    scheduler = json.loads((model / "scheduler" / "scheduler_config.json").read_text())
    scheduler["_class_name"] = "EulerDiscreteScheduler"
    (target / "scheduler").mkdir(exist_ok=True)
    (target / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    shutil.copy(model / "model_index.json", target)


def _first(unet: Any) -> Any:  # noqa: ANN401
    unet.forward = _wrapped(unet.forward, "sample", "timestep", "encoder_hidden_states")
    return unet


def _last_state(encoder: Any) -> Any:  # noqa: ANN401
    """The encoder under the name that LoRA files know it by."""
    torch = importlib.import_module("torch")
    named = torch.nn.Module()
    named.text_model = getattr(encoder, "text_model", encoder)
    named.forward = _wrapped(named.text_model, "input_ids")
    return named


def _decoder(vae: Any) -> Any:  # noqa: ANN401
    decode = vae.decode

    def forward(latent_sample: Any) -> Any:  # noqa: ANN401
        return decode(latent_sample, return_dict=False)[0]

    vae.forward = forward
    return vae


def _wrapped(forward: Any, *names: str) -> Any:  # noqa: ANN401
    """A forward with these inputs alone and one output."""

    def three(sample: Any, timestep: Any, encoder_hidden_states: Any) -> Any:  # noqa: ANN401
        return forward(sample, timestep, encoder_hidden_states, return_dict=False)[0]

    def one(input_ids: Any) -> Any:  # noqa: ANN401
        return forward(input_ids=input_ids, return_dict=False)[0]

    return three if len(names) == 3 else one


if __name__ == "__main__":
    if sys.argv[1] == "convert":
        convert(Path(sys.argv[2]))
    else:
        serve(WithOpenvino(sys.argv[1]))
