"""Tests of `sdgrpc.cli.jobs`."""
