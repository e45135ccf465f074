"""Many engines behind one door, which decides by `routing.router` which of them draws a job.

Servers that each have an engine of their own know nothing of this: for them Envoy decides, see
`sdgrpc.client.routing`.
"""
