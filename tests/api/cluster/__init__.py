"""Tests of `sdgrpc.api.jobs`."""
