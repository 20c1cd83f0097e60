"""Metrics: pure functions, and torchmetrics classes that accumulate their inputs."""

from genbench.metrics.registry import register
from genbench.metrics.scales import Scale, scale

__all__ = ["Scale", "register", "scale"]
