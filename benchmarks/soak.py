"""A hundred requests in a row: what they do to the memory of the server.

Prints the resident set of the server process after every tenth request, over requests that differ in prompt,
LoRA set, size, scheduler and kind of preview. `python -m benchmarks.soak --requests 100 --json soak.json`
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import psutil
from rich.console import Console
from rich.table import Table

from sdgrpc.demo.server import running_server
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc

LORAS = Path(__file__).resolve().parent.parent / "src/sdgrpc/assets/tiny/loras"
SIZES = ((128, 128), (64, 96), (128, 64))


def request(number: int, names: list[str]) -> pb.GenerateRequest:
    """A request that differs from its neighbours in everything that takes memory."""
    width, height = SIZES[number % len(SIZES)]
    loras = [
        pb.Lora(name=name, strength=round(0.1 * (1 + number % 10), 1))
        for index, name in enumerate(names)
        if (number >> index) & 1
    ]
    return pb.GenerateRequest(
        prompt=f"a red star number {number} on a blue background",
        loras=loras,
        width=width,
        height=height,
        sampling=pb.Sampling(steps=6, seed=number, scheduler=1 + number % 16),  # type: ignore[arg-type]
        output=pb.Output(preview=pb.PreviewOptions(kind=number % 4)),  # type: ignore[arg-type]
    )


def measure(target: str, server: psutil.Process, count: int) -> list[tuple[int, float]]:
    """Send `count` requests in a row; (requests so far, resident MiB) before every tenth and at the end."""
    names = sorted(path.stem for path in LORAS.glob("*.safetensors"))
    samples: list[tuple[int, float]] = []
    with grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)]) as channel:
        stub = diffusion_pb2_grpc.DiffusionServiceStub(channel)
        for number in range(count + 1):
            if number % 10 == 0 or number == count:
                samples.append((number, server.memory_info().rss / 2**20))
            if number < count:
                for _ in stub.Generate(request(number, names)):
                    pass
    return samples


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with (
        TemporaryDirectory() as folder,
        running_server(Path(folder) / "server.log", ["--lora-cache-bytes", str(8 << 20)]) as target,
    ):
        (server,) = psutil.Process().children()
        samples = measure(target, server, options.requests)
    table = Table("requests", "resident MiB", "since the 20th")
    base = dict(samples).get(20, samples[0][1])
    for number, rss in samples:
        table.add_row(str(number), f"{rss:.1f}", f"{rss - base:+.1f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({"rss_mib": samples}, indent=2) + "\n")


if __name__ == "__main__":
    main()
