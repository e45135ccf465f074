"""What Prometheus reads: numbers of calls, jobs and the engine, on a port of their own.

Nothing else of sdgrpc knows Prometheus: this room listens to calls and to the engine, and reads its status.
"""
