"""Metrics: pure functions, and torchmetrics classes that accumulate for them."""

from genbench.metrics.registry import register
from genbench.metrics.scales import Scale, scale

__all__ = ["Scale", "register", "scale"]
