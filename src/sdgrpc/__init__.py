"""sdgrpc: a gRPC service that draws with Stable Diffusion and makes LoRA files just work."""

from importlib.metadata import version

__version__ = version("sdgrpc")
