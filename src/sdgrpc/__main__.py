"""The command `sdgrpc`, which is `python -m sdgrpc` too."""

import logging
import os
import sys


def main() -> None:
    """Run the command line; where its libraries are missing, say what to install."""
    # What grpc's core logs of a failed handshake is in the failure that the command explains.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from sdgrpc.cli import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("rich", "typer"):
            raise
        sys.exit(f'error: {error.name} is missing; the command line needs: pip install "sdgrpc[cli]"')
    try:
        run()
    except SystemExit as end:
        leave(end)


def leave(end: SystemExit) -> None:
    """End with this status; where torch was loaded, without taking half a million objects apart first.

    That takes Python two to four seconds after a server has stopped, and nothing is left to be done in them.

    Raises:
        SystemExit: there is little to take apart.

    """
    if "torch" not in sys.modules or not isinstance(end.code, int | None):
        raise end
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(end.code or 0)


if __name__ == "__main__":
    main()
