"""Tests of `sdgrpc.client.jobs`."""
