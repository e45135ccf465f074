"""A Ray on this machine, in a process of its own: `python -m sdgrpc.engine.cluster.head`.

Ray forks its processes with Python code between fork and exec, which may hang in a process that has threads
of gRPC, and ends them with the thread that forked. This process has one thread. It says Ray's address on its
standard output, and ends with its standard input, however its parent ends.
"""

from __future__ import annotations

import secrets
import subprocess
import sys

LOOPBACK = "127.0.0.1"


def own_environment() -> dict[str, str]:
    """Return what this process and Ray's have to have in their environment, before Ray is imported.

    It listens on loopback alone, by a name for systems where that is the default, and takes none without the
    token, which would else be a file in the home folder.
    """
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


def start() -> tuple[subprocess.Popen[str], str]:
    """Start a Ray; returns its process, whose standard input is to be closed to end it, and its address.

    Raises:
        RuntimeError: it did not start; Ray's words are on standard error.

    """
    process = subprocess.Popen(
        [sys.executable, "-m", "sdgrpc.engine.cluster.head"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a Ctrl-C is the server's
    )
    assert process.stdout is not None  # noqa: S101 - for the type checker
    if not (address := process.stdout.readline().strip()):
        process.wait()
        raise RuntimeError("it did not start")
    return process, address


def main() -> None:
    """Run until standard input ends."""
    import ray

    context = ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        _node_ip_address=LOOPBACK,
    )
    sys.stdout.write(f"{context.address_info['gcs_address']}\n")
    sys.stdout.flush()
    sys.stdin.read()
    ray.shutdown()


if __name__ == "__main__":
    main()
