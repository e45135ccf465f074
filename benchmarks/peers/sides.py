"""The sides of the comparison: our server on a real port, and a process for each peer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from benchmarks.peers.environments import python_of, surroundings
from benchmarks.peers.subject import Subject
from benchmarks.peers.workers.loop import GUIDANCE, NEGATIVE, PROMPT, Drawing, peak_memory
from benchmarks.tables import ROOT
from sdgrpc.client import Client, Lora

LISTENING = "listening on "


class Side(Protocol):
    """Somebody who draws; `at_once` if several may ask at the same time."""

    at_once: bool

    def load(self) -> None:
        """Start, and return once a picture could be drawn."""
        ...

    def draw(self, asked: Drawing) -> None:
        """Draw one picture; raises PeerError."""
        ...

    def memory(self) -> int:
        """Return the most bytes that were resident."""
        ...

    def processor_seconds(self) -> float:
        """Return what its process has computed so far, on all cores; a shared machine changes it little."""
        ...

    def close(self) -> None:
        """End the process."""
        ...


class PeerError(Exception):
    """Why a peer did not do what it was asked."""


class Kind(NamedTuple):
    """A peer: its environment, its module, and what the module is told of how to draw."""

    environment: str
    module: str
    way: str


KINDS = {
    "peft": Kind("diffusers", "with_diffusers", "peft"),
    "compiled": Kind("diffusers", "with_diffusers", "compiled"),
    "hotswap": Kind("diffusers", "with_diffusers", "hotswap"),
    "openvino": Kind("openvino", "with_openvino", "dynamic"),
    "openvino-fuse": Kind("openvino", "with_openvino", "fuse"),
    "sdcpp": Kind("sdcpp", "with_sdcpp", "auto"),
}


class Peer:
    """A peer's process. One call at a time; one that takes longer than `limit` seconds ends the process."""

    at_once = False

    def __init__(
        self, kind: Kind, subject: Subject, cache: Path, *, dtype: str, limit: float, here: bool
    ) -> None:
        self._kind, self._subject, self._dtype, self._limit = kind, subject, dtype, limit
        self._python = sys.executable if here else python_of(kind.environment, cache)
        self._log = cache / f"{kind.module}-{kind.way}.log"
        if kind.environment == "openvino":
            self._run_to_its_end("convert", str(subject.model))
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def _command(self) -> list[str]:
        return [self._python, "-m", f"benchmarks.peers.workers.{self._kind.module}"]

    def _run_to_its_end(self, *arguments: str) -> None:
        command = [*self._command(), *arguments]
        done = subprocess.run(  # noqa: S603 - our own
            command, cwd=ROOT, env=surroundings(ROOT), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise PeerError(done.stderr[-600:])

    def load(self) -> None:
        """See `Side.load`."""
        self._process = subprocess.Popen(  # noqa: S603 - our own
            [*self._command(), self._kind.way],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w", encoding="utf-8"),
            text=True,
            cwd=ROOT,
            env=surroundings(ROOT),
        )
        subject = self._subject
        paths = {"model": subject.model, "file": subject.file, "loras": subject.loras}
        self._ask("load", dtype=self._dtype, **{name: str(path) for name, path in paths.items()})

    def draw(self, asked: Drawing) -> None:
        """See `Side.draw`."""
        self._ask("draw", **asked._asdict())

    def memory(self) -> int:
        """See `Side.memory`."""
        found: int = self._ask("memory")["bytes"]
        return found

    def processor_seconds(self) -> float:
        """See `Side.processor_seconds`."""
        return computed_seconds(self._process)

    def _ask(self, do: str, **told: object) -> dict[str, Any]:
        process = self._process
        if process is None or process.poll() is not None:
            raise PeerError("its process has ended")
        asking, answers = process.stdin, process.stdout
        assert asking is not None and answers is not None, "both are pipes"  # noqa: S101, PT018
        with self._lock:
            alarm = threading.Timer(self._limit, process.kill)
            alarm.start()
            try:
                asking.write(json.dumps({"do": do} | told) + "\n")
                asking.flush()
                line = answers.readline()
            except BrokenPipeError:
                line = ""
            finally:
                alarm.cancel()
        if not line:
            raise PeerError(f"its process ended, or took longer than {self._limit:.0f} s")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def close(self) -> None:
        """See `Side.close`."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Ours:
    """`sdgrpc serve` in a process of its own, and a client."""

    at_once = True

    def __init__(self, subject: Subject, *, dtype: str) -> None:
        self._subject, self._dtype = subject, dtype

    def load(self) -> None:
        """See `Side.load`."""
        command = [sys.executable, "-m", "sdgrpc", "serve", "--listen", "127.0.0.1:0", "--dtype", self._dtype]
        command += ["--model", f"subject={self._subject.model}", "--lora-dir", str(self._subject.loras)]
        command += ["--lora-cache-bytes", "6GiB"]
        self._process = subprocess.Popen(  # noqa: S603 - our own
            command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=surroundings(ROOT)
        )
        assert self._process.stdout is not None  # noqa: S101
        said = self._process.stdout.readline()
        if not said.startswith(LISTENING):
            raise PeerError("our server did not start; it said why above")
        self._client = Client(said.removeprefix(LISTENING).strip())

    def draw(self, asked: Drawing) -> None:
        """See `Side.draw`."""
        for _ in self._client.generate(
            PROMPT,
            negative_prompt=NEGATIVE,
            width=asked.side,
            height=asked.side,
            steps=asked.steps,
            guidance_scale=GUIDANCE,
            scheduler="euler",
            seed=asked.seed,
            loras=[Lora(name=name, strength=strength) for name, strength in asked.loras],
        ):
            pass

    def memory(self) -> int:
        """See `Side.memory`."""
        return peak_memory(Path(f"/proc/{self._process.pid}/status"))

    def processor_seconds(self) -> float:
        """See `Side.processor_seconds`."""
        return computed_seconds(getattr(self, "_process", None))

    def close(self) -> None:
        """See `Side.close`."""
        if hasattr(self, "_client"):
            self._client.close()
        self._process.terminate()
        self._process.wait()


def computed_seconds(process: subprocess.Popen[str] | None) -> float:
    """Return the processor's seconds in user and kernel mode; 0 before it runs and where nothing tells."""
    stat = Path(f"/proc/{process.pid}/stat") if process is not None else Path("none")
    if not stat.exists():
        return 0.0
    fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def together(side: Side, asked: list[Drawing]) -> None:
    """Ask for all at once; a side that draws one at a time gets them one after the other."""
    with ThreadPoolExecutor(len(asked) if side.at_once else 1) as clients:
        list(clients.map(side.draw, asked))
