"""`serve` in this process: from the start to the signals."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sdgrpc.api.server import serve
from sdgrpc.errors import ModelError
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.support.api import events_of, failure_of, generate, make_settings, until_running
from tests.support.engine import FakeEngine


class Run:
    """A running `serve`, and the lines that it announced."""

    def __init__(self, open_engine: Callable[[], FakeEngine], **settings) -> None:
        self.lines: asyncio.Queue[str] = asyncio.Queue()
        self.task = asyncio.ensure_future(
            serve(make_settings(**settings), open_engine, announce=self.lines.put_nowait)
        )

    async def target(self) -> str:
        """HOST:PORT, once it is announced."""
        async with asyncio.timeout(10):
            return (await self.lines.get()).removeprefix("listening on ")

    async def end(self) -> None:
        """Wait for its end."""
        async with asyncio.timeout(10):
            await self.task


def interrupt(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it(number: signal.Signals) -> None:
    """It announces one line, serves, and closes its engine at the end; the signals are given back."""
    engine, before = FakeEngine(), signal.getsignal(number)
    run = Run(lambda: engine)
    async with aio.insecure_channel(await run.target()) as channel:
        assert (await events_of(pb_grpc.DiffusionServiceStub(channel).Generate(generate())))[-1].finished
    interrupt(number)
    await run.end()
    assert run.lines.empty()
    assert engine.closed == 1
    assert signal.getsignal(number) in (before, signal.SIG_DFL, signal.default_int_handler)


async def test_a_second_signal_cuts_jobs_off() -> None:
    """It does not wait for `drain_timeout`."""
    engine = FakeEngine()
    engine.gate.clear()
    run = Run(lambda: engine, drain_timeout=600)
    async with aio.insecure_channel(await run.target()) as channel:
        call = pb_grpc.DiffusionServiceStub(channel).Generate(generate())
        await until_running(call)
        interrupt()
        await asyncio.sleep(0.1)
        assert not run.task.done()
        interrupt()
        await run.end()
        await failure_of(call)
    assert (engine.finished, engine.closed) == (0, 1)


def test_calls_that_are_cut_leave_no_traceback(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """However many run when the server ends; the event loop ends with it."""

    def follow(target: str, told: threading.Event) -> None:
        with grpc.insecure_channel(target) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch  # type: ignore[attr-defined]
            calls = [watch(health_pb2.HealthCheckRequest()) for _ in range(40)]
            for call in calls:
                next(call)
            told.set()
            for call in calls:
                with pytest.raises(grpc.RpcError):
                    list(call)

    async def main() -> None:
        run, told = Run(FakeEngine), threading.Event()
        asyncio.get_running_loop().run_in_executor(None, follow, await run.target(), told)
        assert await asyncio.to_thread(told.wait, 10)
        interrupt()
        interrupt()
        await run.end()

    asyncio.run(main())
    assert "not handled" not in caplog.text
    assert "Traceback" not in capfd.readouterr().err


async def test_a_signal_while_loading_announces_nothing() -> None:
    """The engine that arrives late is closed."""
    begun, loaded, engine = threading.Event(), threading.Event(), FakeEngine()

    def open_engine() -> FakeEngine:
        begun.set()
        assert loaded.wait(10)
        return engine

    run = Run(open_engine)
    assert await asyncio.to_thread(begun.wait, 10)
    interrupt()
    await asyncio.sleep(0.05)
    loaded.set()
    await run.end()
    assert run.lines.empty()
    assert engine.closed == 1


async def test_two_signals_while_loading_do_not_wait_for_the_model() -> None:
    """What loads is abandoned; its thread does not keep the process alive."""
    begun, loaded = threading.Event(), threading.Event()

    def open_engine() -> FakeEngine:
        begun.set()
        loaded.wait(10)
        raise ModelError("too late for anybody to hear")

    run = Run(open_engine, drain_timeout=600)
    assert await asyncio.to_thread(begun.wait, 10)
    (thread,) = [each for each in threading.enumerate() if each.name == "sdgrpc-open"]
    assert thread.daemon
    interrupt()
    await asyncio.sleep(0.05)
    interrupt()
    await run.end()
    loaded.set()
    await asyncio.to_thread(thread.join, 10)


async def test_what_the_engine_raises_is_raised() -> None:
    """The command line tells the user; nothing is announced."""

    def open_engine() -> FakeEngine:
        raise ModelError("no unet in the folder")

    run = Run(open_engine)
    with pytest.raises(ModelError, match="no unet"):
        await run.end()
    assert run.lines.empty()


async def test_the_line_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and nothing else."""
    task = asyncio.ensure_future(serve(make_settings(), FakeEngine))
    async with asyncio.timeout(10):
        while not (output := capsys.readouterr().out):  # noqa: ASYNC110 - output has no event
            await asyncio.sleep(0.01)
        interrupt()
        await task
    assert output.startswith("listening on 127.0.0.1:")
    assert (output.count("\n"), capsys.readouterr().out) == (1, "")
