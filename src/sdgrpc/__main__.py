"""`python -m sdgrpc` is the command `sdgrpc`."""

from sdgrpc.cli import main

if __name__ == "__main__":
    main()
