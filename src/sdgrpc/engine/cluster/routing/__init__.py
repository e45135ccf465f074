"""Which replica draws a job, where this program decides it.

An engine of many replicas asks `Router` for each job, and `benchmarks.routing` does for fleets of up to a
thousand simulated ones. It knows what each replica holds. Before servers with an engine each it is Envoy that
decides, by hashes alone: by the ring of `deploy/envoy/servers.yaml`, for the keys of `sdgrpc.client.routing`.
docs/scaling.md has both.
"""
