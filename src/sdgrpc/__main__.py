"""The command `sdgrpc`, which is `python -m sdgrpc` too."""

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
    run()


if __name__ == "__main__":
    main()
